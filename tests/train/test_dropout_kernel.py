"""The kernel of dropout's masks, without a GPU: its bits in Triton's interpreter, and its programs for each GPU."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from reprise.train import dropout
from reprise.train.dropout import DropoutKeys, dropout_mask

pytestmark = pytest.mark.kernels

Load = Callable[..., ModuleType]

# (), (token), (head, query): what stands between row and width. Widths that no hash divides; more than one program.
SHAPES = [(7,), (1, 32), (9, 33), (2, 9, 9), (1, 1, 1), (3, 9, 100)]
ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]  # Turing, Ampere, Ada, Hopper and Blackwell


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_masks_have_the_bits_of_the_cpu(load_kernel: Load, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    kernel, keys = load_kernel("dropout_kernel", interpreted=True), DropoutKeys(42)
    keys.set_batch(1, [0, 3, 999], torch.zeros(4))  # and a padding row
    size = torch.Size([4, *shape])
    for layer_id, p in [(0, 0.1), (3, 0.5), (2**15 - 1, 0.9), (1, 1e-9)]:
        dropped = min(max(round(p * 2**16), 1), 2**16 - 1)
        masks = kernel.dropout_mask(keys.values, layer_id, size, dropped, dtype)
        assert torch.equal(masks, dropout_mask(keys.values, layer_id, size, p, dtype))


def test_masks_of_several_layers_are_those_of_each(monkeypatch: pytest.MonkeyPatch, load_kernel: Load) -> None:
    kernel, keys = load_kernel("dropout_kernel", interpreted=True), DropoutKeys(42)
    keys.set_batch(0, [5, 6], torch.zeros(2))
    values = torch.zeros(2, 9, 32)
    expected = [dropout_mask(keys.values, layer_id, values.shape, 0.1, values.dtype) for layer_id in (0, 4)]

    def by_kernel(values: torch.Tensor, layer_id: int, shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
        masks: torch.Tensor = kernel.dropout_mask(values, layer_id, shape, round(p * 2**16), dtype)
        return masks

    monkeypatch.setattr(dropout, "dropout_mask", by_kernel)
    assert torch.equal(keys.masks_of_layers([0, 4], values, 0.1), torch.stack(expected))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kernel_compiles_for_every_architecture(load_kernel: Load, architecture: int) -> None:
    from triton import compiler
    from triton.backends.compiler import GPUTarget

    function = load_kernel("dropout_kernel", interpreted=False)._masks
    numbers = dict.fromkeys(("width", "size1", "size2", "hashes", "layer", "dropped"), "i32")
    for dtype, outer in [("bf16", 2), ("fp32", 1), ("fp16", 0)]:
        types = {"keys": "*i64", "masks": f"*{dtype}", "factor": "fp32", **numbers}
        source = compiler.ASTSource(function, types, {"outer": outer, "block": 512})
        compiled = compiler.compile(source, target=GPUTarget("cuda", architecture, 32))
        assert f".target sm_{architecture}" in compiled.asm["ptx"]
        assert compiled.asm["cubin"]
