"""The registry of metrics: a new metric is a function and an entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reprise.tasks.metrics.entities import count_entities, flatten
from reprise.tasks.metrics.intervals import (
    Interval,
    MetricFunction,
    Values,
    accuracy_interval,
    average_precision_interval,
    balanced_accuracy_interval,
    bootstrap_interval,
    entity_f1_interval,
    entity_precision_interval,
    entity_recall_interval,
    f1_interval,
    f1_macro_interval,
    f1_micro_interval,
    f1_samples_interval,
    matthews_interval,
    precision_interval,
    recall_interval,
    subset_accuracy_interval,
    token_accuracy_interval,
    weighted_f1_interval,
)

MULTI_LABEL = "multi-label classification"
TOKENS = "token classification"


@dataclass(frozen=True)
class Metric:
    """A metric of predictions against references.

    Attributes:
        name: what recipes and result files call it.
        task_kind: the kind of task that it applies to, see reprise.tasks.
        function: takes predictions, references (each of [examples]; with any number of labels [examples, labels]; of
            tags [examples] of [words]: as the kind of task prepares labels) and the id of the positive one of two
            labels; None for more or none.
        greater_is_better: the direction, for the choice of the best epoch and for comparisons.
        interval: takes the same and a number of resamples; None for the bootstrap.
        has_unit: whether it is in the unit of the labels, and thus of any size.
        of_probabilities: whether it takes, instead of predictions, the probability of each label.
        of_one_label: whether the metric is of the positive one of two labels, and of more the mean over all.
    """

    name: str
    task_kind: str
    function: Callable[[Values, Values, int | None], float]
    greater_is_better: bool = True
    interval: Callable[[Values, Values, int | None, int], Interval] | None = None
    of_one_label: bool = False
    has_unit: bool = False
    of_probabilities: bool = False


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


def f1_weighted(predictions: Values, references: Values, _: int | None) -> float:
    """Mean of F1 over the labels, each weighted by its examples."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="weighted", zero_division=0.0))


def precision(predictions: Values, references: Values, positive: int | None) -> float:
    """Fraction of the predictions of a label that are correct; 0 if there are none.

    Of two labels, that of the positive one; of more, the plain mean over the labels that occur (macro).
    """
    from sklearn.metrics import precision_score

    if positive is None:
        return float(precision_score(references, predictions, average="macro", zero_division=0.0))
    return float(precision_score(references == positive, predictions == positive, zero_division=0.0))


def recall(predictions: Values, references: Values, positive: int | None) -> float:
    """Fraction of the examples of a label that are predicted; 0 if there are none.

    Of two labels, that of the positive one; of more, the plain mean over the labels that have examples (macro).
    """
    from sklearn.metrics import recall_score

    if positive is None:
        return balanced_accuracy(predictions, references, None)
    return float(recall_score(references == positive, predictions == positive, zero_division=0.0))


def balanced_accuracy(predictions: Values, references: Values, _: int | None) -> float:
    """Plain mean of the recall of all labels that have examples (Brodersen et al. 2010)."""
    from sklearn.metrics import recall_score

    return float(recall_score(references, predictions, labels=np.unique(references), average="macro"))


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


def mae(predictions: Values, references: Values, _: int | None) -> float:
    """Mean absolute error, in the unit of the labels."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(references, predictions))


def r2(predictions: Values, references: Values, _: int | None) -> float:
    """Coefficient of determination: 1 minus the squared error over that of the mean of these references.

    Below 0 if predictions are worse than that mean; 0 where the references are constant, for which it is not defined.
    """
    from sklearn.metrics import r2_score

    return 0.0 if _is_constant(references) else float(r2_score(references, predictions))


def subset_accuracy(predictions: Values, references: Values, _: int | None) -> float:
    """Fraction of examples whose labels are all predicted, and no others."""
    return accuracy(predictions, references, None)


def f1_micro(predictions: Values, references: Values, _: int | None) -> float:
    """F1 of all decisions about an example and a label together."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="micro", zero_division=0.0))


