"""`reprise sweep` and `--adopt`: the plan with runs that are numbers, and one sweep with real experiments."""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reprise.commands import sweep
from reprise.commands.adopt import adopt
from reprise.commands.compose import made_by, write_recipe
from reprise.commands.seeds import apply_overrides
from reprise.core.config import PARAMS
from reprise.core.errors import UserError
from reprise.results.run import LOSSES
from reprise.results.runs import all_experiments
from reprise.sweep.record import read_record
from reprise.sweep.result import SWEEPS, read_result
from tiny import Run, tiny_recipe

SPACE = ["train.learning_rate=log(1e-4,1e-2)", "train.batch_size=choice(8,16)"]


class FakeRuns:
    """In place of experiments: runs whose accuracy is best with the largest learning rate, and differs by seed."""

    def __init__(self) -> None:
        self.runs: dict[tuple[tuple[str, ...], int], Any] = {}
        self.fails: set[str] = set()  # names
        self.experiments: list[Any] = []  # others
        self.edits_after = 10**6  # number of runs after which the user edits params.yaml
        self.killed = 10**6  # number of runs after which Ctrl-C is pressed
        self.gain = 1.0
        self.files: dict[Path, bytes] = {}  # of each run

    def find_run(self, overrides: Sequence[str], seed: int) -> Any:
        return self.runs.get((tuple(overrides), seed))

    def run_new(self, name: str, overrides: Sequence[str], seed: int) -> Any:
        if len(self.runs) >= self.killed:
            raise KeyboardInterrupt
        if name in self.fails:
            raise UserError("the pipeline failed, see above")
        if len(self.runs) == self.edits_after:
            PARAMS.write_text(PARAMS.read_text().replace("warmup_ratio: 0.1", "warmup_ratio: 0.2"))
        values = dict(text.split("=") for text in overrides)
        rate = float(values.get("train.learning_rate", 5e-3))
        luck = random.Random(f"{sorted(overrides)} {seed}").gauss(0, 0.002)
        metrics = {"evaluate": {"accuracy": 0.5 + self.gain * rate * 10 + luck}}
        result = SimpleNamespace(metrics=metrics, recipe={"train.epochs": 4, "train.max_steps": None})
        run = SimpleNamespace(name=name, commit=None, seed=seed, result=result, read=self.files.get)
        self.runs[tuple(overrides), seed] = run
        return run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    """A folder with the tiny recipe, in which no pipeline runs."""
    monkeypatch.chdir(tmp_path)
    write_recipe(tiny_recipe(), ["task=reviews", "train.learning_rate=5e-3"], PARAMS)
    fake = FakeRuns()
    monkeypatch.setattr(sweep, "find_run", fake.find_run)
    monkeypatch.setattr(sweep, "run_new", fake.run_new)
    monkeypatch.setattr(sweep, "check_copyable", lambda _: None)
    monkeypatch.setattr(sweep, "resolve_commit", lambda _: "0" * 40)
    monkeypatch.setattr(sweep, "experiments", lambda: fake.experiments)
    monkeypatch.setattr(sweep, "planned_replicate_key", lambda params: str(params))
    return fake


def settings(number: int = 6, **changes: Any) -> sweep.Settings:
    return sweep.Settings(number, "tpe", 0, 8, "sweep")._replace(**changes)


