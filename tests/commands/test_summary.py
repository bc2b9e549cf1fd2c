"""`reprise summary`, and the recipe catalog of `reprise compose`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from factories import CHECKS, STATS
from reprise.commands.compose import list_recipes
from reprise.core.dvc_lock import output_md5
from reprise.tasks.curves import confusion_pairs, per_class_table
from synthetic_runs import RUN, in_yaml, lock, signed
from tiny import ROOT, Run, write_params

EVALUATED = {
    "split": "test",
    "num_examples": 48,
    "accuracy": 0.9,
    "f1": 0.87654,
    "ci95": {"accuracy": {"low": 0.81, "high": 0.98}, "f1": {"low": 0.7, "high": 0.95}},
    "ci95_method": {"accuracy": "Wilson", "f1": "Wilson"},
    "baseline": {"accuracy": 0.5417, "f1": 0.0},
    "constant_prediction": False,
    "ece": 0.05,
}
TRAINED = {"best_epoch": 1, "steps": 20, "train_loss": 0.3, "validation": {"accuracy": 0.9, "f1": 0.9}}
SPEED = signed({"examples_per_second": 123.4})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the tiny recipe and no results."""
    write_params(tmp_path)
    return tmp_path


def write_metrics(folder: Path, **changes: Any) -> None:
    """Write dvc.lock and the metrics of a run of params.yaml, with changes to those of evaluate."""
    (folder / "metrics").mkdir()
    recipe = YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8"))
    (folder / "dvc.lock").write_bytes(in_yaml(lock(recipe, "0" * 32)))
    for name, metrics in (("evaluate", {**EVALUATED, **changes}), ("train", TRAINED), ("speed", SPEED)):
        (folder / f"metrics/{name}.json").write_text(json.dumps(metrics))


def shown_by(reprise: Run, folder: Path, *arguments: str, code: int = 0) -> str:
    """Return the output of `reprise …` on a wide terminal, or its stderr if it fails."""
    done = reprise(folder, *arguments, code=code, env={"COLUMNS": "160"})
    return done.stderr if code else done.stdout


