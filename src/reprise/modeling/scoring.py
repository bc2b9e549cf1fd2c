"""Metrics of logits, for validation while training."""

from typing import Any

from reprise.core.config import Task
from reprise.tasks.kind import Logits
from reprise.tasks.metrics.compute import compute


def compute_metrics(task: Task, logits: Logits, references: Any) -> dict[str, float]:
    """Compute the task's metrics of logits, [examples, outputs], against the prepared labels, [examples]."""
    return compute(task.metrics, task.kind.decode(logits), references, positive=task.kind.positive)
