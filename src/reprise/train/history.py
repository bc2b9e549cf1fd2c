"""The history of a run: the curve of its steps, its epochs, and which one is best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reprise.tasks.metrics.registry import METRICS

# Columns of the curve beside the number of the step and of the epoch.
HISTORY_COLUMNS = ("learning_rate", "loss", "grad_norm")


def epochs_without_gain(scores: Sequence[float], min_delta: float) -> int:
    """Count the latest epochs without a score that beats those before by more than `min_delta`.

    Args:
        scores: of each epoch; greater is better.
        min_delta: in the unit of the scores. Small gains add up: the best score is that of the last real gain.
    """
    best, waited = -math.inf, 0
    for score in scores:
        best, waited = (score, 0) if score > best + min_delta else (best, waited + 1)
    return waited


class TrainingHistory:
    """What a run has done so far; every rank keeps the same."""

    STATE_FIELDS = ("epochs", "thresholds_by_epoch", "temperatures_by_epoch", "best_epoch", "order_digests", "sessions")

    def __init__(
        self,
        total_steps: int,
        num_examples: int,
        batch_size: int,
        metric: str,
        keep: Literal["best", "last"],
        session: dict[str, Any],
    ) -> None:
        """Start an empty history.

        Args:
            total_steps: optimizer steps of the complete run.
            num_examples: training examples; an epoch sees each once.
            batch_size: examples of a step; the last one of an epoch may have fewer.
            metric: the validation metric that selects the best epoch.
            keep: `last` makes the newest epoch the best one.
            session: where this process runs, for provenance.json.
        """
        self.table = np.full((total_steps, len(HISTORY_COLUMNS)), np.nan)
        self.steps_done = 0
        self.num_examples, self.batch_size, self.metric, self.keep = num_examples, batch_size, metric, keep
        self.epochs: list[dict[str, float]] = []  # number, mean loss per example and validation metrics
        self.thresholds_by_epoch: list[list[float] | None] = []  # that fit the validation split best
        self.temperatures_by_epoch: list[list[float] | None] = []  # likewise
        self.best_epoch = 0  # index into `epochs`
        self.order_digests: list[str] = []  # one per epoch, by sampler.order_digest
        self.sessions = [session | {"from_step": 0}]  # an interrupted run has several

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the complete run."""
        return len(self.table)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a complete epoch."""
        return -(-self.num_examples // self.batch_size)

    @property
    def curve(self) -> NDArray[np.float64]:
        """The steps so far: HISTORY_COLUMNS, shape [steps, 3]."""
        return self.table[: self.steps_done]

    @property
    def steps_left(self) -> int:
        """Steps left in the current epoch, the first one without validation metrics."""
        return min((len(self.epochs) + 1) * self.steps_per_epoch, self.total_steps) - self.steps_done

    @property
    def from_step(self) -> int:
        """The steps that were done before this session began."""
        step: int = self.sessions[-1]["from_step"]
        return step

    def log_step(self, learning_rate: float) -> None:
        """Append a step; `log_metrics` adds its loss and gradient norm later."""
        self.table[self.steps_done, 0] = learning_rate
        self.steps_done += 1

    def log_metrics(self, values: Sequence[Sequence[float]]) -> None:
        """Set [loss, gradient norm] of the latest steps."""
        self.curve[-len(values) :, 1:] = values

    @property
    def thresholds(self) -> list[float] | None:
        """The thresholds of the best epoch; None for kinds of tasks without."""
        return self.thresholds_by_epoch[self.best_epoch]

    @property
    def temperatures(self) -> list[float] | None:
        """The temperatures of the best epoch; None without `train.calibration`."""
        return self.temperatures_by_epoch[self.best_epoch]

    def log_epoch(
        self,
        epoch: int,
        scores: Mapping[str, float],
        order_digest: str,
        thresholds: Sequence[float] | None = None,
        temperatures: list[float] | None = None,
    ) -> None:
        """Append an epoch, counted from 0.

        Args:
            epoch: its index.
            scores: validation metrics.
            order_digest: of the sample order.
            thresholds: that were chosen on the validation split.
            temperatures: that were fitted to it.
        """
        losses = self.curve[epoch * self.steps_per_epoch :, HISTORY_COLUMNS.index("loss")]
        # A step's loss is the mean over its examples. The last step of an epoch may have fewer, and then counts less.
        examples = np.minimum(self.batch_size, self.num_examples - self.batch_size * np.arange(len(losses)))
        self.epochs.append({"epoch": epoch + 1, "loss": float(losses @ examples / examples.sum()), **scores})
        self.thresholds_by_epoch.append(None if thresholds is None else list(thresholds))
        self.temperatures_by_epoch.append(temperatures)
        sign = 1 if METRICS[self.metric].greater_is_better else -1
        best = max(range(len(self.epochs)), key=lambda index: sign * self.epochs[index][self.metric])
        self.best_epoch = best if self.keep == "best" else epoch
        self.order_digests.append(order_digest)

    def epochs_without_gain(self, min_delta: float) -> int:
        """Count the latest epochs whose metric was not better than before by more than `min_delta`."""
        sign = 1 if METRICS[self.metric].greater_is_better else -1
        return epochs_without_gain([sign * epoch[self.metric] for epoch in self.epochs], min_delta)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: `history`, an array, and fields that JSON can hold."""
        return {"history": self.curve} | {name: getattr(self, name) for name in self.STATE_FIELDS}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's state in a new session."""
        session = self.sessions[-1]
        for name in self.STATE_FIELDS:
            setattr(self, name, state[name])
        self.steps_done = len(state["history"])
        self.curve[:] = np.reshape(state["history"], (-1, len(HISTORY_COLUMNS)))
        self.sessions.append(session | {"from_step": self.steps_done})
