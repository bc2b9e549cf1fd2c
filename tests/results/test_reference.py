"""Metrics over seeds: mean, standard deviation, prediction interval of one further seed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from reprise.core.errors import UserError
from reprise.results import reference as module
from reprise.results.reference import MeanStd, Reference, find_reference, read_reference, summarize_seeds
from reprise.results.run import RunResult, commit_reader, read_result
from reprise.results.vcs import resolve_commit
from tiny import ROOT

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


def test_a_spread_is_mean_and_sample_standard_deviation(reference: Reference) -> None:
    # Squared distances from 0.84: 2 · (0.04² + 0.02²) = 0.004; over n - 1 = 4: 0.001.
    assert reference.metrics["evaluate"]["accuracy"].mean == pytest.approx(0.84)
    assert reference.metrics["evaluate"]["accuracy"].sd == pytest.approx(0.001**0.5)
    assert reference.metrics["train"]["loss"] == MeanStd(0.5, 0.0)
    assert reference.seeds["3"] == {"train": {"loss": 0.5}, "evaluate": {"accuracy": 0.86}}


def test_the_prediction_interval_is_corrected_for_the_number_of_metrics(reference: Reference) -> None:
    # Two metrics share 5 %, so each has 2.5 %, 1.25 % per side. Student's t with 4 degrees of freedom is distributed as
    # F(t) = 1/2 + 3/8 u (1 - u²/12) with u = t / √(1 + t²/4), and F(3.495406) = 0.9875.
    low, high = reference.prediction_interval("evaluate", "accuracy")
    half = 3.495406 * 0.001**0.5 * (6 / 5) ** 0.5
    assert (low, high) == pytest.approx((0.84 - half, 0.84 + half), abs=1e-6)


def test_the_prediction_interval_has_its_nominal_coverage() -> None:
    random = np.random.default_rng(0)
    draws = random.normal(0.8, 0.01, (4000, 6))
    covered = 0
    for *seeds, one_more in draws.tolist():
        low, high = summarize_seeds(
            {seed: result(seed, value) for seed, value in enumerate(seeds)}
        ).prediction_interval("evaluate", "accuracy")
        covered += low <= one_more <= high
    # One of two metrics: 97.5 %, with a tolerance of three times √(0.975 · 0.025 / 4000) = 0.25 % for 4000 draws.
    assert covered / 4000 == pytest.approx(0.975, abs=0.0075)


def test_a_reference_is_read_back_equal(reference: Reference, tmp_path: Path) -> None:
    reference.write(tmp_path / "reference/a.json")
    assert read_reference(tmp_path / "reference/a.json") == reference


@pytest.mark.parametrize("text", ['{"metrics": {}}', '{"metrics": 3}', '{"metrics": {"train": {"loss": {"mean": 1}}}}'])
def test_another_format_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_reference(tmp_path / "a.json")
    assert refused.value.file == str(tmp_path / "a.json")
    assert "`reprise seed-noise`" in refused.value.expected


def test_provenance_of_a_reference_has_no_volatile_keys(reference: Reference) -> None:
    assert reference.provenance == {"commit": "c", "threads": 2, "environment.locks.torch.txt": "t"}


def test_a_reference_matches_every_seed_of_its_recipe_and_no_other_recipe(reference: Reference) -> None:
    assert reference.matches(result(77, 0.1))
    other = result(0, 0.8)
    assert not reference.matches(dataclasses.replace(other, recipe=other.recipe | {"train.epochs": 3}))


def test_a_reference_is_found_by_recipe_and_hardware(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFERENCES", tmp_path)
    other = dataclasses.replace(reference, recipe={"train.epochs": 9})
    other.write(tmp_path / "a-task-a-model-cpu.json")
    assert find_reference(result(0, 0.8), "cpu") is None
    reference.write(tmp_path / "task-model-cpu.json")
    assert find_reference(result(0, 0.8), "cpu") == reference
    assert find_reference(result(0, 0.8), "cuda") is None


def test_the_committed_reference_is_found_for_the_committed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    head = resolve_commit("HEAD")
    assert find_reference(read_result(commit_reader(head), "HEAD"), "cpu") is not None
