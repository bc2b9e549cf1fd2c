"""95 % confidence intervals of metrics over the choice of examples; docs/guides/experiments.md compares them.

The percentile bootstrap has width zero where every prediction is correct, and is too narrow near there: it cannot draw
an error that it has not seen. So a proportion gets Wilson's interval, a function of the confusion matrix the Bayesian
bootstrap, and only numbers, which are never all correct, a bootstrap.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.generic]
MetricFunction = Callable[[Values, Values], float]  # predictions and references, each of [examples]
MatrixFunction = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]  # [draws, labels, labels] to [draws]

# One fixed seed: two runs on the same examples are compared on the same resamples.
SEED = 0
CONFIDENCE = 0.95
# BCa computes the metric once more for each example; with more examples its correction is smaller than the noise.
BCA_MAX_EXAMPLES = 5_000
BATCH = 256  # resamples in memory at a time
MAX_CELLS = 2**20  # of confusion matrices in memory at a time


@dataclass(frozen=True)
class Interval:
    """A 95 % interval. Both bounds are None where the examples do not determine one.

    Attributes:
        low: lower bound.
        high: upper bound.
        method: how it was computed.
    """

    low: float | None
    high: float | None
    method: str


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the score interval of a proportion (E. B. Wilson, JASA 22, 1927; Brown, Cai & DasGupta 2001)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_interval(predictions: Values, references: Values, _positive: int | None, _resamples: int) -> Interval:
    """Return Wilson's interval of the fraction of correct predictions."""
    return Interval(*wilson(int(np.sum(predictions == references)), len(references)), "Wilson")


def f1_interval(predictions: Values, references: Values, positive: int | None, resamples: int) -> Interval:
    """Return the interval of F1: of two labels Wilson's, of more the Bayesian bootstrap.

    F1 of two labels is 2θ / (1 + θ), with θ the fraction of true positives among the examples that are positive in
    prediction or reference (K. F. Y. Lam, V. Gopal & J. Qian, arXiv:2309.14621, "Wilson indirect").
    """
    if positive is None:
        return matrix_interval(macro_f1, predictions, references, resamples)
    predicted, actual = predictions == positive, references == positive
    trials = int(np.sum(predicted | actual))
    if not trials:
        return Interval(None, None, "Wilson")
    low, high = wilson(int(np.sum(predicted & actual)), trials)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high), "Wilson")


def matthews_interval(predictions: Values, references: Values, _positive: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of Matthews' correlation coefficient."""
    return matrix_interval(matthews_of, predictions, references, resamples)


def matrix_interval(score: MatrixFunction, predictions: Values, references: Values, resamples: int) -> Interval:
    """Return the interval of a function of the confusion matrix, by the Bayesian bootstrap with one pseudo-example.

    The cells are drawn from a Dirichlet distribution of their counts (D. B. Rubin, Annals of Statistics 9, 1981; O.
    Caelen, "A Bayesian interpretation of the confusion matrix", 2017). One more example is spread evenly over all cells
    (Perks' prior), so that an error that was not seen has a chance. The interval is extended to the metric itself.
    """
    method = "Bayesian bootstrap"
    occurring, ids = np.unique([references, predictions], return_inverse=True)
    size = len(occurring)
    if size < 2:  # with a single label there is no other to confuse it with
        return Interval(None, None, method)
    actual, predicted = ids.reshape(2, -1)
    counts = np.bincount(size * actual + predicted, minlength=size**2).astype(np.float64)
    random, batch = np.random.default_rng(SEED), max(1, MAX_CELLS // size**2)
    scores = np.concatenate(
        [
            score(random.dirichlet(counts + 1 / size**2, min(batch, resamples - done)).reshape(-1, size, size))
            for done in range(0, resamples, batch)
        ]
    )
    estimate = float(score(counts.reshape(1, size, size))[0])
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(min(float(low), estimate), max(float(high), estimate), method)


def macro_f1(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average F1 over the labels of confusion matrices, [draws, actual, predicted]; each label occurs."""
    both = matrices.sum(axis=2) + matrices.sum(axis=1)
    return np.asarray((2 * np.diagonal(matrices, axis1=1, axis2=2) / both).mean(axis=1))


def matthews_of(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute Matthews' correlation of confusion matrices, [draws, actual, predicted]; 0 where it is not defined."""
    total = matrices.sum(axis=(1, 2))
    actual, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    covariance = np.trace(matrices, axis1=1, axis2=2) * total - (actual * predicted).sum(axis=1)
    variances = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return np.where(variances > 0, covariance / np.sqrt(np.where(variances > 0, variances, 1)), 0.0)


def bootstrap_interval(score: MetricFunction, predictions: Values, references: Values, resamples: int) -> Interval:
    """Return the bootstrap interval of a metric over resampled (prediction, reference) pairs.

    It is bias-corrected and accelerated (BCa; Efron & Tibshirani 1993, chapter 14) for up to BCA_MAX_EXAMPLES examples,
    and the percentile bootstrap beyond. There is none for fewer than two examples or equal resamples.
    """
    from scipy.stats import bootstrap

    bca = len(references) <= BCA_MAX_EXAMPLES
    undetermined = Interval(None, None, "BCa bootstrap" if bca else "percentile bootstrap")
    if len(references) < 2:
        return undetermined
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # equal resamples give bounds that are not finite
        found = bootstrap(
            (predictions, references),
            score,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method="BCa" if bca else "percentile",
            paired=True,
            vectorized=False,
            batch=BATCH,
            rng=np.random.default_rng(SEED),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return undetermined
    estimate = score(predictions, references)
    return Interval(min(low, estimate), max(high, estimate), undetermined.method)
