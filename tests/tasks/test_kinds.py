"""Labels, loss, predictions and statistics of classification and of regression."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from sklearn.utils.class_weight import compute_class_weight

from reprise.core.config import Loss
from reprise.tasks.classification import UNLABELED, Classification, balanced_weights
from reprise.tasks.kind import TaskKind
from reprise.tasks.metrics.registry import METRICS, metrics_of
from reprise.tasks.registry import task_kind
from reprise.tasks.regression import Regression

REVIEWS = Classification(("rotten", "fresh"), "fresh")
STARS = Regression()
LOSSES = [
    Loss(),
    Loss(class_weights="balanced"),
    Loss(label_smoothing=0.1),
    Loss(class_weights={"rotten": 0.5, "fresh": 1.5}, label_smoothing=0.1),
    Loss(class_weights="balanced", focal_gamma=2.0),
]
KINDS: dict[str, TaskKind] = {"classification": REVIEWS, "regression": STARS}


def logits(*rows: list[float]) -> Any:
    return np.array(rows, dtype=np.float32)


def test_a_task_without_labels_is_a_regression() -> None:
    assert task_kind(["rotten", "fresh"], "fresh") == REVIEWS
    assert task_kind([]) == STARS


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_has_metrics(kind: TaskKind) -> None:
    assert metrics_of(kind.name)
    assert {METRICS[name].task_kind for name in metrics_of(kind.name)} == {kind.name}


def test_label_ids_have_the_order_of_the_recipe() -> None:
    assert [REVIEWS.parse_label(name, "train") for name in ("fresh", "rotten")] == [1, 0]


@pytest.mark.parametrize(("value", "message"), [
    ("frech", "unknown label 'frech'; did you mean 'fresh'? expected one of task.labels: rotten, fresh"),
    (None, "unknown label None; expected one of task.labels: rotten, fresh"),
    (UNLABELED, "unknown label -1; expected one of task.labels: rotten, fresh"),
])  # fmt: skip
def test_an_unknown_label_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match="unknown label") as refused:
        REVIEWS.parse_label(value, "train")
    assert str(refused.value) == message


def test_a_group_that_names_the_label_of_its_others_explains_the_error_of_the_majority() -> None:
    labels, three = np.array([0, 0, 0, 0, 1, 1, 1, 2]), Classification(("a", "b", "c"))
    assert three.explained_share(np.zeros(8, np.int64), labels) == 0
    assert three.explained_share(np.arange(8), labels) == 0  # no group has another example
    # Right: the four of label 0, the three of label 1; the only one of label 2 is predicted as the majority.
    assert three.explained_share(labels, labels) == pytest.approx((7 / 8 - 4 / 8) / (4 / 8))
    # Each of two examples with two labels is predicted as the other one.
    assert REVIEWS.explained_share(np.array([5, 5, 6, 6]), np.array([0, 1, 0, 1])) == 0
    assert REVIEWS.explained_share(np.array([5, 5]), np.array([1, 1])) == 0  # there is no error to explain


def test_a_group_explains_the_variance_of_numbers_by_the_mean_of_its_others() -> None:
    labels = np.array([1.0, 1, 1, 5, 5, 5])
    assert STARS.explained_share(np.array([0, 0, 0, 1, 1, 1]), labels) == pytest.approx(1)
    assert STARS.explained_share(np.arange(6), labels) == 0
    assert STARS.explained_share(np.zeros(6, np.int64), np.full(6, 3.0)) == 0
    # Leaving one out: (1 + 5) / 2, (1 + 5) / 2 and 1 for the group of 1, 1, 5.
    errors = np.array([2.0, 2, 4, 0, 0, 0]) ** 2
    expected = max(0.0, 1 - errors.mean() / np.array([1.0, 1, 5, 5, 5, 5]).var())
    assert STARS.explained_share(np.array([0, 0, 0, 1, 1, 1]), np.array([1.0, 1, 5, 5, 5, 5])) == pytest.approx(
        expected
    )


def test_labels_that_out_of_fold_outputs_contradict_are_suspect() -> None:
    labels = np.array([0, 1] * 20)
    outputs = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    outputs[[4, 9]] = outputs[[4, 9], ::-1]
    assert set(REVIEWS.suspect_labels(labels, outputs)) == {4, 9}
    for too_few in (np.zeros(40, np.int64), np.arange(40)):
        many = Classification(tuple(map(str, range(40))))
        assert len(many.suspect_labels(too_few[:1], outputs[:1])) == 0
    numbers = np.linspace(0, 1, 40)
    predicted = numbers[:, None] + np.array([0.01, -0.01] * 20)[:, None]
    numbers[7] = 3
    assert STARS.suspect_labels(numbers, predicted).tolist() == [7]
    assert STARS.suspect_labels(numbers, np.zeros((40, 0))).tolist() == []


@pytest.mark.parametrize("split", ["test", "test_mismatched"])
def test_a_test_split_may_be_unlabeled(split: str) -> None:
    assert REVIEWS.parse_label(UNLABELED, split) == UNLABELED
    assert REVIEWS.is_unlabeled(np.array([1, UNLABELED]))
    assert not REVIEWS.is_unlabeled(np.array([1, 0]))


@pytest.mark.parametrize("value", ["many", None, math.nan, math.inf, "inf"])
def test_a_number_that_is_not_finite_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a finite number as the label, since task\.labels is empty; got "):
        STARS.parse_label(value, "train")


def test_minus_one_is_a_number_unless_all_labels_are() -> None:
    assert STARS.parse_label("-1", "test") == -1.0
    assert not STARS.is_unlabeled(np.array([-1.0, 2.0]))
    assert STARS.is_unlabeled(np.array([-1.0, -1.0]))


def test_statistics_are_label_counts_or_mean_and_deviation() -> None:
    counted = REVIEWS.label_stats(np.array([1, 1, 0, UNLABELED]))
    assert counted == {"label_counts": {"rotten": 1, "fresh": 2}, "hidden_labels": 1}
    assert REVIEWS.constant_predictions(counted, np.array([0, 1])).tolist() == [1, 1]
    summary = STARS.label_stats(np.array([1.0, 3.0]))
    assert summary == {"label_mean": 2.0, "label_std": 1.0}
    assert STARS.constant_predictions(summary, np.array([1.0, 5.0])).tolist() == [2.0, 2.0]


def test_the_loss_is_summed_cross_entropy_or_squared_error() -> None:
    # ln 2 for equal logits, and ln 4 for odds of 3 to 1 against the label.
    two = REVIEWS.summed_loss(torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]), torch.tensor([0, 1]))
    assert two.item() == pytest.approx(math.log(2) + math.log(4))
    one = STARS.summed_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]))
    assert one.item() == 1 + 4


def test_a_fitted_regression_counts_errors_in_standard_deviations_of_the_labels() -> None:
    fitted = STARS.fit({"label_mean": 100.0, "label_std": 20.0})
    assert fitted.label_scale == (100.0, 20.0)
    assert fitted.summed_loss(torch.tensor([[110.0], [70.0]]), torch.tensor([100.0, 100.0])).item() == 0.25 + 2.25
    constant = STARS.fit({"label_mean": 3.0, "label_std": 0.0})
    assert constant.label_scale == (3.0, 1.0)
    assert REVIEWS.fit({"label_counts": {}}) is REVIEWS
    assert STARS.label_scale is REVIEWS.label_scale is None


def test_balanced_weights_give_every_label_the_same_sum_and_an_example_1_on_average() -> None:
    counts = {"rotten": 30, "fresh": 10, "unseen": 0}
    weights = balanced_weights(counts)
    assert weights == {"rotten": 40 / 60, "fresh": 2.0, "unseen": 0.0}
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=np.array([0] * 30 + [1] * 10))
    assert list(weights.values())[:2] == expected.tolist()


@pytest.mark.parametrize("weights", ["balanced", {"rotten": 0.5, "fresh": 1.5}], ids=["balanced", "given"])
def test_class_weights_and_their_sum_give_the_weighted_mean_of_torch(weights: Any) -> None:
    fitted = REVIEWS.fit({"label_counts": {"rotten": 6, "fresh": 2}}, Loss(class_weights=weights))
    numbers = [8 / 12, 2.0] if weights == "balanced" else [0.5, 1.5]
    outputs, labels = torch.tensor([[0.3, -1.0], [2.0, 0.5], [0.0, 0.7]]), torch.tensor([0, 1, 1])
    assert fitted.class_weights == tuple(numbers)
    of_examples = np.array(numbers)[labels.numpy()]
    expected = torch.nn.functional.cross_entropy(outputs, labels, torch.tensor(numbers))
    assert fitted.summed_loss(outputs, labels).item() / of_examples.sum() == pytest.approx(expected.item(), rel=1e-6)


def test_label_smoothing_spreads_the_probability_over_all_labels() -> None:
    fitted = REVIEWS.fit({"label_counts": {}}, Loss(label_smoothing=0.1))
    assert fitted.class_weights is None
    # Logits 0 and ln 3 are the probabilities 1/4 and 3/4; the target has 0.05 and 0.95.
    loss = fitted.summed_loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]))
    assert loss.item() == pytest.approx(-0.05 * math.log(1 / 4) - 0.95 * math.log(3 / 4))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_weighs_an_example_by_the_probability_of_the_other_labels(gamma: float) -> None:
    fitted = REVIEWS.fit({"label_counts": {}}, Loss(focal_gamma=gamma))
    loss = fitted.summed_loss(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]))
    assert loss.item() == pytest.approx((1 / 4) ** gamma * -math.log(3 / 4), rel=1e-6)
    certain = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = fitted.summed_loss(certain, torch.tensor([1]))
    loss.backward()
    assert loss.item() == 0.0
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_padding_rows_add_nothing_to_any_loss(loss: Loss) -> None:
    fitted = REVIEWS.fit({"label_counts": {"rotten": 6, "fresh": 2}}, loss)
    outputs, labels = torch.tensor([[0.5, -0.2], [2.0, 1.0]]), torch.tensor([1, REVIEWS.ignored_label])
    assert fitted.summed_loss(outputs, labels).item() == fitted.summed_loss(outputs[:1], labels[:1]).item() > 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_padding_rows_add_nothing_to_loss_and_gradient(kind: TaskKind) -> None:
    outputs = torch.tensor([[0.5, -0.2], [2.0, 1.0], [-1.0, 0.3]])[:, : len(kind.labels) or 1].requires_grad_()
    labels = torch.tensor([1, 0, 1]).to(getattr(torch, kind.label_feature.dtype)).float() if kind is STARS else None
    labels = torch.tensor([1, 0, 1]) if labels is None else labels
    padded = labels.clone()
    padded[1] = kind.ignored_label
    loss = kind.summed_loss(outputs, padded)
    loss.backward()
    assert loss.item() == pytest.approx(kind.summed_loss(outputs[[0, 2]], labels[[0, 2]]).item(), rel=1e-6)
    assert outputs.grad is not None
    assert not outputs.grad[1].any()
    assert outputs.grad[[0, 2]].any()


def test_predictions_are_the_greatest_logit_or_the_value_itself() -> None:
    assert REVIEWS.decode(logits([0.3, 0.1], [1, 1.5])).tolist() == [0, 1]
    assert STARS.decode(logits([0.5], [-2])).tolist() == [0.5, -2]


@pytest.mark.parametrize("labels", [2, 3, 7, 70])
@pytest.mark.parametrize("scale", [0.1, 1, 30, 1000])
def test_probabilities_have_the_bits_of_scipy(labels: int, scale: float) -> None:
    logits = (np.random.default_rng(labels).standard_normal((500, labels)) * scale).astype(np.float32)
    found = task_kind([str(label) for label in range(labels)]).probabilities(logits)
    assert found is not None
    assert found.tobytes() == softmax(logits.astype(np.float64), axis=1).tobytes()


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    found = REVIEWS.probabilities(logits([0, 0], [0, math.log(3)], [1, 0]))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.25, 0.75], [0.7310586, 0.2689414]], atol=1e-6)


def test_probabilities_of_extreme_logits_are_finite() -> None:
    found = Classification(("a", "b", "c")).probabilities(logits([1e4, 0, -1e4], [-3e38, 3e38, 0]))
    assert found.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_a_prediction_is_printed_with_its_shortest_digits() -> None:
    assert list(STARS.predictions(logits([0.1], [-2.5]))) == [{"label": 0.1}, {"label": -2.5}]
    assert list(REVIEWS.predictions(logits([0, 0]))) == [
        {"label": "rotten", "probabilities": {"rotten": 0.5, "fresh": 0.5}}
    ]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_label_names_and_values_are_inverse(kind: TaskKind) -> None:
    values = np.array([1, 0, 1])
    np.testing.assert_array_equal(kind.label_values(list(kind.label_names(values))), values)


def test_the_worst_errors_are_the_most_confident_or_the_largest() -> None:
    table = pd.DataFrame({
        "label": ["fresh", "fresh", "rotten"], "prediction": ["rotten", "fresh", "fresh"],
        "probabilities": [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]],
    })  # fmt: skip
    assert REVIEWS.rank_errors(table).to_dict() == {0: 0.9, 2: 0.6}
    numbers = pd.DataFrame({"label": [1.0, 2.0], "prediction": [1.25, -1.0]})
    assert STARS.rank_errors(numbers).to_dict() == {0: 0.25, 1: 3.0}


def test_equal_labels_or_numbers_that_hardly_vary_are_a_constant_prediction() -> None:
    assert REVIEWS.is_constant(np.array([1, 1, 1]), np.array([0, 1, 1]))
    assert not REVIEWS.is_constant(np.array([1, 0, 1]), np.array([1, 1, 1]))
    labels = np.array([10.0, 20.0, 30.0, 40.0])
    for predictions, constant in (
        ([25.0, 25.0, 25.0, 25.0], True),
        ([25.0, 25.1, 24.9, 25.1], True),  # as of a model that ignores its input
        ([24.0, 25.0, 25.0, 26.0], False),
        ([1e6, 1e6 + 10, 1e6, 1e6], False),
    ):
        assert STARS.is_constant(np.array(predictions, np.float32), labels) is constant
    assert STARS.is_constant(np.array([5.0, 5.0], np.float32), np.array([3.0, 3.0]))
    assert not STARS.is_constant(np.array([5.0, 6.0], np.float32), np.array([3.0, 3.0]))


def test_every_kind_writes_the_same_plots() -> None:
    written = REVIEWS.plots(logits([0, 1], [1, 0]), np.array([1, 1])), STARS.plots(logits([0.5]), np.array([1.0]))
    assert [{name: list(plot.columns) for name, plot in plots.items()} for plots in written[:1]] == [
        {name: list(plot.columns) for name, plot in plots.items()} for plots in written[1:]
    ]
    filled = [{name for name, plot in plots.items() if not plot.empty} for plots in written]
    assert filled == [
        {"confusion.csv", "per_class.csv", "precision_recall.csv", "calibration.csv"}, {"residuals.csv"}
    ]  # fmt: skip
