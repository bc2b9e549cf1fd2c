"""Metrics through the library `evaluate`, which takes seconds to import."""

from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import evaluate
import numpy.typing as npt

MODULE = Path(__file__).with_name("evaluate_module.py")


def compute(
    names: Sequence[str], predictions: npt.ArrayLike, references: npt.ArrayLike, *, positive: int | None
) -> dict[str, float]:
    """Compute each named metric of the registry, in this order.

    Args:
        names: of the metrics.
        predictions: label ids, or numbers in regression; shape [examples].
        references: the true ones, shape [examples].
        positive: id of the positive one of two labels; None for more labels or none.
    """
    scores: dict[str, float] = {}
    for name in names:
        # An id of its own keeps two runs on one machine from sharing evaluate's cache file.
        metric = evaluate.load(str(MODULE), name, keep_in_memory=True, experiment_id=uuid4().hex)
        scores |= metric.compute(predictions=predictions, references=references, positive=positive)
    return scores
