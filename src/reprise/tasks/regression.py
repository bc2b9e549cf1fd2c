"""Regression: a number for each example."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reprise.tasks.formatting import shortest_float32

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from datasets import Value
    from scipy.sparse import csr_matrix

    from reprise.tasks.kind import LinearModel, LossOptions

# What a warning of prepare about labels says; data/warnings.py has the others.
WARNINGS = {"constant_label": "{split}: every example has the label {label:g}"}
# Predictions whose standard deviation is a smaller fraction of the labels' count as constant: a model that ignores its
# input still differs in its last digits. They cannot explain more than 0.04 % of the labels' variance.
MIN_SPREAD = 0.02
# Robust standard deviations between a label and its prediction: of normal errors, one in 16,000 is further off.
SUSPECT_DEVIATIONS = 4

# Parts by label, each cut into splits on its own: ten, or fewer so that each has enough groups to cut.
MAX_STRATA, STRATUM_GROUPS = 10, 20


@dataclass(frozen=True)
class Regression:
    """One output, trained with squared error. The labels are numbers; for what each member is, see `TaskKind`.

    The model learns labels of mean 0 and variance 1, whatever their unit: the loss divides by their variance, and
    train/model.py puts their mean and standard deviation behind the output layer. Predictions are in the labels' unit.
    """

    name: str = "regression"
    labels: tuple[str, ...] = ()
    positive_label: None = None
    positive: None = None
    named_labels: bool = False
    thresholds: None = None
    placeholder_label: float = 0.0
    ignored_label: float = math.nan
    baseline: str = "the mean"
    per_token: bool = False
    pipeline: str = "text-classification"
    linear_model: str = "ridge regression"
    pipeline_arguments: str = 'function_to_apply="none"'
    errors_title: str = "Largest errors"
    label_scale: tuple[float, float] | None = None
    constant_meaning: str = f"the predictions spread less than {100 * MIN_SPREAD:g} % as far as the labels"
    limits: str = "It predicts a number for every text, even if the text is out of scope."

    def describe(self, label_column: str) -> str:
        return f"predict the number {label_column}"

    @property
    def label_feature(self) -> Value:
        from datasets import Value

        return Value("float64")

    def label_columns(self, label_column: str | None) -> list[str]:
        return [str(label_column)]

    def parse_label(self, value: Any, split: str) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"expected a finite number as the label, since task.labels is empty; got {value!r}")
        return number

    def is_unlabeled(self, labels: npt.NDArray[Any]) -> bool:
        # A single -1 may be meant; a column of nothing else is how unpublished labels are filled in.
        return bool((labels == -1).all())

    def strata(
        self, labels: npt.NDArray[Any], groups: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Sequence[str]]:
        # Quantiles of the groups' medians: a mean would depend on the order of the rows in its last bit.
        ordered, sizes = labels[np.lexsort((labels, groups))], np.bincount(groups)
        medians = ordered[np.cumsum(sizes) - sizes + (sizes - 1) // 2]
        parts = min(MAX_STRATA, max(1, len(sizes) // STRATUM_GROUPS))
        edges = np.unique(np.quantile(medians, np.arange(1, parts) / parts, method="inverted_cdf"))
        return np.searchsorted(edges, medians), [str(number) for number in range(len(edges) + 1)]

    def label_stats(self, labels: npt.NDArray[Any]) -> dict[str, Any]:
        return {"label_mean": float(labels.mean()), "label_std": float(labels.std())}

    def label_warnings(self, splits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"id": "constant_label", "split": split, "label": stats["label_mean"]}
            for split, stats in splits.items()
            if stats["label_std"] == 0 and stats["label_mean"] != -1  # which stands for unpublished labels
        ]

    def stats_table(self, stats: Mapping[str, Any]) -> dict[str, float]:
        return {"label mean": stats["label_mean"], "label standard deviation": stats["label_std"]}

    def loss_problem(self, loss: LossOptions) -> tuple[str, str, str]:
        return "", "got options of cross-entropy", "null, since task.labels is empty (regression)"

    def fit(self, train_stats: Mapping[str, Any], loss: LossOptions | None = None) -> Regression:
        return replace(self, label_scale=(train_stats["label_mean"], train_stats["label_std"] or 1.0))

    def head_config(self) -> dict[str, Any]:
        return {
            "num_labels": 1,
            "id2label": {0: "value"},
            "label2id": {"value": 0},
            "problem_type": "regression",
        }

    def loss_weights(self, read_labels: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[np.float64] | None:
        return None

    def summed_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        import torch
        from torch.nn import functional

        values, (_, deviation) = logits.squeeze(1).float(), self.label_scale or (0.0, 1.0)
        errors = (values - torch.where(labels.isnan(), values, labels)) / deviation
        if weights is not None:
            errors = errors * weights.sqrt()
        return functional.mse_loss(errors, torch.zeros_like(errors), reduction="sum")

    def teacher_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, temperature: float | None
    ) -> torch.Tensor:
        """Sum the squared differences from the teacher's predictions, which stand in for the labels."""
        import torch

        return self.summed_loss(logits, torch.where(labels.isnan(), labels, teacher.squeeze(1)))

    def temperatures(self, logits: npt.NDArray[np.floating[Any]], references: npt.NDArray[Any]) -> None:
        return None

    def tune(self, logits: npt.NDArray[np.floating[Any]], references: npt.NDArray[Any]) -> Regression:
        return self

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> None:
        return None

    def decode(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[Any]:
        return logits[:, 0]

    def predictions(
        self, logits: npt.NDArray[np.float32], top_k: int | None = None, words: Sequence[Any] = ()
    ) -> Iterator[dict[str, Any]]:
        yield from ({"label": shortest_float32(value)} for value in self.decode(logits))

    def constant_predictions(self, train_stats: Mapping[str, Any], references: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(float(train_stats["label_mean"]), len(references))

    def is_constant(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> bool:
        spread = predictions.astype(np.float64).std()  # of equal fp32 numbers, rounding alone would make one
        return bool(np.ptp(predictions) == 0 or spread < MIN_SPREAD * references.std())

    def label_names(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values

    def label_values(self, names: Sequence[Any]) -> npt.NDArray[Any]:
        return np.asarray(names, dtype=np.float64)

    def prediction_columns(self, logits: npt.NDArray[np.float32], references: npt.NDArray[Any]) -> dict[str, Any]:
        return {"label": references, "prediction": self.decode(logits).astype(np.float64)}

    def plots(self, logits: npt.NDArray[np.float32], references: npt.NDArray[Any]) -> dict[str, pd.DataFrame]:
        from reprise.tasks.curves import empty_plots, residual_table

        return empty_plots() | {"residuals.csv": residual_table(self.decode(logits), references)}

    def extra_metrics(self, plots: Mapping[str, pd.DataFrame]) -> dict[str, float]:
        return {}

    def rank_errors(self, predictions: pd.DataFrame) -> pd.Series[float]:
        return (predictions["label"] - predictions["prediction"]).abs()

    def describe_error(self, score: float) -> str:
        return f"error {score:.3f}"

    def is_correct(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> None:
        return None

    def fit_linear(self, features: csr_matrix, labels: npt.NDArray[Any]) -> LinearModel:
        from sklearn.linear_model import Ridge

        model = Ridge().fit(features, labels)
        return lambda features: np.asarray(model.predict(features), np.float64)[:, None]

    def explained_share(self, groups: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
        group_ids = np.unique(groups, return_inverse=True)[1]
        sizes, sums = np.bincount(group_ids)[group_ids], np.bincount(group_ids, weights=labels)[group_ids]
        alone = sizes == 1
        predicted = np.where(alone, labels.mean(), (sums - labels) / np.where(alone, 1, sizes - 1))
        variance = float(((labels - labels.mean()) ** 2).mean())
        return max(0.0, 1 - float(((labels - predicted) ** 2).mean()) / variance) if variance > 0 else 0.0

    def suspect_labels(self, labels: npt.NDArray[Any], outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        if outputs.shape[1] == 0:
            return np.empty(0, dtype=np.int64)
        errors = np.abs(labels - outputs[:, 0])
        deviation = 1.4826 * np.median(errors)  # of normal errors, the standard deviation
        found = np.flatnonzero(errors > SUSPECT_DEVIATIONS * deviation)
        return np.asarray(found[np.argsort(-np.round(errors[found], 6), kind="stable")], dtype=np.int64)

    def disagreement(self, before: pd.DataFrame, after: pd.DataFrame) -> npt.NDArray[np.float64]:
        return np.asarray((after["prediction"] - before["prediction"]).abs(), np.float64)
