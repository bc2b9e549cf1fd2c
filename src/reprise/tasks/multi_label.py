"""Multi-label classification: any number of the recipe's labels for each example, also none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reprise.tasks.calibration import fit_temperature
from reprise.tasks.classification import Classification
from reprise.tasks.formatting import shortest_float32
from reprise.tasks.labels import unknown_label, weights_problem

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from datasets import List
    from scipy.sparse import csr_matrix

    from reprise.tasks.kind import LinearModel, LossOptions

IGNORED = -100  # in place of 0 or 1 in the padding rows of a batch
YES, NO = {"1", "1.0", "true", "True"}, {"0", "0.0", "false", "False"}


@dataclass(frozen=True)
class MultiLabel:
    """One output per label, each trained with binary cross-entropy. For what each member is, see `TaskKind`.

    Attributes:
        separator: what divides the labels in a text; None where a column holds lists or each label has its own column.
        thresholds: the probability from which each label is predicted; None for 1/2.
        tuned: whether training chooses the thresholds.
    """

    labels: tuple[str, ...]
    separator: str | None = None
    thresholds: tuple[float, ...] | None = None
    tuned: bool = True
    weights: tuple[float, ...] | None = None  # of the label 1 against 0
    positive_label: None = None
    positive: None = None
    name: str = "multi-label classification"
    named_labels: bool = True
    baseline: str = "the labels that most examples have"
    per_token: bool = False
    pipeline: str = "text-classification"
    linear_model: str = "a logistic regression for each label"
    errors_title: str = "Most confident errors"
    label_scale: None = None
    constant_meaning: str = "every example got the same labels"
    limits: str = "A text may get several labels or none."

    @classmethod
    def of_recipe(cls, labels: tuple[str, ...], section: Mapping[str, Any]) -> MultiLabel:
        """Return the kind that `task.multi_label` describes; in recipe.json, with the thresholds that were chosen."""
        thresholds = section["thresholds"]
        if thresholds == "tuned":
            return cls(labels, section["separator"])
        listed = [thresholds] * len(labels) if isinstance(thresholds, float) else thresholds
        return cls(labels, section["separator"], tuple(listed), tuned=False)

    @cached_property
    def label2id(self) -> dict[str, int]:
        """The id of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    @property
    def label_feature(self) -> List:
        from datasets import List, Value

        return List(Value("int8"), length=len(self.labels))

    @property
    def placeholder_label(self) -> list[int]:
        return [0] * len(self.labels)

    @property
    def ignored_label(self) -> list[int]:
        return [IGNORED] * len(self.labels)

    @property
    def pipeline_arguments(self) -> str:
        return "top_k=None"

    def describe(self, label_column: str) -> str:
        return f"find which of {', '.join(self.labels)} apply to a text"

    def label_columns(self, label_column: str | None) -> list[str]:
        return [*self.labels] if label_column is None else [label_column]

    def parse_label(self, value: Any, split: str) -> list[int]:
        """Take a mapping from each label to 0 or 1, a list of labels, or a text of labels between separators."""
        if isinstance(value, Mapping):
            return [self._parse_flag(value[label], label) for label in self.labels]
        if isinstance(value, str) and self.separator is not None:
            value = [part.strip() for part in value.split(self.separator)] if value.strip() else []
        if value is None:
            value = []
        if not isinstance(value, list):
            raise ValueError(f"got {value!r}, which is no list; expected task.multi_label.separator to divide it")
        for name in value:
            if name not in self.label2id:
                raise ValueError(unknown_label(name, self.labels))
        return [int(label in value) for label in self.labels]

    def _parse_flag(self, value: Any, label: str) -> int:
        if str(value) in YES | NO:
            return int(str(value) in YES)
        raise ValueError(f"got {value!r} in the column of the label {label!r}; expected 0 or 1")

    def is_unlabeled(self, labels: npt.NDArray[Any]) -> bool:
        return False

    def strata(
        self, labels: npt.NDArray[Any], groups: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Sequence[str]]:
        # The rarest label of each group, as in iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011), which
        # begins with the labels that are hardest to divide; the last stratum is of groups without any.
        names = (*self.labels, "none")
        counts = labels.sum(axis=0)
        ranked = np.where(labels > 0, np.argsort(np.argsort(counts, kind="stable"), kind="stable"), len(self.labels))
        rarest = np.full(groups.max() + 1 if len(groups) else 0, len(self.labels))
        np.minimum.at(rarest, groups, ranked.min(axis=1, initial=len(self.labels)))
        order = np.append(np.argsort(counts, kind="stable"), len(self.labels))
        return order[rarest], names

    def label_stats(self, labels: npt.NDArray[Any]) -> dict[str, Any]:
        return {
            "label_counts": {label: int(count) for label, count in zip(self.labels, labels.sum(axis=0), strict=True)},
            "hidden_labels": 0,
            "without_label": int((labels.sum(axis=1) == 0).sum()),
            "labels_per_example": float(labels.sum(axis=1).mean()),
        }

    def label_warnings(self, splits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        warnings: list[dict[str, Any]] = []
        for split, stats in splits.items():
            if absent := [label for label in self.labels if not stats["label_counts"][label]]:
                name = "labels_not_in_train" if split == "train" else "labels_not_in_split"
                warnings.append({"id": name, "split": split, "labels": absent})
        return warnings

    def stats_table(self, stats: Mapping[str, Any]) -> dict[str, float]:
        return {label: stats["label_counts"][label] for label in self.labels} | {"none": stats["without_label"]}

    def fit(self, train_stats: Mapping[str, Any], loss: LossOptions | None = None) -> MultiLabel:
        if loss is None or loss.class_weights is None:
            return self
        counts, total, weights = train_stats["label_counts"], train_stats["num_examples"], loss.class_weights
        if weights == "balanced":  # as often 1 as 0, in sum
            weights = {label: (total - count) / count if count else 1.0 for label, count in counts.items()}
        assert not isinstance(weights, str)
        return replace(self, weights=tuple(weights[label] for label in self.labels))

    def loss_problem(self, loss: LossOptions) -> tuple[str, str, str] | None:
        if problem := weights_problem(loss.class_weights, self.labels):
            return problem
        if loss.label_smoothing or loss.focal_gamma:
            key = "label_smoothing" if loss.label_smoothing else "focal_gamma"
            return key, f"got {getattr(loss, key)}", "0.0, since each example may have several labels"
        return None

    def head_config(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": dict(self.label2id),
            "problem_type": "multi_label_classification",
        }

    def loss_weights(self, read_labels: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[np.float64] | None:
        return None

    def summed_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Sum over the examples the mean over the labels, which transformers averages over both."""
        import torch
        from torch.nn import functional

        weight = None if self.weights is None else torch.tensor(self.weights, device=logits.device)
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), labels.clamp(min=0).float(), pos_weight=weight, reduction="none"
        )
        if weights is not None:
            losses = losses * weights.unsqueeze(1)
        return (losses * (labels >= 0)).sum() / len(self.labels)

    def teacher_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, temperature: float | None
    ) -> torch.Tensor:
        """Sum over the examples the mean over the labels of the cross-entropy with the teacher's probability of each.

        Both probabilities are tempered, with the factor temperature² as for single labels (Hinton et al. 2015).
        """
        from torch.nn import functional

        assert temperature is not None
        losses = functional.binary_cross_entropy_with_logits(
            logits.float() / temperature, (teacher / temperature).sigmoid(), reduction="none"
        )
        return (losses * (labels >= 0)).sum() * temperature**2 / len(self.labels)

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Turn logits into the probability of each label, [examples, labels]."""
        precise = logits.astype(np.float64)
        small = np.exp(-np.abs(precise))  # never overflows
        return np.where(precise >= 0, 1.0, small) / (1.0 + small)

    def decode(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[Any]:
        """Return which labels are predicted: 0 or 1, [examples, labels]."""
        thresholds = 0.5 if self.thresholds is None else np.array(self.thresholds)
        return (self.probabilities(logits) >= thresholds).astype(np.int8)

    def predictions(
        self, logits: npt.NDArray[np.float32], top_k: int | None = None, words: Sequence[Any] = ()
    ) -> Iterator[dict[str, Any]]:
        rows = zip(logits, self.decode(logits), self.probabilities(logits), strict=True)
        for row, predicted, probabilities in rows:
            order = np.argsort(-row, kind="stable")[:top_k] if top_k else range(len(row))
            listed = [(self.labels[label], shortest_float32(probabilities[label])) for label in order]
            top = {"top": [{"label": label, "probability": value} for label, value in listed]}
            yield {"labels": self._spell(predicted), **(top if top_k else {"probabilities": dict(listed)})}

    def constant_predictions(self, train_stats: Mapping[str, Any], references: npt.NDArray[Any]) -> npt.NDArray[Any]:
        counts = np.array([train_stats["label_counts"][label] for label in self.labels])
        return np.repeat([(2 * counts > train_stats["num_examples"]).astype(np.int8)], len(references), axis=0)

    def is_constant(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> bool:
        return bool((predictions == predictions[0]).all())

    def _spell(self, row: npt.NDArray[Any]) -> list[str]:
        return [label for label, given in zip(self.labels, row, strict=True) if given]

    def label_names(self, values: npt.NDArray[Any]) -> list[list[str]]:
        return [self._spell(row) for row in values]

    def label_values(self, names: Sequence[Any]) -> npt.NDArray[Any]:
        if unknown := {str(name) for row in names for name in row} - self.label2id.keys():
            raise ValueError(f"unknown labels: {', '.join(sorted(unknown))}")
        return np.array([[label in set(row) for label in self.labels] for row in names], np.int8)

    def prediction_columns(self, logits: npt.NDArray[np.float32], references: npt.NDArray[Any]) -> dict[str, Any]:
        import pyarrow as pa

        probabilities, names = self.probabilities(logits).astype(np.float32), pa.list_(pa.string())
        return {
            "label": pa.array(self.label_names(references), names),
            "prediction": pa.array(self.label_names(self.decode(logits)), names),
            "probabilities": pa.array(probabilities.tolist(), pa.list_(pa.float32())),
        }

    def plots(self, logits: npt.NDArray[np.float32], references: npt.NDArray[Any]) -> dict[str, pd.DataFrame]:
        from reprise.tasks.curves import (
            binary_calibration_table,
            empty_plots,
            indicator_per_class_table,
            indicator_precision_recall_table,
        )

        probabilities, labels = self.probabilities(logits), list(self.labels)
        return empty_plots() | {
            "per_class.csv": indicator_per_class_table(self.decode(logits), references, labels),
            "precision_recall.csv": indicator_precision_recall_table(probabilities, references, labels),
            "calibration.csv": binary_calibration_table(probabilities, references),
        }

    def extra_metrics(self, plots: Mapping[str, pd.DataFrame]) -> dict[str, float]:
        from reprise.tasks.curves import expected_calibration_error

        return {"ece": expected_calibration_error(plots["calibration.csv"])}

    def rank_errors(self, predictions: pd.DataFrame) -> pd.Series[float]:
        import pandas as pd

        wrong = predictions[predictions["label"].map(set) != predictions["prediction"].map(set)]
        pairs = zip(wrong["label"], wrong["probabilities"], strict=True)
        return pd.Series([self._surprise(*pair) for pair in pairs], wrong.index, np.float64)

    def _surprise(self, names: Sequence[str], probabilities: Sequence[float]) -> float:
        """Return the largest probability given to a wrong answer about any label."""
        given = np.array([label in set(names) for label in self.labels])
        return float(np.where(given, 1 - np.asarray(probabilities), probabilities).max())

    def describe_error(self, score: float) -> str:
        return f"{100 * score:.1f} % confidence in one label"

    def is_correct(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return np.asarray((predictions == references).all(axis=1))

    def fit_linear(self, features: csr_matrix, labels: npt.NDArray[Any]) -> LinearModel:
        from sklearn.linear_model import LogisticRegression

        models = [
            LogisticRegression(max_iter=1000).fit(features, column) if 0 < column.sum() < len(column) else None
            for column in labels.T
        ]
        # Of a label that all or no examples have, the logit is certain enough.
        constant = np.where(labels.any(axis=0), 20.0, -20.0)

        def outputs(features: csr_matrix) -> npt.NDArray[np.float64]:
            columns = [
                np.full(features.shape[0], value) if model is None else model.decision_function(features)
                for model, value in zip(models, constant, strict=True)
            ]
            return np.stack(columns, axis=1)

        return outputs

    def explained_share(self, groups: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
        each = [Classification(("no", "yes")).explained_share(groups, column.astype(np.int64)) for column in labels.T]
        return max(each, default=0.0)  # a single label that is given away is one too many

    def suspect_labels(self, labels: npt.NDArray[Any], outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        from cleanlab.filter import find_label_issues

        probabilities, worst = self.probabilities(outputs), np.full(len(labels), np.inf)
        for column, given in zip(probabilities.T, labels.T, strict=True):
            if 0 < given.sum() < len(given):
                both = np.stack([1 - column, column], axis=1)
                found = np.flatnonzero(find_label_issues(given.astype(np.int64), both, n_jobs=1))
                worst[found] = np.minimum(worst[found], np.round(both[found, given[found]], 6))
        doubted = np.flatnonzero(np.isfinite(worst))
        return np.asarray(doubted[np.argsort(worst[doubted], kind="stable")], dtype=np.int64)

    def disagreement(self, before: pd.DataFrame, after: pd.DataFrame) -> npt.NDArray[np.float64]:
        first, second = (np.array([list(row) for row in run["probabilities"]], np.float64) for run in (before, after))
        return np.asarray(np.abs(first - second).max(axis=1))

    def temperatures(self, logits: npt.NDArray[np.floating[Any]], references: npt.NDArray[Any]) -> list[float]:
        # One number per label keeps what is above 1/2 there; Platt's two overfit a rare label.
        columns = zip(logits.T, references.T, strict=True)
        return [fit_temperature(np.stack([np.zeros_like(yes), yes], axis=1), column) for yes, column in columns]

    def tune(self, logits: npt.NDArray[np.floating[Any]], references: npt.NDArray[Any]) -> MultiLabel:
        if not self.tuned:
            return self
        columns = zip(self.probabilities(logits).T, references.T, strict=True)
        return replace(self, thresholds=tuple(best_threshold(*column) for column in columns))


def best_threshold(probabilities: npt.NDArray[np.float64], references: npt.NDArray[Any]) -> float:
    """Return the threshold with the highest F1: halfway between two probabilities; of equal ones, the nearest to 1/2.

    Args:
        probabilities: of a label, [examples].
        references: 0 or 1, [examples]. Without any 1, F1 says nothing, and the threshold is 1/2.
    """
    if not references.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    scores, hits = probabilities[order], np.cumsum(references[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # equal probabilities are predicted together
    f1 = 2 * hits[last] / (last + 1 + references.sum())
    below = np.append(scores[last[1:]], 0.0) if len(last) > 1 else np.array([0.0])
    thresholds = (scores[last] + below) / 2
    best = np.flatnonzero(f1 == f1.max())
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - 0.5))]])
