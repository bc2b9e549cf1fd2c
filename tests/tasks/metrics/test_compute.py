"""Metrics match their definitions, computed by `evaluate` without network access."""

import socket
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from reprise.tasks.metrics.compute import compute
from reprise.tasks.metrics.registry import display_name, metric_function, metrics_of

# Number of labels with which each metric is tested; 0 means regression.
LABELS = dict.fromkeys(metrics_of("classification"), 3) | dict.fromkeys(metrics_of("regression"), 0)
POSITIVE = {0: None, 2: 1, 3: None, 5: None}  # id of the positive label, by number of labels


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: Any) -> NoReturn:
        raise AssertionError(f"unexpected connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def random_rows(labels: int, seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return predictions that are better than chance, and their references; correlated values for 0 labels."""
    random = np.random.default_rng(seed)
    if labels == 0:
        references = random.normal(size=300)
        return references + random.normal(size=300), references
    references = random.integers(0, labels, 300)
    return np.where(random.random(300) < 0.5, references, random.integers(0, labels, 300)), references


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "references", "expected"),
    [
        ("accuracy", 2, [1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0], 4 / 6),
        ("accuracy", 3, [0, 1, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2], 4 / 6),
        # 2 true positives, 1 false positive, 3 false negatives; label 1 is the positive one.
        ("f1", 2, [1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0], 2 * 2 / (2 * 2 + 1 + 3)),
        # Per label: 1/2, 4/5 and 2/3.
        ("f1", 3, [0, 1, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2], (1 / 2 + 4 / 5 + 2 / 3) / 3),
        # Two, two and two examples per label, with F1 as above.
        ("f1_weighted", 3, [0, 1, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2], (1 / 2 + 4 / 5 + 2 / 3) / 3),
        ("precision", 2, [1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0], 2 / 3),
        ("precision", 3, [0, 1, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2], (1 / 2 + 2 / 3 + 1) / 3),
        ("recall", 2, [1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0], 2 / 5),
        ("recall", 3, [0, 1, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2], (1 / 2 + 1 + 1 / 2) / 3),
        # A third label is predicted and has no examples.
        ("balanced_accuracy", 3, [0, 0, 2, 1, 1], [0, 0, 0, 0, 1], (1 / 2 + 1) / 2),
        # 2 true positives, 1 false positive, 1 false negative, 2 true negatives.
        ("matthews", 2, [1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0], 1 / 3),
        ("pearson", 0, [1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 5.0, 9.0], 11 / 130**0.5),
        # Ranks 1 to 5 and 1, 2, 3.5, 5, 3.5.
        ("spearman", 0, [1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 6.0, 7.0, 80.0, 7.0], 8 / 95**0.5),
        # Errors of 1, 0, 1 and 2.
        ("rmse", 0, [1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 4.0, 2.0], 1.5**0.5),
        ("mae", 0, [1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 4.0, 2.0], 1.0),
        # Squared errors of 6, and of 3 around the mean of 2.5.
        ("r2", 0, [1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 4.0, 2.0], 1 - 6 / 3),
        ("r2", 0, [1.0, 2.0], [3.0, 3.0], 0.0),
    ],
)
def test_a_metric_matches_its_definition(
    name: str, labels: int, predictions: list[float], references: list[float], expected: float
) -> None:
    assert compute([name], predictions, references, positive=POSITIVE[labels]) == {
        name: pytest.approx(expected, abs=1e-12)
    }


@pytest.mark.parametrize("seed", range(3))
def test_classification_metrics_agree_with_scikit_learn(seed: int) -> None:
    for labels, average in (2, "binary"), (5, "macro"):
        predictions, references = random_rows(labels, seed)
        assert compute(
            ["accuracy", "f1", "matthews"], predictions, references, positive=POSITIVE[labels]
        ) == pytest.approx(
            {
                "accuracy": sklearn.accuracy_score(references, predictions),
                "f1": sklearn.f1_score(references, predictions, average=average),
                "matthews": sklearn.matthews_corrcoef(references, predictions),
            }
        )
        names = ["precision", "recall", "balanced_accuracy", "f1_weighted"]
        assert compute(names, predictions, references, positive=POSITIVE[labels]) == pytest.approx(
            {
                "precision": sklearn.precision_score(references, predictions, average=average),
                "recall": sklearn.recall_score(references, predictions, average=average),
                "balanced_accuracy": sklearn.balanced_accuracy_score(references, predictions),
                "f1_weighted": sklearn.f1_score(references, predictions, average="weighted"),
            }
        )


