"""The tables behind the plots: confusion, scores per label, curves, calibration, residuals. Pure functions."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_curve, precision_recall_fscore_support

NUM_BINS = 10
MAX_POINTS = 200  # per curve: a plot shows no more, and large test sets would make large files

# DVC expects the file of each plot; one that does not apply to a task has these columns and no rows.
PLOT_COLUMNS = {
    "confusion.csv": ["actual", "predicted"],
    "per_class.csv": ["label", "precision", "recall", "f1", "support"],
    "precision_recall.csv": ["label", "recall", "precision", "threshold"],
    "calibration.csv": ["confidence", "accuracy", "rows"],
    "residuals.csv": ["actual", "predicted", "residual"],
}
MAX_EXAMPLES = 1000  # in residuals.csv

Numbers = npt.NDArray[np.int64]
Indicators = npt.NDArray[np.int8]  # 0 or 1
Probabilities = npt.NDArray[np.float64]


def empty_plots() -> dict[str, pd.DataFrame]:
    """Return the table of each plot, by file name, without rows."""
    return {name: pd.DataFrame(columns=columns) for name, columns in PLOT_COLUMNS.items()}


def confusion_pairs(predictions: Numbers, references: Numbers, labels: list[str]) -> pd.DataFrame:
    """Return one row per example with its actual and its predicted label, which DVC's template counts."""
    names = np.array(labels)
    return pd.DataFrame({"actual": names[references], "predicted": names[predictions]})


def per_class_table(predictions: Numbers, references: Numbers, labels: list[str]) -> pd.DataFrame:
    """Compute precision, recall and F1 of each label against the rest; NaN where one is not defined.

    Args:
        predictions: label ids, [examples].
        references: the true ones, [examples].
        labels: their names.

    Returns:
        Columns label, precision, recall, f1, support (examples that have the label), one row per label in their order.
    """
    scores = precision_recall_fscore_support(
        references, predictions, labels=np.arange(len(labels)), zero_division=np.nan
    )
    return pd.DataFrame({"label": labels, **dict(zip(PLOT_COLUMNS["per_class.csv"][1:], scores, strict=True))})


def indicator_per_class_table(predictions: Indicators, references: Indicators, labels: list[str]) -> pd.DataFrame:
    """Compute what `per_class_table` does, of 0 or 1 for each example and label, [examples, labels]."""
    scores = precision_recall_fscore_support(references, predictions, zero_division=np.nan)
    return pd.DataFrame({"label": labels, **dict(zip(PLOT_COLUMNS["per_class.csv"][1:], scores, strict=True))})


def worst_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Sort the labels of `per_class_table` that have examples by F1, the lowest first."""
    return table[table["support"] > 0].sort_values(["f1", "support"], ascending=[True, False], kind="stable")


def worst_confusions(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count each kind of error, the most frequent first.

    Args:
        pairs: from `confusion_pairs`.

    Returns:
        Columns actual, predicted, count, and share: the count as a fraction of the examples with the actual label.
    """
    wrong = pairs[pairs["actual"] != pairs["predicted"]]
    counts = wrong.groupby(["actual", "predicted"], sort=True).size().rename("count").reset_index()
    counts["share"] = counts["count"] / pairs.groupby("actual").size().loc[counts["actual"]].to_numpy()
    return counts.sort_values(["count", "share"], ascending=False, kind="stable", ignore_index=True)


def residual_table(predictions: npt.NDArray[np.float64], references: npt.NDArray[np.float64]) -> pd.DataFrame:
    """Return actual value, predicted value and residual (predicted minus actual), sorted by the actual value.

    Of more than MAX_EXAMPLES examples it has as many, evenly spaced, so that the whole range is among them.
    """
    order = np.argsort(references, kind="stable")
    order = order[np.linspace(0, len(order) - 1, min(len(order), MAX_EXAMPLES)).round().astype(int)]
    actual, predicted = references[order], predictions[order].astype(np.float64)
    return pd.DataFrame({"actual": actual, "predicted": predicted, "residual": predicted - actual})


def precision_recall_table(
    probabilities: Probabilities, references: Numbers, labels: list[str], *, positive: int | None
) -> pd.DataFrame:
    """Compute precision and recall over all thresholds, of each label against the rest.

    With a positive label, the table has the curve of that one only.

    Args:
        probabilities: [examples, labels].
        references: label ids, [examples].
        labels: their names.
        positive: id of the positive label; None for all.

    Returns:
        Columns label, recall, precision, threshold, at most MAX_POINTS rows per label.
    """
    chosen = list(range(len(labels))) if positive is None else [positive]
    actual = references[:, np.newaxis] == np.arange(len(labels))
    return indicator_precision_recall_table(probabilities[:, chosen], actual[:, chosen], [labels[n] for n in chosen])


def indicator_precision_recall_table(
    probabilities: Probabilities, references: npt.NDArray[Any], labels: list[str]
) -> pd.DataFrame:
    """Compute what `precision_recall_table` does, of 0 or 1 for each example and label, [examples, labels]."""
    curves = [pd.DataFrame(columns=["label", "recall", "precision", "threshold"])]
    for number, label in enumerate(labels):
        actual = references[:, number]
        if not actual.any():
            continue
        precision, recall, threshold = precision_recall_curve(actual, probabilities[:, number], drop_intermediate=True)
        # The last point (recall 0, precision 1) belongs to no threshold and to no prediction.
        points = np.unique(np.linspace(0, len(threshold) - 1, MAX_POINTS).round().astype(int))
        curves.append(
            pd.DataFrame(
                {
                    "label": label,
                    "recall": recall[points],
                    "precision": precision[points],
                    "threshold": threshold[points],
                }
            )
        )
    return pd.concat(curves[1:] or curves, ignore_index=True)


def calibration_table(probabilities: Probabilities, references: Numbers) -> pd.DataFrame:
    """Compare accuracy with confidence, bin by bin (Guo et al. 2017, reliability diagram).

    Args:
        probabilities: [examples, labels].
        references: label ids, [examples].

    Returns:
        Columns confidence (mean of the bin), accuracy, rows (examples in the bin): one row for each of NUM_BINS equal
        bins that holds any.
    """
    return _calibration(probabilities.max(axis=1), probabilities.argmax(axis=1) == references)


def binary_calibration_table(probabilities: Probabilities, references: Indicators) -> pd.DataFrame:
    """Compare, over all examples and labels, the probability with how often the label is there, bin by bin.

    Args:
        probabilities: [examples, labels].
        references: 0 or 1, [examples, labels].

    Returns:
        The columns of `calibration_table`; confidence is the mean probability, accuracy the fraction with the label.
    """
    return _calibration(probabilities.ravel(), references.ravel() > 0)


def _calibration(confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> pd.DataFrame:
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    table = pd.DataFrame({"bin": bins, "confidence": confidence, "right": right})
    grouped = table.groupby("bin", sort=True)
    return pd.DataFrame(
        {
            "confidence": grouped["confidence"].mean(),
            "accuracy": grouped["right"].mean(),
            "rows": grouped["right"].size(),
        }
    ).reset_index(drop=True)


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Average the gap between confidence and accuracy over the examples (Naeini et al. 2015).

    Args:
        table: from `calibration_table`.
    """
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["rows"]).sum() / table["rows"].sum())
