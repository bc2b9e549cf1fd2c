"""Test whether a difference is significant, over seeds or over test examples. Pure functions of numbers.

Seeds are independent draws, so two groups of seeds are compared by Welch's t-test (B. L. Welch, "The generalization of
'Student's' problem when several different population variances are involved", Biometrika 34, 1947). A single seed has
no variance of its own; against a group it is one further draw (Hahn & Meeker, Statistical Intervals, 1991, section
4.7). Two models evaluated on the same examples are compared example by example: McNemar's exact test (Q. McNemar,
Psychometrika 12, 1947) and the paired bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8
and 13).
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from reprise.tasks.metrics.intervals import MetricFunction
from reprise.tasks.metrics.registry import METRICS

CONFIDENCE = 0.95
LEVELS = (0.001, 0.01, 0.05)  # thresholds at which a p-value is reported
RESAMPLES = 1000
SEED = 0  # of the resamples, so that every pair of runs is resampled alike


@dataclass(frozen=True)
class Summary:
    """A metric over the seeds of a group.

    Attributes:
        n: number of seeds.
        mean: arithmetic mean.
        sd: sample standard deviation (n - 1), None for one seed.
        low: minimum.
        high: maximum.
    """

    n: int
    mean: float
    sd: float | None
    low: float
    high: float


@dataclass(frozen=True)
class TTestResult:
    """Difference between the means of two groups of seeds or folds, second minus first.

    Attributes:
        before: first group.
        after: second group.
        difference: difference of the means.
        low: lower bound of its confidence interval, None if the seeds do not determine one.
        high: upper bound, None likewise.
        p: p-value, corrected for the number of metrics; None likewise.
    """

    before: Summary
    after: Summary
    difference: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class McNemarResult:
    """McNemar's test of two models on the same examples.

    Attributes:
        only_before: number of examples that only the first model predicts correctly.
        only_after: number of examples that only the second model predicts correctly.
        p: p-value.
    """

    only_before: int
    only_after: int
    p: float


def summarize(values: Sequence[float]) -> Summary:
    """Compute mean, sample standard deviation, minimum and maximum; NaN if a value is NaN.

    Args:
        values: at least one value.
    """
    sample = np.asarray(values, np.float64)
    sd = float(np.std(sample, ddof=1)) if len(sample) > 1 else None
    return Summary(len(sample), float(sample.mean()), sd, float(sample.min()), float(sample.max()))


def t_test(before: Sequence[float], after: Sequence[float], metrics: int) -> TTestResult:
    """Compare two groups of seeds by Welch's t-test, which does not assume equal variances.

    If one group has a single seed, Student's t-test with equal variances is used. It is equivalent to the prediction
    interval of one further seed of the other group, mean ± t(n-1) · sd · √(1 + 1/n): could the single seed be one?

    Among several metrics some differ by chance. Therefore p-values are multiplied by the number of metrics, and
    intervals are widened accordingly (Bonferroni; O. J. Dunn, JASA 56, 1961). All intervals hold together with 95 %
    probability, however the metrics are correlated, and an interval excludes 0 exactly if p is below 0.05.

    Args:
        before: value of each seed of the first group.
        after: value of each seed of the second group.
        metrics: number of metrics that are compared.

    Returns:
        The result; without interval and p-value if both groups have one seed, neither group varies, or a value is not
        finite.
    """
    first, second = summarize(before), summarize(after)
    difference = second.mean - first.mean
    inconclusive = TTestResult(first, second, difference, None, None, None)
    if not (first.sd or second.sd) or not math.isfinite(difference):
        return inconclusive
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # values that differ in their last bits give non-finite results
        single = None in (first.sd, second.sd)
        tested = stats.ttest_ind(np.asarray(after, np.float64), np.asarray(before, np.float64), equal_var=single)
        interval = tested.confidence_interval(1 - (1 - CONFIDENCE) / metrics)
    low, high, p = float(interval.low), float(interval.high), float(tested.pvalue)
    if not all(map(math.isfinite, (low, high, p))):
        return inconclusive
    return TTestResult(first, second, difference, low, high, min(1.0, p * metrics))


def verdict(name: str, result: TTestResult, known_sd: float | None = None, unit: str = "seed") -> str:
    """Describe the result of a t-test in words.

    Args:
        name: name of the metric; which knows its direction.
        result: result of the test.
        known_sd: standard deviation over seeds that was measured before, for groups of one seed.
        unit: what the values of a group are of, `seed` or `fold`.
    """
    n = f"n={result.before.n} and {result.after.n}"
    if not math.isfinite(result.difference):
        return f"inconclusive: a value is not finite, {n}"
    singles = [group.n == 1 for group in (result.before, result.after)]
    if result.p is not None:
        if result.p >= 1 - CONFIDENCE:
            return f"within {unit} noise{' of the other group' if any(singles) else ''}, {n}"
        other = f" than one more seed of the {'second' if singles[0] else 'first'} group" if any(singles) else ""
        better = (result.difference > 0) == is_greater_better(name)
        return f"{'better' if better else 'worse'}{other}, {format_p(result.p)}, {n}"
    if all(singles):
        spread = "" if known_sd is None else f"; the known standard deviation over seeds is {known_sd:.2g}"
        return f"inconclusive: one seed per group{spread}"
    if any(singles):
        return f"inconclusive: one seed in the {'first' if singles[0] else 'second'} group, no variance in the other"
    if result.difference == 0:
        return f"the same for every {unit}, {n}"
    return f"inconclusive: no variance in {'either group' if unit == 'seed' else 'the differences'}, {n}"


def is_greater_better(name: str) -> bool:
    """Return the direction of a metric; one that no longer exists counts as greater is better, the loss as lower."""
    return METRICS[name].greater_is_better if name in METRICS else name != "loss"


def format_p(p: float) -> str:
    """Format a p-value by the smallest of `LEVELS` above it, or to two digits."""
    return next((f"p<{level:g}" for level in LEVELS if p < level), f"p={p:.2f}")


def mcnemar(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> McNemarResult:
    """Run McNemar's exact test on the examples that exactly one of two models predicts correctly.

    Args:
        before: whether the first model is correct, shape [examples].
        after: whether the second model is correct, shape [examples].
    """
    only_before, only_after = int(np.sum(before & ~after)), int(np.sum(after & ~before))
    discordant = only_before + only_after
    p = float(stats.binomtest(only_after, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemarResult(only_before, only_after, p)


def paired_bootstrap_ci(
    score: MetricFunction,
    before: npt.NDArray[np.generic],
    after: npt.NDArray[np.generic],
    references: npt.NDArray[np.generic],
) -> tuple[float, float] | None:
    """Compute the 95 % confidence interval of the second model's score minus the first's, over examples.

    Percentile bootstrap with RESAMPLES resamples; an example is drawn with both predictions and its reference.

    Args:
        score: computes a metric from predictions and references.
        before: predictions of the first model, shape [examples] or [examples, labels].
        after: predictions of the second model, of the same shape.
        references: true labels or values, of the same shape.

    Returns:
        The interval, None for fewer than two examples, for a score that is not finite, and for resamples that are all
        equal, as of models that never disagree: these do not show how far others would.
    """
    if len(references) < 2:
        return None

    def gain(rows: npt.NDArray[np.int64]) -> float:
        return score(after[rows], references[rows]) - score(before[rows], references[rows])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # resamples without a defined score give a non-finite result
        result = stats.bootstrap(
            (np.arange(len(references)),), gain, n_resamples=RESAMPLES, confidence_level=CONFIDENCE,
            method="percentile", vectorized=False, rng=np.random.default_rng(SEED),
        )  # fmt: skip
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else None
