"""Classification: one of the recipe's labels for each example."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reprise.tasks.formatting import shortest_float32

if TYPE_CHECKING:
    import pandas as pd
    import torch

# What a warning of prepare about labels says; data/warnings.py has the others.
WARNINGS = {
    "single_label": "{split}: every example has the label {label}",
    "labels_not_in_train": "train: no example has the label {labels}, so the model cannot learn it",
    "labels_not_in_split": "{split}: no example has the label {labels}, so the metrics do not cover it",
}
UNLABELED = -1  # the label id of examples whose label is not published, as in the test splits of GLUE


@dataclass(frozen=True)
class Classification:
    """One output per label, trained with cross-entropy. For what each member is, see `TaskKind`."""

    labels: tuple[str, ...]
    positive_label: str | None = None
    name: str = "classification"
    named_labels: bool = True
    label_dtype: str = "int64"
    placeholder_label: int = 0
    ignored_label: int = -100  # which torch's cross-entropy leaves out by default
    baseline: str = "the majority class"
    pipeline_arguments: str = ""
    errors_title: str = "Most confident errors"

    @cached_property
    def label2id(self) -> dict[str, int]:
        """The id of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    @property
    def positive(self) -> int | None:
        return None if self.positive_label is None else self.label2id[self.positive_label]

    @property
    def limits(self) -> str:
        return f"It assigns every text one of {len(self.labels)} labels, even if none applies."

    def describe(self, label_column: str) -> str:
        return f"classify texts as {' or '.join(self.labels)}"

    def parse_label(self, value: Any, split: str) -> int:
        if value in self.label2id:
            return self.label2id[value]
        if split.startswith("test") and str(value) == str(UNLABELED):
            return UNLABELED
        near = difflib.get_close_matches(str(value), self.labels, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        # Such as 1.0 or 01 for 1; and YAML reads 010 as 8.
        if re.fullmatch("0[0-9]+", str(value)) or any(_is_same_number(value, label) for label in self.labels):
            hint = f"a number of another spelling in task.labels? Write it there in quotes, as {str(value)!r}; "
        raise ValueError(f"unknown label {value!r}; {hint}expected one of task.labels: {', '.join(self.labels)}")

    def is_unlabeled(self, labels: npt.NDArray[Any]) -> bool:
        return bool((labels == UNLABELED).any())

    def label_stats(self, labels: npt.NDArray[Any]) -> dict[str, Any]:
        counts = {label: int((labels == number).sum()) for number, label in enumerate(self.labels)}
        return {"label_counts": counts, "hidden_labels": int((labels == UNLABELED).sum())}

    def label_warnings(self, splits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        warnings: list[dict[str, Any]] = []
        for split, stats in splits.items():
            absent = [label for label in self.labels if not stats["label_counts"][label]]
            if stats["hidden_labels"] or not absent:
                continue
            if len(absent) == len(self.labels) - 1:
                (label,) = set(self.labels) - set(absent)
                warnings.append({"id": "single_label", "split": split, "label": label})
            else:
                name = "labels_not_in_train" if split == "train" else "labels_not_in_split"
                warnings.append({"id": name, "split": split, "labels": absent})
        return warnings

    def stats_table(self, stats: Mapping[str, Any]) -> dict[str, float]:
        return {label: stats["label_counts"][label] for label in self.labels}

    def head_config(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": dict(self.label2id),
            "problem_type": "single_label_classification",
        }

    def summed_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        return functional.cross_entropy(logits.float(), labels, reduction="sum")

    def decode(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        return np.asarray(logits.argmax(axis=1))

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Turn logits into the probability of each label, [examples, labels]."""
        from scipy.special import softmax

        return np.asarray(softmax(logits.astype(np.float64), axis=1))

    def predictions(self, logits: npt.NDArray[np.float32]) -> Iterator[dict[str, Any]]:
        for number, probabilities in zip(self.decode(logits), self.probabilities(logits), strict=True):
            named = zip(self.labels, probabilities, strict=True)
            yield {
                "label": self.labels[number],
                "probabilities": {name: shortest_float32(value) for name, value in named},
            }

    def constant_prediction(self, train_stats: Mapping[str, Any]) -> int:
        return int(np.argmax(list(train_stats["label_counts"].values())))

    def label_names(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(np.array(self.labels)[values])

    def label_values(self, names: Sequence[Any]) -> npt.NDArray[Any]:
        if unknown := {str(name) for name in names} - self.label2id.keys():
            raise ValueError(f"unknown labels: {', '.join(sorted(unknown))}")
        return np.array([self.label2id[str(name)] for name in names])

    def prediction_columns(self, logits: npt.NDArray[np.float32], references: npt.NDArray[Any]) -> dict[str, Any]:
        import pyarrow as pa

        probabilities = self.probabilities(logits).astype(np.float32)
        return {
            "label": self.label_names(references),
            "prediction": self.label_names(self.decode(logits)),
            "probabilities": pa.array(probabilities.tolist(), pa.list_(pa.float32())),
        }

    def plots(self, logits: npt.NDArray[np.float32], references: npt.NDArray[Any]) -> dict[str, pd.DataFrame]:
        from reprise.tasks.curves import calibration_table, confusion_pairs, empty_plots, precision_recall_table

        probabilities, labels = self.probabilities(logits), list(self.labels)
        return empty_plots() | {
            "confusion.csv": confusion_pairs(self.decode(logits), references, labels),
            "precision_recall.csv": precision_recall_table(probabilities, references, labels, positive=self.positive),
            "calibration.csv": calibration_table(probabilities, references),
        }

    def extra_metrics(self, plots: Mapping[str, pd.DataFrame]) -> dict[str, float]:
        from reprise.tasks.curves import expected_calibration_error

        return {"ece": expected_calibration_error(plots["calibration.csv"])}

    def rank_errors(self, predictions: pd.DataFrame) -> pd.Series[float]:
        wrong = predictions[predictions["label"] != predictions["prediction"]]
        return wrong["probabilities"].map(np.max).astype(np.float64)

    def describe_error(self, score: float) -> str:
        return f"{100 * score:.1f} % confidence"

    def is_correct(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return np.asarray(predictions == references)

    def disagreement(self, before: pd.DataFrame, after: pd.DataFrame) -> npt.NDArray[np.float64]:
        confidences = [np.array([max(each) for each in run["probabilities"]], np.float64) for run in (before, after)]
        return confidences[0] + confidences[1]


def _is_same_number(value: Any, label: str) -> bool:
    try:
        return float(value) == float(label)
    except (TypeError, ValueError):
        return False
