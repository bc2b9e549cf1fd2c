"""What the rest of the package asks of a kind of task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    import torch

Logits = npt.NDArray[np.float32]


class TaskKind(Protocol):
    """Everything that depends on the kind of task.

    Attributes:
        name: what metrics and messages call it.
        labels: the names of the labels, in the order of their ids; empty where there are none.
        positive_label: the one of two labels that F1 and the precision-recall curve are of; None for more or none.
        positive: its id; None likewise.
        named_labels: whether raw labels are names, which a column of class ids spells out.
        label_dtype: of the column `label` in prepared data, as `datasets.Value` takes it.
        placeholder_label: the label of examples that are only predicted; no model reads it.
        ignored_label: the label of padding rows in a batch; the loss leaves them out.
        baseline: what the baseline always predicts, such as "the majority class".
        pipeline_arguments: the arguments that make a transformers pipeline give the same predictions, as code.
        errors_title: heads the list of the worst predictions.
        limits: one sentence on what every prediction of this kind has in common, for model cards.
    """

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def positive_label(self) -> str | None: ...
    @property
    def positive(self) -> int | None: ...
    @property
    def named_labels(self) -> bool: ...
    @property
    def label_dtype(self) -> str: ...
    @property
    def placeholder_label(self) -> float: ...
    @property
    def ignored_label(self) -> float: ...
    @property
    def baseline(self) -> str: ...
    @property
    def pipeline_arguments(self) -> str: ...
    @property
    def errors_title(self) -> str: ...
    @property
    def limits(self) -> str: ...

    def parse_label(self, value: Any, split: str) -> float:
        """Turn a raw label into what prepared data holds.

        Raises:
            ValueError: the label does not fit; the message names what was expected.
        """

    def describe(self, label_column: str) -> str:
        """Complete the sentence "The model is fine-tuned to …"."""

    def is_unlabeled(self, labels: npt.NDArray[Any]) -> bool:
        """Return whether a split with these prepared labels, [examples], has unpublished labels."""

    def label_stats(self, labels: npt.NDArray[Any]) -> dict[str, Any]:
        """Summarise the prepared labels of a split, shape [examples], for stats.json."""

    def label_warnings(self, splits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return what is odd about the labels, from the entries of the splits in stats.json: warnings for it."""

    def stats_table(self, stats: Mapping[str, Any]) -> dict[str, float]:
        """Pick from a split's entry in stats.json what a table shows of its labels, by heading."""

    def head_config(self) -> dict[str, Any]:
        """Return the entries of a transformers config that shape the head."""

    def summed_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum the loss over a batch, without its padding rows; a step divides it by the step's examples.

        Args:
            logits: [rows, outputs].
            labels: [rows], with `ignored_label` in padding rows.
        """

    def decode(self, logits: Logits) -> npt.NDArray[Any]:
        """Turn logits, [examples, outputs], into predictions as prepared labels are, [examples]."""

    def predictions(self, logits: Logits) -> Iterator[dict[str, Any]]:
        """Yield for each example what `reprise predict` prints of its prediction, ready for JSON."""

    def constant_prediction(self, train_stats: Mapping[str, Any]) -> float:
        """Return what the baseline predicts, from the `label_stats` of the training split."""

    def label_names(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Spell prepared labels or decoded predictions, [examples], as the raw data does."""

    def label_values(self, names: Sequence[Any]) -> npt.NDArray[Any]:
        """Turn spelled labels back into prepared ones, [examples].

        Raises:
            ValueError: a label is not one of the task.
        """

    def prediction_columns(self, logits: Logits, references: npt.NDArray[Any]) -> dict[str, Any]:
        """Return the columns of predictions/ that depend on the kind of task, each of [examples]."""

    def plots(self, logits: Logits, references: npt.NDArray[Any]) -> dict[str, pd.DataFrame]:
        """Return the table of each plot of the evaluation by its file name; without rows where it does not apply."""

    def extra_metrics(self, plots: Mapping[str, pd.DataFrame]) -> dict[str, float]:
        """Return the metrics beside the recipe's that follow from the plots."""

    def rank_errors(self, predictions: pd.DataFrame) -> pd.Series[float]:
        """Score the wrong predictions of predictions/, by row: the highest are the worst errors."""

    def describe_error(self, score: float) -> str:
        """Put a score of `rank_errors` into words."""

    def is_correct(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Return which predictions are correct, [examples]; None if the kind has no such notion."""

    def disagreement(self, before: pd.DataFrame, after: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Score how strongly two runs disagree about each example, from their predictions/; shape [examples]."""