def f1_macro(predictions: Values, references: Values, _: int | None) -> float:
    """Plain mean of F1 over the labels; 0 for a label that is neither there nor predicted."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="macro", zero_division=0.0))


def f1_samples(predictions: Values, references: Values, _: int | None) -> float:
    """Mean over the examples of F1 between their labels and the predicted ones; 1 where both are none."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="samples", zero_division=1.0))


def average_precision(probabilities: Values, references: Values, _: int | None) -> float:
    """Mean of average precision, the area under precision over recall, over the labels that occur."""
    from sklearn.metrics import average_precision_score

    occurring = np.asarray(references).any(axis=0)
    if not occurring.any():
        return 0.0
    return float(average_precision_score(references[:, occurring], probabilities[:, occurring], average="macro"))


def entity_f1(predictions: Values, references: Values, _: int | None) -> float:
    """F1 of entities, which are correct with the same words and the same type (strict; micro)."""
    counts = count_entities(predictions, references)
    return float(2 * counts.correct.sum() / max(counts.predicted.sum() + counts.actual.sum(), 1))


def entity_precision(predictions: Values, references: Values, _: int | None) -> float:
    """Fraction of the predicted entities that are correct; 0 if there are none."""
    counts = count_entities(predictions, references)
    return float(counts.correct.sum() / max(counts.predicted.sum(), 1))


def entity_recall(predictions: Values, references: Values, _: int | None) -> float:
    """Fraction of the actual entities that are predicted correctly; 0 if there are none."""
    counts = count_entities(predictions, references)
    return float(counts.correct.sum() / max(counts.actual.sum(), 1))


def token_accuracy(predictions: Values, references: Values, _: int | None) -> float:
    """Fraction of the words with the right tag; most words are outside of entities, so it is high for any model."""
    return float((flatten(predictions)[0] == flatten(references)[0]).mean())


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "classification", accuracy, interval=accuracy_interval),
        Metric("f1", "classification", f1, interval=f1_interval, of_one_label=True),
        Metric("f1_weighted", "classification", f1_weighted, interval=weighted_f1_interval),
        Metric("precision", "classification", precision, interval=precision_interval, of_one_label=True),
        Metric("recall", "classification", recall, interval=recall_interval, of_one_label=True),
        Metric("balanced_accuracy", "classification", balanced_accuracy, interval=balanced_accuracy_interval),
        Metric("matthews", "classification", matthews, interval=matthews_interval),
        Metric("pearson", "regression", pearson),
        Metric("spearman", "regression", spearman),
        Metric("rmse", "regression", rmse, greater_is_better=False, has_unit=True),
        Metric("mae", "regression", mae, greater_is_better=False, has_unit=True),
        Metric("r2", "regression", r2),
        Metric("f1_micro", MULTI_LABEL, f1_micro, interval=f1_micro_interval),
        Metric("f1_macro", MULTI_LABEL, f1_macro, interval=f1_macro_interval),
        Metric("f1_samples", MULTI_LABEL, f1_samples, interval=f1_samples_interval),
        Metric("subset_accuracy", MULTI_LABEL, subset_accuracy, interval=subset_accuracy_interval),
        Metric(
            "average_precision",
            MULTI_LABEL,
            average_precision,
            interval=average_precision_interval,
            of_probabilities=True,
        ),
        Metric("entity_f1", TOKENS, entity_f1, interval=entity_f1_interval),
        Metric("entity_precision", TOKENS, entity_precision, interval=entity_precision_interval),
        Metric("entity_recall", TOKENS, entity_recall, interval=entity_recall_interval),
        Metric("token_accuracy", TOKENS, token_accuracy, interval=token_accuracy_interval),
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
    name: str,
    predictions: Values,
    references: Values,
    *,
    positive: int | None,
    resamples: int,
    probabilities: Values | None = None,
) -> Interval:
    """Compute the 95 % interval of a metric, by the method of its entry.

    Args:
        name: of the metric.
        predictions: shape [examples] or [examples, labels].
        references: of the same shape.
        positive: as for `metric_function`.
        resamples: how often a bootstrap draws the examples.
        probabilities: of each label, shape [examples, labels], for the metrics that take them.
    """
    if METRICS[name].of_probabilities:
        assert probabilities is not None
        predictions = probabilities
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
