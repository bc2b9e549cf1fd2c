"""Labels, loss, predictions and statistics of classification and of regression."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from reprise.tasks.classification import UNLABELED, Classification
from reprise.tasks.kind import TaskKind
from reprise.tasks.metrics.registry import METRICS, metrics_of
from reprise.tasks.registry import task_kind
from reprise.tasks.regression import Regression

REVIEWS = Classification(("rotten", "fresh"), "fresh")
STARS = Regression()
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
    assert REVIEWS.constant_prediction(counted) == 1
    summary = STARS.label_stats(np.array([1.0, 3.0]))
    assert summary == {"label_mean": 2.0, "label_std": 1.0}
    assert STARS.constant_prediction(summary) == 2.0


def test_the_loss_is_summed_cross_entropy_or_squared_error() -> None:
    # ln 2 for equal logits, and ln 4 for odds of 3 to 1 against the label.
    two = REVIEWS.summed_loss(torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]), torch.tensor([0, 1]))
    assert two.item() == pytest.approx(math.log(2) + math.log(4))
    one = STARS.summed_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0]))
    assert one.item() == 1 + 4


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_padding_rows_add_nothing_to_loss_and_gradient(kind: TaskKind) -> None:
    outputs = torch.tensor([[0.5, -0.2], [2.0, 1.0], [-1.0, 0.3]])[:, : len(kind.labels) or 1].requires_grad_()
    labels = torch.tensor([1, 0, 1]).to(getattr(torch, kind.label_dtype)).float() if kind is STARS else None
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


def test_every_kind_writes_the_same_plots() -> None:
    written = REVIEWS.plots(logits([0, 1], [1, 0]), np.array([1, 1])), STARS.plots(logits([0.5]), np.array([1.0]))
    assert [{name: list(plot.columns) for name, plot in plots.items()} for plots in written[:1]] == [
        {name: list(plot.columns) for name, plot in plots.items()} for plots in written[1:]
    ]
    assert all(plot.empty for plot in written[1].values())
