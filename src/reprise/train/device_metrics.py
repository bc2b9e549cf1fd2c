"""Loss and gradient norm of the latest steps, kept on the device until they are flushed."""

import functools

import torch
from accelerate import PartialState
from accelerate.utils import gather

# Reading a value waits for the device, so the values of several steps are read together.
FLUSH_EVERY_STEPS = 10


class DeviceMetrics:
    """A buffer on the device; every rank keeps one and takes part in each flush."""

    def __init__(self, world: PartialState) -> None:
        """Start with no pending steps."""
        self.world = world
        # [FLUSH_EVERY_STEPS, 2], newest last; only the last `pending` rows have not been flushed. The shape is fixed:
        # on XLA, another shape would be another program.
        self.buffer = torch.zeros(FLUSH_EVERY_STEPS, 2).to(world.device)
        self.pending = 0

    def append(self, loss: torch.Tensor, grad_norm: torch.Tensor) -> None:
        """Append this rank's part of a step's mean loss, and the gradient norm before clipping."""
        newest = torch.stack([loss, grad_norm.float() / self.world.num_processes])
        self.buffer = torch.cat([self.buffer[1:], newest[None]])
        self.pending += 1

    def flush(self) -> list[list[float]]:
        """Read the pending steps on every rank.

        Returns:
            [loss, gradient norm] of each step, summed over the ranks.
        """
        if not self.pending:
            return []
        by_rank = gather(self.buffer[None]).cpu()
        # Summed in the order of the ranks, so that the result does not depend on the number of pending steps.
        values: list[list[float]] = functools.reduce(torch.add, by_rank)[-self.pending :].tolist()
        self.pending = 0
        return values
