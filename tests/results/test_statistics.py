"""Whether a difference is more than chance: against numbers worked by hand, SciPy, and what must always hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reprise.results.statistics import mcnemar, paired_bootstrap_ci, summarize, t_test, verdict

FIRST, SECOND = [0.80, 0.82, 0.84], [0.90, 0.91, 0.92, 0.93]
drawn = st.lists(st.floats(0, 1).map(lambda value: round(value, 4)), min_size=1, max_size=8)


def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    return float(np.mean(predictions == references))


def test_a_side_is_its_mean_and_the_deviation_of_a_sample() -> None:
    told = summarize(FIRST)
    assert (told.n, told.mean, told.low, told.high) == (3, pytest.approx(0.82), 0.80, 0.84)
    assert told.sd == pytest.approx(0.02)  # √(2 · 0.02² / 2)
    assert summarize([0.5]).sd is None


def test_welchs_interval_is_the_one_worked_by_hand() -> None:
    # Variances 0.0004 and 0.00016667; over n: 0.00013333 and 0.00004167, together 0.000175. Welch and Satterthwaite's
    # degrees of freedom: 3.0625e-8 / (1.7778e-8 / 2 + 1.7361e-9 / 3) = 3.2347.
    told = t_test(FIRST, SECOND, metrics=1)
    assert told.difference == pytest.approx(0.095)
    t, freedom = 0.095 / math.sqrt(0.000175), 0.000175**2 / ((0.0004 / 3) ** 2 / 2 + (0.0005 / 3 / 4) ** 2 / 3)
    assert freedom == pytest.approx(3.2347, abs=1e-4)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(0.000175)
    assert (told.low, told.high) == pytest.approx((0.095 - half, 0.095 + half))
    assert told.p == pytest.approx(2 * stats.t.sf(t, freedom))


def test_one_seed_against_several_is_asked_whether_it_could_be_one_more_of_them() -> None:
    # Mean 0.82, deviation 0.02: the prediction interval is ± t(2) · 0.02 · √(4/3); the single one is 0.13 above.
    told = t_test(FIRST, [0.95], metrics=1)
    scale = 0.02 * math.sqrt(4 / 3)
    half = 4.302653 * scale  # t(0.975, 2)
    assert (told.low, told.high) == pytest.approx((0.13 - half, 0.13 + half), abs=1e-6)
    # The tail of t with two degrees of freedom is (1 - t / √(2 + t²)) / 2.
    t = 0.13 / scale
    assert told.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_several_figures_share_the_five_percent() -> None:
    one, five = t_test(FIRST, SECOND, metrics=1), t_test(FIRST, SECOND, metrics=5)
    assert one.p is not None
    assert five.p == pytest.approx(5 * one.p)
    ends = stats.ttest_ind(SECOND, FIRST, equal_var=False).confidence_interval(0.99)
    assert (five.low, five.high) == pytest.approx((ends.low, ends.high))


def test_two_groups_of_one_recipe_are_told_apart_in_no_more_cases_than_it_says() -> None:
    draw = np.random.default_rng(0).normal(0.8, 0.01, (1500, 2, 5))
    found = sum(t_test(first, second, metrics=1).p < 0.05 for first, second in draw.tolist())
    # At most 5 %, and three times √(0.05 · 0.95 / 1500) more by chance.
    assert found / 1500 < 0.05 + 0.017


@settings(deadline=None)  # a busy machine is no failure
@given(drawn, drawn, st.integers(1, 6))
def test_the_other_way_round_it_is_the_same_with_the_other_sign(
    first: list[float], second: list[float], metrics: int
) -> None:
    there, back = t_test(first, second, metrics), t_test(second, first, metrics)
    assert there.difference == -back.difference
    assert (there.p is None) == (back.p is None)
    if there.p is not None and there.low is not None and there.high is not None:
        assert there.p == pytest.approx(back.p)
        assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


@settings(deadline=None)  # a busy machine is no failure
@given(drawn, drawn, st.integers(1, 6))
def test_an_interval_leaves_out_zero_where_the_verdict_says_better_or_worse(
    first: list[float], second: list[float], metrics: int
) -> None:
    told = t_test(first, second, metrics)
    if told.p is not None and told.low is not None and told.high is not None and abs(told.p - 0.05) > 1e-6:
        assert (told.low > 0 or told.high < 0) == (told.p < 0.05)
        assert verdict("accuracy", told).startswith("inside seed noise") == (told.p >= 0.05)


@pytest.mark.parametrize(
    ("name", "first", "second", "known", "words"),
    [
        ("accuracy", FIRST, SECOND, None, "better, p<0.01, n=3 and 4"),
        ("accuracy", SECOND, FIRST, None, "worse, p<0.01, n=4 and 3"),
        ("loss", SECOND, FIRST, None, "better, p<0.01, n=4 and 3"),
        ("accuracy", FIRST, FIRST, None, "inside seed noise, n=3 and 3"),
        ("accuracy", [0.8], [0.9], 0.0061, "one seed a side: cannot tell; the task's known spread is ±0.0061"),
        ("accuracy", [0.8], [0.9], None, "one seed a side: cannot tell"),
        ("f1", [0.8], FIRST, 0.5, "inside seed noise, as far as one seed tells, n=1 and 3"),
        ("f1", FIRST, [0.95], 0.5, "better than another seed of the first side, p<0.05, n=3 and 1"),
        ("f1", [0.95], FIRST, 0.5, "worse than another seed of the second side, p<0.05, n=1 and 3"),
        ("f1", FIRST, [math.nan], 0.5, "not a number on a side: cannot tell, n=3 and 1"),
        ("f1", [0.8], [0.9, 0.9], 0.5, "one seed on the first side: cannot tell; the other's do not differ"),
        ("f1", [0.8, 0.8], [0.9, 0.9], None, "no seed differs from the others of its side: cannot tell, n=2 and 2"),
        ("accuracy", [0.8, 0.8], [0.8, 0.8], None, "the same for every seed, n=2 and 2"),
        ("pearson", [math.nan, 0.8], [0.9, 0.9], None, "not a number on a side: cannot tell, n=2 and 2"),
        ("pearson", [math.nan], [0.9], 0.1, "not a number on a side: cannot tell, n=1 and 1"),
    ],
)  # fmt: skip
def test_a_verdict_is_in_words(
    name: str, first: list[float], second: list[float], known: float | None, words: str
) -> None:
    assert verdict(name, t_test(first, second, metrics=1), known) == words


def test_a_side_that_does_not_vary_still_has_the_others_noise() -> None:
    told = t_test([0.8, 0.8, 0.8], [0.80, 0.84], metrics=1)
    # The other's standard error alone: 0.0282843 / √2 = 0.02, with one degree of freedom, so t = 1 and p = 1/2.
    assert told.p == pytest.approx(0.5)


def test_mcnemar_counts_what_only_one_got_right() -> None:
    first = np.array([True] * 8 + [False] * 2 + [True] * 5)
    second = np.array([False] * 8 + [True] * 2 + [True] * 5)
    told = mcnemar(first, second)
    # 10 throws of a coin, 2 or fewer of one side: 2 · (1 + 10 + 45) / 1024.
    assert (told.only_before, told.only_after, told.p) == (8, 2, pytest.approx(112 / 1024))
    assert mcnemar(first, first).p == 1.0


def test_a_paired_interval_is_that_of_the_mean_gain_per_row() -> None:
    draw = np.random.default_rng(1)
    truth, first, second = draw.integers(0, 2, (3, 400))
    second[:300] = truth[:300]
    low, high = paired_bootstrap_ci(accuracy, first, second, truth) or (0.0, 0.0)
    gains = (second == truth).astype(float) - (first == truth)
    half = 1.96 * gains.std() / 20  # √400
    assert (low, high) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=0.01)
    assert paired_bootstrap_ci(accuracy, first, first, truth) == (0.0, 0.0)


def test_a_single_row_and_a_score_that_is_none_give_no_interval() -> None:
    one = np.array([1])
    assert paired_bootstrap_ci(accuracy, one, one, one) is None
    same = np.ones(5)
    assert paired_bootstrap_ci(lambda *_: math.nan, same, same, same) is None
