"""What is shown at the end: the figures of the last cooking, and the shelf."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from reprise.commands.compose import list_recipes
from tiny import ROOT, Run, write_params

JUDGED = {
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
    """A folder with the tiny recipe, nothing cooked."""
    write_params(tmp_path)
    return tmp_path


def serve(folder: Path, **changes: Any) -> None:
    """Write the metrics that a cooking leaves, those of evaluate changed."""
    (folder / "metrics").mkdir()
    for name, figures in (("evaluate", {**JUDGED, **changes}), ("train", TRAINED), ("speed", SPEED)):
        (folder / f"metrics/{name}.json").write_text(json.dumps(figures))


def reprise(run: Run, folder: Path, *arguments: str, code: int = 0) -> str:
    """What `reprise …` prints on a wide terminal, or on stderr where it fails."""
    environment = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "160"}
    done = run(folder, sys.executable, "-m", "reprise", *arguments, code=code, env=environment)
    return done.stderr if code else done.stdout


def cells(shown: str) -> list[list[str]]:
    """The rows of the table that was shown."""
    return [
        [cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line.startswith("│")
    ]


def test_the_metrics_stand_beside_their_interval_and_the_baseline(folder: Path, run: Run) -> None:
    serve(folder)
    shown = reprise(run, folder, "summary")
    assert cells(shown) == [
        ["accuracy", "0.9000", "0.8100 – 0.9800", "0.5417"],
        ["f1", "0.8765", "0.7000 – 0.9500", "0.0000"],
    ]
    assert "48 rows of the test" in shown
    assert "tiny on reviews" in shown
    assert re.search(r"metric .* value .* 95 % interval .* baseline", shown)


def test_the_summary_says_where_the_model_lies_and_which_epoch_it_is(folder: Path, run: Run) -> None:
    serve(folder)
    shown = reprise(run, folder, "summary")
    assert "The model is in models/final/." in shown
    assert "Epoch 1 of 2 was kept; 123 examples/s in training." in shown
    assert "commonest label" in shown
    assert "dvc metrics diff" in shown
    assert "Constant prediction" not in shown


def test_a_constant_prediction_is_reported(folder: Path, run: Run) -> None:
    serve(folder, constant_prediction=True)
    assert "Constant prediction: every example got the same prediction" in reprise(run, folder, "summary")


def test_the_baseline_of_a_regression_is_the_mean(tmp_path: Path, run: Run) -> None:
    write_params(tmp_path, **{"task.labels": [], "task.metrics": ["pearson"]})
    serve(tmp_path, pearson=0.8, ci95={"pearson": {"low": 0.7, "high": 0.9}}, baseline={"pearson": 0.0})
    shown = reprise(run, tmp_path, "summary")
    assert cells(shown) == [["pearson", "0.8000", "0.7000 – 0.9000", "0.0000"]]
    assert "always predicts the mean of the training split" in shown


def test_the_summary_writes_nothing(folder: Path, run: Run) -> None:
    serve(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    reprise(run, folder, "summary")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_without_metrics_the_summary_says_what_makes_them(folder: Path, run: Run) -> None:
    assert reprise(run, folder, "summary", code=2) == (
        "reprise: error: metrics/evaluate.json: not found; expected the result of `dvc repro`\n"
    )


def test_metrics_that_are_half_there_are_refused_in_one_line(folder: Path, run: Run) -> None:
    serve(folder)
    (folder / "metrics/speed.json").unlink()
    refused = reprise(run, folder, "summary", code=2)
    assert refused.startswith("reprise: error: metrics/speed.json: not found")
    assert refused.count("\n") == 1


def test_names_are_shown_as_they_are_written(tmp_path: Path, run: Run) -> None:
    write_params(tmp_path, **{"task.name": "reviews [b]2026[/c]"})
    serve(tmp_path)
    assert "tiny on reviews [b]2026[/c]: 48 rows" in " ".join(reprise(run, tmp_path, "summary").split())


def test_recipe_without_arguments_lists_the_shelf_and_writes_nothing(folder: Path, run: Run) -> None:
    (folder / "recipes").symlink_to(ROOT / "recipes")
    params = (folder / "params.yaml").read_bytes()
    shown = reprise(run, folder, "recipe")
    listed = [
        [f"{group}={name}", headline]
        for group, choices in list_recipes(ROOT / "recipes").items()
        for name, headline in choices
    ]
    assert len(listed) >= 5
    assert cells(shown) == listed
    assert "Compose: reprise compose task=" in shown
    assert (folder / "params.yaml").read_bytes() == params


def test_recipe_with_arguments_says_what_it_changed(folder: Path, run: Run) -> None:
    (folder / "recipes").symlink_to(ROOT / "recipes")
    reprise(run, folder, "recipe", "task=mrpc")
    shown = reprise(run, folder, "recipe", "task=mrpc", "train.epochs=4")
    assert shown == "params.yaml: train.epochs: 5 → 4\n"
    assert reprise(run, folder, "recipe", "task=mrpc", "train.epochs=4") == "params.yaml: nothing changed\n"
