"""Intervals cover the truth as often as they claim, also at the border, and agree with simple implementations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom
from sklearn import metrics as sklearn

from reprise.tasks.metrics import intervals
from reprise.tasks.metrics.intervals import (
    MatrixFunction,
    MetricFunction,
    Values,
    bootstrap_interval,
    macro_f1,
    macro_precision,
    matrix_interval,
    matthews_of,
    weighted_f1,
    wilson,
)
from reprise.tasks.metrics.registry import METRICS, confidence_interval, metric_function, metrics_of

# Accuracy and examples: near the border, and far from it.
CASES = [(0.97, 40), (0.85, 200)]
# Between these, a simulated coverage of 95 % is as good as the discreteness of so few examples allows.
LOWEST, HIGHEST = 0.92, 0.985


def pearson(predictions: npt.ArrayLike, references: npt.ArrayLike) -> float:
    return float(np.corrcoef(predictions, references)[0, 1])


def classification(rows: int = 200, seed: int = 0) -> tuple[Values, Values]:
    """Return label ids with about 80 % correct predictions."""
    random = np.random.default_rng(seed)
    references = random.integers(0, 2, rows)
    return np.where(random.random(rows) < 0.8, references, 1 - references), references


def regression_values(rows: int = 200, seed: int = 0) -> tuple[Values, Values]:
    """Return values and predictions with a correlation of about 0.7."""
    random = np.random.default_rng(seed)
    references = random.normal(size=rows)
    return references + random.normal(size=rows), references


def reference_bootstrap(score: MetricFunction, predictions: Values, references: Values, resamples: int) -> list[float]:
    random = np.random.default_rng(12345)
    scores = []
    for _ in range(resamples):
        sampled = random.integers(0, len(references), len(references))
        scores.append(score(predictions[sampled], references[sampled]))
    return np.percentile(scores, [2.5, 97.5]).tolist()


def interval(name: str, rows: tuple[Values, Values], *, positive: int | None = 1, resamples: int = 1000) -> Any:
    """Return the bounds of a metric's interval."""
    found = confidence_interval(name, *rows, positive=positive, resamples=resamples)
    return found.low, found.high


def cells_of(accuracy: float, labels: int) -> npt.NDArray[np.float64]:
    """Return the probability of each cell of a confusion matrix of balanced labels with uniform errors."""
    cells = np.full((labels, labels), (1 - accuracy) / labels / (labels - 1))
    np.fill_diagonal(cells, accuracy / labels)
    return cells


def coverage(cells: npt.NDArray[np.float64], rows: int, truth: float, bounds: Callable[..., Any]) -> float:
    """Return how often an interval of `rows` examples holds the true metric, over 300 simulated evaluations."""
    labels = len(cells)
    hits = 0
    for counts in np.random.default_rng(7).multinomial(rows, cells.ravel(), 300):
        actual, predicted = np.divmod(np.repeat(np.arange(labels**2), counts), labels)
        low, high = bounds((predicted, actual))
        hits += low - 1e-9 <= truth <= high + 1e-9
    return hits / 300


@pytest.mark.parametrize(("accuracy", "rows"), CASES)
def test_the_interval_of_an_accuracy_covers_it(accuracy: float, rows: int) -> None:
    correct = np.arange(rows + 1)
    bounds = np.array([wilson(int(each), rows) for each in correct])
    covered = (bounds[:, 0] <= accuracy) & (accuracy <= bounds[:, 1])
    assert LOWEST < covered @ binom.pmf(correct, rows, accuracy) < HIGHEST


def test_a_percentile_bootstrap_is_too_narrow_near_the_border() -> None:
    """The reason for Wilson's: with 97 % of 40 correct, an interval of 95 % holds the truth in 70 % of all cases."""
    correct, (accuracy, rows) = np.arange(41), CASES[0]
    low, high = (binom.ppf(level, rows, correct / rows) / rows for level in (0.025, 0.975))
    covered = (low <= accuracy) & (accuracy <= high)
    assert covered @ binom.pmf(correct, rows, accuracy) < 0.75


@pytest.mark.parametrize(("accuracy", "rows"), CASES)
def test_the_interval_of_f1_covers_it(accuracy: float, rows: int) -> None:
    cells = cells_of(accuracy, 2)
    truth = 2 * cells[1, 1] / (2 * cells[1, 1] + cells[0, 1] + cells[1, 0])
    assert LOWEST < coverage(cells, rows, truth, lambda each: interval("f1", each)) < HIGHEST


@pytest.mark.parametrize(("accuracy", "rows"), CASES)
@pytest.mark.parametrize(("score", "labels"), [(matthews_of, 2), (matthews_of, 3), (macro_f1, 3)])
def test_the_interval_of_a_confusion_matrix_covers_its_metric(
    score: MatrixFunction, labels: int, accuracy: float, rows: int
) -> None:
    cells = cells_of(accuracy, labels)
    truth = float(score(cells[None])[0])

    def bounds(each: tuple[Values, Values]) -> Any:
        found = matrix_interval(score, *each, 500)
        return found.low, found.high

    assert LOWEST < coverage(cells, rows, truth, bounds) < HIGHEST


