"""bf16 on a processor without instructions for it: the products of fp32, rounded once."""

from pathlib import Path

import pytest
import torch

from reprise.modeling import cpu_kernels
from reprise.modeling.cpu_kernels import has_bf16, multiply_bf16_in_fp32


@pytest.fixture
def in_fp32() -> None:
    """Replace the kernels; conftest restores torch's."""
    multiply_bf16_in_fp32()


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize(
    ("cpuinfo", "answer"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 rdpid\n", True),
        ("flags\t\t: fpu amx_tile amx_bf16\n", True),
        ("Features\t: fp asimd i8mm bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
    ],
)
def test_bf16_support_is_read_from_the_processors_flags(tmp_path: Path, cpuinfo: str, answer: bool) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert has_bf16(tmp_path / "cpuinfo") is answer
    assert has_bf16(tmp_path / "missing") is True


@pytest.mark.usefixtures("in_fp32")
def test_products_of_bf16_are_those_of_fp32_rounded_once() -> None:
    first, second, added = numbers(3, 5, 64), numbers(3, 64, 7, seed=1), numbers(3, 5, 7, seed=2)
    wide = first.float() @ second.float()
    assert torch.equal(torch.bmm(first, second), wide.bfloat16())
    assert torch.equal(torch.mm(first[0], second[0]), wide[0].bfloat16())
    assert torch.equal(torch.addmm(added[0, 0], first[0], second[0]), (added[0, 0].float() + wide[0]).bfloat16())
    expected = (0.5 * added.float() + 2 * wide).bfloat16()
    torch.testing.assert_close(torch.baddbmm(added, first, second, beta=0.5, alpha=2), expected, rtol=2**-8, atol=0)


@pytest.mark.usefixtures("in_fp32")
def test_gradients_of_bf16_are_products_of_fp32_too() -> None:
    layer, values = torch.nn.Linear(64, 7), torch.randn(5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(values)
    output.sum().backward()
    assert output.dtype == torch.bfloat16
    assert layer.weight.grad is not None
    expected = torch.ones(7, 5) @ values.bfloat16().float()
    assert torch.equal(layer.weight.grad, expected.bfloat16().float())


def test_fp32_keeps_its_bits(in_fp32: None) -> None:
    first, second, added = torch.randn(50, 64), torch.randn(64, 70), torch.randn(70)
    here = torch.mm(first, second), torch.addmm(added, first, second)
    cpu_kernels.replaced.clear()
    assert all(map(torch.equal, here, (torch.mm(first, second), torch.addmm(added, first, second))))
