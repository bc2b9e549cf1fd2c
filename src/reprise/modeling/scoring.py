"""Metrics of logits, while training and of a trained model."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.metrics.compute import compute
from reprise.tasks.metrics.registry import confidence_interval


def compute_metrics(metrics: Sequence[str], kind: TaskKind, logits: Logits, references: Any) -> dict[str, float]:
    """Compute metrics of logits, [examples, outputs], against the prepared labels, [examples] or [examples, labels]."""
    return compute(
        metrics,
        kind.decode(logits),
        references,
        positive=kind.positive,
        probabilities=kind.probabilities(logits),
    )


def metrics_with_ci(
    names: Sequence[str], kind: TaskKind, logits: Logits, references: npt.NDArray[Any], *, resamples: int
) -> dict[str, Any]:
    """Compute each metric, under `ci95` the bounds of its 95 % interval, and under `ci95_method` how these were found.

    Args:
        names: of the metrics.
        kind: of the task.
        logits: shape [examples, outputs].
        references: the prepared labels, shape [examples] or [examples, labels].
        resamples: how often a bootstrap draws the examples.
    """
    predictions, probabilities = kind.decode(logits), kind.probabilities(logits)
    metrics = compute_metrics(names, kind, logits, references)
    intervals = {
        name: confidence_interval(
            name, predictions, references, positive=kind.positive, resamples=resamples, probabilities=probabilities
        )
        for name in names
    }
    return {
        **metrics,
        "ci95": {name: {"low": interval.low, "high": interval.high} for name, interval in intervals.items()},
        "ci95_method": {name: interval.method for name, interval in intervals.items()},
    }