def cells(shown: str) -> list[list[str]]:
    """Return the rows of a printed table."""
    return [
        [cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line.startswith("│")
    ]


def test_metrics_are_printed_with_interval_and_baseline(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    shown = shown_by(reprise, folder, "summary")
    assert cells(shown) == [
        ["accuracy", "0.9000", "0.8100 – 0.9800", "0.5417"],
        ["f1 (fresh)", "0.8765", "0.7000 – 0.9500", "0.0000"],
    ]
    assert "Intervals: accuracy: Wilson, f1: Wilson." in shown
    assert "48 examples of the test" in shown
    assert "tiny on reviews" in shown
    assert "Calibrated" not in shown
    assert re.search(r"metric .* value .* 95 % interval .* baseline", shown)


def test_a_calibrated_model_is_summarised_with_its_error_before_and_after(folder: Path, reprise: Run) -> None:
    write_metrics(folder, ece_uncalibrated=0.125)
    assert "Calibrated: expected calibration error 0.0500, before 0.1250." in shown_by(reprise, folder, "summary")


def test_the_summary_names_the_models_folder_and_epoch(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    shown = shown_by(reprise, folder, "summary")
    assert "The model is saved to models/final/." in shown
    assert "Epoch 1 of 2 was kept; 123 examples/s in training." in shown
    assert "always predicts the majority class of the training split" in shown
    assert "dvc metrics diff" in shown
    assert "Constant prediction" not in shown
    assert "Out of date" not in shown


def test_the_summary_names_the_recipe_of_the_results_and_what_has_changed_since(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    swapped = {"task.labels": ["fresh", "rotten"], "task.positive_label": "fresh"}
    write_params(folder, **{"task.name": "other", **swapped, "model.name": "renamed"})
    shown = shown_by(reprise, folder, "summary")
    assert "renamed on reviews: 48 examples" in shown  # the name of a model belongs to its source, which is the same
    assert shown.count("Out of date:") == 1
    assert "params.yaml has changed since these results were made: task.name, task.labels;" in shown


def test_the_model_of_the_results_is_named_by_its_source_once_params_name_another(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    source = {"kind": "hub", "repo": "google-bert/bert-base-cased", "revision": "c" * 40}
    write_params(folder, **{"model.name": "bert-base-cased", "model.source": source})
    shown = shown_by(reprise, folder, "summary")
    assert "tiny on reviews: 48 examples" in shown
    assert "model.source.repo" in shown


def test_metrics_that_were_edited_after_the_run_are_named(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    lock = (folder / "dvc.lock").read_text(encoding="utf-8")
    assert "Edited: metrics/train.json is not as dvc.lock records it" in shown_by(reprise, folder, "summary")
    content = YAML(typ="safe").load(lock)
    for stage in content["stages"].values():
        for out in stage["outs"]:
            out["md5"] = output_md5(folder / out["path"]) or out["md5"]
    (folder / "dvc.lock").write_bytes(in_yaml(content))
    assert "Edited: " not in shown_by(reprise, folder, "summary")


def test_the_summary_needs_no_valid_params(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    (folder / "params.yaml").write_text("task: [", encoding="utf-8")
    shown = shown_by(reprise, folder, "summary")
    assert "tiny on reviews: 48 examples" in shown
    assert "Out of date: params.yaml: line 1" in shown


def test_results_without_a_lock_are_refused_in_one_line(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    (folder / "dvc.lock").unlink()
    refused = shown_by(reprise, folder, "summary", code=2)
    assert refused == "reprise: error: dvc.lock: not found; expected the result of `dvc repro`\n"


def test_a_constant_prediction_is_reported(folder: Path, reprise: Run) -> None:
    write_metrics(folder, constant_prediction=True)
    assert "Constant prediction: every example got the same prediction" in shown_by(reprise, folder, "summary")


def test_warnings_about_the_data_are_printed(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    assert "Data:" not in shown_by(reprise, folder, "summary")
    shared = {"split": "test", "other": "train", "exact": 3, "normalized": 1200, "examples": 4000}
    (folder / "data/prepared").mkdir(parents=True)
    (folder / "data/prepared/stats.json").write_text(json.dumps({"warnings": [{"id": "shared_texts", **shared}]}))
    (line,) = (line for line in shown_by(reprise, folder, "summary").splitlines() if line.startswith("Data: "))
    assert "test: 1,200 of 4,000 examples are also in train, 3 of them" in line


def test_the_linear_baseline_is_printed_beside_the_model_if_it_is_of_the_same_data(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    for name, content in (("prepared/stats.json", STATS), ("checks/checks.json", CHECKS)):
        (folder / "data" / name).parent.mkdir(parents=True)
        (folder / "data" / name).write_text(json.dumps(content))
    shown = shown_by(reprise, folder, "summary")
    line = "TF-IDF and logistic regression reach accuracy 0.7916, f1 (fresh) 0.8125 on the same examples."
    assert f"Linear model: {line}" in shown
    (folder / "data/checks/checks.json").write_text(json.dumps(CHECKS | {"data": {}}))
    assert "Linear model" not in shown_by(reprise, folder, "summary")


def test_of_many_labels_the_worst_and_the_most_frequent_errors_are_printed(tmp_path: Path, reprise: Run) -> None:
    labels = [f"label {number}" for number in range(77)]
    write_params(tmp_path, **{"task.labels": labels, "task.positive_label": None})
    write_metrics(tmp_path)
    actual = np.arange(300) % 77
    predicted = np.where(actual < 7, 70, actual)
    (tmp_path / "plots").mkdir()
    per_class_table(predicted, actual, labels).to_csv(tmp_path / "plots/per_class.csv", index=False)
    confusion_pairs(predicted, actual, labels).to_csv(tmp_path / "plots/confusion.csv", index=False)
    shown = shown_by(reprise, tmp_path, "summary")
    assert "Lowest F1 of 77 labels; all are in plots/per_class.csv" in shown
    assert "Most frequent of 7 kinds of errors" in shown
    assert cells(shown)[2:] == [
        *([f"label {number}", "0.000", "–", "0.000", "4"] for number in range(5)),
        *([f"label {number}", "label 70", "4", "100.0 %"] for number in range(5)),
    ]


def test_the_baseline_of_a_regression_is_the_mean(tmp_path: Path, reprise: Run) -> None:
    write_params(tmp_path, **{"task.labels": [], "task.metrics": ["pearson"]})
    write_metrics(tmp_path, pearson=0.8, ci95={"pearson": {"low": None, "high": None}}, baseline={"pearson": 0.0})
    shown = shown_by(reprise, tmp_path, "summary")
    assert cells(shown) == [["pearson", "0.8000", "–", "0.0000"]]  # no interval where the examples determine none
    assert "always predicts the mean of the training split" in shown


def test_the_summary_writes_nothing_and_is_the_same_in_a_process_of_its_own(
    folder: Path, run: Run, reprise: Run
) -> None:
    write_metrics(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    environment = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "160"}
    shown = run(folder, sys.executable, "-m", "reprise", "summary", env=environment).stdout
    assert shown == shown_by(reprise, folder, "summary")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_without_metrics_the_summary_names_the_command_that_writes_them(folder: Path, reprise: Run) -> None:
    assert shown_by(reprise, folder, "summary", code=2) == (
        "reprise: error: metrics/evaluate.json: not found; expected the result of `dvc repro`\n"
    )


def test_incomplete_metrics_are_refused_in_one_line(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    (folder / "metrics/train.json").unlink()
    refused = shown_by(reprise, folder, "summary", code=2)
    assert refused.startswith("reprise: error: metrics/train.json: not found")
    assert refused.count("\n") == 1


def test_the_speed_of_another_run_is_not_shown(folder: Path, reprise: Run) -> None:
    write_metrics(folder)
    speed = folder / "metrics/speed.json"
    assert "123 examples/s in training." in shown_by(reprise, folder, "summary")
    expected = "Epoch 1 of 2 was kept; the speed is not recorded (restored from the run cache).\n"
    for changes in ({"models/final": "2" * 32}, {"environment.json": "2" * 32}, {"src/reprise/train": "2" * 32}):
        speed.write_text(json.dumps(signed({"run": RUN | changes, "examples_per_second": 123.4})))
        assert expected in shown_by(reprise, folder, "summary")
    speed.write_text(json.dumps(SPEED | {"examples_per_second": 999.0}))
    assert expected in shown_by(reprise, folder, "summary")
    speed.unlink()
    assert expected in shown_by(reprise, folder, "summary")


def test_markup_in_labels_is_printed_literally(tmp_path: Path, reprise: Run) -> None:
    write_params(tmp_path, **{"task.labels": ["no", "[/yes]"]})
    write_metrics(tmp_path)
    shown = shown_by(reprise, tmp_path, "summary")
    assert cells(shown)[1][0] == "f1 ([/yes])"


def test_compose_without_arguments_lists_the_catalog_and_writes_nothing(folder: Path, reprise: Run) -> None:
    (folder / "recipes").symlink_to(ROOT / "recipes")
    params = (folder / "params.yaml").read_bytes()
    shown = shown_by(reprise, folder, "compose")
    listed = [
        [f"{group}={name}", title]
        for group, choices in list_recipes(ROOT / "recipes").items()
        for name, title in choices
    ]
    assert len(listed) >= 5
    assert cells(shown) == listed
    assert "Recipe catalog" in shown
    assert "Compose: reprise compose task=" in shown
    assert (folder / "params.yaml").read_bytes() == params


def test_compose_with_arguments_prints_what_changed(folder: Path, reprise: Run) -> None:
    (folder / "recipes").symlink_to(ROOT / "recipes")
    shown_by(reprise, folder, "compose", "task=mrpc")
    shown = shown_by(reprise, folder, "compose", "task=mrpc", "train.epochs=4")
    assert shown == "params.yaml: train.epochs: 5 → 4\n"
    assert shown_by(reprise, folder, "compose", "task=mrpc", "train.epochs=4") == "params.yaml: nothing changed\n"


def test_names_and_warnings_reach_the_terminal_as_text(tmp_path: Path, reprise: Run) -> None:
    hostile, shown_as = "[red]\x1b]0;x\x07\u202e\n[/red]", r"[red]\x1b]0;x\x07\u202e\n[/red]"
    write_params(tmp_path, **{"task.labels": ["no", hostile], "task.positive_label": hostile})
    write_metrics(tmp_path)
    (tmp_path / "data/prepared").mkdir(parents=True)
    warning = {"id": "unknown_tokens", "split": "test", "share": 0.5, "token": hostile}
    (tmp_path / "data/prepared/stats.json").write_text(json.dumps({"warnings": [warning]}))
    (tmp_path / "metrics/preflight.json").write_text(json.dumps({"warnings": [f"about {hostile}"]}))
    shown = shown_by(reprise, tmp_path, "summary")
    assert cells(shown)[1][0] == f"f1 ({shown_as})"
    assert f"({shown_as}); does its vocabulary fit" in shown
    assert f"Model: about {shown_as}." in shown
    assert {char for char in shown if not char.isprintable()} == {"\n"}


def test_titles_of_the_catalog_are_listed_as_text(folder: Path, reprise: Run) -> None:
    for group in ("task", "model", "train"):
        (folder / f"recipes/{group}").mkdir(parents=True)
    (folder / "recipes/task/mine.yaml").write_text("# [link=https://example.org]\x1b[31mred\x1b[0m [/]\n", "utf-8")
    shown = shown_by(reprise, folder, "compose")
    assert cells(shown) == [["task=mine", r"[link=https://example.org]\x1b[31mred\x1b[0m [/]"]]
