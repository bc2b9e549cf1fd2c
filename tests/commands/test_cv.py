"""`reprise cv`: what it runs, what it prints, and one cross-validation with real DVC experiments."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reprise.commands import cv
from reprise.commands.cv import (
    check_overrides,
    division,
    experiment_name,
    fitted_on_validation,
    join_predictions,
    planned_folds,
    pooled_metrics,
)
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.results.diff import replicate_key
from reprise.results.run import read_result
from reprise.results.runs import Fold, experiments, resolve_runs
from reprise.results.vcs import check_output
from synthetic_runs import files
from tiny import Run, tiny_recipe, write_params

FOLDS = ("--folds", "2", "-S", "train.epochs=1")


def recipe(**changes: Any) -> Recipe:
    return check_recipe(tiny_recipe(**changes), "recipe")


@pytest.mark.parametrize(
    ("changes", "folds", "expected"),
    [
        ({}, None, ["task.split.folds=5", "task.split.validation=null"]),
        ({}, 3, ["task.split.folds=3", "task.split.validation=null"]),
        ({"task.split.validation": None, "task.split.folds": 4}, None, []),
        ({"task.split.validation": None, "task.split.folds": 4}, 4, []),
        (
            {"task.split.validation": None, "task.split.folds": 4}, 3,
            ["task.split.folds=3", "task.split.validation=null"],
        ),
    ],
)  # fmt: skip
def test_the_data_are_divided_unless_the_recipe_does_so(
    changes: dict[str, Any], folds: int | None, expected: list[str]
) -> None:
    assert division(recipe(**changes), folds) == expected


def test_a_source_with_a_validation_split_is_refused() -> None:
    split = {**tiny_recipe()["task"]["split"], "validation": None}
    source = {"kind": "local", "train": "data/own/a.csv", "validation": "data/own/b.csv", "test": None}
    for changes in {"task.source": source, "task.split": None}, {"task.source": source, "task.split": split}:
        if changes["task.split"] is None:
            changes["evaluate.split"] = "validation"
        with pytest.raises(UserError) as refused:
            division(recipe(**changes), 5)
        assert refused.value.key == "task.split"


@pytest.mark.parametrize("override", ["train.fold=1", "evaluate.split=test", "params.yaml:evaluate.split=test"])
def test_keys_that_each_fold_sets_are_refused(override: str) -> None:
    check_overrides(["train.epochs=1", "task.split.seed=2"])
    with pytest.raises(UserError, match="set for each fold"):
        check_overrides([override])


def test_experiments_are_named_by_fold_and_division() -> None:
    folds = planned_folds(7, 3, repeats=2)
    assert folds == [(7, 0), (7, 1), (7, 2), (8, 0), (8, 1), (8, 2)]
    assert experiment_name(folds[2], 7, 1, "abc") == "cv-2-abc"
    assert experiment_name(folds[4], 7, 2, "abc") == "cv-1-1-abc"


def test_what_the_fold_also_chooses_is_named() -> None:
    assert fitted_on_validation(recipe()) == ["the epoch (train.keep_epoch)"]
    assert fitted_on_validation(recipe(**{"train.keep_epoch": "last", "train.calibration": "temperature"})) == [
        "the temperature (train.calibration)"
    ]
    assert fitted_on_validation(recipe(**{"train.epochs": 1})) == []


def predictions(ids: list[str], right: list[bool]) -> pd.DataFrame:
    labels = ["fresh" if int(number) % 2 else "rotten" for number in ids]
    other = {"fresh": "rotten", "rotten": "fresh"}
    predicted = [label if each else other[label] for label, each in zip(labels, right, strict=True)]
    probabilities = [np.array([0.9, 0.1] if label == "rotten" else [0.1, 0.9], np.float32) for label in predicted]
    return pd.DataFrame({"id": ids, "label": labels, "prediction": predicted, "probabilities": probabilities})


def test_predictions_of_the_folds_are_one_table_by_example() -> None:
    tables = [predictions(["1", "4"], [True, False]), predictions(["3", "2"], [True, True])]
    joined = join_predictions([Fold(0, 0), Fold(0, 1)], tables)
    assert joined["id"].tolist() == ["1", "2", "3", "4"]
    assert joined["fold"].tolist() == [0, 1, 1, 0]
    accuracy, f1 = pooled_metrics(joined, recipe().task.kind, recipe())
    assert accuracy.startswith("accuracy 0.7500 (0.3006 to 0.9544)")  # Wilson's interval of 3 of 4
    assert f1.startswith("f1 0.8000 (")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of a synthetic run, in whose repository experiments are stored instead of run."""
    monkeypatch.chdir(tmp_path)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    check_output("git", "init", "-q", "-b", "main")
    head = commit("Add results", tiny_recipe())

    def store(name: str, seed: int, overrides: list[str]) -> None:
        stored = commit(name, cv.apply_overrides([*overrides, f"seed={seed}"]))
        check_output("git", "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", stored)
        check_output("git", "reset", "-q", "--hard", head)

    def planned(params: dict[str, Any], varying: tuple[str, ...]) -> str:
        return replicate_key(read_result(files(params, steps=10, rows=20).get, "planned"), varying)

    monkeypatch.setattr(cv, "run_experiment", store)
    monkeypatch.setattr(cv, "planned_replicate_key", planned)
    monkeypatch.setattr(cv, "check_copyable", lambda _: None)
    monkeypatch.setattr(cv.Run, "predictions", lambda run: predictions([str(run.fold.number), "7"], [True, False]))
    return head


