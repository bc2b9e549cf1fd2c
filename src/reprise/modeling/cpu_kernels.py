"""Replacements of torch's kernels on the CPU: for fp32-portable, and for bf16 on older processors."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# torch.library.Library by operator of aten: torch restores an operator once its library is freed.
replaced: dict[str, Any] = {}


def replace_kernels(kernels: Mapping[str, Callable[..., Any]]) -> None:
    """Replace the kernels of torch's operators on the CPU, for the life of this process.

    Args:
        kernels: by name of the operator in aten, with its overload after a dot.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # that kernels are replaced
        for name, kernel in kernels.items():
            replaced[name] = library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
            library.impl(name, kernel, "CPU", allow_override=True)  # type: ignore[no-untyped-call]


def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies bf16 natively, by its flags (x86-64 and Arm)."""
    try:
        words = set(cpuinfo.read_text().split())
    except OSError:
        return True  # not Linux: unknown, so nothing is replaced
    return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def multiply_bf16_in_fp32() -> None:
    """Multiply bf16 matrices in fp32, and round the sums to bf16, as processors with bf16 instructions do.

    Without these oneDNN takes reference kernels: on a Zen 3, a linear layer of MiniLM took 17 times as long.
    Products of two bf16 numbers are exact in fp32, so only the order of the sums differs between processors.
    """
    import torch

    if "mm" in replaced:
        return

    def in_fp32(operator: Any) -> Callable[..., torch.Tensor]:
        def kernel(*tensors: torch.Tensor, **factors: float) -> torch.Tensor:
            dtype = tensors[0].dtype
            wide = [tensor.float() for tensor in tensors] if dtype == torch.bfloat16 else tensors
            # The overload that writes to a tensor is not replaced, so it is torch's own kernel.
            shape = (*tensors[-2].shape[:-1], tensors[-1].shape[-1])
            product: torch.Tensor = operator(*wide, **factors, out=wide[0].new_empty(shape))
            return product.to(dtype)

        return kernel

    replace_kernels({name: in_fp32(getattr(torch, name)) for name in ("mm", "bmm", "addmm", "baddbmm")})
