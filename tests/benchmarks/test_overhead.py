"""Tests of the overhead benchmark: its arithmetic, and each measurement on tiny data."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState

import overhead
import results
import timed_command
import workspaces
from predicting import time_predictions
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.validation import check_recipe
from synthetic import random_pairs
from tiny import ROOT, Run, tiny_recipe

WORDS = ["bright", "dull", "film"]


@pytest.fixture
def fresh_accelerator_state() -> Iterator[None]:
    """Reset Accelerate's global state before and after the test."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_goal_is_met_on_its_side_of_the_bound() -> None:
    metrics = {"help_seconds": 0.3, "repro_seconds": 3.1, "predict_to_pipeline": 2.0, "evaluate_to_pipeline": 1.9}
    met = {goal["metric"]: goal["met"] for goal in overhead.check_goals(metrics)}
    assert met == {
        "help_seconds": True,
        "repro_seconds": False,
        "predict_to_pipeline": True,
        "evaluate_to_pipeline": False,
    }


def test_prepare_is_graded_by_its_peak_memory_and_the_growth_of_time_per_row() -> None:
    prepared = {
        "10": {"rows": 10, "cpu_seconds": 2.0, "peak_mb": 300.0},
        "100": {"rows": 100, "cpu_seconds": 10.0, "peak_mb": 500.0},
        "1000": {"rows": 1000, "cpu_seconds": 120.0, "peak_mb": 400.0},
    }
    assert overhead.prepare_metrics(prepared) == {"prepare_peak_mb": 500.0, "prepare_growth": pytest.approx(1.2)}


def test_prediction_speeds_are_reported_relative_to_the_pipeline() -> None:
    assert overhead.ratios({"pipeline": 100.0, "predict": 250.0, "evaluate": 150.0}) == {
        "predict_to_pipeline": 2.5,
        "evaluate_to_pipeline": 1.5,
    }


def test_synthetic_pairs_are_as_long_as_those_of_mrpc_and_always_the_same() -> None:
    pairs = list(random_pairs(WORDS, 2000))
    assert pairs == list(random_pairs(WORDS, 2000))
    lengths = np.array([[len(first.split()), len(second.split())] for first, second, _ in pairs])
    assert 49 < lengths.sum(axis=1).mean() < 51  # without [CLS] and two [SEP]
    assert (lengths.sum(axis=1).min(), set((lengths[:, 1] - lengths[:, 0]).tolist())) == (13, {0, 1})
    assert {label for _, _, label in pairs} == {"differently", "alike"}


@pytest.mark.full
def test_prepare_is_timed_in_its_own_process(
    prepared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared_dir)
    metrics = overhead.time_prepare(tmp_path / "pairs", tiny_recipe(), 300)
    assert metrics["rows"] == 300
    assert 0 < metrics["work_seconds"] < metrics["seconds"]
    assert metrics["rows_per_second"] == 300 / metrics["seconds"]
    assert metrics["cpu_seconds"] > 0
    assert 100 < metrics["peak_mb"] < 2000
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_timed_in_its_own_process(tmp_path: Path) -> None:
    metrics = overhead.time_plan(tmp_path, 1000)
    assert metrics.keys() == {"plan_seconds", "plan_peak_mb"}
    assert 0 < metrics["plan_seconds"] < 10


def test_a_timed_function_returns_its_result_and_records_its_time_even_if_it_raises() -> None:
    metrics: dict[str, float] = {}
    assert timed_command.timed(lambda one, *, other: (one, other), metrics)(1, other=2) == (1, 2)
    assert metrics.keys() == {"work_seconds", "cpu_seconds"}
    failing: dict[str, float] = {}
    with pytest.raises(ZeroDivisionError):
        timed_command.timed(lambda: 1 / 0, failing)()
    assert failing.keys() == metrics.keys()


def test_the_work_function_of_each_command_exists() -> None:
    for module, name in timed_command.WORK.values():
        assert callable(getattr(timed_command.import_module(module), name))


@pytest.mark.full
def test_a_failed_command_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="failed") as refused:
        overhead.time_command(tmp_path, "prepare")
    assert refused.value.key == "prepare"
    with pytest.raises(UserError, match="failed") as refused:
        overhead.fastest(["false"], tmp_path, 1)
    assert refused.value.key == "false"


