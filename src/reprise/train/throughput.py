"""Examples, tokens and seconds of the optimizer steps, for metrics/speed.json."""

import resource
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray

from reprise.modeling.bucketing import Buckets, padded_length
from reprise.train.sampler import StepPlan


class Throughput:
    """Counters and a clock that runs during the steps of an epoch, but not during validation."""

    STATE_FIELDS = ("examples", "tokens", "padded_tokens", "step_seconds")

    def __init__(self) -> None:
        """Start with the clock stopped."""
        self.examples = self.tokens = self.padded_tokens = 0
        self.seconds = 0.0  # until the clock was last stopped
        self.step_seconds: list[float] = []  # one mean per flush of the device metrics
        self.started: float | None = None
        self.flushed = 0.0

    def start(self) -> None:
        """Start the clock."""
        self.started = self.flushed = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        self.seconds, self.started = self.elapsed, None

    @property
    def elapsed(self) -> float:
        """Seconds of all steps so far."""
        return self.seconds + (time.perf_counter() - self.started if self.started is not None else 0.0)

    def count(self, step: StepPlan, tokens: int, padded_tokens: int) -> None:
        """Count a step's examples, its tokens, and its tokens with padding."""
        self.examples += step.num_examples
        self.tokens += tokens
        self.padded_tokens += padded_tokens

    def count_flush(self, steps: int) -> None:
        """Note the mean time of the steps since the last flush, which waits for the device."""
        now = time.perf_counter()
        self.step_seconds.append((now - self.flushed) / steps)
        self.flushed = now

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {name: getattr(self, name) for name in self.STATE_FIELDS} | {"seconds": self.elapsed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        for name in (*self.STATE_FIELDS, "seconds"):
            setattr(self, name, state[name])

    def metrics(self, world: PartialState) -> dict[str, Any]:
        """Return the content of metrics/speed.json, with the peak memory of this process."""
        cuda = world.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() / 1024 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "train_seconds": round(self.seconds, 2),
            "median_step_seconds": round(statistics.median(self.step_seconds), 4),
            "examples_per_second": round(self.examples / self.seconds, 1),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "padding_fraction": round(1 - self.tokens / self.padded_tokens, 4),
            "peak_memory_mib": round(peak / 1024),
            "processes": world.num_processes,
            "threads": torch.get_num_threads(),
        }


def count_tokens(
    step: StepPlan, lengths: NDArray[np.int64], buckets: Buckets | None, micro_batch_size: int
) -> tuple[int, int]:
    """Count the tokens of a step.

    Args:
        step: its micro-batches.
        lengths: tokens of each example, shape [examples].
        buckets: lengths that batches are padded to; None for the longest example of each.
        micro_batch_size: examples that a batch is padded to where there are buckets.

    Returns:
        The tokens without and with padding.
    """
    tokens = padded_tokens = 0
    for rows in step.micro_batches:
        tokens += int(lengths[rows].sum())
        length = padded_length(int(lengths[rows].max()), buckets)
        padded_tokens += length * (micro_batch_size if buckets else len(rows))
    return tokens, padded_tokens
