"""Regression: a number for each example."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reprise.tasks.formatting import shortest_float32

if TYPE_CHECKING:
    import pandas as pd
    import torch

# What a warning of prepare about labels says; data/warnings.py has the others.
WARNINGS = {"constant_label": "{split}: every example has the label {label:g}"}


@dataclass(frozen=True)
class Regression:
    """One output, trained with squared error. The labels are numbers; for what each member is, see `TaskKind`."""

    name: str = "regression"
    labels: tuple[str, ...] = ()
    positive_label: None = None
    positive: None = None
    named_labels: bool = False
    label_dtype: str = "float64"
    placeholder_label: float = 0.0
    ignored_label: float = math.nan
    baseline: str = "the mean"
    pipeline_arguments: str = 'function_to_apply="none"'
    errors_title: str = "Largest errors"
    limits: str = "It predicts a number for every text, even if the text is out of scope."

    def describe(self, label_column: str) -> str:
        return f"predict the number {label_column}"

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

    def head_config(self) -> dict[str, Any]:
        return {
            "num_labels": 1,
            "id2label": {0: "value"},
            "label2id": {"value": 0},
            "problem_type": "regression",
        }

    def summed_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn import functional

        values = logits.squeeze(1).float()
        return functional.mse_loss(values, torch.where(labels.isnan(), values, labels), reduction="sum")

    def decode(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return logits[:, 0]

    def predictions(self, logits: npt.NDArray[np.float32]) -> Iterator[dict[str, Any]]:
        yield from ({"label": shortest_float32(value)} for value in self.decode(logits))

    def constant_prediction(self, train_stats: Mapping[str, Any]) -> float:
        return float(train_stats["label_mean"])

    def label_names(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values

    def label_values(self, names: Sequence[Any]) -> npt.NDArray[Any]:
        return np.asarray(names, dtype=np.float64)

    def prediction_columns(self, logits: npt.NDArray[np.float32], references: npt.NDArray[Any]) -> dict[str, Any]:
        return {"label": references, "prediction": self.decode(logits).astype(np.float64)}

    def plots(self, logits: npt.NDArray[np.float32], references: npt.NDArray[Any]) -> dict[str, pd.DataFrame]:
        from reprise.tasks.curves import empty_plots

        return empty_plots()

    def extra_metrics(self, plots: Mapping[str, pd.DataFrame]) -> dict[str, float]:
        return {}

    def rank_errors(self, predictions: pd.DataFrame) -> pd.Series[float]:
        return (predictions["label"] - predictions["prediction"]).abs()

    def describe_error(self, score: float) -> str:
        return f"error {score:.3f}"

    def is_correct(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> None:
        return None

    def disagreement(self, before: pd.DataFrame, after: pd.DataFrame) -> npt.NDArray[np.float64]:
        return np.asarray((after["prediction"] - before["prediction"]).abs(), np.float64)
