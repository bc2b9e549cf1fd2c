"""Which kind of task a recipe has."""

from collections.abc import Mapping, Sequence
from typing import Any

from reprise.tasks.classification import Classification
from reprise.tasks.kind import TaskKind
from reprise.tasks.multi_label import MultiLabel
from reprise.tasks.regression import Regression
from reprise.tasks.token_classification import TokenClassification


def task_kind(
    labels: Sequence[str],
    positive_label: str | None = None,
    multi_label: Mapping[str, Any] | None = None,
    token_classification: Mapping[str, Any] | None = None,
) -> TaskKind:
    """Return the kind of task that has these labels: regression without any, else classification.

    Args:
        labels: in the order of their ids.
        positive_label: one of two labels, for F1 and the precision-recall curve; None where neither is needed.
        multi_label: the recipe's section of that name, if an example may have any number of labels.
        token_classification: the recipe's section of that name, if labels are of words.
    """
    if token_classification is not None:
        return TokenClassification(tuple(labels), token_classification["subwords"])
    if multi_label is not None:
        return MultiLabel.of_recipe(tuple(labels), multi_label)
    return Classification(tuple(labels), positive_label) if labels else Regression()
