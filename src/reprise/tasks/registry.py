"""Which kind of task a recipe has."""

from collections.abc import Sequence

from reprise.tasks.classification import Classification
from reprise.tasks.kind import TaskKind
from reprise.tasks.regression import Regression


def task_kind(labels: Sequence[str], positive_label: str | None = None) -> TaskKind:
    """Return the kind of task that has these labels: regression without any, else classification.

    Args:
        labels: in the order of their ids.
        positive_label: one of two labels, for F1 and the precision-recall curve; None where neither is needed.
    """
    return Classification(tuple(labels), positive_label) if labels else Regression()
