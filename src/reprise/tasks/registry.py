"""Which kind of task a recipe has."""

from collections.abc import Sequence

from reprise.tasks.classification import Classification
from reprise.tasks.kind import TaskKind
from reprise.tasks.regression import Regression


def task_kind(labels: Sequence[str]) -> TaskKind:
    """Return the kind of task that has these labels: regression without any, else classification."""
    return Classification(tuple(labels)) if labels else Regression()
