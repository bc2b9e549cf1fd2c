"""What a cross-validation says about a recipe, and about the difference of two. Pure functions.

The folds' results are not independent: every two training splits share most of their examples, so the variance over
the folds underestimates that of the mean. Nadeau & Bengio (Inference for the generalization error, Machine Learning 52,
2003) therefore multiply it by 1/J + n_test/n_train in place of 1/J, for J results.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from reprise.core.errors import UserError
from reprise.results.runs import FOLDS_PREFIX, Fold, Run
from reprise.results.statistics import CONFIDENCE, TTestResult, summarize

# Standard deviation relative to the values below which they differ by rounding alone.
NO_SPREAD = 1e-12


def standard_error(values: Sequence[float], folds: int) -> float | None:
    """Return the corrected standard error of the mean over folds.

    Args:
        values: one for each fold, of one division into folds or of several.
        folds: the number of folds of a division. A fold has on average 1 / (folds - 1) of the examples that train.

    Returns:
        The standard error; None if the values do not vary, or one is not finite.
    """
    summary = summarize(values)
    if summary.sd is None or not summary.sd > NO_SPREAD * max(abs(summary.low), abs(summary.high)):
        return None
    return summary.sd * math.sqrt(1 / summary.n + 1 / (folds - 1))


def mean_interval(values: Sequence[float], folds: int, metrics: int = 1) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean over folds, by the corrected resampled t-test.

    Args:
        values: as for `standard_error`.
        folds: as for `standard_error`.
        metrics: number of intervals that shall hold together (Bonferroni).

    Returns:
        Its bounds; None where there is no standard error.
    """
    error = standard_error(values, folds)
    if error is None:
        return None
    half = float(stats.t.ppf(1 - (1 - CONFIDENCE) / metrics / 2, len(values) - 1)) * error
    mean = summarize(values).mean
    return mean - half, mean + half


def paired_t_test(before: Sequence[float], after: Sequence[float], folds: int, metrics: int) -> TTestResult:
    """Compare two recipes fold by fold, by the corrected resampled t-test.

    Args:
        before: value of each fold of the first recipe.
        after: value of each fold of the second recipe, in the same order.
        folds: the number of folds of a division.
        metrics: number of metrics that are compared, as for `statistics.t_test`.

    Returns:
        The result; without interval and p-value if the differences do not vary, or a value is not finite.
    """
    first, second = summarize(before), summarize(after)
    differences = (np.asarray(after, np.float64) - np.asarray(before, np.float64)).tolist()
    difference = summarize(differences).mean
    error, interval = standard_error(differences, folds), mean_interval(differences, folds, metrics)
    if error is None or interval is None:
        return TTestResult(first, second, difference, None, None, None)
    p = 2 * float(stats.t.sf(abs(difference) / error, len(differences) - 1))
    return TTestResult(first, second, difference, *interval, min(1.0, p * metrics))


def folds_of(runs: Sequence[Run]) -> list[str]:
    """Name the fold of each run: its number, with several divisions after the seed of its own; [] without folds."""
    folds = [run.fold for run in runs if run.fold is not None]
    if len(folds) < len(runs):
        return []
    several = len({fold.split_seed for fold in folds}) > 1
    return [name_fold(fold, several=several) for fold in folds]


def name_fold(fold: Fold, *, several: bool) -> str:
    """Name a fold; with `several` divisions, also the seed of its division."""
    return f"{fold.split_seed}-{fold.number}" if several else str(fold.number)


def paired_folds(before: tuple[str, Sequence[Run]], after: tuple[str, Sequence[Run]]) -> int | None:
    """Return the number of folds by which two groups are compared.

    Args:
        before: selector and runs of the first group.
        after: selector and runs of the second group.

    Returns:
        The folds of a division; None if neither selector is of folds.

    Raises:
        UserError: only one of them is, or the groups are not of the same folds.
    """
    selectors = [selector.startswith(FOLDS_PREFIX) for selector, _ in (before, after)]
    if not any(selectors):
        return None
    if not all(selectors):
        (other,) = (group[0] for group, of_folds in zip((before, after), selectors, strict=True) if not of_folds)
        raise UserError("is compared with folds", key=other, expected=f"a group of folds, too: {FOLDS_PREFIX}…")
    first, second = (_division(runs) for _, runs in (before, after))
    if first != second:
        names = [", ".join(folds_of(runs)) for _, runs in (before, after)]
        found = f"folds {names[0]} and {names[1]}" if names[0] != names[1] else "the data was divided in another way"
        raise UserError(found, key=after[0], expected=f"the folds of {before[0]}")
    if len(before[1]) < 2:
        raise UserError("has one fold", key=before[0], expected="the folds of `reprise cv`")
    return int(before[1][0].result.recipe["task.split.folds"])


def _division(runs: Sequence[Run]) -> tuple[list[Fold | None], dict[str, object]]:
    """Return the folds of a group, and the keys that decide which example is in which."""
    keys = ("task.source.", "task.split.", "task.filter.", "task.max_examples", "task.text_columns")
    recipe = runs[0].result.recipe
    divided = {key: value for key, value in recipe.items() if key.startswith(keys) and key != "task.split.seed"}
    return [run.fold for run in runs], divided
