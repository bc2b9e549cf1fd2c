"""Whether a difference is more than chance: of seeds, and of test rows. Pure functions of numbers.

Seeds are independent draws, so two groups of them are compared by Welch's t-test (B. L. Welch, "The generalization of
'Student's' problem when several different population variances are involved", Biometrika 34, 1947). A single seed has
no variance of its own; against several it is one further draw (Hahn & Meeker, Statistical Intervals, 1991, section
4.7). Two models that judged the same rows are compared row by row: McNemar's exact test (Q. McNemar, Psychometrika 12,
1947) and the paired bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

if TYPE_CHECKING:  # imports `evaluate`, which takes seconds
    from reprise.tasks.metrics.registry import MetricFunction

CONFIDENCE = 0.95
LOWER_IS_BETTER = frozenset({"loss"})
# Below which a p-value is told.
LEVELS = (0.001, 0.01, 0.05)
RESAMPLES = 1000
SEED = 0  # of the resamples: the same rows are drawn for every pair of runs


@dataclass(frozen=True)
class Summary:
    """A figure over the seeds of a side.

    Attributes:
        n: how many seeds.
        mean: arithmetic mean.
        sd: standard deviation of the sample (n - 1), None of one seed.
        low: the smallest.
        high: the largest.
    """

    n: int
    mean: float
    sd: float | None
    low: float
    high: float


@dataclass(frozen=True)
class TTestResult:
    """How far apart the means of two sides are, the second less the first.

    Attributes:
        before: the first side.
        after: the second side.
        difference: of the means.
        low: the lower end of the interval of the difference, None where the seeds do not tell one.
        high: its upper end.
        p: how often seeds alone would set the means at least as far apart, None likewise; times the number of figures.
    """

    before: Summary
    after: Summary
    difference: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class McNemarResult:
    """Two models on the same rows: how many only the first, and only the second, got right, and McNemar's p."""

    only_before: int
    only_after: int
    p: float


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and ends of at least one value; not a number if one of them is none."""
    drawn = np.asarray(values, np.float64)
    spread = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else None
    return Summary(len(drawn), float(drawn.mean()), spread, float(drawn.min()), float(drawn.max()))


def t_test(before: Sequence[float], after: Sequence[float], metrics: int) -> TTestResult:
    """Compare two sides by Welch's t-test, which takes no equal variances for granted.

    Where one side has one seed, Student's t-test takes them for granted after all. It is then the prediction interval
    of one more seed of the other side, mean ± t(n-1) · sd · √(1 + 1/n), and asks whether the single one could be that.

    One of several figures differs by luck more often than the only one does. So a p-value is multiplied by their number
    and an interval widened accordingly (Bonferroni; O. J. Dunn, JASA 56, 1961): all intervals together hold in at least
    95 of 100 cases, however the figures hang together, and an interval leaves out 0 exactly where p is below 0.05.

    Args:
        before: the first side's value of each seed.
        after: the second side's.
        figures: how many figures are compared at once.

    Returns:
        A contrast without interval and p where both sides have one seed, where neither side varies (two seeds cannot
        tell how far a third would be), and where a value is not finite.
    """
    first, second = summarize(before), summarize(after)
    difference = second.mean - first.mean
    untold = TTestResult(first, second, difference, None, None, None)
    if not (first.sd or second.sd) or not math.isfinite(difference):
        return untold
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that differ in their last bits; told as not finite
        single = None in (first.sd, second.sd)
        tested = stats.ttest_ind(np.asarray(after, np.float64), np.asarray(before, np.float64), equal_var=single)
        ends = tested.confidence_interval(1 - (1 - CONFIDENCE) / metrics)
    told = (float(ends.low), float(ends.high), float(tested.pvalue))
    if not all(map(math.isfinite, told)):
        return untold
    return TTestResult(first, second, difference, told[0], told[1], min(1.0, told[2] * metrics))


def verdict(name: str, told: TTestResult, known_sd: float | None = None) -> str:
    """What a contrast means, in words.

    Args:
        name: of the figure; of those in LOWER_IS_BETTER, less is better.
        told: the contrast.
        known_sd: the standard deviation over seeds that was measured before, for sides of one seed.
    """
    n = f"n={told.before.n} and {told.after.n}"
    if not math.isfinite(told.difference):
        return f"not a number on a side: cannot tell, {n}"
    singles = [side.n == 1 for side in (told.before, told.after)]
    if told.p is not None:
        other = f" than another seed of the {'second' if singles[0] else 'first'} side" if any(singles) else ""
        if told.p >= 1 - CONFIDENCE:
            return f"inside seed noise{', as far as one seed tells' if other else ''}, {n}"
        good = (told.difference > 0) != (name in LOWER_IS_BETTER)
        return f"{'better' if good else 'worse'}{other}, {format_p(told.p)}, {n}"
    if all(singles):
        spread = "" if known_sd is None else f"; the task's known spread is ±{known_sd:.2g}"
        return f"one seed a side: cannot tell{spread}"
    if any(singles):
        return f"one seed on the {'first' if singles[0] else 'second'} side: cannot tell; the other's do not differ"
    if told.difference == 0:
        return f"the same for every seed, {n}"
    return f"no seed differs from the others of its side: cannot tell, {n}"


def format_p(p: float) -> str:
    """A p-value by the first of LEVELS that it is below, else to two digits."""
    return next((f"p<{level:g}" for level in LEVELS if p < level), f"p={p:.2f}")


def mcnemar(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> McNemarResult:
    """McNemar's exact test: of the rows that one model alone got right, is it as often the one as the other?

    Args:
        before: which rows the first model got right, shape [rows].
        after: the same of the second.
    """
    only_before, only_after = int(np.sum(before & ~after)), int(np.sum(after & ~before))
    rows = only_before + only_after
    p = float(stats.binomtest(only_after, rows, 0.5).pvalue) if rows else 1.0
    return McNemarResult(only_before, only_after, p)


def paired_bootstrap_ci(
    score: "MetricFunction",
    before: npt.NDArray[np.generic],
    after: npt.NDArray[np.generic],
    references: npt.NDArray[np.generic],
) -> tuple[float, float] | None:
    """The 95 % interval of how much higher the second model scores, over rows drawn with replacement.

    Percentile bootstrap with RESAMPLES resamples; of a row, both predictions and the reference are drawn together.

    Args:
        score: takes predictions and references.
        before: the first model's predictions, shape [rows].
        after: the second's.
        references: shape [rows].

    Returns:
        None where there are fewer than two rows, or a score of them is not finite.
    """
    if len(references) < 2:
        return None

    def gain(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]) -> float:
        return score(second, truth) - score(first, truth)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples that have no score; told as not finite
        result = stats.bootstrap(
            (before, after, references), gain, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
            method="percentile", paired=True, vectorized=False, rng=np.random.default_rng(SEED),
        )  # fmt: skip
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
