"""The kernel of attention, without a GPU: against the form written out, in Triton's interpreter, and its programs."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from reprise.train import dropout
from reprise.train.dropout import Dropout, DropoutKeys, attention, dropout_mask, is_fused

pytestmark = pytest.mark.kernels

KIB = 1024
# Bytes of shared memory that a program may have, from NVIDIA's "CUDA C++ Programming Guide", compute capabilities.
SHARED = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
LAYER = 5


def dot(builder: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
    """Multiply tiles; the interpreter itself multiplies the bits of bf16 as integers."""
    from triton import language
    from triton.runtime.interpreter import TensorHandle

    one, two = (builder.cast_impl(each, language.float32).data if each.dtype.scalar == language.bfloat16 else each.data
                for each in (a, b))  # fmt: skip
    return TensorHandle(one @ two + d.data, d.dtype.scalar)


def rounding(cast: Callable[..., Any]) -> Callable[..., Any]:
    """Return a cast that rounds to the nearest bf16, as a GPU does; the interpreter's own cuts bits off."""

    def rounded(builder: Any, source: Any, target: Any) -> Any:
        from triton import language
        from triton.runtime.interpreter import TensorHandle

        if (source.dtype.scalar, target.scalar) != (language.float32, language.bfloat16):
            return cast(builder, source, target)
        values = torch.tensor(source.data).bfloat16().view(torch.uint16).numpy()
        return TensorHandle(values, language.bfloat16)

    return rounded


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch, load_kernel: Callable[..., ModuleType]) -> None:
    """Let the interpreter run the kernels."""
    from triton import JITFunction, language
    from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder

    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", rounding(InterpreterBuilder.cast_impl))
    for name in ("cdiv", "max", "sum", "zeros"):  # Triton's own kernels are defined where it is imported
        function = getattr(language, name)
        if isinstance(function, JITFunction):
            monkeypatch.setattr(language, name, InterpretedFunction(function.fn))
    load_kernel("dropout_kernel", interpreted=True)
    load_kernel("attention_kernel", interpreted=True)


def draw(rows: int, length: int, size: int, dtype: torch.dtype = torch.float32, heads: int = 2) -> list[torch.Tensor]:
    """Return query, key and value in the layout of transformers, and the gradient of the result."""
    generator = torch.Generator().manual_seed(length)
    *inputs, gradient = (torch.randn(rows, length, heads, size, generator=generator).to(dtype) for _ in range(4))
    return [*(each.transpose(1, 2) for each in inputs), gradient]


def padding(*lengths: int, expanded: bool = True) -> torch.Tensor:
    """Return the mask of rows of these lengths, as transformers passes it."""
    longest = max(lengths)
    visible = (torch.arange(longest) < torch.tensor(lengths)[:, None])[:, None, None]
    return visible.expand(-1, -1, longest, -1) if expanded else visible


def attend(
    monkeypatch: pytest.MonkeyPatch,
    tensors: list[torch.Tensor],
    mask: torch.Tensor | None = None,
    *,
    fused: bool,
    causal: bool = False,
    layer_id: int = LAYER,
    p: float = 0.1,
    scaling: float | None = None,
) -> list[torch.Tensor]:
    """Return the result of attention, [rows, length, heads, size], and the gradients of query, key and value."""
    *inputs, gradient = tensors
    keys, module = DropoutKeys(42), nn.Module()
    keys.set_batch(1, list(range(len(gradient))), torch.zeros(len(gradient)))
    module.is_causal, module.drop = causal, Dropout(p, layer_id, keys)
    monkeypatch.setattr(dropout, "is_fused", lambda *_: fused)
    inputs = [each.detach().requires_grad_() for each in inputs]
    result, _ = attention(module, *inputs, mask, dropout=p, scaling=scaling)
    result.backward(gradient)
    assert all(each.grad is not None and each.grad.dtype == each.dtype for each in inputs)
    return [result.detach(), *(each.grad for each in inputs if each.grad is not None)]


CASES = [
    pytest.param(53, 64, padding(53, 20), False, id="padding, one block in bf16"),
    pytest.param(70, 24, padding(70, 33), False, id="padding, several blocks, a padded head"),
    pytest.param(33, 16, None, False, id="no mask"),
    pytest.param(67, 16, None, True, id="causal"),
    pytest.param(1, 8, None, True, id="one token"),
]


