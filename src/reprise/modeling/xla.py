"""XLA specifics for TPUs and XLA's CPU device: seeds, precision, step boundaries, compilations.

XLA traces the operations of a step and compiles a program for each input shape. So batches are padded to a few shapes
(bucketing.py), and no step may read a value back to the host. On other devices these functions do what torch does, or
nothing.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate.optimizer import AcceleratedOptimizer
from transformers import masking_utils

from reprise.core.errors import UserError
from reprise.modeling.bucketing import Shapes

ASYNCHRONOUS = {"cuda", "xla"}  # types of devices that compute while the host continues, until it reads a value


def on_xla(device: torch.device) -> bool:
    """Return whether `device` is an XLA device."""
    return device.type == "xla"


def _is_tracing(tensor: torch.Tensor | None = None, original: Callable[..., bool] = masking_utils.is_tracing) -> bool:
    """Return whether the values of `tensor` must not be read; replaces the function of transformers.

    transformers drops an attention mask that masks nothing, unless it is tracing. To know, each forward pass would wait
    for the mask's values: on a GPU, and on XLA, which would also need two programs per shape.
    """
    return original(tensor) or (tensor is not None and tensor.device.type in ASYNCHRONOUS)


masking_utils.is_tracing = _is_tracing


def use_fp32_matmul(device: torch.device) -> None:
    """Multiply fp32 matrices in fp32 on a TPU; by default XLA rounds them to bf16 first."""
    if on_xla(device):
        from torch_xla.backends import set_mat_mul_precision

        logging.getLogger("torch_xla.backends").setLevel(logging.ERROR)  # it warns even at the first call
        set_mat_mul_precision("highest")


def device_scalar(number: float, device: torch.device) -> torch.Tensor | float:
    """Pass a number that changes from step to step: on XLA as a 0-dimensional fp32 tensor.

    XLA merges equal scalars of a program into one input, even 0-dimensional tensors. A number that happens to equal
    another in some step (a learning rate of 0, a loss scale of 1/10) would compile another program, so the scalar is
    taken on the device from a tensor of shape [1].
    """
    return torch.tensor([number]).to(device)[0] if on_xla(device) else number


def init_optimizer_state(optimizer: AcceleratedOptimizer, device: torch.device) -> None:
    """Make the first step compile to the same program as all others.

    Creates AdamW's state beforehand, and passes the learning rate as data instead of as a constant.
    """
    if not on_xla(device):
        return
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        parameter.grad = torch.zeros(parameter.shape).to(device)
        if not optimizer.state[parameter]:  # no checkpoint was loaded
            moments = {name: torch.zeros(parameter.shape).to(device) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(0.0).to(device), **moments}
    rates: list[float] = []

    def upload(*_: object) -> None:
        rates[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            # Not 0: AdamW divides by the rate if its step count is on the device. 1e-30 changes no weight.
            group["lr"] = device_scalar(max(group["lr"], 1e-30), device)

    def restore_lr(*_: object) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    optimizer.optimizer.register_step_pre_hook(upload)
    optimizer.optimizer.register_step_post_hook(restore_lr)
    mark_step(device)


def manual_seed(seed: int, device: torch.device) -> None:
    """Seed torch's generators and that of `device`."""
    torch.manual_seed(seed)
    if on_xla(device):
        import torch_xla

        torch_xla.manual_seed(seed)


def logical_shift_right(bits: torch.Tensor, places: int) -> torch.Tensor:
    """Shift int64 to the right by `places` bits, filling with zeros.

    torch-xla shifts by dividing, which rounds negative numbers towards zero; there, the bits to drop are cleared first.
    """
    if on_xla(bits.device):
        bits = bits & -(1 << places)
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)


def unpack_int16(bits: torch.Tensor) -> torch.Tensor:
    """Split each int64 into four signed 16-bit integers, the lowest bits first.

    Args:
        bits: int64, shape [..., n].

    Returns:
        Shape [..., 4 · n]; int16, or int64 with the same values on XLA, where `view` would run on the host.
    """
    if not on_xla(bits.device):
        return bits.view(torch.int16)
    parts = torch.stack([bits, *(logical_shift_right(bits, places) for places in (16, 32, 48))], -1).flatten(-2)
    return ((parts & 0xFFFF) ^ 0x8000) - 0x8000  # sign extension of bit 15


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a bf16 autocast context on XLA if the recipe's precision is bf16, else a null context.

    On XLA, Accelerate only sets an environment variable (XLA_USE_BF16) that torch-xla no longer reads, so it would
    silently train in fp32.
    """
    return torch.autocast("xla", dtype=torch.bfloat16) if on_xla(device) and precision == "bf16" else nullcontext()


def mark_step(device: torch.device) -> None:
    """End a step on XLA: run the operations traced since the last call."""
    if on_xla(device):
        import torch_xla

        torch_xla.sync()


class CompilationMonitor:
    """Check that after the first epoch XLA compiles programs only for new batch shapes."""

    def __init__(self, device: torch.device, shapes: Shapes) -> None:
        """Start counting.

        Args:
            device: The device that trains; the monitor is inactive on any but XLA devices.
            shapes: The set to which the collator adds the shapes of its batches.
        """
        self.enabled = on_xla(device)
        self.shapes = shapes
        self.previous: tuple[int, int] | None = None  # numbers of programs and shapes after the previous epoch

    @property
    def programs(self) -> int:
        """Return the number of programs compiled so far."""
        from torch_xla.debug import metrics

        return int(metrics.counter_value("UncachedCompile") or 0)

    def metrics(self) -> dict[str, int]:
        """Return the numbers of batch lengths and of compiled programs; empty on devices other than XLA."""
        if not self.enabled:
            return {}
        return {"num_bucket_lengths": len({length for _, _, length in self.shapes}), "compilations": self.programs}

    def after_epoch(self) -> None:
        """Compare this epoch with the previous one.

        Raises:
            UserError: If more programs were compiled than new shapes seen.
        """
        if not self.enabled:
            return
        programs, shapes = self.programs, len(self.shapes)
        if self.previous and programs - self.previous[0] > shapes - self.previous[1]:
            listed = ", ".join(f"{phase} {rows} × {length}" for phase, rows, length in sorted(self.shapes))
            raise UserError(
                f"XLA compiled {programs - self.previous[0]} programs in this epoch for "
                f"{shapes - self.previous[1]} new batch shapes (all shapes: {listed})",
                key="train",
                expected="at most one program per new shape: something in a step depends on a value",
            )
        self.previous = programs, shapes
