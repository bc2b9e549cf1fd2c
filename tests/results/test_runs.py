"""Which runs a word names, in a repository whose experiments are made up."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from made_up_runs import files
from reprise.core.errors import UserError
from reprise.results.runs import all_experiments, all_runs, resolve_run, resolve_runs
from reprise.results.vcs import check_output
from tiny import tiny_recipe

WHEN = "2026-01-02T03:04:05+00:00"


def commit(message: str, **changes: Any) -> str:
    """Commit a made-up run; return the commit."""
    for path, content in files(tiny_recipe(**changes), steps=10, rows=20).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    check_output("git", "add", ".")
    check_output("git", "commit", "-qm", message)
    return check_output("git", "rev-parse", "HEAD")


def keep(name: str, base: str, **changes: Any) -> str:
    """Keep a made-up run as an experiment on a commit, as DVC does; return its commit."""
    made = commit(name, **changes)
    check_output("git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", made)
    check_output("git", "reset", "-q", "--hard", base)
    return made


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of a run with seed 42, on which two more seeds and another learning rate were tried."""
    monkeypatch.chdir(tmp_path)
    for key, value in {"NAME": "Test", "EMAIL": "test@example.org", "DATE": WHEN}.items():
        monkeypatch.setitem(os.environ, f"GIT_AUTHOR_{key}", value)
        monkeypatch.setitem(os.environ, f"GIT_COMMITTER_{key}", value)
    check_output("git", "init", "-q", "-b", "main")
    head = commit("Cook it")
    keep("later", head, seed=44)
    keep("sooner", head, seed=43)
    keep("gentle", head, **{"train.learning_rate": 1e-4})
    return head


def test_a_word_is_the_workspace_an_experiment_or_a_commit(base: str) -> None:
    for word, name, kind in (
        ("workspace", "workspace", "workspace"),
        ("gentle", "gentle", "experiment"),
        ("HEAD", "HEAD", "commit"),
        ("main", "main", "commit"),
        (base, base[:12], "commit"),
    ):
        (run,) = resolve_runs(word)
        assert (run.name, run.kind) == (name, kind)
        assert run.created == (None if word == "workspace" else datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert resolve_run("gentle").result.recipe["train.learning_rate"] == 1e-4
    assert resolve_run("HEAD").commit == base


def test_a_group_is_a_run_a_seed_in_their_order(base: str) -> None:
    for word in ("seeds:HEAD", "seeds:later"):
        assert [run.result.recipe["seed"] for run in resolve_runs(word)] == [42, 43, 44]
    assert [run.name for run in resolve_runs("seeds:later")] == ["HEAD", "sooner", "later"]
    assert [run.name for run in resolve_runs("seeds:gentle")] == ["gentle"]


def test_the_workspace_is_a_run_of_its_own_where_it_is_not_head(base: str) -> None:
    names = [run.name for run in all_runs()]
    assert names[0] == "HEAD"
    assert sorted(names[1:]) == ["gentle", "later", "sooner"]
    made = files(tiny_recipe(seed=45), steps=10, rows=20)
    for path, content in made.items():
        path.write_bytes(content)
    assert [run.name for run in all_runs()][:2] == ["workspace", "HEAD"]
    assert [run.name for run in resolve_runs("seeds:HEAD")] == ["HEAD", "sooner", "later", "workspace"]


def test_what_git_has_of_a_run_is_read_byte_by_byte(base: str) -> None:
    run = resolve_run("HEAD")
    assert run.read(Path("metrics/evaluate.json")) == Path("metrics/evaluate.json").read_bytes()
    assert run.read(Path("metrics")) is None
    assert run.read(Path("nothing here.json")) is None
    assert run.read(Path("dvc.lock")) == Path("dvc.lock").read_bytes()


def test_of_experiments_of_one_name_that_on_head_counts_and_else_all_are_told(base: str) -> None:
    first = resolve_run("gentle")
    head = commit("Go on", seed=50)
    second = keep("gentle", head, seed=51)
    assert resolve_run("gentle").commit == second
    check_output("git", "commit", "-q", "--allow-empty", "-m", "And on")
    with pytest.raises(
        UserError, match=r"^gentle: experiments on several commits are called so; expected one of"
    ) as told:
        resolve_run("gentle")
    assert all(str(commit)[:12] in str(told.value) for commit in (first.commit, second))


def test_a_word_for_an_experiment_and_a_commit_is_refused(base: str) -> None:
    check_output("git", "branch", "gentle")
    with pytest.raises(UserError, match=r"^gentle: both an experiment and a commit; expected [0-9a-f]{12} for"):
        resolve_run("gentle")


def test_an_experiment_that_is_no_whole_result_is_named_and_left_out(
    base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_output("git", "rm", "-q", "dvc.lock")
    check_output("git", "commit", "-qm", "Nothing cooked")
    check_output("git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/empty", "HEAD")
    assert "empty" not in [run.name for run in all_experiments()]
    assert "left out: empty: no dvc.lock" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"^empty: no dvc\.lock"):
        resolve_run("empty")