@pytest.mark.parametrize(("length", "size", "mask", "causal"), CASES)
def test_results_and_gradients_in_fp32_are_those_written_out(
    monkeypatch: pytest.MonkeyPatch, interpreted: None, length: int, size: int, mask: torch.Tensor | None, causal: bool
) -> None:
    tensors = draw(2, length, size)
    found, expected = (attend(monkeypatch, tensors, mask, fused=fused, causal=causal) for fused in (True, False))
    for one, two in zip(found, expected, strict=True):
        assert one.shape == two.shape
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("length", "size", "mask", "causal"), CASES)
def test_results_and_gradients_in_bf16_are_as_exact_as_those_written_out(
    monkeypatch: pytest.MonkeyPatch, interpreted: None, length: int, size: int, mask: torch.Tensor | None, causal: bool
) -> None:
    tensors = draw(2, length, size, torch.bfloat16)
    exact = [each.float() for each in tensors]
    options: Any = {"causal": causal, "p": 0.5}  # with the same factor of dropout in both types
    found, written_out = (attend(monkeypatch, tensors, mask, fused=fused, **options) for fused in (True, False))
    expected = attend(monkeypatch, exact, mask, fused=False, **options)
    for one, two, three in zip(found, written_out, expected, strict=True):
        assert one.dtype == torch.bfloat16
        largest = float(three.abs().max())
        error, error_written_out = (float((each.float() - three).abs().max()) / max(largest, 1) for each in (one, two))
        assert error < 2**-7
        assert error < error_written_out + 2**-10


