"""The metrics, as `evaluate` modules that lie in the package, a folder each, so that they work offline."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import evaluate
import numpy.typing as npt

MetricFunction = Callable[[npt.ArrayLike, npt.ArrayLike], float]


def compute(
    names: Sequence[str], predictions: npt.ArrayLike, references: npt.ArrayLike, *, labels: int
) -> dict[str, float]:
    """Judge predictions by each named metric.

    Args:
        names: folders beside this file.
        predictions: label numbers, or values in regression; shape [rows].
        references: the true ones, shape [rows].
        labels: how many labels the task has, 0 in regression.
    """
    scores: dict[str, float] = {}
    for name in names:
        folder = Path(__file__).parent / name
        # An id of its own keeps two runs on one machine from sharing evaluate's cache file.
        metric = evaluate.load(str(folder), keep_in_memory=True, experiment_id=uuid4().hex)
        scores |= metric.compute(predictions=predictions, references=references, **_options(name, labels))
    return scores


def score_function(name: str, *, labels: int) -> MetricFunction:
    """The metric as a plain function, for the thousands of calls that a bootstrap makes."""
    return partial(import_module(f"{__name__}.{name}.{name}").score, **_options(name, labels))


def _options(name: str, labels: int) -> dict[str, Any]:
    return {"average": "binary" if labels == 2 else "macro"} if name == "f1" else {}
