"""Intervals: the percentile bootstrap, against one written out."""

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


def classified(rows: int = 200, seed: int = 0) -> tuple[Values, Values]:
    """Label numbers of which about four in five are predicted right."""
    random = np.random.default_rng(seed)
    references = random.integers(0, 2, rows)
    return np.where(random.random(rows) < 0.8, references, 1 - references), references


def measured(rows: int = 200, seed: int = 0) -> tuple[Values, Values]:
    """Values and predictions that correlate at about 0.7."""
    random = np.random.default_rng(seed)
    references = random.normal(size=rows)
    return references + random.normal(size=rows), references


def plain_bootstrap(score: MetricFunction, predictions: Values, references: Values, resamples: int) -> list[float]:
    random = np.random.default_rng(12345)
    scores = []
    for _ in range(resamples):
        drawn = random.integers(0, len(references), len(references))
        scores.append(score(predictions[drawn], references[drawn]))
    return np.percentile(scores, [2.5, 97.5]).tolist()


@pytest.mark.parametrize(
    ("score", "rows"),
    [
        pytest.param(accuracy, classified(), id="accuracy"),
        # Drawn apart instead of together, predictions and references would not correlate at all.
        pytest.param(pearson, measured(), id="pearson"),
    ],
)
def test_an_interval_is_that_of_a_bootstrap_written_out(score: MetricFunction, rows: tuple[Values, Values]) -> None:
    low, high = bootstrap_ci(score, *rows, resamples=4000)
    # Both ends of both scatter by about 0.0012 with 4000 resamples; the interval is about 0.1 wide.
    assert [low, high] == pytest.approx(plain_bootstrap(score, *rows, resamples=4000), abs=0.007)
    assert 0.08 < high - low < 0.16


def test_the_interval_of_an_accuracy_is_about_that_of_the_normal_approximation() -> None:
    predictions, references = classified(rows=1000)
    share = accuracy(predictions, references)
    half = 1.96 * (share * (1 - share) / 1000) ** 0.5
    assert bootstrap_ci(accuracy, predictions, references, resamples=4000) == pytest.approx(
        (share - half, share + half), abs=0.003
    )


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews", "pearson", "spearman"])
def test_an_interval_is_the_same_twice_and_holds_the_estimate(name: str) -> None:
    regression = name in ("pearson", "spearman")
    predictions, references = measured() if regression else classified()
    score = metric_function(name, 0 if regression else 2)
    low, high = bootstrap_ci(score, predictions, references, resamples=100)
    assert (low, high) == bootstrap_ci(score, predictions, references, resamples=100)
    assert low < score(predictions, references) < high


@pytest.mark.parametrize("seed", range(5))
def test_more_rows_give_a_narrower_interval(seed: int) -> None:
    low_of_few, high_of_few = bootstrap_ci(accuracy, *classified(100, seed), resamples=500)
    low_of_many, high_of_many = bootstrap_ci(accuracy, *classified(1600, seed), resamples=500)
    assert high_of_many - low_of_many < (high_of_few - low_of_few) / 2


@pytest.mark.parametrize(("prediction", "expected"), [(1, 1.0), (0, 0.0)])
def test_one_row_has_an_interval_of_no_width(prediction: int, expected: float) -> None:
    ends = bootstrap_ci(accuracy, np.array([prediction]), np.array([1]), resamples=100)
    assert ends == (expected, expected)


def test_two_rows_are_drawn_in_all_four_ways() -> None:
    assert bootstrap_ci(accuracy, np.array([1, 0]), np.array([1, 1]), resamples=1000) == (0.0, 1.0)


def test_all_right_has_an_interval_of_no_width() -> None:
    references = np.arange(50) % 2
    for name in "accuracy", "f1", "matthews":
        assert bootstrap_ci(metric_function(name, 2), references, references, resamples=100) == (1.0, 1.0)


def test_resamples_in_which_one_side_is_constant_count_as_no_correlation() -> None:
    # Of two different rows, half of the resamples hold one row twice.
    values = np.array([0.0, 1.0])
    assert bootstrap_ci(metric_function("pearson", 0), values, values, resamples=1000) == (0.0, 1.0)
