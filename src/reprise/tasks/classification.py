"""Classification: one of the recipe's labels for each example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reprise.tasks.calibration import fit_temperature
from reprise.tasks.formatting import shortest_float32
from reprise.tasks.labels import unknown_label, weights_problem

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from datasets import Value
    from scipy.sparse import csr_matrix

    from reprise.tasks.kind import LinearModel, LossOptions

# What a warning of prepare about labels says; data/warnings.py has the others.
WARNINGS = {
    "single_label": "{split}: every example has the label {label}",
    "labels_not_in_train": "train: no example has the label {labels}, so the model cannot learn it",
    "labels_not_in_split": "{split}: no example has the label {labels}, so the metrics do not cover it",
}
RARE = 0.5  # of an equal share of the rows; a label with fewer is rare
MAX_SUSPECT_LABELS = 500  # with more, confident learning has too few examples of each; it has their square in memory
UNLABELED = -1  # the label id of examples whose label is not published, as in the test splits of GLUE


@dataclass(frozen=True)
class Classification:
    """One output per label, trained with cross-entropy. For what each member is, see `TaskKind`."""

    labels: tuple[str, ...]
    positive_label: str | None = None
    name: str = "classification"
    named_labels: bool = True
    thresholds: None = None
    placeholder_label: int = 0
    ignored_label: int = -100  # which torch's cross-entropy leaves out by default
    baseline: str = "the majority class"
    per_token: bool = False
    pipeline: str = "text-classification"
    linear_model: str = "logistic regression"
    pipeline_arguments: str = ""
    errors_title: str = "Most confident errors"
    label_scale: None = None
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    constant_meaning: str = "every example got the same prediction"

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

    @property
    def label_feature(self) -> Value:
        from datasets import Value

        return Value("int64")

    def label_columns(self, label_column: str | None) -> list[str]:
        return [str(label_column)]

    def parse_label(self, value: Any, split: str) -> int:
        if value in self.label2id:
            return self.label2id[value]
        if split.startswith("test") and str(value) == str(UNLABELED):
            return UNLABELED
        raise ValueError(unknown_label(value, self.labels))

    def is_unlabeled(self, labels: npt.NDArray[Any]) -> bool:
        return bool((labels == UNLABELED).any())

    def strata(
        self, labels: npt.NDArray[Any], groups: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Sequence[str]]:
        # The most frequent label of each group; of its rare labels, if it has any.
        pairs, rows = np.unique(groups * len(self.labels) + labels, return_counts=True)
        group, label = np.divmod(pairs, len(self.labels))
        rare = np.bincount(labels, minlength=len(self.labels)) < RARE * len(labels) / len(self.labels)
        order = np.lexsort((-label, rows, rare[label], group))
        last = np.flatnonzero(np.diff(group[order], append=-1))  # of each group
        return label[order[last]], self.labels

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

    def fit(self, train_stats: Mapping[str, Any], loss: LossOptions | None = None) -> Classification:
        if loss is None:
            return self
        weights, counts = loss.class_weights, train_stats["label_counts"]
        if weights == "balanced":
            weights = balanced_weights(counts)
        assert not isinstance(weights, str)
        listed = None if weights is None else tuple(weights[label] for label in self.labels)
        return replace(self, class_weights=listed, label_smoothing=loss.label_smoothing, focal_gamma=loss.focal_gamma)

    def loss_problem(self, loss: LossOptions) -> tuple[str, str, str] | None:
        if problem := weights_problem(loss.class_weights, self.labels):
            return problem
        if loss.label_smoothing and loss.focal_gamma:
            return "focal_gamma", f"got {loss.focal_gamma} beside label_smoothing", "one of the two"
        return None

    def head_config(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": dict(self.label2id),
            "problem_type": "single_label_classification",
        }

    def loss_weights(self, read_labels: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[np.float64] | None:
        return None if self.class_weights is None else np.asarray(self.class_weights)[read_labels()]

    def summed_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        import torch
        from torch.nn import functional

        weight = None if self.class_weights is None else torch.tensor(self.class_weights, device=logits.device)
        if not self.focal_gamma:
            losses = functional.cross_entropy(
                logits.float(), labels, weight, reduction="sum" if weights is None else "none",
                label_smoothing=self.label_smoothing,
            )  # fmt: skip
            return losses if weights is None else (losses * weights).sum()
        log_probabilities = functional.log_softmax(logits.float(), dim=1)
        losses = functional.nll_loss(log_probabilities, labels, weight, reduction="none")
        true = labels.clamp(min=0)  # of padding rows, whose loss is 0, any
        others = -torch.expm1(log_probabilities.gather(1, true.unsqueeze(1)).squeeze(1))  # 1 - the label's probability
        others = others.clamp(min=torch.finfo(others.dtype).tiny)  # at 0, the gradient of a power below 1 is infinite
        losses = losses * others**self.focal_gamma
        return (losses if weights is None else losses * weights).sum()

    def teacher_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, temperature: float | None
    ) -> torch.Tensor:
        """Sum the Kullback-Leibler divergences from the teacher's tempered probabilities (Hinton et al. 2015).

        The factor temperature² keeps the gradients as large as those of the labels, whatever the temperature.
        """
        import torch
        from torch.nn import functional

        assert temperature is not None
        tempered = functional.log_softmax(logits.float() / temperature, dim=1)
        expected = functional.softmax(teacher / temperature, dim=1)
        losses = functional.kl_div(tempered, expected, reduction="none").sum(dim=1) * temperature**2
        if self.class_weights is not None:
            losses = losses * torch.tensor(self.class_weights, device=logits.device)[labels.clamp(min=0)]
        return (losses * (labels >= 0)).sum()

    def temperatures(self, logits: npt.NDArray[np.floating[Any]], references: npt.NDArray[Any]) -> list[float]:
        return [fit_temperature(logits, references)]

    def tune(self, logits: npt.NDArray[np.floating[Any]], references: npt.NDArray[Any]) -> Classification:
        return self

    def decode(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[Any]:
        return np.asarray(logits.argmax(axis=1))

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Turn logits into the probability of each label, [examples, labels]."""
        # As scipy.special.softmax, bit for bit, without SciPy, which would be a tenth of the image that serves.
        precise = logits.astype(np.float64)
        exponentials = np.exp(precise - precise.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def predictions(
        self, logits: npt.NDArray[np.float32], top_k: int | None = None, words: Sequence[Any] = ()
    ) -> Iterator[dict[str, Any]]:
        for row, probabilities in zip(logits, self.probabilities(logits), strict=True):
            # By logit, since several probabilities may round to 1.0 or 0.0.
            order = np.argsort(-row, kind="stable")[:top_k] if top_k else range(len(row))
            listed = [(self.labels[label], shortest_float32(probabilities[label])) for label in order]
            top = {"top": [{"label": label, "probability": value} for label, value in listed]}
            yield {"label": self.labels[row.argmax()], **(top if top_k else {"probabilities": dict(listed)})}

    def constant_predictions(self, train_stats: Mapping[str, Any], references: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(int(np.argmax(list(train_stats["label_counts"].values()))), len(references))

    def is_constant(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> bool:
        return bool(np.ptp(predictions) == 0)

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
        from reprise.tasks.curves import (
            calibration_table,
            confusion_pairs,
            empty_plots,
            per_class_table,
            precision_recall_table,
        )

        probabilities, predictions, labels = self.probabilities(logits), self.decode(logits), list(self.labels)
        return empty_plots() | {
            "confusion.csv": confusion_pairs(predictions, references, labels),
            "per_class.csv": per_class_table(predictions, references, labels),
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

    def fit_linear(self, features: csr_matrix, labels: npt.NDArray[Any]) -> LinearModel:
        from sklearn.linear_model import LogisticRegression

        known = np.unique(labels)
        model = LogisticRegression(max_iter=1000).fit(features, labels) if len(known) > 1 else None

        def outputs(features: csr_matrix) -> npt.NDArray[np.float64]:
            found = np.zeros((features.shape[0], len(self.labels)))
            found[:, known] = 1.0 if model is None else model.predict_proba(features)
            return found

        return outputs

    def explained_share(self, groups: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
        group_ids = np.unique(groups, return_inverse=True)[1]
        cells, cell, counts = np.unique(group_ids * len(self.labels) + labels, return_inverse=True, return_counts=True)
        # The largest and second largest count of each group: the cells are in the order of the groups.
        group = cells // len(self.labels)
        order = np.lexsort((-counts, group))
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        largest, second = counts[order][starts], np.zeros(len(starts), dtype=np.int64)
        several = np.diff(np.append(starts, len(cells))) > 1
        second[several] = counts[order][starts[several] + 1]
        is_largest = np.zeros(len(cells), dtype=bool)
        is_largest[order[starts]] = True
        others = np.where(is_largest, second[group], largest[group])
        majority = np.argmax(np.bincount(labels))
        alone = np.bincount(group_ids)[group_ids] == 1
        correct = np.where(alone, labels == majority, (counts - 1 > others)[cell])
        expected = float((labels == majority).mean())
        return max(0.0, (float(correct.mean()) - expected) / (1 - expected)) if expected < 1 else 0.0

    def suspect_labels(self, labels: npt.NDArray[Any], outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        from cleanlab.filter import find_label_issues

        known, given = np.unique(labels, return_inverse=True)
        if not 2 <= len(known) <= MAX_SUSPECT_LABELS or outputs.shape[1] == 0:
            return np.empty(0, dtype=np.int64)
        probabilities = outputs[:, known]
        sums = probabilities.sum(axis=1, keepdims=True)  # 0 where a fold lacks every label
        probabilities = np.where(sums > 0, probabilities / np.where(sums > 0, sums, 1), 1 / len(known))
        # The confident joint counts an example by its most probable label above that label's mean confidence
        # (Northcutt, Jiang & Chuang 2021).
        found = np.flatnonzero(find_label_issues(given, probabilities, n_jobs=1))
        confidence = np.round(probabilities[found, given[found]], 6)
        return np.asarray(found[np.argsort(confidence, kind="stable")], dtype=np.int64)

    def disagreement(self, before: pd.DataFrame, after: pd.DataFrame) -> npt.NDArray[np.float64]:
        confidences = [np.array([max(each) for each in run["probabilities"]], np.float64) for run in (before, after)]
        return confidences[0] + confidences[1]


def balanced_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """Weigh labels inversely to their examples, so that all have the same sum and an example weighs 1 on average.

    Args:
        counts: examples of each label; one without any gets 0, since no example asks for its weight.
    """
    occurring = sum(count > 0 for count in counts.values())
    total = sum(counts.values())
    return {label: total / (occurring * count) if count else 0.0 for label, count in counts.items()}
