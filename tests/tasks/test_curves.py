"""The tables of the plots match manual examples and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy.special import softmax
from sklearn.metrics import classification_report, precision_recall_curve

from reprise.tasks.curves import (
    MAX_EXAMPLES,
    MAX_POINTS,
    NUM_BINS,
    Numbers,
    Probabilities,
    calibration_table,
    confusion_pairs,
    expected_calibration_error,
    per_class_table,
    precision_recall_table,
    residual_table,
    worst_classes,
    worst_confusions,
)

# Confident and right, confident and wrong, and twice less confident and right.
PROBABILITIES = np.array([[0.95, 0.05], [0.92, 0.08], [0.66, 0.34], [0.38, 0.62]])
REFERENCES = np.array([0, 1, 0, 1])


def random_rows(rows: int, labels: int, seed: int = 0) -> tuple[Probabilities, Numbers]:
    """Return probabilities that are better than chance, and the labels."""
    random = np.random.default_rng(seed)
    references = random.integers(0, labels, rows)
    logits = random.normal(size=(rows, labels)) + np.eye(labels)[references]
    return softmax(logits, axis=1), references


def test_confusion_pairs_are_the_actual_and_the_predicted_label_of_each_row() -> None:
    table = confusion_pairs(np.array([0, 2, 1]), np.array([1, 2, 0]), ["bad", "fair", "good"])
    assert table.to_dict("list") == {"actual": ["fair", "good", "bad"], "predicted": ["bad", "good", "fair"]}


def test_each_label_has_precision_recall_f1_and_support() -> None:
    table = per_class_table(np.array([0, 0, 2, 0]), np.array([0, 1, 2, 0]), ["bad", "fair", "good", "absent"])
    expected = {
        "label": ["bad", "fair", "good", "absent"],
        "precision": [2 / 3, np.nan, 1, np.nan],
        "recall": [1, 0, 1, np.nan],
        "f1": [4 / 5, 0, 1, np.nan],
        "support": [2, 1, 1, 0],
    }
    assert_frame_equal(table, pd.DataFrame(expected))
    assert worst_classes(table)["label"].tolist() == ["fair", "bad", "good"]


@pytest.mark.parametrize("labels", [2, 20, 150])
def test_scores_of_each_label_agree_with_scikit_learns_report(labels: int) -> None:
    probabilities, references = random_rows(2000, labels)
    names = [f"label {number}" for number in range(labels)]
    predictions = probabilities.argmax(axis=1)
    report = classification_report(
        references, predictions, labels=range(labels), target_names=names, output_dict=True, zero_division=np.nan
    )
    for row in per_class_table(predictions, references, names).to_dict("records"):
        other = report[row["label"]]
        np.testing.assert_array_equal(
            [row["precision"], row["recall"], row["f1"], row["support"]],
            [other["precision"], other["recall"], other["f1-score"], other["support"]],
        )


def test_the_worst_confusions_are_the_most_frequent_with_their_share_of_the_actual_label() -> None:
    pairs = confusion_pairs(np.array([1, 1, 0, 0, 2, 0]), np.array([0, 0, 0, 1, 1, 2]), ["a", "b", "c"])
    expected = {"actual": ["a", "c", "b", "b"], "predicted": ["b", "a", "a", "c"], "count": [2, 1, 1, 1],
                "share": [2 / 3, 1, 1 / 2, 1 / 2]}  # fmt: skip
    assert_frame_equal(worst_confusions(pairs), pd.DataFrame(expected))
    assert worst_confusions(pairs[pairs["actual"] == pairs["predicted"]]).empty


def test_residuals_are_predicted_minus_actual_and_many_are_spread_over_the_range() -> None:
    table = residual_table(np.array([2.5, 1.0], np.float32), np.array([2.0, 1.0]))
    assert table.to_dict("list") == {"actual": [1.0, 2.0], "predicted": [1.0, 2.5], "residual": [0.0, 0.5]}
    actual = np.random.default_rng(0).permutation(5000).astype(np.float64)
    many = residual_table(actual, actual)
    assert len(many) == MAX_EXAMPLES
    assert many["actual"].iloc[[0, -1]].tolist() == [0, 4999]
    assert many["actual"].diff().max() <= 6


def test_precision_and_recall_of_two_labels_are_those_of_the_positive_one() -> None:
    # By decreasing probability of "good": right, wrong, right.
    table = precision_recall_table(
        np.array([[0.1, 0.9], [0.3, 0.7], [0.6, 0.4]]), np.array([1, 0, 1]), ["bad", "good"], positive=1
    )
    expected = {
        "label": ["good"] * 3,
        "recall": [1, 0.5, 0.5],
        "precision": [2 / 3, 1 / 2, 1],
        "threshold": [0.4, 0.7, 0.9],
    }
    assert_frame_equal(table, pd.DataFrame(expected))


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c"]])
def test_precision_and_recall_agree_with_scikit_learn_at_every_threshold(labels: list[str]) -> None:
    probabilities, references = random_rows(150, len(labels))
    table = precision_recall_table(probabilities, references, labels, positive=1 if len(labels) == 2 else None)
    with_curve = [1] if len(labels) == 2 else [0, 1, 2]
    assert table["label"].unique().tolist() == [labels[number] for number in with_curve]
    for number in with_curve:
        precision, recall, threshold = precision_recall_curve(
            references == number, probabilities[:, number], drop_intermediate=True
        )
        curve = table[table["label"] == labels[number]]
        np.testing.assert_array_equal(curve["precision"], precision[:-1])
        np.testing.assert_array_equal(curve["recall"], recall[:-1])
        np.testing.assert_array_equal(curve["threshold"], threshold)


def test_a_long_curve_is_downsampled_with_both_end_points() -> None:
    probabilities, references = random_rows(5000, 3)
    table = precision_recall_table(probabilities, references, ["a", "b", "c"], positive=None)
    assert table.groupby("label").size().to_dict() == {"a": MAX_POINTS, "b": MAX_POINTS, "c": MAX_POINTS}
    precision, recall, threshold = precision_recall_curve(references == 2, probabilities[:, 2], drop_intermediate=True)
    curve = table[table["label"] == "c"]
    assert {*zip(curve["recall"], curve["precision"], curve["threshold"], strict=True)} <= {
        *zip(recall[:-1], precision[:-1], threshold, strict=True)
    }
    assert curve["threshold"].iloc[[0, -1]].tolist() == threshold[[0, -1]].tolist()


def test_a_label_that_does_not_occur_has_no_curve() -> None:
    probabilities, _ = random_rows(50, 3)
    table = precision_recall_table(probabilities, np.arange(50) % 2, ["a", "b", "c"], positive=None)
    assert table["label"].unique().tolist() == ["a", "b"]


def test_without_the_positive_label_the_table_is_empty() -> None:
    table = precision_recall_table(PROBABILITIES, np.zeros(4, dtype=np.int64), ["a", "b"], positive=1)
    assert table.columns.tolist() == ["label", "recall", "precision", "threshold"]
    assert len(table) == 0


def test_calibration_is_the_mean_confidence_and_the_accuracy_of_each_bin() -> None:
    expected = {"confidence": [0.64, 0.935], "accuracy": [1.0, 0.5], "rows": [2, 2]}
    assert_frame_equal(calibration_table(PROBABILITIES, REFERENCES), pd.DataFrame(expected))


def test_the_expected_calibration_error_is_the_mean_gap_weighted_by_rows() -> None:
    # Gaps of 0.36 and 0.435, two rows each.
    assert expected_calibration_error(calibration_table(PROBABILITIES, REFERENCES)) == pytest.approx(0.3975)
    # Gaps of 0.1 over one row and 0.5 over three.
    table = pd.DataFrame({"confidence": [0.6, 0.9], "accuracy": [0.5, 0.4], "rows": [1, 3]})
    assert expected_calibration_error(table) == pytest.approx(0.4)


def test_full_confidence_is_in_the_last_bin() -> None:
    table = calibration_table(np.array([[1.0, 0.0], [0.95, 0.05]]), np.array([0, 0]))
    assert_frame_equal(table, pd.DataFrame({"confidence": [0.975], "accuracy": [1.0], "rows": [2]}))


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_every_row_is_in_one_bin_of_the_calibration(labels: int) -> None:
    probabilities, references = random_rows(2000, labels)
    table = calibration_table(probabilities, references)
    assert table["rows"].sum() == 2000
    assert len(table) <= NUM_BINS
    assert table["confidence"].is_monotonic_increasing
    # The bins together have the mean confidence and the accuracy of all rows.
    assert (table["confidence"] * table["rows"]).sum() == pytest.approx(probabilities.max(axis=1).sum())
    right = (probabilities.argmax(axis=1) == references).sum()
    assert (table["accuracy"] * table["rows"]).sum() == pytest.approx(right)


def test_a_calibrated_model_has_a_small_calibration_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 20_000)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    references = (random.random(20_000) > confidence).astype(np.int64)
    assert expected_calibration_error(calibration_table(probabilities, references)) < 0.01
    assert expected_calibration_error(calibration_table(probabilities, 1 - references)) > 0.4
