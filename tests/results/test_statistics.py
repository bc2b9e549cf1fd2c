"""Significance tests against manual calculations, SciPy and invariants."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reprise.results.statistics import mcnemar, paired_bootstrap_ci, summarize, t_test, verdict

FIRST, SECOND = [0.80, 0.82, 0.84], [0.90, 0.91, 0.92, 0.93]
samples = st.lists(st.floats(0, 1).map(lambda value: round(value, 4)), min_size=1, max_size=8)


def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    return float(np.mean(predictions == references))


def test_a_summary_has_mean_and_sample_standard_deviation() -> None:
    result = summarize(FIRST)
    assert (result.n, result.mean, result.low, result.high) == (3, pytest.approx(0.82), 0.80, 0.84)
    assert result.sd == pytest.approx(0.02)  # √(2 · 0.02² / 2)
    assert summarize([0.5]).sd is None


def test_welchs_interval_equals_the_manual_calculation() -> None:
    # Variances 0.0004 and 0.00016667; over n: 0.00013333 and 0.00004167, together 0.000175. Welch and Satterthwaite's
    # degrees of freedom: 3.0625e-8 / (1.7778e-8 / 2 + 1.7361e-9 / 3) = 3.2347.
    result = t_test(FIRST, SECOND, metrics=1)
    assert result.difference == pytest.approx(0.095)
    t, freedom = 0.095 / math.sqrt(0.000175), 0.000175**2 / ((0.0004 / 3) ** 2 / 2 + (0.0005 / 3 / 4) ** 2 / 3)
    assert freedom == pytest.approx(3.2347, abs=1e-4)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(0.000175)
    assert (result.low, result.high) == pytest.approx((0.095 - half, 0.095 + half))
    assert result.p == pytest.approx(2 * stats.t.sf(t, freedom))


def test_one_seed_against_several_equals_the_prediction_interval() -> None:
    # Mean 0.82, sd 0.02: the prediction interval is ± t(2) · 0.02 · √(4/3); the single seed is 0.13 above the mean.
    result = t_test(FIRST, [0.95], metrics=1)
    scale = 0.02 * math.sqrt(4 / 3)
    half = 4.302653 * scale  # t(0.975, 2)
    assert (result.low, result.high) == pytest.approx((0.13 - half, 0.13 + half), abs=1e-6)
    # The tail of t with two degrees of freedom is (1 - t / √(2 + t²)) / 2.
    t = 0.13 / scale
    assert result.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_several_metrics_are_corrected_by_bonferroni() -> None:
    one, five = t_test(FIRST, SECOND, metrics=1), t_test(FIRST, SECOND, metrics=5)
    assert one.p is not None
    assert five.p == pytest.approx(5 * one.p)
    interval = stats.ttest_ind(SECOND, FIRST, equal_var=False).confidence_interval(0.99)
    assert (five.low, five.high) == pytest.approx((interval.low, interval.high))


def test_the_false_positive_rate_is_at_most_nominal() -> None:
    draw = np.random.default_rng(0).normal(0.8, 0.01, (1500, 2, 5))
    significant = sum(t_test(first, second, metrics=1).p < 0.05 for first, second in draw.tolist())
    # At most 5 %, and three times √(0.05 · 0.95 / 1500) more by chance.
    assert significant / 1500 < 0.05 + 0.017


@settings(deadline=None)  # a busy machine may be slow
@given(samples, samples, st.integers(1, 6))
def test_swapping_the_groups_flips_the_sign(first: list[float], second: list[float], metrics: int) -> None:
    forward, back = t_test(first, second, metrics), t_test(second, first, metrics)
    assert forward.difference == -back.difference
    assert (forward.p is None) == (back.p is None)
    if forward.p is not None and forward.low is not None and forward.high is not None:
        assert forward.p == pytest.approx(back.p)
        assert (forward.low, forward.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


@settings(deadline=None)  # a busy machine may be slow
@given(samples, samples, st.integers(1, 6))
def test_an_interval_excludes_zero_exactly_if_the_verdict_is_better_or_worse(
    first: list[float], second: list[float], metrics: int
) -> None:
    result = t_test(first, second, metrics)
    if result.p is not None and result.low is not None and result.high is not None and abs(result.p - 0.05) > 1e-6:
        assert (result.low > 0 or result.high < 0) == (result.p < 0.05)
        assert verdict("accuracy", result).startswith("within seed noise") == (result.p >= 0.05)


@pytest.mark.parametrize(
    ("name", "first", "second", "known_sd", "expected"),
    [
        ("accuracy", FIRST, SECOND, None, "better, p<0.01, n=3 and 4"),
        ("accuracy", SECOND, FIRST, None, "worse, p<0.01, n=4 and 3"),
        ("loss", SECOND, FIRST, None, "better, p<0.01, n=4 and 3"),
        ("rmse", SECOND, FIRST, None, "better, p<0.01, n=4 and 3"),
        ("mae", FIRST, SECOND, None, "worse, p<0.01, n=3 and 4"),
        ("r2", FIRST, SECOND, None, "better, p<0.01, n=3 and 4"),
        ("accuracy", FIRST, FIRST, None, "within seed noise, n=3 and 3"),
        ("accuracy", [0.8], [0.9], 0.0061,
         "inconclusive: one seed per group; the known standard deviation over seeds is 0.0061"),
        ("accuracy", [0.8], [0.9], None, "inconclusive: one seed per group"),
        ("f1", [0.8], FIRST, 0.5, "within seed noise of the other group, n=1 and 3"),
        ("f1", FIRST, [0.95], 0.5, "better than one more seed of the first group, p<0.05, n=3 and 1"),
        ("f1", [0.95], FIRST, 0.5, "worse than one more seed of the second group, p<0.05, n=1 and 3"),
        ("f1", FIRST, [math.nan], 0.5, "inconclusive: a value is not finite, n=3 and 1"),
        ("f1", [0.8], [0.9, 0.9], 0.5, "inconclusive: one seed in the first group, no variance in the other"),
        ("f1", [0.8, 0.8], [0.9, 0.9], None, "inconclusive: no variance in either group, n=2 and 2"),
        ("accuracy", [0.8, 0.8], [0.8, 0.8], None, "the same for every seed, n=2 and 2"),
        ("pearson", [math.nan, 0.8], [0.9, 0.9], None, "inconclusive: a value is not finite, n=2 and 2"),
        ("pearson", [math.nan], [0.9], 0.1, "inconclusive: a value is not finite, n=1 and 1"),
    ],
)  # fmt: skip
def test_verdicts(name: str, first: list[float], second: list[float], known_sd: float | None, expected: str) -> None:
    assert verdict(name, t_test(first, second, metrics=1), known_sd) == expected


def test_a_group_without_variance_is_tested_by_the_variance_of_the_other() -> None:
    result = t_test([0.8, 0.8, 0.8], [0.80, 0.84], metrics=1)
    # The standard error of the second group: 0.0282843 / √2 = 0.02, with one degree of freedom, so t = 1 and p = 1/2.
    assert result.p == pytest.approx(0.5)


def test_mcnemar_counts_examples_that_only_one_model_predicts_correctly() -> None:
    first = np.array([True] * 8 + [False] * 2 + [True] * 5)
    second = np.array([False] * 8 + [True] * 2 + [True] * 5)
    result = mcnemar(first, second)
    # Probability of at most 2 heads or at most 2 tails in 10 coin flips: 2 · (1 + 10 + 45) / 1024.
    assert (result.only_before, result.only_after, result.p) == (8, 2, pytest.approx(112 / 1024))
    assert mcnemar(first, first).p == 1.0


def test_a_paired_interval_is_that_of_the_mean_gain_per_example() -> None:
    draw = np.random.default_rng(1)
    truth, first, second = draw.integers(0, 2, (3, 400))
    second[:300] = truth[:300]
    low, high = paired_bootstrap_ci(accuracy, first, second, truth) or (0.0, 0.0)
    gains = (second == truth).astype(float) - (first == truth)
    half = 1.96 * gains.std() / 20  # √400
    assert (low, high) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=0.01)
    # Predictions that never differ do not show how far those of other examples would.
    assert paired_bootstrap_ci(accuracy, first, first, truth) is None


def test_a_single_example_and_an_undefined_score_give_no_interval() -> None:
    one = np.array([1])
    assert paired_bootstrap_ci(accuracy, one, one, one) is None
    same = np.ones(5)
    assert paired_bootstrap_ci(lambda *_: math.nan, same, same, same) is None