def test_the_winner_is_named_and_adopted(runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.run_sweep(SPACE, None, settings(12))
    result = read_result(SWEEPS / "sweep")
    printed = capsys.readouterr().out
    assert result.winner is not None
    assert result.sentence in printed.splitlines()
    assert "is better than the committed train.batch_size=16 train.learning_rate=0.005 on validation by accuracy" in (
        result.sentence
    )
    assert "sweep: trial 3 of 12: train.batch_size=" in printed
    before = PARAMS.read_bytes()
    with pytest.raises(UserError, match="--trial: got 99; expected 1 to 12"):
        adopt("sweep", 99)
    assert PARAMS.read_bytes() == before
    adopt("sweep", None)
    text = PARAMS.read_text()
    overrides = result.trials[str(result.winner)]
    assert f"# Adopted trial {result.winner} of the sweep sweep: {result.sentence}" in text.splitlines()[:4]
    assert made_by(PARAMS) == ["task=reviews", *overrides]
    assert apply_overrides([]) == result.recipe | apply_overrides([])
    assert apply_overrides([])["evaluate"]["split"] == "test"
    assert apply_overrides(overrides) == apply_overrides([])
    with pytest.raises(UserError, match="changed since the sweep"):
        adopt("sweep", None)


def test_without_a_winner_nothing_is_adopted_unless_a_trial_is_named(runs: FakeRuns) -> None:
    runs.gain = 0
    sweep.run_sweep(SPACE, None, settings())
    result = read_result(SWEEPS / "sweep")
    assert result.winner is None
    before = PARAMS.read_bytes()
    with pytest.raises(UserError, match="no winner"):
        adopt("sweep", None)
    assert PARAMS.read_bytes() == before
    adopt("sweep", 2)
    assert apply_overrides(result.trials["2"]) == apply_overrides([])


def test_the_record_is_of_every_trial_and_written_again_if_it_is_lost(
    runs: FakeRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.files = {LOSSES: b"step,epoch\n1,1\n2,1\n3,2\n4,2\n"}
    runs.fails, runs.killed = {"sweep-002"}, 2
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(SPACE, None, settings(4))
    record = read_record(SWEEPS / "sweep")
    stopped = "stopped after epoch 2 of 4: early stopping"
    assert [trial.ended for trial in record.trials] == [stopped, "failed", stopped]
    assert (record.number, record.answer, record.finals) == (4, None, ())
    (SWEEPS / "sweep/trials.json").write_text("{")
    runs.killed = 10**6
    sweep.run_sweep(SPACE, None, settings(4))
    again = read_record(SWEEPS / "sweep")
    assert again.trials[:3] == record.trials
    assert [trial.run and trial.run.name for trial in again.trials] == ["sweep-001", None, "sweep-003", "sweep-004"]
    assert again.answer == read_result(SWEEPS / "sweep").sentence
    assert again.finals[0].trial is None
    assert all(final.difference is not None for final in again.finals[1:])
    assert "early stopping" in capsys.readouterr().out


def test_killed_anywhere_it_resumes_to_the_same_runs(runs: FakeRuns) -> None:
    sweep.run_sweep(SPACE, None, settings())
    expected, sentence = dict(runs.runs), read_result(SWEEPS / "sweep").sentence
    shutil.rmtree(SWEEPS)
    runs.runs.clear()
    for runs.killed in (0, 3, 11):
        with pytest.raises(KeyboardInterrupt):
            sweep.run_sweep(SPACE, None, settings())
    runs.killed = 10**6
    sweep.run_sweep(SPACE, None, settings())
    assert list(runs.runs) == list(expected)
    assert read_result(SWEEPS / "sweep").sentence == sentence


def test_finalists_and_the_committed_recipe_have_the_same_fresh_seeds(runs: FakeRuns) -> None:
    sweep.run_sweep(SPACE, None, settings())
    seeds: dict[tuple[str, ...], list[int]] = {}
    for overrides, seed in runs.runs:
        seeds.setdefault(overrides, []).append(seed)
    finals = {overrides: each for overrides, each in seeds.items() if len(each) > 1}
    assert len(finals) == 4
    fresh = finals[()]
    assert fresh == list(range(43, 43 + len(fresh)))
    assert all(each == [42, *fresh] for overrides, each in finals.items() if overrides)


def test_a_failed_trial_counts_and_is_no_finalist(runs: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    runs.fails = {"sweep-002", "sweep-003"}
    sweep.run_sweep(SPACE, None, settings())
    printed = capsys.readouterr().out
    assert "sweep: trial 2 of 6: failed" in printed
    assert sum("failed" in line for line in printed.splitlines()) == 4  # two in the table


@pytest.mark.parametrize("fails", [{"sweep-001"}, {"sweep-002", "sweep-003", "sweep-004"}])
def test_the_first_failure_and_the_third_in_a_row_end_the_sweep(runs: FakeRuns, fails: set[str]) -> None:
    runs.fails = fails
    for _ in range(2):  # the trial that ended it runs again
        with pytest.raises(UserError, match="the pipeline failed"):
            sweep.run_sweep(SPACE, None, settings())
    runs.fails = set()
    sweep.run_sweep(SPACE, None, settings())


def test_a_sweep_whose_trials_are_all_the_recipe_has_no_candidate(runs: FakeRuns) -> None:
    sweep.run_sweep(["train.batch_size=16,8"], None, settings(1, sampler="grid"))
    assert read_result(SWEEPS / "sweep").sentence == "Every trial is the committed recipe, so there is no candidate."


def test_a_name_that_is_taken_is_no_failed_trial(runs: FakeRuns) -> None:
    runs.experiments = [SimpleNamespace(name="sweep-003", base="0" * 40)]
    with pytest.raises(UserError, match="sweep-003: an experiment with another recipe has this name"):
        sweep.run_sweep(SPACE, None, settings())
    assert len(runs.runs) == 2
    runs.experiments = []
    sweep.run_sweep(SPACE, None, settings())
    assert len(read_result(SWEEPS / "sweep").trials) == 6


@pytest.mark.parametrize("edits_after", [2, 8])  # during the trials, and during the comparison
def test_a_recipe_that_is_edited_meanwhile_ends_the_sweep(runs: FakeRuns, edits_after: int) -> None:
    before, runs.edits_after = PARAMS.read_text(), edits_after
    with pytest.raises(UserError, match=r"params\.yaml, the code or the software has changed"):
        sweep.run_sweep(SPACE, None, settings())
    assert len(runs.runs) == edits_after + 1
    PARAMS.write_text(before)
    sweep.run_sweep(SPACE, None, settings())
    assert len(read_result(SWEEPS / "sweep").trials) == 6


def test_a_file_gives_the_space(runs: FakeRuns) -> None:
    Path("space.yaml").write_text("train:\n  batch_size: [8, 16]\n  epochs: int(1,2)\n")
    sweep.run_sweep([], Path("space.yaml"), settings(99, sampler="grid"))
    assert len(read_result(SWEEPS / "sweep").trials) == 4


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["train.learning_rat=log(1,2)"], "train.learning_rat"),
        (["train.dropout=uniform(0,2)"], "train.dropout"),
        (["train.batch_size=8,16", "train.micro_batch_size=8,0"], "train.micro_batch_size"),
        (["train.epochs=2"], "nothing to search"),
        (["seed=1,2"], "seed: a sweep may not change it"),
    ],
)
def test_an_invalid_space_is_refused_before_any_trial(runs: FakeRuns, overrides: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        sweep.run_sweep(overrides, None, settings())
    assert not SWEEPS.exists()
    assert runs.runs == {}


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "seeds:x"])
def test_a_name_that_is_no_name_is_refused(runs: FakeRuns, name: str) -> None:
    with pytest.raises(UserError, match="--name: got"):
        sweep.run_sweep(SPACE, None, settings(name=name))


