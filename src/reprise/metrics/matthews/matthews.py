"""Matthews as an `evaluate` module."""

import datasets
import evaluate
import numpy.typing as npt
from sklearn.metrics import matthews_corrcoef


def score(predictions: npt.ArrayLike, references: npt.ArrayLike) -> float:
    """Matthews' correlation coefficient (Matthews 1975); 0 where either side holds one label only.

    Args:
        predictions: label numbers, shape [rows].
        references: the true ones, shape [rows].
    """
    return float(matthews_corrcoef(references, predictions))


class Matthews(evaluate.Metric):
    """Matthews' correlation coefficient (Matthews 1975); 0 where either side holds one label only."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="predictions and references: one number a row",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: npt.ArrayLike, references: npt.ArrayLike) -> dict[str, float]:
        return {"matthews": score(predictions, references)}