@pytest.mark.parametrize("seed", range(3))
def test_errors_of_numbers_agree_with_scikit_learn(seed: int) -> None:
    predictions, references = random_rows(0, seed)
    assert compute(["rmse", "mae", "r2"], predictions, references, positive=None) == pytest.approx(
        {
            "rmse": sklearn.root_mean_squared_error(references, predictions),
            "mae": sklearn.mean_absolute_error(references, predictions),
            "r2": sklearn.r2_score(references, predictions),
        }
    )


def test_the_mean_of_the_references_explains_nothing_and_a_worse_one_less() -> None:
    references = np.array([1.0, 2.0, 6.0])
    assert compute(["r2"], np.full(3, 3.0), references, positive=None) == {"r2": pytest.approx(0.0)}
    assert compute(["r2"], np.full(3, 4.0), references, positive=None)["r2"] < 0


@pytest.mark.parametrize("seed", range(3))
def test_correlations_agree_with_scipy(seed: int) -> None:
    predictions, references = random_rows(0, seed)
    assert compute(["pearson", "spearman"], predictions, references, positive=None) == pytest.approx(
        {
            "pearson": stats.pearsonr(predictions, references).statistic,
            "spearman": stats.spearmanr(predictions, references).statistic,
        }
    )


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_correlation_with_a_constant_is_zero(name: str, swapped: bool) -> None:
    sides = [0.1] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]
    predictions, references = sides[::-1] if swapped else sides
    assert compute([name], predictions, references, positive=None) == {name: 0.0}
    assert metric_function(name, None)(np.array(predictions), np.array(references)) == 0.0


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        ([0, 0, 0], [0, 1, 1], {"accuracy": 1 / 3, "f1": 0.0, "matthews": 0.0}),
        ([1, 1, 1], [0, 1, 1], {"accuracy": 2 / 3, "f1": 4 / 5, "matthews": 0.0}),
        ([0, 0, 0], [0, 0, 0], {"accuracy": 1.0, "f1": 0.0, "matthews": 0.0}),
        ([1, 1, 1], [0, 0, 0], {"accuracy": 0.0, "f1": 0.0, "matthews": 0.0}),
    ],
)
def test_metrics_of_constant_predictions_are_defined(
    predictions: list[int], references: list[int], expected: dict[str, float]
) -> None:
    assert compute(list(expected), predictions, references, positive=1) == pytest.approx(expected)


@pytest.mark.parametrize("name", LABELS)
def test_the_score_function_agrees_with_the_module(name: str) -> None:
    for labels in {LABELS[name], 2 if LABELS[name] else 0}:
        predictions, references = random_rows(labels, seed=7)
        score = metric_function(name, POSITIVE[labels])(predictions, references)
        assert isinstance(score, float)
        assert compute([name], predictions, references, positive=POSITIVE[labels]) == {name: score}


def test_metrics_are_returned_in_the_requested_order() -> None:
    predictions, references = random_rows(2, seed=0)
    assert list(compute(["matthews", "accuracy", "f1"], predictions, references, positive=1)) == [
        "matthews",
        "accuracy",
        "f1",
    ]


def test_f1_of_two_labels_is_of_the_positive_one_in_either_order() -> None:
    predictions, references = random_rows(2, seed=0)
    first, second = (compute(["f1"], predictions, references, positive=number)["f1"] for number in (0, 1))
    assert first != second
    assert compute(["f1"], 1 - predictions, 1 - references, positive=0) == {"f1": second}
    assert [display_name("f1", label, number) for label, number in (("fresh", 2), (None, 3), (None, 0))] == [
        "f1 (fresh)",
        "f1 (macro)",
        "f1",
    ]
    assert display_name("accuracy", "fresh", 2) == "accuracy"