def test_an_unfinished_sweep_is_not_adopted(runs: FakeRuns) -> None:
    with pytest.raises(UserError, match=r"sweeps/other/result.json: not found"):
        adopt("other", None)


@pytest.mark.full  # eight runs
@pytest.mark.timeout(1800)
def test_a_sweep_with_real_experiments_reads_no_test_split(repo_copy: Path, run: Run, reprise: Run) -> None:
    def swept() -> str:
        options = ["-S", "train.learning_rate=1e-5,5e-3", "-n", "2", "--sampler", "grid", "--max-seeds", "3"]
        return reprise(repo_copy, "sweep", *options).stdout

    first = swept()  # the second trial is the committed recipe, so the first is the only finalist
    assert "committed" in first.splitlines()[-1]
    assert run(repo_copy, "git", "status", "--porcelain").stdout == ""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo_copy)
        runs = all_experiments()
        names = {each.name for each in runs}
        assert {"sweep-001", "sweep-002", "sweep-committed-seed-43", "sweep-001-seed-43"} <= names
        for each in runs:
            assert each.result.recipe["evaluate.split"] == "validation"
            assert each.predictions() is not None
            listed = run(repo_copy, "dvc", "list", ".", "predictions", "--rev", each.commit or "").stdout.split()
            assert listed == ["validation.parquet"]
    assert swept().splitlines()[-1] == first.splitlines()[-1]
    assert len(run(repo_copy, "dvc", "exp", "list", "--name-only").stdout.split()) == len(runs)  # none ran again
