"""All that is XLA's own, for a TPU or XLA's CPU device: seeds, precision, the cut of a step, compilations.

XLA traces what a step does and compiles a program for each shape that it meets, so batches are filled up to a few
shapes (bucketing.py), and nothing in a step may read a value back. On other devices these functions do what torch
does, or nothing.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate.optimizer import AcceleratedOptimizer
from transformers import masking_utils

from reprise.core.errors import UserError
from reprise.modeling.bucketing import Shapes


def on_xla(device: torch.device) -> bool:
    """Whether a device is XLA's."""
    return device.type == "xla"


def _is_tracing(tensor: torch.Tensor | None = None, known: Callable[..., bool] = masking_utils.is_tracing) -> bool:
    """What transformers asks before it looks into an attention mask, to leave out one that masks nothing.

    It does not count XLA among what traces: each forward pass would stop for the answer, and be two programs a shape.
    """
    return known(tensor) or (tensor is not None and on_xla(tensor.device))


masking_utils.is_tracing = _is_tracing


def use_fp32_matmul(device: torch.device) -> None:
    """Have a TPU multiply fp32 as fp32: by default XLA rounds both sides to bf16 first, whatever the recipe says."""
    if on_xla(device):
        from torch_xla.backends import set_mat_mul_precision

        logging.getLogger("torch_xla.backends").setLevel(logging.ERROR)  # it warns at the first call, too
        set_mat_mul_precision("highest")


def device_scalar(number: float, device: torch.device) -> torch.Tensor | float:
    """A number that differs from step to step: on XLA as a tensor (fp32, no dimension).

    XLA takes equal numbers of a program for one input, also where they are tensors of no dimension. One that differs
    from step to step equals another some day (a learning rate of 0, a share of 1/10) and makes another program.
    """
    return torch.tensor([number]).to(device)[0] if on_xla(device) else number


def init_optimizer_state(optimizer: AcceleratedOptimizer, device: torch.device) -> None:
    """Have the first step be the same program as all others: AdamW's state is there, and the learning rate is data."""
    if not on_xla(device):
        return
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        parameter.grad = torch.zeros(parameter.shape).to(device)
        if not optimizer.state[parameter]:  # nothing was restored
            moments = {name: torch.zeros(parameter.shape).to(device) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(0.0).to(device), **moments}
    rates: list[float] = []

    def upload(*_: object) -> None:
        rates[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            # AdamW divides by it, where its step count is on the device. So small a rate changes no weight.
            group["lr"] = device_scalar(max(group["lr"], 1e-30), device)

    def put_back(*_: object) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    optimizer.optimizer.register_step_pre_hook(upload)
    optimizer.optimizer.register_step_post_hook(put_back)
    mark_step(device)


def manual_seed(number: int, device: torch.device) -> None:
    """Seed the generator that draws on a device, and torch's own."""
    torch.manual_seed(number)
    if on_xla(device):
        import torch_xla

        torch_xla.manual_seed(number)


def logical_shift_right(bits: torch.Tensor, places: int) -> torch.Tensor:
    """Move the 64 bits of int64 to the right; zeros come from the left.

    torch-xla divides, and rounds negative numbers towards zero: there, the bits that fall off are cleared first.
    """
    if on_xla(bits.device):
        bits = bits & -(1 << places)
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)


def unpack_int16(bits: torch.Tensor) -> torch.Tensor:
    """Integers of 16 bits each, the lowest first: int64 of shape [..., n] as [..., 4 · n].

    torch-xla would stop and have the host look at the bits in another way; there they are int64 with the same values.
    """
    if not on_xla(bits.device):
        return bits.view(torch.int16)
    parts = torch.stack([bits, *(logical_shift_right(bits, places) for places in (16, 32, 48))], -1).flatten(-2)
    return ((parts & 0xFFFF) ^ 0x8000) - 0x8000  # the highest of the 16 is the sign


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """bf16 on XLA, where the recipe says so.

    Accelerate leaves it to an environment variable there (XLA_USE_BF16) that torch-xla no longer reads, and would train
    in fp32 without a word.
    """
    return torch.autocast("xla", dtype=torch.bfloat16) if on_xla(device) and precision == "bf16" else nullcontext()


def mark_step(device: torch.device) -> None:
    """End a step: XLA runs what was traced since the last cut."""
    if on_xla(device):
        import torch_xla

        torch_xla.sync()


class CompilationMonitor:
    """Watches that XLA compiles a program for a new shape and for nothing else, once the first epoch is over."""

    def __init__(self, device: torch.device, shapes: Shapes) -> None:
        """`shapes` is where the collator notes those of its batches."""
        self.enabled = on_xla(device)
        self.shapes = shapes
        self.previous: tuple[int, int] | None = None  # programs and shapes after the last epoch

    @property
    def programs(self) -> int:
        """How many programs were compiled so far."""
        from torch_xla.debug import metrics

        return int(metrics.counter_value("UncachedCompile") or 0)

    def metrics(self) -> dict[str, int]:
        """The lengths that batches had, and the programs that were compiled; nothing where XLA does not run."""
        if not self.enabled:
            return {}
        return {"num_bucket_lengths": len({length for _, _, length in self.shapes}), "compilations": self.programs}

    def after_epoch(self) -> None:
        """Compare with the whole epoch before.

        Raises:
            UserError: more programs were compiled than new shapes were met.
        """
        if not self.enabled:
            return
        programs, shapes = self.programs, len(self.shapes)
        if self.previous and programs - self.previous[0] > shapes - self.previous[1]:
            listed = ", ".join(f"{use} {rows} × {length}" for use, rows, length in sorted(self.shapes))
            raise UserError(
                f"train: XLA compiled {programs - self.previous[0]} programs in this epoch and met "
                f"{shapes - self.previous[1]} new shapes of batches (all of them: {listed}); expected no more programs "
                "than that: something in a step depends on a value"
            )
        self.previous = programs, shapes
