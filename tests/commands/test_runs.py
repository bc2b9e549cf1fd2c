"""The list of runs, on synthetic runs; from a folder below the root, on a trained repository."""

import dataclasses
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from factories import make_record
from reprise.commands import runs as command
from reprise.core.errors import UserError
from reprise.results.run import read_result
from reprise.results.runs import Run
from reprise.sweep.record import RecordedFinal, RecordedRun, write_record
from synthetic_runs import files
from tiny import Run as RunCommand
from tiny import tiny_recipe

CREATED = datetime(2026, 11, 25, 17, 0, tzinfo=UTC)


def run(name: str, kind: Any = "experiment", **changes: Any) -> Run:
    content = files(tiny_recipe(**changes), steps=10, rows=200)
    commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return Run(name, kind, commit, CREATED, read_result(content.get, name), content.get)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """HEAD, another seed, and another learning rate, which the synthetic metrics reward."""
    made = [
        run("HEAD", "commit"),
        run("[red]second[/red]", seed=43),
        run("gentler", **{"train.learning_rate": 1e-4, "train.epochs": 7}),
    ]
    monkeypatch.setattr(command, "all_runs", lambda: made)
    return made


def listed(capsys: pytest.CaptureFixture[str], sort: str | None = None) -> list[dict[str, Any]]:
    command.list_runs(sort, as_json=True)
    content: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return content


def test_json_has_changed_parameters_metrics_and_intervals(
    three: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = listed(capsys)
    assert [each["name"] for each in shown] == ["HEAD", "[red]second[/red]", "gentler"]
    assert [each["changed"] for each in shown] == [{}, {"seed": 43}, {"train.learning_rate": 1e-4, "train.epochs": 7}]
    assert shown[0]["metrics"] == three[0].result.metrics
    assert shown[0]["ci95"]["accuracy"]["low"] < shown[0]["metrics"]["evaluate"]["accuracy"]
    assert shown[0]["created"] == "2026-11-25T17:00:00+00:00"


def test_runs_are_sorted_by_a_metric_best_first(three: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    scores = [each["metrics"]["evaluate"]["accuracy"] for each in listed(capsys, "accuracy")]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1


def test_runs_are_sorted_by_an_error_lowest_first(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    numbers = {"task.metrics": ["rmse"]}
    made = [run("HEAD", "commit", **numbers), run("gentler", **numbers, **{"train.learning_rate": 1e-4})]
    monkeypatch.setattr(command, "all_runs", lambda: made)
    errors = [each["metrics"]["evaluate"]["rmse"] for each in listed(capsys, "rmse")]
    assert errors == sorted(errors)
    assert len(set(errors)) == 2


def test_runs_are_sorted_by_a_key_ascending(three: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert next(each["name"] for each in listed(capsys, "train.learning_rate")) == "gentler"
    assert [each["seed"] for each in listed(capsys, "seed")] == sorted(each.seed for each in three)


def test_runs_without_the_key_come_last(
    three: list[Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del three[0].result.recipe["train.epochs"]
    assert [each["name"] for each in listed(capsys, "train.epochs")][-1] == "HEAD"


def test_an_unknown_key_to_sort_by_is_refused_with_the_metrics(three: list[Run]) -> None:
    with pytest.raises(UserError) as refused:
        command.list_runs("acuracy")
    assert refused.value.key == "runs --sort"
    assert "accuracy" in refused.value.expected


def test_the_table_shows_names_as_text_and_fits_60_columns(
    three: list[Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command.list_runs("accuracy")
    shown = capsys.readouterr().out
    assert "[red]second" in shown
    assert "train.learning_rate=0.0001" in shown
    assert "reprise compare HEAD" in shown
    monkeypatch.setenv("COLUMNS", "60")
    command.list_runs()
    assert max(map(len, capsys.readouterr().out.splitlines()[:8])) <= 60


def test_of_a_sweep_its_runs_are_listed_by_trial_and_then_the_finals(
    three: list[Run], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = [RecordedRun("earlier name", each.commit) for each in three[1:]]
    record = make_record()
    trials = (dataclasses.replace(record.trials[0], run=made[1]), record.trials[1])  # the second is gone
    finals = (RecordedFinal(None, (made[0], made[1]), (0.8, 0.8)),)
    write_record(Path("sweeps/sweep"), make_record(trials=trials, finals=finals))
    command.list_runs(sweep="sweep", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in shown] == ["gentler", "[red]second[/red]"]
    assert [each["changed"] for each in shown] == [{"train.learning_rate": 1e-4, "train.epochs": 7}, {"seed": 43}]
    command.list_runs("seed", sweep="sweep")
    printed = capsys.readouterr().out
    assert "Changed: the parameters that differ from HEAD." in printed
    assert "reprise compare HEAD gentler" in printed
    write_record(Path("sweeps/sweep"), make_record())
    with pytest.raises(UserError, match="--sweep sweep: no run of the sweep is here"):
        command.list_runs(sweep="sweep")


def test_an_unknown_sweep_is_refused_with_those_that_exist(
    three: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        command.list_runs(sweep="swep")
    assert str(refused.value) == "--sweep: got 'swep'; expected a sweep: `reprise sweep` has not run yet"
    for name in ("rates", "sweep"):
        write_record(Path("sweeps") / name, make_record())
    with pytest.raises(UserError) as refused:
        command.list_runs(sweep="../sweep")
    assert str(refused.value) == "--sweep: got '../sweep'; expected one of rates, sweep"


def test_no_runs_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "all_runs", list)
    with pytest.raises(UserError) as refused:
        command.list_runs()
    assert refused.value.expected == "the results of `dvc repro`"


def test_another_task_is_shown_by_its_name_and_another_model_by_its_own() -> None:
    before = {"model": "minilm", "task.name": "a", "task.labels": ["x"], "seed": 1}
    after = {"model": "bert", "task.name": "b", "task.labels": ["y"], "seed": 1}
    assert command.changes(before, after) == {"model": "bert", "task.name": "b"}


def test_a_command_finds_the_root_from_a_folder_below(trained_repo: Path, run: RunCommand) -> None:
    shown = run(trained_repo / "docker/cpu", "reprise", "runs", "--json")
    assert [each["name"] for each in json.loads(shown.stdout)] == ["HEAD"]


def test_names_and_values_are_listed_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    name, label = "[bold]\u202eevil", "a\x1b[2J\nb"
    made = [run("HEAD", "commit"), run(name, **{"task.labels": ["rotten", "fresh"], "task.label_column": label})]
    monkeypatch.setattr(command, "all_runs", lambda: made)
    command.list_runs()
    shown = capsys.readouterr().out
    assert r"[bold]\u202eevil" in shown
    assert r"task.label_column=a\x1b[2J\nb" in shown
    assert {char for char in shown if not char.isprintable()} == {"\n"}
    command.list_runs(as_json=True)
    printed = capsys.readouterr().out
    assert json.loads(printed)[1]["name"] == name
    assert {char for char in printed if not char.isprintable()} == {"\n"}
