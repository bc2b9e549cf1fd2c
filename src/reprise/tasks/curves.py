"""The tables behind the plots: confusion, precision against recall, calibration. Pure functions."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_curve

NUM_BINS = 10
MAX_POINTS = 200  # per curve: a plot shows no more, and large test sets would make large files

# DVC expects the file of each plot; one that does not apply to a task has these columns and no rows.
PLOT_COLUMNS = {
    "confusion.csv": ["actual", "predicted"],
    "precision_recall.csv": ["label", "recall", "precision", "threshold"],
    "calibration.csv": ["confidence", "accuracy", "rows"],
}

Numbers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def empty_plots() -> dict[str, pd.DataFrame]:
    """Return the table of each plot, by file name, without rows."""
    return {name: pd.DataFrame(columns=columns) for name, columns in PLOT_COLUMNS.items()}


def confusion_pairs(predictions: Numbers, references: Numbers, labels: list[str]) -> pd.DataFrame:
    """Return one row per example with its actual and its predicted label, which DVC's template counts."""
    names = np.array(labels)
    return pd.DataFrame({"actual": names[references], "predicted": names[predictions]})


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
    curves = [pd.DataFrame(columns=["label", "recall", "precision", "threshold"])]
    for number in range(len(labels)) if positive is None else [positive]:
        actual = references == number
        if not actual.any():
            continue
        precision, recall, threshold = precision_recall_curve(actual, probabilities[:, number], drop_intermediate=True)
        # The last point (recall 0, precision 1) belongs to no threshold and to no prediction.
        points = np.unique(np.linspace(0, len(threshold) - 1, MAX_POINTS).round().astype(int))
        curves.append(
            pd.DataFrame(
                {
                    "label": labels[number],
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
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == references
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
