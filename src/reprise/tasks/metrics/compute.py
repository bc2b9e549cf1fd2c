"""Metrics through the library `evaluate`, which takes seconds to import."""

from collections.abc import Sequence

import numpy.typing as npt

from reprise.core.files import scratch_dir
from reprise.tasks.metrics.evaluate_module import RepriseMetric
from reprise.tasks.metrics.registry import METRICS


def compute(
    names: Sequence[str],
    predictions: npt.ArrayLike,
    references: npt.ArrayLike,
    *,
    positive: int | None,
    probabilities: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Compute each named metric of the registry, in this order.

    Args:
        names: of the metrics.
        predictions: label ids, or numbers in regression, shape [examples]; with any number of labels, 0 or 1 for each,
            shape [examples, labels].
        references: the true ones, of the same shape.
        positive: id of the positive one of two labels; None for more labels or none.
        probabilities: of each label, shape [examples, labels], for the metrics that take them.
    """
    scores: dict[str, float] = {}
    # Not `evaluate.load`, which copies the module to the home folder; it may not be writable, or be shared by runs.
    with scratch_dir("metrics") as cache:
        for name in names:
            metric = RepriseMetric(name, keep_in_memory=True, cache_dir=str(cache))
            given = probabilities if METRICS[name].of_probabilities else predictions
            scores |= metric.compute(predictions=given, references=references, positive=positive)
    return scores