def test_the_minimum_of_several_runs_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr(overhead.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(overhead.subprocess, "call", lambda *_, **__: 0)
    assert overhead.fastest(["anything"], Path(), 3) == 2.0


@pytest.mark.full
@pytest.mark.usefixtures("fresh_accelerator_state")
def test_all_prediction_methods_run_interleaved_on_the_same_rows(prepared_dir: Path, tmp_path: Path) -> None:
    folder = workspaces.make_workspace(tmp_path / "predict", tiny_recipe(), prepared_dir)
    speeds = time_predictions(folder, 40, 2)
    assert {name: len(of_rounds) for name, of_rounds in speeds.items()} == {"pipeline": 2, "predict": 2, "evaluate": 2}
    assert all(speed > 0 for of_rounds in speeds.values() for speed in of_rounds)
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    table = (folder / "40.csv").read_text()
    assert len({prediction["text"] for prediction in predictions}) == 40
    assert [prediction["text"] for prediction in predictions if prediction["text"] not in table] == []


def test_a_new_repository_has_the_pipeline_and_the_recipe_and_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe = tiny_recipe()
    folder = workspaces.make_repository(tmp_path / "repository", recipe)
    listed = subprocess.run(["git", "status", "--short"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in listed.splitlines()} == {
        ".dvc/", ".dvcignore", ".gitignore", "docker/", "dvc.yaml", "params.yaml", "src/"
    }  # fmt: skip
    assert (folder / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert "name: tiny" in (folder / "params.yaml").read_text()
    check_recipe(recipe, "test")


@pytest.mark.full
def test_a_tiny_recipe_runs_and_each_of_its_stages_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(ROOT)
    folder = overhead.make_trained_repository(tmp_path / "repository", tiny_recipe())
    assert run(folder, "git", "status", "--short").stdout == ""
    assert 0 < overhead.time_repro(folder, 1) < 60
    assert read_json(folder / "metrics/evaluate.json")["num_examples"] == 40
    for stage in overhead.STAGES:
        metrics = overhead.time_command(folder, stage)
        assert 0 < metrics["work_seconds"] < metrics["seconds"], stage


def test_results_are_printed_and_merged_with_earlier_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(overhead, "default_recipe", tiny_recipe)
    timings = {"seconds": 4.0, "work_seconds": 3.0, "cpu_seconds": 6.0, "peak_mb": 400.0}

    def time_prepare(folder: Path, recipe: dict[str, Any], rows: int) -> dict[str, float]:
        return {"rows": rows, **timings, "cpu_seconds": rows / 1000, "rows_per_second": rows / 4.0}

    monkeypatch.setattr(overhead, "time_prepare", time_prepare)
    overhead.main(million=True)
    assert "│ 1,000,000 │" in capsys.readouterr().out
    monkeypatch.setattr(overhead, "make_workspace", lambda folder, *_: folder)
    monkeypatch.setattr(overhead, "make_trained_repository", lambda folder, _: folder)
    monkeypatch.setattr(overhead, "time_help", lambda: 0.1)
    monkeypatch.setattr(overhead, "time_plan", lambda *_: {"plan_seconds": 6.0, "plan_peak_mb": 800.0})
    monkeypatch.setattr(overhead, "time_repro", lambda _: 1.0)
    monkeypatch.setattr(overhead, "time_command", lambda *_: timings)
    speeds = {"pipeline": [100.0, 90.0, 110.0], "predict": [200.0, 190.0, 300.0], "evaluate": [300.0, 310.0, 290.0]}
    monkeypatch.setattr(overhead, "time_predictions", lambda *_: speeds)
    overhead.main(million=False)
    printed = capsys.readouterr().out
    assert "│ 1,000,000 │" not in printed
    for row in (r"prepare │ 4.00 │ 3.00 │ 1.00", "plan seconds │ 6.00 │ at most 5 │ not met", "predict │ 200 │ 2.00 ×"):
        assert row in " ".join(printed.split()), row
    written = results.read()["overhead"]
    assert written["prepare"].keys() == {"10000", "100000", "1000000"}
    assert written["predict"] == {"pipeline": 100.0, "predict": 200.0, "evaluate": 300.0}
    assert {goal["metric"] for goal in written["goals"] if not goal["met"]} == {"plan_seconds"}
    assert written["metrics"]["prepare_growth"] == 1.0
