"""Compute confidence intervals by the percentile bootstrap (Efron & Tibshirani 1993, chapter 13)."""

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from reprise.tasks.metrics.registry import MetricFunction

# One fixed seed: two runs on the same examples are compared on the same resamples.
SEED = 0
CONFIDENCE = 0.95


def bootstrap_ci(
    score: MetricFunction, predictions: npt.NDArray[np.generic], references: npt.NDArray[np.generic], resamples: int
) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a metric over resampled (prediction, reference) pairs.

    Args:
        score: The metric, a function of predictions and references.
        predictions: Shape [examples].
        references: Shape [examples].
        resamples: Number of bootstrap resamples.

    Returns:
        The lower and the upper bound; both are the metric itself for fewer than two examples.
    """
    if len(references) < 2:
        value = score(predictions, references)
        return value, value
    result = bootstrap(
        (predictions, references),
        score,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        paired=True,
        vectorized=False,
        rng=np.random.default_rng(SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
