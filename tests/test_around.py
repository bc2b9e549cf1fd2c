"""The benchmark of what stands around the loop: its arithmetic, and each of its parts on tiny data."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState

import around
import clocked
import folders
import results
from made_up import random_pairs
from predicting import predict_speed
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.validation import check_recipe
from tiny import ROOT, Run, tiny_recipe

WORDS = ["bright", "dull", "film"]


@pytest.fixture
def alone() -> Iterator[None]:
    """Nothing that accelerate keeps of another test's device, nor of this one's."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_goal_is_met_on_its_side_of_its_number() -> None:
    figures = {"help_seconds": 0.3, "repro_seconds": 3.1, "predict_to_pipeline": 2.0, "evaluate_to_pipeline": 1.9}
    judged = {goal["figure"]: goal["met"] for goal in around.judge(figures)}
    assert judged == {
        "help_seconds": True,
        "repro_seconds": False,
        "predict_to_pipeline": True,
        "evaluate_to_pipeline": False,
    }


def test_prepare_is_judged_by_its_peak_and_by_how_much_more_a_row_takes_of_more_rows() -> None:
    prepared = {
        "10": {"rows": 10, "cpu_seconds": 2.0, "peak_mb": 300.0},
        "100": {"rows": 100, "cpu_seconds": 10.0, "peak_mb": 500.0},
        "1000": {"rows": 1000, "cpu_seconds": 120.0, "peak_mb": 400.0},
    }
    assert around.of_prepare(prepared) == {"prepare_peak_mb": 500.0, "prepare_growth": pytest.approx(1.2)}


def test_answers_are_told_as_ratios_to_the_pipelines() -> None:
    assert around.ratios({"pipeline": 100.0, "predict": 250.0, "evaluate": 150.0}) == {
        "predict_to_pipeline": 2.5,
        "evaluate_to_pipeline": 1.5,
    }


def test_made_up_pairs_are_as_long_as_those_of_mrpc_and_always_the_same() -> None:
    pairs = list(random_pairs(WORDS, 2000))
    assert pairs == list(random_pairs(WORDS, 2000))
    lengths = np.array([[len(first.split()), len(second.split())] for first, second, _ in pairs])
    assert 49 < lengths.sum(axis=1).mean() < 51  # and [CLS] and twice [SEP]
    assert (lengths.sum(axis=1).min(), set((lengths[:, 1] - lengths[:, 0]).tolist())) == (13, {0, 1})
    assert {label for _, _, label in pairs} == {"differently", "alike"}


def test_prepare_is_clocked_in_a_process_of_its_own(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench)
    figures = around.prepare_speed(tmp_path / "pairs", tiny_recipe(), 300)
    assert figures["rows"] == 300
    assert 0 < figures["work_seconds"] < figures["seconds"]
    assert figures["rows_per_second"] == 300 / figures["seconds"]
    assert figures["cpu_seconds"] > 0
    assert 100 < figures["peak_mb"] < 2000
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_clocked_in_a_process_of_its_own(tmp_path: Path) -> None:
    figures = around.plan_speed(tmp_path, 1000)
    assert figures.keys() == {"plan_seconds", "plan_peak_mb"}
    assert 0 < figures["plan_seconds"] < 10


def test_a_clocked_function_gives_what_it_gave_and_keeps_its_time_where_it_fails() -> None:
    figures: dict[str, float] = {}
    assert clocked.clocked(lambda one, *, other: (one, other), figures)(1, other=2) == (1, 2)
    assert figures.keys() == {"work_seconds", "cpu_seconds"}
    failing: dict[str, float] = {}
    with pytest.raises(ZeroDivisionError):
        clocked.clocked(lambda: 1 / 0, failing)()
    assert failing.keys() == figures.keys()


def test_what_does_the_work_of_each_stage_is_where_the_clock_looks_for_it() -> None:
    for module, name in clocked.WORK.values():
        assert callable(getattr(clocked.import_module(module), name))


def test_a_verb_that_fails_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^`prepare` failed, see above; expected it to run in "):
        around.clock(tmp_path, "prepare")
    with pytest.raises(UserError, match=r"^`false` failed, see above; expected it to run in "):
        around.fastest(["false"], tmp_path, 1)


