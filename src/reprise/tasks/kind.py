"""What the rest of the package asks of a kind of task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from datasets import List, Value
    from scipy.sparse import csr_matrix

    from reprise.tasks.token_classification import Words

Logits = npt.NDArray[Any]  # fp32, [examples, outputs]; for labels of words objects, [examples] of [words, outputs]
LinearModel = Callable[["csr_matrix"], npt.NDArray[np.float64]]  # from features to outputs, [examples, outputs]


class LossOptions(Protocol):
    """What `train.loss` of a recipe changes; core/config.py says what each key means."""

    @property
    def class_weights(self) -> str | Mapping[str, float] | None: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def focal_gamma(self) -> float: ...


class TaskKind(Protocol):
    """Everything that depends on the kind of task.

    Attributes:
        name: what metrics and messages call it.
        labels: the names of the labels, in the order of their ids; empty where there are none.
        positive_label: the one of two labels that F1 and the precision-recall curve are of; None for more or none.
        positive: its id; None likewise.
        named_labels: whether raw labels are names, which a column of class ids spells out.
        label_feature: of the column `label` in prepared data: a number, or a list of 0 or 1 for each label.
        placeholder_label: the label of examples that are only predicted; no model reads it.
        ignored_label: the label of padding rows in a batch; the loss leaves them out.
        baseline: what the baseline always predicts, such as "the majority class".
        per_token: whether each word of a text has a label and a prediction. Labels, logits and predictions are then
            arrays of objects, [examples] of [words] or [words, outputs]; see token_classification.py.
        pipeline: the task of the transformers pipeline that gives the same predictions.
        pipeline_arguments: the arguments with which it does, as code.
        errors_title: heads the list of the worst predictions.
        thresholds: the probability from which each label is predicted, of any number of labels; None for other kinds,
            whose prediction is the most probable label or a number, and before `tune`.
        label_scale: mean and standard deviation of the labels in training, whose model learns numbers of unit variance;
            None where labels are no numbers, and before `fit`.
        constant_meaning: what a constant prediction is, as a clause.
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
    def label_feature(self) -> Value | List: ...
    @property
    def placeholder_label(self) -> float | list[int]: ...
    @property
    def ignored_label(self) -> float | list[int]: ...
    @property
    def thresholds(self) -> Sequence[float] | None: ...
    @property
    def baseline(self) -> str: ...
    @property
    def per_token(self) -> bool: ...
    @property
    def pipeline(self) -> str: ...
    @property
    def pipeline_arguments(self) -> str: ...
    @property
    def errors_title(self) -> str: ...
    @property
    def constant_meaning(self) -> str: ...
    @property
    def label_scale(self) -> tuple[float, float] | None: ...
    @property
    def limits(self) -> str: ...

    def label_columns(self, label_column: str | None) -> list[str]:
        """Return the columns of the raw data that hold the label; with several, `parse_label` takes a mapping."""

    def parse_label(self, value: Any, split: str) -> float | list[int]:
        """Turn a raw label into what prepared data holds.

        Raises:
            ValueError: the label does not fit; the message names what was expected.
        """

    def describe(self, label_column: str) -> str:
        """Complete the sentence "The model is fine-tuned to …"."""

    def is_unlabeled(self, labels: npt.NDArray[Any]) -> bool:
        """Return whether a split with these prepared labels, [examples], has unpublished labels."""

    def strata(
        self, labels: npt.NDArray[Any], groups: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Sequence[str]]:
        """Divide groups of rows by their labels, for splits with equal shares of each.

        Args:
            labels: prepared labels, [rows].
            groups: index of each row's group, [rows], from 0 without gaps.

        Returns:
            The stratum of each group, [groups], and the name of each stratum. Neither depends on the order of the rows.
        """

    def label_stats(self, labels: npt.NDArray[Any]) -> dict[str, Any]:
        """Summarise the prepared labels of a split, shape [examples], for stats.json."""

    def label_warnings(self, splits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return what is odd about the labels, from the entries of the splits in stats.json: warnings for it."""

    def stats_table(self, stats: Mapping[str, Any]) -> dict[str, float]:
        """Pick from a split's entry in stats.json what a table shows of its labels, by heading."""

    def fit(self, train_stats: Mapping[str, Any], loss: LossOptions | None = None) -> TaskKind:
        """Return this kind as training uses it.

        Args:
            train_stats: the entry of the training split in stats.json.
            loss: the recipe's; None for plain cross-entropy or squared error.
        """

    def loss_problem(self, loss: LossOptions) -> tuple[str, str, str] | None:
        """Return what does not fit this kind in `train.loss`: key ("" for all), problem and what is expected."""

    def head_config(self) -> dict[str, Any]:
        """Return the entries of a transformers config that shape the head."""

    def loss_weights(self, read_labels: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[np.float64] | None:
        """Return the weight of each row's loss, by which a step divides it; None if every row weighs 1.

        Args:
            read_labels: returns those of the rows that the model reads, [rows].
        """

    def summed_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Sum the weighted loss over a batch, without its padding rows; a step divides it by its rows' weights.

        Args:
            logits: [rows, outputs].
            labels: [rows], with `ignored_label` in padding rows.
            weights: of the windows of long texts, [rows]; None if every row is an example.
        """

    def teacher_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, temperature: float | None
    ) -> torch.Tensor:
        """Sum over a batch, without its padding rows, how far the outputs are from those of a teacher.

        A step divides it as it does `summed_loss`, and it weighs the rows as that does.

        Args:
            logits: [rows, outputs].
            labels: [rows] or [rows, labels], with `ignored_label` in padding rows.
            teacher: its logits, fp32, [rows, outputs]; in regression its predictions, [rows, 1].
            temperature: divides the logits of both; None in regression.
        """

    def temperatures(self, logits: npt.NDArray[np.floating[Any]], references: npt.NDArray[Any]) -> list[float] | None:
        """Return what divides the logits so that their probabilities fit the validation split best.

        Args:
            logits: of the validation split, [examples, outputs].
            references: its prepared labels, [examples] or [examples, labels].

        Returns:
            One number for all outputs, or one for each; None for kinds without probabilities.
        """

    def tune(self, logits: npt.NDArray[np.floating[Any]], references: npt.NDArray[Any]) -> TaskKind:
        """Return this kind with the thresholds that fit the validation split best.

        Args:
            logits: of the validation split, [examples, outputs].
            references: its prepared labels, [examples] or [examples, labels].
        """

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64] | None:
        """Turn logits, [examples, outputs], into each label's probability, [examples, labels]; None without labels."""

    def decode(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[Any]:
        """Turn logits, [examples, outputs], into predictions, of the shape and values of the prepared labels."""

    def predictions(
        self, logits: npt.NDArray[Any], top_k: int | None = None, words: Sequence[Words] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield for each example what `reprise predict` prints of its prediction, ready for JSON.

        Args:
            logits: [examples, outputs].
            top_k: how many of the most probable labels to list, instead of the probability of each; only for labels.
            words: of each text, if labels are of words.
        """

    def constant_predictions(self, train_stats: Mapping[str, Any], references: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what the baseline predicts for examples with these labels, from the training split's `label_stats`."""

    def is_constant(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> bool:
        """Return whether decoded predictions, [examples], are too much alike to depend on the input."""

    def label_names(self, values: npt.NDArray[Any]) -> Sequence[Any] | npt.NDArray[Any]:
        """Spell prepared labels or decoded predictions as the raw data does: a name, some names or a number each."""

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

    def explained_share(self, groups: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
        """Return the share of the baseline's error that knowing an example's group removes, from 0 to 1.

        Each example is predicted from the others of its group, so a group for each example explains nothing.

        Args:
            groups: integers, shape [examples].
            labels: as prepared, shape [examples].
        """

    def disagreement(self, before: pd.DataFrame, after: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Score how strongly two runs disagree about each example, from their predictions/; shape [examples]."""


@runtime_checkable
class LinearTaskKind(TaskKind, Protocol):
    """A kind of task whose labels a linear model on the words of a text can predict.

    Attributes:
        linear_model: what that model is called, as in "TF-IDF and logistic regression".
    """

    @property
    def linear_model(self) -> str: ...

    def fit_linear(self, features: csr_matrix, labels: npt.NDArray[Any]) -> LinearModel:
        """Train scikit-learn's linear model on features, [examples, words]; `decode` decodes its outputs."""

    def suspect_labels(self, labels: npt.NDArray[Any], outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the indices of examples whose labels are likely errors, the likeliest first.

        Args:
            labels: as prepared, shape [examples].
            outputs: of linear models that were trained without the example, [examples, outputs].
        """
