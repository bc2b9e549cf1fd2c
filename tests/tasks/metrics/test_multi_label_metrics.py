"""Metrics of any number of labels, and their intervals."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from reprise.tasks.metrics.compute import compute
from reprise.tasks.metrics.registry import METRICS, MULTI_LABEL, confidence_interval, metrics_of

NAMES = metrics_of(MULTI_LABEL)


def draw(examples: int, seed: int, quality: float = 1.5) -> tuple[Any, Any, Any]:
    """Predictions, references and probabilities of 4 labels, of 40, 20, 10 and 5 % of the examples."""
    random = np.random.default_rng(seed)
    references = (random.random((examples, 4)) < [0.4, 0.2, 0.1, 0.05]).astype(np.int8)
    probabilities = 1 / (1 + np.exp(-(quality * (2 * references - 1) + random.normal(size=references.shape) - 0.5)))
    return (probabilities >= 0.5).astype(np.int8), references, probabilities


def test_metrics_equal_those_of_scikit_learn() -> None:
    predictions, references, probabilities = draw(200, 0)
    scores = compute(NAMES, predictions, references, positive=None, probabilities=probabilities)
    assert scores == pytest.approx(
        {
            "f1_micro": f1_score(references, predictions, average="micro"),
            "f1_macro": f1_score(references, predictions, average="macro"),
            "f1_samples": f1_score(references, predictions, average="samples", zero_division=1.0),
            "subset_accuracy": (predictions == references).all(axis=1).mean(),
            "average_precision": average_precision_score(references, probabilities, average="macro"),
        }
    )


def test_metrics_of_predictions_without_labels_are_defined() -> None:
    nothing = np.zeros((3, 2), np.int8)
    scores = compute(NAMES, nothing, nothing, positive=None, probabilities=nothing + 0.5)
    assert scores == {
        "f1_micro": 0.0, "f1_macro": 0.0, "f1_samples": 1.0, "subset_accuracy": 1.0, "average_precision": 0.0
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_interval_holds_the_metric_and_narrows_with_more_examples(name: str) -> None:
    widths = []
    for examples in (100, 1600):
        predictions, references, probabilities = draw(examples, 1)
        given = {"positive": None, "probabilities": probabilities}
        score = compute([name], predictions, references, **given)[name]
        found = confidence_interval(name, predictions, references, resamples=500, **given)
        assert found == confidence_interval(name, predictions, references, resamples=500, **given)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= score <= found.high
        widths.append(found.high - found.low)
    assert 2 < widths[0] / widths[1] < 6.5  # 4 by the square root of the number of examples


@pytest.mark.parametrize("name", NAMES)
def test_an_interval_covers_the_true_value_in_about_95_of_100_cases(name: str) -> None:
    predictions, references, probabilities = draw(100_000, 2)
    truth = compute([name], predictions, references, positive=None, probabilities=probabilities)[name]
    covered = 0
    for seed in range(100):
        sample = draw(300, 1000 + seed)
        interval = confidence_interval(name, *sample[:2], positive=None, resamples=200, probabilities=sample[2])
        covered += interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high
    assert covered >= 88  # below it with a probability of 1 in 500, if 95 are expected


@pytest.mark.parametrize("name", [name for name in NAMES if METRICS[name].interval])
def test_an_interval_of_faultless_predictions_has_a_width(name: str) -> None:
    _, references, _ = draw(50, 3)
    given = {"positive": None, "resamples": 200, "probabilities": references * 0.9}
    found = confidence_interval(name, references, references, **given)
    if name == "average_precision":  # without an error in the order there is none to draw
        assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))
    else:
        assert found.high == compute([name], references, references, positive=None)[name]  # 0.75 of a label without any
        assert found.low is not None
        assert 0.8 < found.low / found.high < 0.995
