"""Precision fp32-portable: the same bits on every x86-64 processor with AVX2.

Libraries choose their kernels by the processor, so the same sum is added in another order elsewhere. Here each library
is held to the kernels that every such processor has. MKL's kernels for that are slow, and its faster ones differ
between manufacturers, so NumPy's OpenBLAS multiplies the matrices: held to one processor's kernels, it has the same
bits on all. What else MKL computes differently is computed by NumPy, or refused. The number of threads divides sums, so
the recipe sets it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from reprise.core.config import MAX_THREADS, PARAMS, Train
from reprise.core.errors import UserError
from reprise.modeling.cpu_kernels import has_bf16, multiply_bf16_in_fp32, replace_kernels, replaced

PORTABLE = "fp32-portable"
CPU_FLAGS = ("avx2", "fma")

# Operators of torch that multiply by MKL or oneDNN and have no replacement here, and functions of MKL whose bits were
# seen to differ between processors.
NOT_PORTABLE = (
    "mm.out", "bmm.out", "addmm_", "addmm.out", "baddbmm_", "baddbmm.out",
    "addmv", "addmv_", "addmv.out", "mv", "dot", "vdot", "addbmm", "convolution_overrideable", "mkldnn_convolution",
    "_slow_conv2d_forward", "slow_conv3d_forward", "slow_conv_transpose2d", "_addmm_activation",
    "acos", "acos_", "asin", "asin_", "atan", "atan_", "log10", "log10_",
)  # fmt: skip


def library_caps(threads: int) -> dict[str, str]:
    """Return the environment variables, read when the libraries are loaded, that hold them to portable kernels.

    Args:
        threads: of each process.
    """
    return {
        "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "COMPATIBLE",  # the faster settings agree on the processors of one manufacturer only
        "MKL_DYNAMIC": "FALSE",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "ARROW_USER_SIMD_LEVEL": "AVX2",
        "OMP_DYNAMIC": "FALSE",  # no fewer threads than asked for
        "OMP_THREAD_LIMIT": str(MAX_THREADS),
        # No bit, but speed: torch and OpenBLAS have threads of their own, and those that wait for work must not spin.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "OPENBLAS_THREAD_TIMEOUT": "4",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
    }


def check_processor(train: Train, device: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Check that a recipe with portable precision can run here; others always can.

    Args:
        train: the recipe's section.
        device: torch's type of the device.
        cpuinfo: lists the processor's flags.

    Raises:
        UserError: it runs on another device than the CPU, or the processor lacks instructions.
    """
    if train.precision != PORTABLE:
        return
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
    missing = ["CPU"] if device != "cpu" else [flag for flag in CPU_FLAGS if flag not in flags]
    if missing:
        problem = f"{PORTABLE} on {device}" if device != "cpu" else f"this processor has no {missing[0]}"
        expected = "an x86-64 processor with AVX2, or bf16 or fp32, whose bits are those of one kind of processor"
        raise UserError(problem, file=PARAMS, key="train.precision", expected=expected)


def restart_with_caps(train: Train) -> None:
    """Start this command again with `library_caps`, if the recipe is portable and they are not set.

    NumPy and torch read them when they are imported, which has happened before the recipe is known.
    """
    if train.precision == PORTABLE and not _capped(train):
        os.environ.update(library_caps(_threads(train)))
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "reprise", *sys.argv[1:]])  # noqa: S606


def set_up_cpu(train: Train) -> None:
    """Pin torch's threads to the recipe's, and replace kernels.

    With portable precision, only what is the same on any processor is computed; in bf16 without instructions for it,
    products are in fp32.

    Raises:
        RuntimeError: a library did not take its cap.
    """
    if train.precision == "bf16" and not has_bf16():
        multiply_bf16_in_fp32()
    if train.threads is None:
        return
    import torch

    torch.set_num_threads(train.threads)
    if train.precision != PORTABLE or "sqrt" in replaced:
        return
    from threadpoolctl import threadpool_info, threadpool_limits

    # OpenBLAS starts no more threads than there are cores, unless it is asked for them later.
    threadpool_limits(train.threads, "blas")
    found = {"ATen": torch.backends.cpu.get_cpu_capability()}
    expected = {"ATen": "AVX2"}
    for blas in threadpool_info():
        if blas["internal_api"] == "openblas":
            found[blas["filepath"]] = f"{blas['architecture']}, {blas['num_threads']} threads"
            expected[blas["filepath"]] = f"Haswell, {train.threads} threads"
    if not _capped(train) or found != expected or len(found) == 1:
        raise RuntimeError(f"{PORTABLE}: the libraries use {found}, not {expected}; was one imported before the caps?")
    torch.backends.cuda.enable_flash_sdp(False)  # on the CPU too, where it would multiply by MKL
    _override_kernels()


def _threads(train: Train) -> int:
    assert train.threads is not None  # as check_recipe requires
    return train.threads


def _capped(train: Train) -> bool:
    return library_caps(_threads(train)).items() <= os.environ.items()


def _override_kernels() -> None:
    """Replace the kernels of torch's operators by those of NumPy."""
    import numpy as np
    import torch

    def array(tensor: torch.Tensor) -> Any:
        return tensor.detach().numpy()  # shares its memory

    def as_float(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())

    def multiply(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        product = first.new_empty((*first.shape[:-1], second.shape[-1]))
        np.matmul(array(first), array(second), out=array(product))
        return product

    def multiply_add(
        added: torch.Tensor, first: torch.Tensor, second: torch.Tensor, *, beta: float = 1, alpha: float = 1
    ) -> torch.Tensor:
        product = multiply(first, second)
        if alpha != 1:
            product *= alpha
        return product.add_(added, alpha=beta) if beta else product

    def square_root(values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.asarray(np.sqrt(array(as_float(values)))))

    def power(values: torch.Tensor, exponent: float) -> torch.Tensor:
        if exponent in (2, 3):
            return values * values if exponent == 2 else values * values * values
        values = as_float(values) if isinstance(exponent, float) else values
        return (
            square_root(values) if exponent == 0.5 else torch.from_numpy(np.asarray(np.power(array(values), exponent)))
        )

    def refuse(name: str) -> Callable[..., NoReturn]:
        def kernel(*_: Any, **__: Any) -> NoReturn:
            problem = f"the model uses {name.split('.')[0]}, which differs between processors"
            raise UserError(problem, file=PARAMS, key="train.precision", expected="fp32 or bf16 for this model")

        return kernel

    kernels: dict[str, Callable[..., Any]] = {
        **{name: refuse(name) for name in NOT_PORTABLE},
        "mm": multiply,
        "bmm": multiply,
        "addmm": multiply_add,
        "baddbmm": multiply_add,
        "sqrt": square_root,
        "sqrt_": lambda values: values.copy_(square_root(values)),
        "pow.Tensor_Scalar": power,
    }
    replace_kernels(kernels)