def test_the_fastest_of_several_times_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr(around.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(around.subprocess, "call", lambda *_, **__: 0)
    assert around.fastest(["anything"], Path(), 3) == 2.0


@pytest.mark.usefixtures("alone")
def test_all_ways_to_answer_take_turns_on_the_same_rows(bench: Path, tmp_path: Path) -> None:
    folder = folders.lay_out(tmp_path / "predict", tiny_recipe(), bench)
    speeds = predict_speed(folder, 40, 2)
    assert {name: len(of_rounds) for name, of_rounds in speeds.items()} == {"pipeline": 2, "predict": 2, "evaluate": 2}
    assert all(speed > 0 for of_rounds in speeds.values() for speed in of_rounds)
    said = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    table = (folder / "40.csv").read_text()
    assert len({answer["text"] for answer in said}) == 40
    assert [answer["text"] for answer in said if answer["text"] not in table] == []


def test_a_laid_out_repository_has_the_pipeline_and_the_recipe_and_nothing_cooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe = tiny_recipe()
    folder = folders.lay_out_repository(tmp_path / "repository", recipe)
    listed = subprocess.run(["git", "status", "--short"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in listed.splitlines()} == {
        ".dvc/", ".dvcignore", ".gitignore", "docker/", "dvc.yaml", "params.yaml", "src/"
    }  # fmt: skip
    assert (folder / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert "name: tiny" in (folder / "params.yaml").read_text()
    check_recipe(recipe, "test")


@pytest.mark.full
def test_a_tiny_recipe_is_cooked_and_each_of_its_stages_clocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(ROOT)
    folder = around.cook_tiny(tmp_path / "repository", tiny_recipe())
    assert run(folder, "git", "status", "--short").stdout == ""
    assert 0 < around.repro_seconds(folder, 1) < 60
    assert read_json(folder / "metrics/evaluate.json")["rows"] == 40
    for stage in around.STAGES:
        figures = around.clock(folder, stage)
        assert 0 < figures["work_seconds"] < figures["seconds"], stage


def test_what_was_measured_is_printed_and_kept_beside_what_was_measured_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(around, "default_recipe", tiny_recipe)
    clocked_figures = {"seconds": 4.0, "work_seconds": 3.0, "cpu_seconds": 6.0, "peak_mb": 400.0}

    def prepare_speed(folder: Path, recipe: dict[str, Any], rows: int) -> dict[str, float]:
        return {"rows": rows, **clocked_figures, "cpu_seconds": rows / 1000, "rows_per_second": rows / 4.0}

    monkeypatch.setattr(around, "prepare_speed", prepare_speed)
    around.main(million=True)
    assert "│ 1,000,000 │" in capsys.readouterr().out
    monkeypatch.setattr(around, "lay_out", lambda folder, *_: folder)
    monkeypatch.setattr(around, "cook_tiny", lambda folder, _: folder)
    monkeypatch.setattr(around, "help_seconds", lambda: 0.1)
    monkeypatch.setattr(around, "plan_speed", lambda *_: {"plan_seconds": 6.0, "plan_peak_mb": 800.0})
    monkeypatch.setattr(around, "repro_seconds", lambda _: 1.0)
    monkeypatch.setattr(around, "clock", lambda *_: clocked_figures)
    speeds = {"pipeline": [100.0, 90.0, 110.0], "predict": [200.0, 190.0, 300.0], "evaluate": [300.0, 310.0, 290.0]}
    monkeypatch.setattr(around, "predict_speed", lambda *_: speeds)
    around.main(million=False)
    said = capsys.readouterr().out
    assert "│ 1,000,000 │" not in said
    for row in (r"prepare │ 4.00 │ 3.00 │ 1.00", "plan seconds │ 6.00 │ at most 5 │ not met", "predict │ 200 │ 2.00 ×"):
        assert row in " ".join(said.split()), row
    told = results.read()["around"]
    assert told["prepare"].keys() == {"10000", "100000", "1000000"}
    assert told["predict"] == {"pipeline": 100.0, "predict": 200.0, "evaluate": 300.0}
    assert {goal["figure"] for goal in told["goals"] if not goal["met"]} == {"plan_seconds"}
    assert told["figures"]["prepare_growth"] == 1.0
