"""`reprise seed-noise`: several seeds, run in copies of the checkout, and their metrics."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from reprise.core.files import read_json
from tiny import Run

FILE = Path("reference/reviews-tiny-cpu.json")


@pytest.mark.full
def test_consecutive_seeds_starting_at_the_recipes_are_measured(measured: tuple[Path, str]) -> None:
    folder, output = measured
    reference = read_json(folder / FILE)
    assert list(reference["seeds"]) == ["42", "43", "44", "45", "46"]
    trained, evaluated = (read_json(folder / f"metrics/{name}.json") for name in ("train", "evaluate"))
    assert reference["seeds"]["42"] == {
        "train": {"loss": pd.read_csv(folder / "plots/train.csv")["loss"].mean(), **trained["validation"]},
        "evaluate": {"accuracy": evaluated["accuracy"], "f1": evaluated["f1"]},
    }
    losses = [seed["train"]["loss"] for seed in reference["seeds"].values()]
    assert len(set(losses)) == 5
    mean = sum(losses) / 5
    assert reference["metrics"]["train"]["loss"]["mean"] == pytest.approx(mean)
    assert reference["metrics"]["train"]["loss"]["sd"] == pytest.approx(
        (sum((loss - mean) ** 2 for loss in losses) / 4) ** 0.5
    )
    assert "seed-noise: seed 43, 2 of 5" in output
    assert f"│ {'mean':<18} │ {mean:.4f} │" in output
    assert f"Saved to {FILE}; `reprise verify` and `reprise compare` use it." in output


@pytest.mark.full
def test_the_reference_records_recipe_and_provenance(measured: tuple[Path, str], run: Run) -> None:
    folder, _ = measured
    reference = read_json(folder / FILE)
    assert reference["recipe"]["train.learning_rate"] == 5e-3
    assert "seed" not in reference["recipe"]
    assert reference["provenance"]["devices"] == read_json(folder / "metrics/provenance.json")["sessions"][0]["devices"]
    assert "environment.locks.requirements.txt" in reference["provenance"]


@pytest.mark.full
def test_workspace_and_other_experiments_are_unchanged(measured: tuple[Path, str], run: Run) -> None:
    folder, _ = measured
    assert run(folder, "git", "status", "--porcelain").stdout == "?? reference/\n"
    assert run(folder, "dvc", "exp", "list", "--name-only").stdout.split() == ["mine"]


@pytest.mark.full
def test_measuring_again_uses_the_run_cache(measured: tuple[Path, str], tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(measured[0], tmp_path / "repo", symlinks=True))
    before = json.loads((folder / FILE).read_text(encoding="utf-8"))
    output = run(folder, "reprise", "seed-noise", "--seeds", "5").stdout
    assert "train: tiny on" not in output
    assert json.loads((folder / FILE).read_text(encoding="utf-8")) == before


def test_fewer_than_five_seeds_are_refused(repo: Path, run: Run) -> None:
    refused = run(repo, "reprise", "seed-noise", "--seeds", "4", code=2)
    assert "Invalid value for '--seeds': Input should be greater than or equal to 5" in refused.stderr


@pytest.mark.full
def test_a_failing_pipeline_is_reported_in_one_line_and_writes_no_file(repo_copy: Path, run: Run) -> None:
    (repo_copy / "src/reprise/train/engines/accelerate.py").write_text("raise RuntimeError\n", encoding="utf-8")
    failed = run(repo_copy, "reprise", "reference", code=2)
    assert failed.stderr.endswith(
        "reprise: error: params.yaml: seed 42: the pipeline failed, see above; expected it to finish\n"
    )
    assert not (repo_copy / "reference").exists()
