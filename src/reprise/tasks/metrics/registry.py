"""The registry of metrics: a new metric is a function and an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reprise.tasks.metrics.intervals import (
    Interval,
    MetricFunction,
    Values,
    accuracy_interval,
    bootstrap_interval,
    f1_interval,
    matthews_interval,
)


@dataclass(frozen=True)
class Metric:
    """A metric of predictions against references.

    Attributes:
        name: what recipes and result files call it.
        task_kind: the kind of task that it applies to, see reprise.tasks.
        function: takes predictions, references (each of [examples], as the kind of task prepares labels) and the id of
            the positive one of two labels; None for more labels or none.
        greater_is_better: the direction, for the choice of the best epoch and for comparisons.
        interval: takes the same and a number of resamples; None for the bootstrap.
        of_one_label: whether the metric is of the positive one of two labels, and of more the mean over all.
    """

    name: str
    task_kind: str
    function: Callable[[Values, Values, int | None], float]
    greater_is_better: bool = True
    interval: Callable[[Values, Values, int | None, int], Interval] | None = None
    of_one_label: bool = False


def accuracy(predictions: Values, references: Values, _: int | None) -> float:
    """Fraction of examples whose predicted label is the true one."""
    from sklearn.metrics import accuracy_score  # slow to import, like all below

    return float(accuracy_score(references, predictions))


def f1(predictions: Values, references: Values, positive: int | None) -> float:
    """Harmonic mean of precision and recall; 0 where neither is defined.

    Of two labels, that of the positive one; of more, the plain mean over the labels that occur (macro).
    """
    from sklearn.metrics import f1_score

    if positive is None:
        return float(f1_score(references, predictions, average="macro", zero_division=0.0))
    return float(f1_score(references == positive, predictions == positive, zero_division=0.0))


def matthews(predictions: Values, references: Values, _: int | None) -> float:
    """Matthews' correlation coefficient (Matthews 1975); 0 where either side holds one label only."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(references, predictions))


def pearson(predictions: Values, references: Values, _: int | None) -> float:
    """Pearson's linear correlation; 0 where either side is constant, for which it is not defined."""
    from scipy.stats import pearsonr

    return 0.0 if _is_constant(predictions, references) else float(pearsonr(references, predictions).statistic)


def spearman(predictions: Values, references: Values, _: int | None) -> float:
    """Spearman's rank correlation; 0 where either side is constant, for which it is not defined."""
    from scipy.stats import spearmanr

    return 0.0 if _is_constant(predictions, references) else float(spearmanr(references, predictions).statistic)


def rmse(predictions: Values, references: Values, _: int | None) -> float:
    """Root mean squared error, in the unit of the labels."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(references, predictions))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "classification", accuracy, interval=accuracy_interval),
        Metric("f1", "classification", f1, interval=f1_interval, of_one_label=True),
        Metric("matthews", "classification", matthews, interval=matthews_interval),
        Metric("pearson", "regression", pearson),
        Metric("spearman", "regression", spearman),
        Metric("rmse", "regression", rmse, greater_is_better=False),
    )
}


def metrics_of(task_kind: str) -> list[str]:
    """Return the names of the metrics that apply to a kind of task."""
    return [metric.name for metric in METRICS.values() if metric.task_kind == task_kind]


def metric_function(name: str, positive: int | None) -> MetricFunction:
    """Return a metric as a plain function, for the thousands of calls that a bootstrap makes.

    Args:
        name: of the metric.
        positive: id of the positive one of two labels; None for more labels or none.
    """
    function = METRICS[name].function
    return lambda predictions, references: function(predictions, references, positive)


def confidence_interval(
    name: str, predictions: Values, references: Values, *, positive: int | None, resamples: int
) -> Interval:
    """Compute the 95 % interval of a metric, by the method of its entry.

    Args:
        name: of the metric.
        predictions: shape [examples].
        references: shape [examples].
        positive: as for `metric_function`.
        resamples: how often a bootstrap draws the examples.
    """
    if interval := METRICS[name].interval:
        return interval(predictions, references, positive, resamples)
    return bootstrap_interval(metric_function(name, positive), predictions, references, resamples)


def display_name(name: str, positive_label: str | None, num_labels: int) -> str:
    """Return a metric's name for display, with the label that it is of: `f1 (fresh)`, `f1 (macro)`.

    Args:
        name: of the metric.
        positive_label: of two labels; None for more labels or none.
        num_labels: how many labels the task has.
    """
    if not num_labels or name not in METRICS or not METRICS[name].of_one_label:
        return name
    return f"{name} ({positive_label or 'macro'})"


def _is_constant(*sides: Values) -> bool:
    return any(bool(np.ptp(side) == 0) for side in sides)
