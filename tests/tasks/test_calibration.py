"""Temperatures: the best ones, of any logits that a model may have."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import log_expit, log_softmax

from reprise.tasks.calibration import fit_temperature
from reprise.tasks.labels import ragged
from reprise.tasks.multi_label import MultiLabel
from reprise.tasks.registry import task_kind
from reprise.tasks.regression import Regression
from reprise.tasks.token_classification import TokenClassification

Array = np.ndarray[Any, Any]


def draw(labels: int, temperature: float) -> tuple[Array, Array]:
    """Draw logits, and labels by their probabilities at this temperature."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (1000, labels)).astype(np.float32)
    noise = generator.gumbel(size=logits.shape)  # the argmax of logits with it is a draw from their softmax
    return logits, (logits / temperature + noise).argmax(axis=1)


def search(loss: Callable[[float], float]) -> float:
    """Find the temperature with the lowest loss in a grid, and then in a fine one around it."""
    best = min(np.arange(0.1, 20, 0.1), key=loss)
    return float(min(np.arange(max(best - 0.1, 5e-4), best + 0.1, 5e-4), key=loss))


def search_softmax(logits: Array, labels: Array) -> float:
    """Find the best temperature of a softmax."""
    rows = np.arange(len(labels))
    return search(lambda t: -log_softmax(logits.astype(np.float64) / t, axis=1)[rows, labels].sum())


@pytest.mark.parametrize("labels", [2, 3, 20])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_is_that_of_a_fine_grid(labels: int, temperature: float) -> None:
    logits, drawn = draw(labels, temperature)
    found = fit_temperature(logits, drawn)
    assert found == pytest.approx(search_softmax(logits, drawn), abs=1e-3)
    assert found == pytest.approx(temperature, rel=0.2)


def test_labels_that_the_validation_split_lacks_change_nothing() -> None:
    logits, drawn = draw(5, 2.0)
    for present in ([1, 4], [3]):
        kept = np.isin(drawn, present)
        expected = search_softmax(logits[kept], drawn[kept])
        assert fit_temperature(logits[kept], drawn[kept]) == pytest.approx(expected, abs=1e-3)


def test_logits_that_look_like_probabilities_are_logits() -> None:
    _, drawn = draw(2, 1.0)
    yes = np.where(drawn == 1, 0.7, 0.3)
    yes[::4] = 1 - yes[::4]  # three of four are right
    logits = np.stack([1 - yes, yes], axis=1).astype(np.float32)
    assert fit_temperature(logits, drawn) == pytest.approx(0.4 / np.log(3), abs=1e-3)


def test_where_no_temperature_is_best_it_is_1() -> None:
    logits, drawn = draw(3, 1.0)
    assert fit_temperature(logits, logits.argmax(axis=1)) == 1.0  # the lower the better
    assert fit_temperature(-logits, drawn) == 1.0  # the higher the better
    assert fit_temperature(np.zeros_like(logits), drawn) == 1.0


def test_the_order_of_the_examples_and_the_last_bits_of_the_logits_change_no_bit() -> None:
    logits, drawn = draw(3, 2.0)
    expected = fit_temperature(logits, drawn)
    assert fit_temperature(logits[::-1], drawn[::-1]) == expected
    assert fit_temperature(np.nextafter(logits, np.float32(np.inf)), drawn) == expected


def test_each_of_any_number_of_labels_has_a_temperature_of_its_own() -> None:
    names, generator = ("a", "b", "c"), np.random.default_rng(0)
    logits = generator.normal(0, 3, (400, 3)).astype(np.float32)
    logits[:, 2] = -np.abs(logits[:, 2])
    references = (logits / [0.5, 3.0, 1.0] + generator.logistic(size=logits.shape) > 0).astype(np.int8)
    references[:, 2] = 0
    found = MultiLabel(names).temperatures(logits, references)
    for number in (0, 1):
        sign = np.where(references[:, number] == 1, 1.0, -1.0)
        signed = sign * logits[:, number].astype(np.float64)
        best = search(lambda t, signed=signed: -log_expit(signed / t).sum())
        assert found[number] == pytest.approx(best, abs=1e-3)
    assert found[2] == 1.0  # no example has it, and none is predicted to


def test_all_words_share_a_temperature() -> None:
    logits, drawn = draw(5, 2.0)  # tags of two labels
    cuts = [0, 3, 400]  # the first text has no words
    texts, tags = ragged(np.split(logits, cuts)), ragged(np.split(drawn, cuts))
    kind = TokenClassification(("person", "place"))
    assert kind.temperatures(texts, tags) == [fit_temperature(logits, drawn)]
    empty = ragged([logits[:0]]), ragged([drawn[:0]])
    assert kind.temperatures(*empty) == [1.0]
    halved = texts / np.array([2.0], np.float32)
    assert halved[3].dtype == np.float32
    assert [len(text) for text in halved] == [0, 3, 397, 600]


def test_every_kind_with_probabilities_has_temperatures() -> None:
    logits, drawn = draw(2, 2.0)
    assert task_kind(["rotten", "fresh"], "fresh").temperatures(logits, drawn) == [fit_temperature(logits, drawn)]
    assert Regression().temperatures(logits[:, :1], drawn) is None
