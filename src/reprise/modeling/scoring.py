"""Metrics of logits, for validation while training."""

from collections.abc import Sequence
from typing import Any

from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.metrics.compute import compute


def compute_metrics(metrics: Sequence[str], kind: TaskKind, logits: Logits, references: Any) -> dict[str, float]:
    """Compute metrics of logits, [examples, outputs], against the prepared labels, [examples] or [examples, labels]."""
    return compute(
        metrics,
        kind.decode(logits),
        references,
        positive=kind.positive,
        probabilities=kind.probabilities(logits),
    )
