"""Accuracy as an `evaluate` module."""

import datasets
import evaluate
import numpy.typing as npt
from sklearn.metrics import accuracy_score


def score(predictions: npt.ArrayLike, references: npt.ArrayLike) -> float:
    """The share of rows whose predicted label is the true one.

    Args:
        predictions: label numbers, shape [rows].
        references: the true ones, shape [rows].
    """
    return float(accuracy_score(references, predictions))


class Accuracy(evaluate.Metric):
    """The share of rows whose predicted label is the true one."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="predictions and references: one number a row",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: npt.ArrayLike, references: npt.ArrayLike) -> dict[str, float]:
        return {"accuracy": score(predictions, references)}
