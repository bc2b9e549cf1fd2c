"""Spearman as an `evaluate` module."""

import datasets
import evaluate
import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr


def score(predictions: npt.ArrayLike, references: npt.ArrayLike) -> float:
    """Spearman's rank correlation; 0 where either side is constant, for which it is not defined.

    Args:
        predictions: values, shape [rows].
        references: the true ones, shape [rows].
    """
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return 0.0
    return float(spearmanr(references, predictions).statistic)


class Spearman(evaluate.Metric):
    """Spearman's rank correlation; 0 where either side is constant, for which it is not defined."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="predictions and references: one number a row",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: npt.ArrayLike, references: npt.ArrayLike) -> dict[str, float]:
        return {"spearman": score(predictions, references)}
