"""All that is XLA's own, for a TPU or XLA's CPU device: seeds, precision, the cut of a step, compilations.

XLA traces what a step does and compiles a program for each shape that it meets, so batches are filled up to a few
shapes (shapes.py). On other devices these functions do what torch does, or nothing.
"""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from reprise.errors import InputError

# By default 0 and 1 are constants of a program, so that a learning rate of 0 would be compiled on its own.
os.environ.setdefault("XLA_NO_SPECIAL_SCALARS", "1")


def on_xla(device: torch.device) -> bool:
    """Whether a device is XLA's."""
    return device.type == "xla"


def manual_seed(number: int, device: torch.device) -> None:
    """Seed the generator that draws on a device, and torch's own."""
    torch.manual_seed(number)
    if on_xla(device):
        import torch_xla

        torch_xla.manual_seed(number)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """bf16 on XLA, where the recipe says so.

    Accelerate leaves it to an environment variable there (XLA_USE_BF16) that torch-xla no longer reads, and would train
    in fp32 without a word.
    """
    return torch.autocast("xla", dtype=torch.bfloat16) if on_xla(device) and precision == "bf16" else nullcontext()


def cut(device: torch.device) -> None:
    """End a step: XLA runs what was traced since the last cut."""
    if on_xla(device):
        import torch_xla

        torch_xla.sync()


class Compilations:
    """Watches that XLA compiles nothing more once it has met each shape."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.shapes: set[tuple[int, int]] = set()
        self.settled: tuple[int, int] | None = None  # programs and shapes after the last epoch

    @property
    def watching(self) -> bool:
        """Whether there is anything to watch."""
        return on_xla(self.device)

    @property
    def programs(self) -> int:
        """How many programs were compiled so far."""
        from torch_xla.debug import metrics

        return int(metrics.counter_value("UncachedCompile") or 0)

    def after_epoch(self) -> None:
        """Compare with the epoch before.

        Raises:
            InputError: programs were compiled for shapes that the epoch before had met too.
        """
        if not self.watching:
            return
        now = self.programs, len(self.shapes)
        if self.settled and now[0] > self.settled[0] and now[1] == self.settled[1]:
            listed = ", ".join(f"{rows} × {length}" for rows, length in sorted(self.shapes))
            raise InputError(
                f"train: XLA compiled {now[0] - self.settled[0]} programs more for shapes that it knew ({listed}); "
                "expected none: something in a step hangs on the step"
            )
        self.settled = now
