"""Confidence intervals agree with a simple implementation of the percentile bootstrap."""

import numpy as np
import numpy.typing as npt
import pytest

from reprise.evaluate.bootstrap import bootstrap_ci
from reprise.tasks.metrics.registry import MetricFunction, metric_function

Values = npt.NDArray[np.generic]


def accuracy(predictions: npt.ArrayLike, references: npt.ArrayLike) -> float:
    return float(np.mean(np.asarray(predictions) == np.asarray(references)))


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


@pytest.mark.parametrize(
    ("score", "rows"),
    [
        pytest.param(accuracy, classification(), id="accuracy"),
        # Predictions and references must be resampled in pairs to correlate.
        pytest.param(pearson, regression_values(), id="pearson"),
    ],
)
def test_an_interval_agrees_with_a_simple_bootstrap(score: MetricFunction, rows: tuple[Values, Values]) -> None:
    low, high = bootstrap_ci(score, *rows, resamples=4000)
    # Each bound has a standard error of about 0.0012 with 4000 resamples; the interval is about 0.1 wide.
    assert [low, high] == pytest.approx(reference_bootstrap(score, *rows, resamples=4000), abs=0.007)
    assert 0.08 < high - low < 0.16


def test_the_interval_of_an_accuracy_agrees_with_the_normal_approximation() -> None:
    predictions, references = classification(rows=1000)
    estimate = accuracy(predictions, references)
    half = 1.96 * (estimate * (1 - estimate) / 1000) ** 0.5
    assert bootstrap_ci(accuracy, predictions, references, resamples=4000) == pytest.approx(
        (estimate - half, estimate + half), abs=0.003
    )


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews", "pearson", "spearman"])
def test_an_interval_is_deterministic_and_contains_the_estimate(name: str) -> None:
    regression = name in ("pearson", "spearman")
    predictions, references = regression_values() if regression else classification()
    score = metric_function(name, 0 if regression else 2)
    low, high = bootstrap_ci(score, predictions, references, resamples=100)
    assert (low, high) == bootstrap_ci(score, predictions, references, resamples=100)
    assert low < score(predictions, references) < high


@pytest.mark.parametrize("seed", range(5))
def test_more_rows_give_a_narrower_interval(seed: int) -> None:
    low_of_few, high_of_few = bootstrap_ci(accuracy, *classification(100, seed), resamples=500)
    low_of_many, high_of_many = bootstrap_ci(accuracy, *classification(1600, seed), resamples=500)
    assert high_of_many - low_of_many < (high_of_few - low_of_few) / 2


@pytest.mark.parametrize(("prediction", "expected"), [(1, 1.0), (0, 0.0)])
def test_the_interval_of_one_example_has_width_zero(prediction: int, expected: float) -> None:
    interval = bootstrap_ci(accuracy, np.array([prediction]), np.array([1]), resamples=100)
    assert interval == (expected, expected)


def test_two_examples_are_resampled_in_all_ways() -> None:
    assert bootstrap_ci(accuracy, np.array([1, 0]), np.array([1, 1]), resamples=1000) == (0.0, 1.0)


def test_the_interval_of_perfect_predictions_has_width_zero() -> None:
    references = np.arange(50) % 2
    for name in "accuracy", "f1", "matthews":
        assert bootstrap_ci(metric_function(name, 2), references, references, resamples=100) == (1.0, 1.0)


def test_constant_resamples_count_as_zero_correlation() -> None:
    # Half of the resamples of two examples contain one example twice.
    values = np.array([0.0, 1.0])
    assert bootstrap_ci(metric_function("pearson", 0), values, values, resamples=1000) == (0.0, 1.0)