@pytest.mark.parametrize(("layer_id", "p"), [(0, 0.1), (7, 0.5), (2**15 - 1, 0.9)])
def test_the_dropped_weights_are_those_of_the_mask(
    monkeypatch: pytest.MonkeyPatch, interpreted: None, layer_id: int, p: float
) -> None:
    query, key, value, gradient = draw(3, 39, 64)
    value = torch.eye(39, 64).expand_as(value)  # the result is the weights
    weights = attend(monkeypatch, [query, key, value, gradient], fused=True, layer_id=layer_id, p=p)[0].transpose(1, 2)
    keys = DropoutKeys(42)
    keys.set_batch(1, [0, 1, 2], torch.zeros(3))
    mask = dropout_mask(keys.values, layer_id, torch.Size([3, 2, 39, 39]), p, torch.float32)
    assert torch.equal(weights[..., :39] == 0, mask == 0)
    softmax = (query @ key.transpose(2, 3) / 8).softmax(-1)
    torch.testing.assert_close(weights[..., :39], softmax * mask, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_sees_no_token_has_equal_weights_for_all(
    monkeypatch: pytest.MonkeyPatch, interpreted: None, dtype: torch.dtype
) -> None:
    tensors, mask = draw(2, 35, 16, dtype), padding(35, 0)
    found, expected = (attend(monkeypatch, tensors, mask, fused=fused) for fused in (True, False))
    for one, two in zip(found, expected, strict=True):
        assert one.isfinite().all()
        bound = 1e-5 if dtype == torch.float32 else 2**-6 * float(two.abs().max())
        torch.testing.assert_close(one, two, rtol=0, atol=bound)
    assert found[1][1].abs().max() > 0  # the bias of a masked score is constant, so it has a gradient


def test_two_calls_have_the_same_bits(monkeypatch: pytest.MonkeyPatch, interpreted: None) -> None:
    tensors = draw(2, 40, 16)
    first, second = (attend(monkeypatch, tensors, padding(40, 9), fused=True) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_strides_of_inputs_and_masks_change_no_bit(monkeypatch: pytest.MonkeyPatch, interpreted: None) -> None:
    *inputs, gradient = draw(2, 36, 16)
    expected = attend(monkeypatch, [*inputs, gradient], padding(36, 9), fused=True, scaling=0.2)
    together = torch.stack([each.transpose(1, 2) for each in inputs], 3).unbind(3)  # as parts of one projection
    parts = [each.transpose(1, 2) for each in together]
    summed = torch.ones(()).expand_as(gradient)  # the gradient of a sum
    for others, mask in [
        ([*(each.contiguous() for each in inputs), gradient], padding(36, 9).contiguous()),
        ([inputs[0].contiguous(), *parts[1:], gradient], padding(36, 9, expanded=False)),
    ]:
        found = attend(monkeypatch, others, mask, fused=True, scaling=0.2)
        assert all(map(torch.equal, found, expected))
    first, second = (attend(monkeypatch, [*inputs, each], fused=True) for each in (summed, summed.contiguous()))
    assert all(map(torch.equal, first, second))


def test_only_what_the_kernel_computes_is_fused() -> None:
    with FakeTensorMode():

        def fused(
            device: str = "cuda", dtype: torch.dtype = torch.bfloat16, size: int = 64, mask: Any = None, **options: Any
        ) -> bool:
            query, key, value = (
                torch.zeros(4, length, 2, size, dtype=dtype, device=device).transpose(1, 2)
                for length in (9, options.get("keys", 9), 9)
            )
            keys = DropoutKeys(42)
            keys.set_batch(0, list(range(options.get("rows", 4))), torch.zeros(options.get("rows", 4), device=device))
            drop = Dropout(options.get("p", 0.1), 0, keys).train(options.get("training", True))
            return is_fused(query, key, value, mask, drop)

        def mask(*shape: int, dtype: torch.dtype = torch.bool) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device="cuda")

        assert fused()
        assert fused(dtype=torch.float32, size=96)
        assert all(fused(mask=mask(*shape)) for shape in [(4, 1, 9, 9), (4, 1, 1, 9), (1, 1, 9, 9)])
        assert not fused(device="cpu")
        assert not fused(dtype=torch.float16)
        assert not fused(size=136)
        assert not fused(rows=3)
        assert not fused(p=0.0)
        assert not fused(training=False)
        assert not fused(keys=8)
        assert not any(fused(mask=mask(*shape)) for shape in [(4, 2, 9, 9), (4, 1, 9, 10), (9, 9)])
        assert not fused(mask=mask(4, 1, 9, 9, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("architecture", "dtype", "size", "single"),
    [
        (75, "fp32", 64, True),  # the recipe refuses bf16 there
        (80, "bf16", 64, True),
        (86, "bf16", 128, False),
        (89, "bf16", 64, True),
        (90, "bf16", 64, False),
        (100, "bf16", 64, True),
        (120, "bf16", 64, True),
    ],
)
def test_the_kernels_compile_for_every_architecture_and_fit_into_its_shared_memory(
    load_kernel: Callable[..., ModuleType], architecture: int, dtype: str, size: int, single: bool
) -> None:
    from triton import compiler
    from triton.backends.compiler import GPUTarget

    load_kernel("dropout_kernel", interpreted=False)
    kernels = load_kernel("attention_kernel", interpreted=False)
    block, width = kernels.shape_of_tile(size, torch.float32 if dtype == "fp32" else torch.bfloat16)
    constants = {"size": size, "width": width, "block": block, "masked": True, "causal": architecture == 75}
    others: dict[str, Any] = {"mask": "*u8", "seeds": "*i64", "statistics": "*fp32", "scale": "fp32", "factor": "fp32"}
    others |= dict.fromkeys(("rows", "heads", "length", "layer", "dropped"), "i32")
    for function, more in [(kernels._forward, {}), (kernels._backward, {"single": single})]:
        chosen = constants | more
        types = {
            name: "constexpr" if name in chosen
            else others[name] if name in others
            else ("i32",) * (3 if name == "mask_strides" else 4) if name.endswith("_strides")
            else f"*{dtype}"
            for name in function.arg_names
        }  # fmt: skip
        # Pointers and strides of tokens and heads are multiples of 16, as in models, so values are loaded in groups.
        aligned = [
            (number, each) if name.endswith("_strides") else (number,)
            for number, name in enumerate(function.arg_names)
            if types[name] == f"*{dtype}" or (name.endswith("_strides") and name != "mask_strides")
            for each in (range(3) if name.endswith("_strides") else (0,))
        ]
        divisible = {path: [["tt.divisibility", 16]] for path in aligned}
        source = compiler.ASTSource(function, types, chosen, divisible)
        compiled = compiler.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_stages": 1})
        assert f".target sm_{architecture}" in compiled.asm["ptx"]
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= SHARED[architecture] * KIB
