"""The seeds' figures: mean, standard deviation, and where one more seed's lie."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from reprise.core.errors import UserError
from reprise.results import reference as module
from reprise.results.reference import MeanStd, Reference, find_reference, read_reference, summarize_seeds
from reprise.results.run import RunResult

ACCURACIES = (0.80, 0.82, 0.84, 0.86, 0.88)


def result(seed: int, accuracy: float) -> RunResult:
    return RunResult(
        outputs={},
        recipe={"seed": seed, "train.epochs": 2, "task.filter": None},
        code={},
        losses=np.array([]),
        metrics={"train": {"loss": 0.5}, "evaluate": {"accuracy": accuracy}},
        provenance={
            "commit": "c",
            "threads": 2,
            "started": "now",
            "environment.locks.torch.txt": "t",
            "weights.w": "w",
        },
    )


@pytest.fixture
def reference() -> Reference:
    return summarize_seeds({seed: result(seed, accuracy) for seed, accuracy in enumerate(ACCURACIES)})


def test_a_spread_is_the_mean_and_the_deviation_of_a_sample(reference: Reference) -> None:
    # Squared distances from 0.84: 2 · (0.04² + 0.02²) = 0.004; over n - 1 = 4: 0.001.
    assert reference.metrics["evaluate"]["accuracy"].mean == pytest.approx(0.84)
    assert reference.metrics["evaluate"]["accuracy"].sd == pytest.approx(0.001**0.5)
    assert reference.metrics["train"]["loss"] == MeanStd(0.5, 0.0)
    assert reference.seeds["3"] == {"train": {"loss": 0.5}, "evaluate": {"accuracy": 0.86}}


def test_one_more_seed_lies_in_the_prediction_interval_at_a_level_shared_by_the_figures(reference: Reference) -> None:
    # Two figures share 5 %, so each has 2.5 %, 1.25 % a side. Student's t of 4 degrees of freedom has the distribution
    # F(t) = 1/2 + 3/8 u (1 - u²/12) with u = t / √(1 + t²/4), and F(3.495406) = 0.9875.
    low, high = reference.prediction_interval("evaluate", "accuracy")
    half = 3.495406 * 0.001**0.5 * (6 / 5) ** 0.5
    assert (low, high) == pytest.approx((0.84 - half, 0.84 + half), abs=1e-6)


def test_a_fair_seed_passes_in_as_many_cases_as_it_says() -> None:
    random = np.random.default_rng(0)
    draws = random.normal(0.8, 0.01, (4000, 6))
    passed = 0
    for *seeds, one_more in draws.tolist():
        low, high = summarize_seeds(
            {seed: result(seed, value) for seed, value in enumerate(seeds)}
        ).prediction_interval("evaluate", "accuracy")
        passed += low <= one_more <= high
    # One of two figures: 97.5 %, and 4000 draws find it to three times √(0.975 · 0.025 / 4000) = 0.25 %.
    assert passed / 4000 == pytest.approx(0.975, abs=0.0075)


def test_it_is_read_as_it_was_written(reference: Reference, tmp_path: Path) -> None:
    reference.write(tmp_path / "reference/a.json")
    assert read_reference(tmp_path / "reference/a.json") == reference


@pytest.mark.parametrize("text", ['{"metrics": {}}', '{"metrics": 3}', '{"metrics": {"train": {"loss": {"mean": 1}}}}'])
def test_what_is_no_reference_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"a.json: expected what `reprise seed-noise` writes"):
        read_reference(tmp_path / "a.json")


def test_it_says_where_it_was_measured_and_nothing_that_passes(reference: Reference) -> None:
    assert reference.provenance == {"commit": "c", "threads": 2, "environment.locks.torch.txt": "t"}


def test_it_holds_for_every_seed_of_its_recipe_and_for_no_other_recipe(reference: Reference) -> None:
    assert reference.matches(result(77, 0.1))
    other = result(0, 0.8)
    assert not reference.matches(dataclasses.replace(other, recipe=other.recipe | {"train.epochs": 3}))


def test_it_is_found_by_recipe_and_hardware(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFERENCES", tmp_path)
    other = dataclasses.replace(reference, recipe={"train.epochs": 9})
    other.write(tmp_path / "a-task-a-model-cpu.json")
    assert find_reference(result(0, 0.8), "cpu") is None
    reference.write(tmp_path / "task-model-cpu.json")
    assert find_reference(result(0, 0.8), "cpu") == reference
    assert find_reference(result(0, 0.8), "cuda") is None
