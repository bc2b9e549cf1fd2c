"""`reprise summary`, and the recipe catalog of `reprise compose`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from reprise.commands.compose import list_recipes
from tiny import ROOT, Run, write_params

EVALUATED = {
    "split": "test",
    "num_examples": 48,
    "accuracy": 0.9,
    "f1": 0.87654,
    "ci95": {"accuracy": {"low": 0.81, "high": 0.98}, "f1": {"low": 0.7, "high": 0.95}},
    "baseline": {"accuracy": 0.5417, "f1": 0.0},
    "constant_prediction": False,
    "ece": 0.05,
}
TRAINED = {"best_epoch": 1, "steps": 20, "train_loss": 0.3, "validation": {"accuracy": 0.9, "f1": 0.9}}
SPEED = {"examples_per_second": 123.4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the tiny recipe and no results."""
    write_params(tmp_path)
    return tmp_path


def write_metrics(folder: Path, **changes: Any) -> None:
    """Write the metrics of a run, with changes to those of evaluate."""
    (folder / "metrics").mkdir()
    for name, metrics in (("evaluate", {**EVALUATED, **changes}), ("train", TRAINED), ("speed", SPEED)):
        (folder / f"metrics/{name}.json").write_text(json.dumps(metrics))


def reprise(run: Run, folder: Path, *arguments: str, code: int = 0) -> str:
    """Return the output of `reprise …` on a wide terminal, or its stderr if it fails."""
    environment = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "160"}
    done = run(folder, sys.executable, "-m", "reprise", *arguments, code=code, env=environment)
    return done.stderr if code else done.stdout


def cells(shown: str) -> list[list[str]]:
    """Return the rows of a printed table."""
    return [
        [cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line.startswith("│")
    ]


def test_metrics_are_printed_with_interval_and_baseline(folder: Path, run: Run) -> None:
    write_metrics(folder)
    shown = reprise(run, folder, "summary")
    assert cells(shown) == [
        ["accuracy", "0.9000", "0.8100 – 0.9800", "0.5417"],
        ["f1", "0.8765", "0.7000 – 0.9500", "0.0000"],
    ]
    assert "48 examples of the test" in shown
    assert "tiny on reviews" in shown
    assert re.search(r"metric .* value .* 95 % interval .* baseline", shown)


def test_the_summary_names_the_models_folder_and_epoch(folder: Path, run: Run) -> None:
    write_metrics(folder)
    shown = reprise(run, folder, "summary")
    assert "The model is saved to models/final/." in shown
    assert "Epoch 1 of 2 was kept; 123 examples/s in training." in shown
    assert "always predicts the majority class of the training split" in shown
    assert "dvc metrics diff" in shown
    assert "Constant prediction" not in shown


def test_a_constant_prediction_is_reported(folder: Path, run: Run) -> None:
    write_metrics(folder, constant_prediction=True)
    assert "Constant prediction: every example got the same prediction" in reprise(run, folder, "summary")


def test_warnings_about_the_data_are_printed(folder: Path, run: Run) -> None:
    write_metrics(folder)
    assert "Data:" not in reprise(run, folder, "summary")
    shared = {"split": "test", "other": "train", "exact": 3, "normalized": 1200, "examples": 4000}
    (folder / "data/prepared").mkdir(parents=True)
    (folder / "data/prepared/stats.json").write_text(json.dumps({"warnings": [{"id": "shared_texts", **shared}]}))
    (line,) = (line for line in reprise(run, folder, "summary").splitlines() if line.startswith("Data: "))
    assert "test: 1,200 of 4,000 examples are also in train, 3 of them" in line


def test_the_baseline_of_a_regression_is_the_mean(tmp_path: Path, run: Run) -> None:
    write_params(tmp_path, **{"task.labels": [], "task.metrics": ["pearson"]})
    write_metrics(tmp_path, pearson=0.8, ci95={"pearson": {"low": 0.7, "high": 0.9}}, baseline={"pearson": 0.0})
    shown = reprise(run, tmp_path, "summary")
    assert cells(shown) == [["pearson", "0.8000", "0.7000 – 0.9000", "0.0000"]]
    assert "always predicts the mean of the training split" in shown


def test_the_summary_writes_nothing(folder: Path, run: Run) -> None:
    write_metrics(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    reprise(run, folder, "summary")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_without_metrics_the_summary_names_the_command_that_writes_them(folder: Path, run: Run) -> None:
    assert reprise(run, folder, "summary", code=2) == (
        "reprise: error: metrics/evaluate.json: not found; expected the result of `dvc repro`\n"
    )


def test_incomplete_metrics_are_refused_in_one_line(folder: Path, run: Run) -> None:
    write_metrics(folder)
    (folder / "metrics/speed.json").unlink()
    refused = reprise(run, folder, "summary", code=2)
    assert refused.startswith("reprise: error: metrics/speed.json: not found")
    assert refused.count("\n") == 1


def test_markup_in_names_is_printed_literally(tmp_path: Path, run: Run) -> None:
    write_params(tmp_path, **{"task.name": "reviews [b]2026[/c]"})
    write_metrics(tmp_path)
    assert "tiny on reviews [b]2026[/c]: 48 examples" in " ".join(reprise(run, tmp_path, "summary").split())


def test_compose_without_arguments_lists_the_catalog_and_writes_nothing(folder: Path, run: Run) -> None:
    (folder / "recipes").symlink_to(ROOT / "recipes")
    params = (folder / "params.yaml").read_bytes()
    shown = reprise(run, folder, "compose")
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


def test_compose_with_arguments_prints_what_changed(folder: Path, run: Run) -> None:
    (folder / "recipes").symlink_to(ROOT / "recipes")
    reprise(run, folder, "compose", "task=mrpc")
    shown = reprise(run, folder, "compose", "task=mrpc", "train.epochs=4")
    assert shown == "params.yaml: train.epochs: 5 → 4\n"
    assert reprise(run, folder, "compose", "task=mrpc", "train.epochs=4") == "params.yaml: nothing changed\n"
