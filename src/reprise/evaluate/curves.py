"""The tables behind the pictures: confusion, precision against recall, calibration. Pure functions."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_curve

NUM_BINS = 10
MAX_POINTS = 200  # of a curve: more cannot be told apart in a picture, and large test sets would make large files

Numbers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def confusion_pairs(predictions: Numbers, references: Numbers, labels: list[str]) -> pd.DataFrame:
    """A row per example with its actual and its predicted label by name, as DVC's confusion template counts them."""
    names = np.array(labels)
    return pd.DataFrame({"actual": names[references], "predicted": names[predictions]})


def precision_recall_table(probabilities: Probabilities, references: Numbers, labels: list[str]) -> pd.DataFrame:
    """Precision and recall over all thresholds; of label 1 where there are two, of each label against the rest else.

    Args:
        probabilities: [rows, labels].
        references: [rows].
        labels: their names.

    Returns:
        Columns label, recall, precision, threshold, at most POINTS rows a label.
    """
    curves = [pd.DataFrame(columns=["label", "recall", "precision", "threshold"])]
    for number in [1] if len(labels) == 2 else range(len(labels)):
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
    """How often the predicted label is right, against how sure the model was (Guo et al. 2017, reliability diagram).

    Args:
        probabilities: [rows, labels].
        references: [rows].

    Returns:
        Columns confidence (mean of the bin), accuracy, rows: one row for each of BINS equal bins that holds any.
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
    """The mean gap between confidence and accuracy over the rows (Naeini et al. 2015), from `calibration`."""
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["rows"]).sum() / table["rows"].sum())