def test_the_bootstrap_of_a_correlation_covers_it() -> None:
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(60):
        references = random.normal(size=40)
        predictions = 0.9 * references + 0.19**0.5 * random.normal(size=40)
        found = bootstrap_interval(pearson, predictions, references, 200)
        hits += (found.low or 1) <= 0.9 <= (found.high or 0)
    assert hits >= 0.88 * 60


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].task_kind == "classification"])
def test_the_interval_of_perfect_predictions_has_a_width(name: str, labels: int) -> None:
    references = np.arange(24) % labels
    low, high = interval(name, (references, references), positive=1 if labels == 2 else None)
    assert 0.7 < low < 0.95
    assert high == 1.0


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_the_interval_of_predictions_that_are_all_wrong_has_a_width(name: str) -> None:
    references = np.arange(24) % 2
    low, high = interval(name, (1 - references, references))
    assert low == 0.0
    assert 0.1 < high < 0.3


def test_the_interval_of_one_example_is_wide() -> None:
    assert interval("accuracy", (np.array([1]), np.array([1]))) == pytest.approx((0.2065, 1.0), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "predictions", "references"),
    [
        ("f1", [0, 0, 0], [0, 0, 0]),  # no positive label
        ("precision", [0, 0, 0], [1, 0, 1]),  # none predicted
        ("recall", [1, 0, 1], [0, 0, 0]),
        ("balanced_accuracy", [1, 1, 1], [1, 1, 1]),
        ("matthews", [1, 1, 1], [1, 1, 1]),  # a single label
        ("pearson", [0.5], [0.5]),
        ("pearson", [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]),
        ("spearman", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]),
        ("rmse", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
    ],
)
def test_examples_that_determine_no_interval_get_none(
    name: str, predictions: list[float], references: list[float]
) -> None:
    rows = np.array(predictions), np.array(references)
    positive = 1 if METRICS[name].task_kind == "classification" else None
    assert interval(name, rows, positive=positive) == (None, None)


@pytest.mark.parametrize("name", [*metrics_of("classification"), *metrics_of("regression")])
def test_an_interval_is_deterministic_and_contains_the_metric(name: str) -> None:
    numbers = METRICS[name].task_kind == "regression"
    rows, positive = regression_values() if numbers else classification(), None if numbers else 1
    found = confidence_interval(name, *rows, positive=positive, resamples=200)
    assert found == confidence_interval(name, *rows, positive=positive, resamples=200)
    assert found.low is not None
    assert found.high is not None
    assert found.low < metric_function(name, positive)(*rows) < found.high
    proportions, of_matrix = ("accuracy", "f1", "precision", "recall"), "Bayesian bootstrap"
    assert found.method == ("BCa bootstrap" if numbers else "Wilson" if name in proportions else of_matrix)


@pytest.mark.parametrize("name", ["precision", "recall", "balanced_accuracy", "f1_weighted"])
def test_intervals_over_many_labels_contain_the_metric_also_with_labels_that_are_rare(name: str) -> None:
    random = np.random.default_rng(3)
    references = np.minimum(random.geometric(0.1, 400), 60)
    predictions = np.where(random.random(400) < 0.7, references, random.integers(0, 77, 400))
    low, high = interval(name, (predictions, references), positive=None, resamples=200)
    assert 0 < low < metric_function(name, None)(predictions, references) < high < 1


@pytest.mark.parametrize("method", ["BCa bootstrap", "percentile bootstrap"])
def test_a_bootstrap_agrees_with_a_simple_one(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "percentile bootstrap":
        monkeypatch.setattr(intervals, "BCA_MAX_EXAMPLES", 100)
    found = bootstrap_interval(pearson, *regression_values(), 4000)
    # Predictions and references must be resampled in pairs to correlate. Each bound has a standard error of 0.0012.
    expected = reference_bootstrap(pearson, *regression_values(), resamples=4000)
    assert [found.low, found.high] == pytest.approx(expected, abs=0.007 if method == "percentile bootstrap" else 0.02)
    assert found.method == method


def test_far_from_the_border_intervals_agree_with_a_simple_bootstrap() -> None:
    rows = classification(1000)
    for name in ("accuracy", "f1", "matthews", "precision", "recall", "balanced_accuracy", "f1_weighted"):
        expected = reference_bootstrap(metric_function(name, 1), *rows, resamples=300)
        assert interval(name, rows) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_metrics_of_a_confusion_matrix_agree_with_scikit_learn(labels: int) -> None:
    random = np.random.default_rng(labels)
    references, predictions = random.integers(0, labels, (2, 100))
    matrix = sklearn.confusion_matrix(references, predictions)[None].astype(np.float64)
    for average, score in (("macro", macro_f1), ("weighted", weighted_f1)):
        assert score(matrix)[0] == pytest.approx(sklearn.f1_score(references, predictions, average=average))
    macro = sklearn.precision_score(references, predictions, average="macro")
    assert macro_precision(matrix)[0] == pytest.approx(macro)
    assert matthews_of(matrix)[0] == pytest.approx(sklearn.matthews_corrcoef(references, predictions))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews"])
def test_more_rows_give_a_narrower_interval(name: str, seed: int) -> None:
    few, many = (interval(name, classification(rows, seed)) for rows in (100, 1600))
    assert many[1] - many[0] < (few[1] - few[0]) / 2


def test_the_order_of_two_labels_changes_no_interval() -> None:
    predictions, references = classification()
    assert interval("f1", (predictions, references), positive=1) == interval(
        "f1", (1 - predictions, 1 - references), positive=0
    )
