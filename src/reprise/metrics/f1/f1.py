"""F1 as an `evaluate` module."""

import datasets
import evaluate
import numpy.typing as npt
from sklearn.metrics import f1_score


def score(predictions: npt.ArrayLike, references: npt.ArrayLike, average: str = "binary") -> float:
    """The harmonic mean of precision and recall; 0 where neither is defined.

    Args:
        predictions: label numbers, shape [rows].
        references: the true ones, shape [rows].
        average: binary takes label 1 as the positive one; macro is the plain mean over the labels that occur.
    """
    return float(f1_score(references, predictions, average=average, zero_division=0.0))


class F1(evaluate.Metric):
    """The harmonic mean of precision and recall; 0 where neither is defined."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="predictions and references: one number a row",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(
        self, predictions: npt.ArrayLike, references: npt.ArrayLike, average: str = "binary"
    ) -> dict[str, float]:
        return {"f1": score(predictions, references, average)}
