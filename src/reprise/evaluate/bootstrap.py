"""How far a metric would move with other test rows: percentile bootstrap (Efron & Tibshirani 1993, chapter 13)."""

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from reprise.tasks.metrics.registry import MetricFunction

# The resamples are the same for every run, so that two runs on the same rows are compared on the same resamples.
SEED = 0
CONFIDENCE = 0.95


def bootstrap_ci(
    score: MetricFunction, predictions: npt.NDArray[np.generic], references: npt.NDArray[np.generic], resamples: int
) -> tuple[float, float]:
    """The 95 % interval of `score` over rows drawn with replacement, prediction and reference together.

    Args:
        score: takes predictions and references.
        predictions: shape [rows].
        references: shape [rows].
        resamples: how often the rows are drawn.
    """
    if len(references) < 2:
        only = score(predictions, references)
        return only, only
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
