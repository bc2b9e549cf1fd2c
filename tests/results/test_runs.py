"""Selectors of runs, in a repository of synthetic experiments."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reprise.core.errors import UserError
from reprise.results.runs import all_experiments, all_runs, resolve_run, resolve_runs
from reprise.results.vcs import check_output
from synthetic_runs import files
from tiny import tiny_recipe

WHEN = "2026-01-02T03:04:05+00:00"


def commit(message: str, **changes: Any) -> str:
    """Commit a synthetic run; return the commit."""
    for path, content in files(tiny_recipe(**changes), steps=10, rows=20).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    check_output("git", "add", ".")
    check_output("git", "commit", "-qm", message)
    return check_output("git", "rev-parse", "HEAD")


def store(name: str, base: str, **changes: Any) -> str:
    """Store a synthetic run as an experiment on a commit, as DVC does; return its commit."""
    created = commit(name, **changes)
    check_output("git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", created)
    check_output("git", "reset", "-q", "--hard", base)
    return created


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of a run with seed 42, with experiments of two more seeds and another learning rate."""
    monkeypatch.chdir(tmp_path)
    for key, value in {"NAME": "Test", "EMAIL": "test@example.org", "DATE": WHEN}.items():
        monkeypatch.setitem(os.environ, f"GIT_AUTHOR_{key}", value)
        monkeypatch.setitem(os.environ, f"GIT_COMMITTER_{key}", value)
    check_output("git", "init", "-q", "-b", "main")
    head = commit("Add results")
    store("later", head, seed=44)
    store("sooner", head, seed=43)
    store("gentle", head, **{"train.learning_rate": 1e-4})
    return head


def test_a_selector_is_the_workspace_an_experiment_or_a_commit(base: str) -> None:
    for selector, name, kind in (
        ("workspace", "workspace", "workspace"),
        ("gentle", "gentle", "experiment"),
        ("HEAD", "HEAD", "commit"),
        ("main", "main", "commit"),
        (base, base[:12], "commit"),
    ):
        (run,) = resolve_runs(selector)
        assert (run.name, run.kind) == (name, kind)
        assert run.created == (None if selector == "workspace" else datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert resolve_run("gentle").result.recipe["train.learning_rate"] == 1e-4
    assert resolve_run("HEAD").commit == base


def test_a_group_has_one_run_per_seed_sorted_by_seed(base: str) -> None:
    for selector in ("seeds:HEAD", "seeds:later"):
        assert [run.result.recipe["seed"] for run in resolve_runs(selector)] == [42, 43, 44]
    assert [run.name for run in resolve_runs("seeds:later")] == ["HEAD", "sooner", "later"]
    assert [run.name for run in resolve_runs("seeds:gentle")] == ["gentle"]


def test_the_workspace_is_a_run_if_it_differs_from_head(base: str) -> None:
    names = [run.name for run in all_runs()]
    assert names[0] == "HEAD"
    assert sorted(names[1:]) == ["gentle", "later", "sooner"]
    written = files(tiny_recipe(seed=45), steps=10, rows=20)
    for path, content in written.items():
        path.write_bytes(content)
    assert [run.name for run in all_runs()][:2] == ["workspace", "HEAD"]
    assert [run.name for run in resolve_runs("seeds:HEAD")] == ["HEAD", "sooner", "later", "workspace"]


def test_files_of_a_commit_are_read_exactly(base: str) -> None:
    run = resolve_run("HEAD")
    assert run.read(Path("metrics/evaluate.json")) == Path("metrics/evaluate.json").read_bytes()
    assert run.read(Path("metrics")) is None
    assert run.read(Path("nothing here.json")) is None
    assert run.read(Path("dvc.lock")) == Path("dvc.lock").read_bytes()


def test_of_experiments_with_one_name_the_one_of_head_wins_and_others_are_ambiguous(base: str) -> None:
    first = resolve_run("gentle")
    head = commit("Another run", seed=50)
    second = store("gentle", head, seed=51)
    assert resolve_run("gentle").commit == second
    check_output("git", "commit", "-q", "--allow-empty", "-m", "Another commit")
    with pytest.raises(UserError, match="several commits") as refused:
        resolve_run("gentle")
    assert refused.value.key == "gentle"
    assert all(str(commit)[:12] in refused.value.expected for commit in (first.commit, second))


def test_a_selector_for_an_experiment_and_a_commit_is_refused(base: str) -> None:
    experiment = resolve_run("gentle").commit or ""
    check_output("git", "branch", "gentle")
    with pytest.raises(UserError, match="both an experiment and a commit") as refused:
        resolve_run("gentle")
    assert refused.value.key == "gentle"
    assert re.findall(r"\b[0-9a-f]{12}\b", refused.value.expected) == [experiment[:12], base[:12]]


def test_an_incomplete_experiment_is_named_and_skipped(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_output("git", "rm", "-q", "dvc.lock")
    check_output("git", "commit", "-qm", "Remove results")
    check_output("git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/empty", "HEAD")
    assert "empty" not in [run.name for run in all_experiments()]
    assert "skipped: empty: dvc.lock: not found" in capsys.readouterr().err
    with pytest.raises(UserError, match="not found") as refused:
        resolve_run("empty")
    assert refused.value.file == "empty: dvc.lock"


def test_a_group_of_folds_has_one_run_per_fold_sorted_by_division(base: str) -> None:
    divided: dict[str, Any] = {"task.split.validation": None, "task.split.folds": 3, "evaluate.split": "validation"}
    store("second", base, **divided, **{"train.fold": 1})
    store("first", base, **divided)
    store("again", base, **divided, **{"train.fold": 0})
    store("third", base, **divided, **{"train.fold": 2})
    store("repeat", base, **divided, **{"train.fold": 0, "task.split.seed": 1})
    store("gentle-fold", base, **divided, **{"train.fold": 1, "train.learning_rate": 1e-4})
    store("other-seed", base, **divided, **{"train.fold": 1, "seed": 43})
    runs = resolve_runs("folds:second")
    assert [run.fold for run in runs] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [run.name for run in runs][1:] == ["second", "third", "repeat"]
    assert runs[0].name in {"first", "again"}
    assert [run.name for run in resolve_runs("folds:gentle-fold")] == ["gentle-fold"]
    assert resolve_run("gentle").fold is None
    with pytest.raises(UserError, match="no folds") as refused:
        resolve_runs("folds:gentle")
    assert refused.value.key == "folds:gentle"
