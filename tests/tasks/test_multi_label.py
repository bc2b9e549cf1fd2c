"""Any number of labels: parsing, loss, thresholds, predictions, plots."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from reprise.core.config import Loss
from reprise.tasks.multi_label import IGNORED, MultiLabel, best_threshold
from reprise.tasks.registry import task_kind

LABELS = ("joy", "anger", "surprise")
KIND = MultiLabel(LABELS)


def logits(*rows: list[float]) -> Any:
    return np.array(rows, dtype=np.float32)


def test_the_section_multi_label_makes_the_kind() -> None:
    assert task_kind(LABELS, multi_label={"separator": None, "thresholds": "tuned"}) == KIND
    fixed = task_kind(LABELS, multi_label={"separator": "|", "thresholds": 0.3})
    assert (fixed.thresholds, fixed.parse_label("joy|anger", "train")) == ((0.3, 0.3, 0.3), [1, 1, 0])
    assert fixed.tune(logits([0, 0, 0]), np.array([[1, 0, 0]])) is fixed


@pytest.mark.parametrize(
    ("separator", "value", "expected"),
    [
        (None, ["anger", "joy"], [1, 1, 0]),
        (None, [], [0, 0, 0]),
        (None, None, [0, 0, 0]),
        (",", "surprise, joy", [1, 0, 1]),
        (",", " ", [0, 0, 0]),
        (None, {"joy": 1, "anger": "0", "surprise": True}, [1, 0, 1]),
        (None, {"joy": 1.0, "anger": 0.0, "surprise": "false"}, [1, 0, 0]),
    ],
)
def test_labels_are_a_list_a_text_or_a_column_each(separator: str | None, value: Any, expected: list[int]) -> None:
    assert MultiLabel(LABELS, separator).parse_label(value, "train") == expected


@pytest.mark.parametrize(
    ("separator", "value", "message"),
    [
        (None, ["joi"], "unknown label 'joi'; did you mean 'joy'? expected one of task.labels: joy, anger, surprise"),
        (",", "joy,,anger", "unknown label ''; expected one of task.labels: joy, anger, surprise"),
        (None, "joy", "got 'joy', which is no list; expected task.multi_label.separator to divide it"),
        (None, {"joy": 2, "anger": 0, "surprise": 0}, "got 2 in the column of the label 'joy'; expected 0 or 1"),
        (None, {"joy": None, "anger": 0, "surprise": 0}, "got None in the column of the label 'joy'; expected 0 or 1"),
    ],
)
def test_what_is_no_set_of_labels_is_refused(separator: str | None, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^(unknown|got)") as refused:
        MultiLabel(LABELS, separator).parse_label(value, "train")
    assert str(refused.value) == message


def test_the_loss_of_an_example_is_the_mean_over_its_labels_as_in_transformers() -> None:
    outputs, labels = torch.randn(5, 3), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]])
    expected = torch.nn.BCEWithLogitsLoss()(outputs, labels.float())
    assert (KIND.summed_loss(outputs, labels) / 5).item() == pytest.approx(expected.item(), rel=1e-6)


def test_padding_rows_add_nothing_to_loss_and_gradient() -> None:
    outputs = torch.tensor([[0.5, -0.2, 1.0], [2.0, 1.0, -1.0]], requires_grad=True)
    labels = torch.tensor([[1, 0, 0], [IGNORED] * 3], dtype=torch.int8)
    loss = KIND.summed_loss(outputs, labels)
    loss.backward()
    assert loss.item() == KIND.summed_loss(outputs[:1], labels[:1]).item() > 0
    assert outputs.grad is not None
    assert not outputs.grad[1].any()


def test_balanced_weights_count_a_label_as_often_as_its_absence() -> None:
    stats = {"label_counts": {"joy": 20, "anger": 50, "surprise": 0}, "num_examples": 100}
    fitted = KIND.fit(stats, Loss(class_weights="balanced"))
    assert fitted.weights == (4.0, 1.0, 1.0)
    outputs, labels = torch.randn(4, 3), torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([4.0, 1.0, 1.0]))(outputs, labels.float())
    assert fitted.summed_loss(outputs, labels).item() / 4 == pytest.approx(expected.item(), rel=1e-6)


def test_smoothing_and_focal_loss_are_of_one_label_per_example() -> None:
    assert KIND.loss_problem(Loss(label_smoothing=0.1)) is not None
    assert KIND.loss_problem(Loss(focal_gamma=1.0)) is not None
    assert KIND.loss_problem(Loss(class_weights={"joy": 1.0})) is not None
    assert KIND.loss_problem(Loss(class_weights="balanced")) is None


def test_probabilities_are_the_logistic_function_of_the_logits() -> None:
    values = np.linspace(-700, 700, 40_001, dtype=np.float32)[:, None]
    np.testing.assert_allclose(KIND.probabilities(values), expit(values.astype(np.float64)), rtol=1e-15, atol=0)
    assert KIND.probabilities(logits([-3e38, 0, 3e38])).tolist() == [[0.0, 0.5, 1.0]]


def test_the_threshold_is_the_one_with_the_highest_f1() -> None:
    probabilities = np.array([0.9, 0.6, 0.55, 0.4, 0.1])
    assert best_threshold(probabilities, np.array([1, 1, 0, 0, 0])) == pytest.approx((0.6 + 0.55) / 2)
    assert best_threshold(probabilities, np.array([1, 1, 1, 1, 0])) == pytest.approx((0.4 + 0.1) / 2)
    assert best_threshold(probabilities, np.array([0, 0, 0, 0, 0])) == 0.5
    assert best_threshold(np.array([0.5, 0.5, 0.2]), np.array([1, 0, 0])) == pytest.approx(0.35)


@settings(deadline=None, max_examples=30)
@given(
    arrays.arrays(np.float64, 12, elements=st.floats(0.01, 0.99).map(lambda value: round(value, 1))),
    arrays.arrays(np.int8, 12, elements=st.integers(0, 1)),
)
def test_no_other_threshold_has_a_higher_f1(probabilities: Any, references: Any) -> None:
    chosen = f1_score(references, probabilities >= best_threshold(probabilities, references), zero_division=0.0)
    # Between two probabilities, and outside of all, every threshold decides the same.
    others = [f1_score(references, probabilities >= value, zero_division=0.0) for value in {*probabilities, 1.1}]
    assert chosen >= max(others) - 1e-12


def test_tuned_thresholds_decide_the_predictions() -> None:
    validation = logits([2.0, -1.0, -3.0], [1.0, -2.0, -3.0], [-1.0, -3.0, -4.0])
    tuned = KIND.tune(validation, np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]]))
    assert tuned.decode(validation).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert KIND.decode(validation).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert tuned.thresholds is not None
    assert tuned.thresholds[2] == 0.5  # no example of the validation split has it


def test_a_prediction_lists_its_labels_and_the_probability_of_each() -> None:
    printed = list(KIND.predictions(logits([0.0, -1.0, 2.0], [-5.0, -5.0, -5.0])))
    assert [each["labels"] for each in printed] == [["joy", "surprise"], []]
    assert printed[0]["probabilities"] == {"joy": 0.5, "anger": 0.26894143, "surprise": 0.8807971}
    (top,) = KIND.predictions(logits([0.0, -1.0, 2.0]), top_k=1)
    assert top == {"labels": ["joy", "surprise"], "top": [{"label": "surprise", "probability": 0.8807971}]}


def test_statistics_and_the_baseline() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], np.int8)
    stats = KIND.label_stats(labels)
    assert stats["label_counts"] == {"joy": 3, "anger": 1, "surprise": 0}
    assert (stats["without_label"], stats["labels_per_example"]) == (1, 1.0)
    assert KIND.constant_predictions(stats | {"num_examples": 4}, np.zeros((2, 3))).tolist() == [[1, 0, 0]] * 2
    assert KIND.label_warnings({"train": stats}) == [
        {"id": "labels_not_in_train", "split": "train", "labels": ["surprise"]}
    ]


def test_the_stratum_of_a_group_is_the_rarest_of_its_labels() -> None:
    labels = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]], np.int8)  # surprise is rarest
    strata, names = KIND.strata(labels, np.array([0, 1, 1, 2, 3]))
    assert [names[stratum] for stratum in strata] == ["surprise", "anger", "none", "anger"]
    together, _ = KIND.strata(labels, np.array([0, 0, 1, 1, 1]))
    assert [names[stratum] for stratum in together] == ["surprise", "anger"]


def test_the_linear_baseline_is_a_logistic_regression_for_each_label() -> None:
    random = np.random.default_rng(0)
    features = csr_matrix(random.random((60, 5)))
    labels = (random.random((60, 3)) < [0.5, 0.3, 0.0]).astype(np.int8)
    outputs = KIND.fit_linear(features, labels)(features)
    expected = LogisticRegression(max_iter=1000).fit(features, labels[:, 1]).predict(features)
    assert KIND.decode(outputs)[:, 1].tolist() == expected.tolist()
    assert not KIND.decode(outputs)[:, 2].any()


def test_a_label_that_contradicts_a_confident_model_is_suspect() -> None:
    labels = np.array([[1, 0, 0]] * 20 + [[0, 1, 0]] * 20, np.int8)
    outputs = np.where(labels, 3.0, -3.0).astype(np.float64)
    labels[7, 1] = 1  # an error
    assert KIND.suspect_labels(labels, outputs).tolist() == [7]


def test_a_column_that_gives_one_label_away_explains_its_error() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((200, 3)) < 0.5).astype(np.int8)
    assert KIND.explained_share(labels[:, 1], labels) == 1.0
    assert KIND.explained_share(random.integers(0, 2, 200), labels) < 0.3


def test_labels_are_spelled_and_read_back() -> None:
    values = np.array([[1, 0, 1], [0, 0, 0]], np.int8)
    assert KIND.label_names(values) == [["joy", "surprise"], []]
    assert KIND.label_values(KIND.label_names(values)).tolist() == values.tolist()
    with pytest.raises(ValueError, match="unknown labels: fear"):
        KIND.label_values([["fear"]])


def test_the_worst_error_is_the_most_confident_one_about_any_label() -> None:
    predictions = pd.DataFrame(
        {
            "label": [["joy"], [], ["anger"]],
            "prediction": [["joy"], ["joy"], []],
            "probabilities": [[0.9, 0.1, 0.1], [0.8, 0.2, 0.1], [0.1, 0.05, 0.3]],
        }
    )
    assert KIND.rank_errors(predictions).to_dict() == {1: pytest.approx(0.8), 2: pytest.approx(0.95)}


def test_plots_are_of_each_label() -> None:
    outputs = logits([2, -2, -2], [2, 2, -2], [-2, -2, -2], [2, -2, -2])
    references = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], np.int8)
    plots = KIND.plots(outputs, references)
    table = plots["per_class.csv"].set_index("label")
    assert table["support"].to_dict() == {"joy": 2, "anger": 2, "surprise": 0}
    assert table.loc["joy", ["precision", "recall", "f1"]].tolist() == pytest.approx([2 / 3, 1.0, 0.8])
    assert plots["confusion.csv"].empty
    assert sorted(plots["precision_recall.csv"]["label"].unique()) == ["anger", "joy"]
    assert plots["calibration.csv"]["rows"].sum() == 12
