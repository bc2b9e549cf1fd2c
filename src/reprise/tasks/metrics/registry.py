"""The registry of metrics: a new metric is a function and an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.generic]
MetricFunction = Callable[[Values, Values], float]  # predictions and references, each of [examples]


@dataclass(frozen=True)
class Metric:
    """A metric of predictions against references.

    Attributes:
        name: what recipes and result files call it.
        task_kind: the kind of task that it applies to, see reprise.tasks.
        function: takes predictions, references (each of [examples], as the kind of task prepares labels) and the
            number of labels.
        greater_is_better: the direction, for the choice of the best epoch and for comparisons.
    """

    name: str
    task_kind: str
    function: Callable[[Values, Values, int], float]
    greater_is_better: bool = True


def accuracy(predictions: Values, references: Values, _: int) -> float:
    """Fraction of examples whose predicted label is the true one."""
    from sklearn.metrics import accuracy_score  # slow to import, like all below

    return float(accuracy_score(references, predictions))


def f1(predictions: Values, references: Values, num_labels: int) -> float:
    """Harmonic mean of precision and recall; 0 where neither is defined.

    Of two labels, the second is the positive one; of more, the plain mean over the labels that occur (macro).
    """
    from sklearn.metrics import f1_score

    average = "binary" if num_labels == 2 else "macro"
    return float(f1_score(references, predictions, average=average, zero_division=0.0))


def matthews(predictions: Values, references: Values, _: int) -> float:
    """Matthews' correlation coefficient (Matthews 1975); 0 where either side holds one label only."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(references, predictions))


def pearson(predictions: Values, references: Values, _: int) -> float:
    """Pearson's linear correlation; 0 where either side is constant, for which it is not defined."""
    from scipy.stats import pearsonr

    return 0.0 if _is_constant(predictions, references) else float(pearsonr(references, predictions).statistic)


def spearman(predictions: Values, references: Values, _: int) -> float:
    """Spearman's rank correlation; 0 where either side is constant, for which it is not defined."""
    from scipy.stats import spearmanr

    return 0.0 if _is_constant(predictions, references) else float(spearmanr(references, predictions).statistic)


def rmse(predictions: Values, references: Values, _: int) -> float:
    """Root mean squared error, in the unit of the labels."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(references, predictions))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "classification", accuracy),
        Metric("f1", "classification", f1),
        Metric("matthews", "classification", matthews),
        Metric("pearson", "regression", pearson),
        Metric("spearman", "regression", spearman),
        Metric("rmse", "regression", rmse, greater_is_better=False),
    )
}


def metrics_of(task_kind: str) -> list[str]:
    """Return the names of the metrics that apply to a kind of task."""
    return [metric.name for metric in METRICS.values() if metric.task_kind == task_kind]


def metric_function(name: str, num_labels: int) -> MetricFunction:
    """Return a metric as a plain function, for the thousands of calls that a bootstrap makes."""
    function = METRICS[name].function
    return lambda predictions, references: function(predictions, references, num_labels)


def _is_constant(*sides: Values) -> bool:
    return any(bool(np.ptp(side) == 0) for side in sides)