def commit(message: str, params: dict[str, Any]) -> str:
    for path, content in files(params, steps=10, rows=20).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    check_output("git", "add", "--all", "--", ":!cv")
    check_output("git", "commit", "-qm", message)
    return check_output("git", "rev-parse", "HEAD")


def test_folds_are_run_once_and_summarized(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    cv.cross_validate(3, 1, ["train.epochs=3"])
    names = [experiment.name for experiment in experiments()]
    assert sorted(name[:5] for name in names) == ["cv-0-", "cv-1-", "cv-2-"]
    first = capsys.readouterr().out
    assert "cv: fold 2, 3 of 3\n" in first
    assert "the epoch (train.keep_epoch) of its own model" in first
    cv.cross_validate(3, 2, ["train.epochs=3"])
    assert sorted(experiment.name[:7] for experiment in experiments() if experiment.name not in names) == [
        "cv-1-0-", "cv-1-1-", "cv-1-2-",
    ]  # fmt: skip
    again = capsys.readouterr().out
    assert again.count(": reusing cv-") == 3
    assert "cv: fold 2, 6 of 6\n" in again
    runs = resolve_runs(f"folds:{names[0]}")
    assert [run.fold for run in runs] == planned_folds(0, 3, repeats=2)
    assert {run.result.recipe["evaluate.split"] for run in runs} == {"validation"}
    accuracies = [run.result.metrics["evaluate"]["accuracy"] for run in runs]
    assert f"{sum(accuracies) / 6:.4f}" in again
    assert "all 6 out-of-fold predictions of the first division together: accuracy 0.5000" in again
    (file,) = Path("cv").glob("*/predictions.parquet")
    assert pd.read_parquet(file)["split_seed"].value_counts().to_dict() == {0: 6, 1: 6}


def test_an_impossible_division_is_refused_before_any_run(trained_repo: Path, tmp_path: Path, reprise: Run) -> None:
    folder = Path(shutil.copytree(trained_repo, tmp_path / "repo", symlinks=True))
    write_params(folder, **{"task.split.order_by": "day", "task.split.group_by": None})
    refused = reprise(folder, "cv", code=2)
    assert refused.stdout == ""
    assert "task.split.folds: got 5; expected null, since task.split.order_by cuts by time" in refused.stderr


@pytest.mark.full  # two runs
@pytest.mark.timeout(1200)
def test_folds_are_experiments_that_are_reused_and_compared(
    trained_repo: Path, tmp_path: Path, run: Run, reprise: Run
) -> None:
    folder = Path(shutil.copytree(trained_repo, tmp_path / "repo", symlinks=True))
    first = reprise(folder, "cv", *FOLDS).stdout
    assert "cv: fold 1, 2 of 2\n" in first
    names = sorted(run(folder, "dvc", "exp", "list", "--name-only").stdout.split())
    assert [name[:5] for name in names] == ["cv-0-", "cv-1-"]
    (file,) = (folder / "cv").glob("*/predictions.parquet")
    written = pd.read_parquet(file)
    assert sorted(written["fold"].unique()) == [0, 1]
    assert not written["id"].duplicated().any()
    assert set(written["id"]).isdisjoint(pd.read_parquet(folder / "predictions/test.parquet")["id"])
    assert f"all {len(written)} out-of-fold predictions together: accuracy " in first
    assert run(folder, "git", "status", "--porcelain").stdout == ""
    before = file.read_bytes()
    again = reprise(folder, "cv", *FOLDS).stdout
    assert [f"reusing {name}" in again for name in names] == [True] * 2
    assert "Running stage" not in again
    assert file.read_bytes() == before
    result = json.loads(reprise(folder, "compare", f"folds:{names[0]}", f"folds:{names[1]}", "--json").stdout)
    assert result["first"]["folds"] == result["second"]["folds"] == ["0", "1"]
    assert result["metrics"][0]["verdict"] == "the same for every fold, n=2 and 2"
    assert "a run is in both groups" in result["warnings"]
