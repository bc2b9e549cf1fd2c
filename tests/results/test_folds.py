"""The corrected resampled t-test against manual calculations, and groups of folds."""

import math

import numpy as np
import pytest
from scipy import stats

from reprise.results.folds import mean_interval, paired_t_test, standard_error
from reprise.results.statistics import verdict

FIRST, SECOND = [0.80, 0.82, 0.84, 0.86, 0.88], [0.84, 0.84, 0.88, 0.88, 0.92]


def test_the_standard_error_counts_that_training_splits_share_examples() -> None:
    # Variance (0.04² + 0.02² + 0 + 0.02² + 0.04²) / 4 = 0.001, times 1/5 + 1/4: a fold has a quarter of the rows of
    # the four that train.
    assert standard_error(FIRST, folds=5) == pytest.approx(math.sqrt(0.001 * 0.45))
    # Ten results of two divisions: variance 2 · 0.004 / 9, times 1/10 + 1/4.
    assert standard_error(FIRST * 2, folds=5) == pytest.approx(math.sqrt(0.008 / 9 * 0.35))


def test_the_interval_of_the_mean_equals_the_manual_calculation() -> None:
    # t(0.975, 4) = 2.776445; 0.84 ± 2.776445 · 0.0212132
    assert mean_interval(FIRST, folds=5) == pytest.approx((0.781103, 0.898897), abs=1e-6)


def test_recipes_are_compared_fold_by_fold() -> None:
    # Differences 0.04, 0.02, 0.04, 0.02, 0.04: mean 0.032, variance (3 · 0.008² + 2 · 0.012²) / 4 = 0.00012.
    result = paired_t_test(FIRST, SECOND, folds=5, metrics=1)
    error = math.sqrt(0.00012 * 0.45)
    assert result.difference == pytest.approx(0.032)
    assert (result.low, result.high) == pytest.approx((0.032 - 2.776445 * error, 0.032 + 2.776445 * error), abs=1e-6)
    assert result.p == pytest.approx(2 * stats.t.sf(0.032 / error, 4))
    assert verdict("accuracy", result, unit="fold") == "better, p<0.05, n=5 and 5"
    assert verdict("rmse", result, unit="fold").startswith("worse")


def test_several_metrics_are_corrected_by_bonferroni() -> None:
    one, five = (paired_t_test(FIRST, SECOND, folds=5, metrics=metrics) for metrics in (1, 5))
    assert one.p is not None
    assert five.p == pytest.approx(5 * one.p)
    assert five.low is not None
    assert five.low < 0 < five.p - 0.05  # the interval has 0 exactly if p is above 0.05
    assert verdict("accuracy", five, unit="fold") == "within fold noise, n=5 and 5"


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (FIRST, "the same for every fold"),
        ([value + 0.1 for value in FIRST], "inconclusive: no variance in the differences"),
        ([*FIRST[:4], math.nan], "inconclusive: a value is not finite"),
    ],
)
def test_differences_that_do_not_vary_have_no_p_value(after: list[float], expected: str) -> None:
    result = paired_t_test(FIRST, after, folds=5, metrics=1)
    assert (result.low, result.high, result.p) == (None, None, None)
    assert verdict("accuracy", result, unit="fold").startswith(expected)


def test_without_an_effect_few_comparisons_find_one() -> None:
    # Folds whose results are as correlated as Nadeau & Bengio assume, n_test / (n_test + n_train) = 1/5.
    draw = np.random.default_rng(0)
    common, own = draw.normal(0, 1, (2000, 1)), draw.normal(0, 1, (2000, 5))
    differences = math.sqrt(0.2) * common + math.sqrt(0.8) * own
    found = [paired_t_test([0.0] * 5, row.tolist(), folds=5, metrics=1).p for row in differences]
    assert np.mean([p is not None and p < 0.05 for p in found]) == pytest.approx(0.05, abs=0.015)
