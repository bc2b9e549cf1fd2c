"""Trackers: what TensorBoard logs, read from its files, and that the run does not change."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from interrupts import Running, checkpoints, results, set_processes, take_results
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.train.checkpoint import checkpoint_dir, fingerprint
from reprise.train.recorder import Recorder
from reprise.train.trackers import flat_config, wrap_tracker_errors
from tiny import Run, tiny_recipe, write_params

Train = Callable[..., Recipe]
Patch = pytest.MonkeyPatch

TENSORBOARD = {"run.trackers": ["tensorboard"]}


class PowerCut(BaseException):
    """A power cut."""


def only_run(workdir: Path) -> Path:
    """TensorBoard's folder of the only run."""
    (run,) = (workdir / "tracking/tensorboard").iterdir()
    return run


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each tag's points in TensorBoard, in the order they were logged."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """The same from the run's own curves, in fp32 as TensorBoard stores them."""
    curve, validation = (pd.read_csv(workdir / f"plots/{name}.csv") for name in ("train", "validation"))
    steps, last_steps = curve["step"], curve.groupby("epoch")["step"].max()
    columns = {f"train/{name}": (steps, curve[name]) for name in ("loss", "learning_rate", "grad_norm")}
    columns |= {f"validation/{name}": (last_steps, validation[name]) for name in ("accuracy", "f1")}
    return {
        tag: list(zip(steps, map(float, np.float32(values)), strict=True)) for tag, (steps, values) in columns.items()
    }


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.full)])
def test_tensorboard_gets_every_metric_once_and_changes_no_bit(
    workdir: Path, type_train: Callable[[int], str], processes: int
) -> None:
    set_processes(workdir, processes)
    write_params(workdir)
    type_train(processes)
    assert not (workdir / "tracking").exists()
    without = take_results(workdir)
    write_params(workdir, **TENSORBOARD)
    type_train(processes)
    assert results(workdir) == without
    shown = logged(only_run(workdir))
    assert len(shown["train/loss"]) == 18
    assert shown == expected(workdir)
    losses = pd.read_csv(workdir / "plots/train.csv")["loss"].tolist()
    assert [value for _, value in shown["train/loss"]] == losses  # losses are fp32


@pytest.mark.parametrize(
    "engine", ["accelerate", *(pytest.param(name, marks=pytest.mark.full) for name in ("pytorch", "trainer"))]
)
def test_run_resumed_after_a_power_cut_logs_to_its_folder_and_shows_no_step_twice(
    train: Train, workdir: Path, monkeypatch: Patch, engine: str
) -> None:
    changes = TENSORBOARD | {"train.engine": engine, "run.save_steps": 7}
    epoch = Recorder.log_epoch

    def cut(self: Recorder, number: int, scores: dict[str, float]) -> None:
        if number == 1:  # the last step is logged, the last checkpoint is of step 14
            raise PowerCut
        epoch(self, number, scores)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "log_epoch", cut)
        with pytest.raises(PowerCut):
            train(**changes)
    before = logged(only_run(workdir))["train/loss"]
    assert [step for step, _ in before] == list(range(1, 19))
    recipe = train(**changes)
    assert json.loads((workdir / "metrics/provenance.json").read_text())["sessions"][-1]["from_step"] == 14
    assert logged(only_run(workdir)) == expected(workdir)
    assert logged(only_run(workdir))["train/loss"] == before
    (file,) = only_run(workdir).glob("*/hparams.yml")  # the recipe, once
    assert YAML(typ="safe").load(file) == flat_config(recipe)
    assert only_run(workdir).name.endswith(f"-{checkpoint_dir(fingerprint(recipe)).name[:8]}")


@pytest.mark.full
def test_run_resumed_after_a_signal_logs_to_its_folder_and_other_runs_to_their_own(workdir: Path, run: Run) -> None:
    write_params(workdir, **TENSORBOARD, **{"train.epochs": 20, "run.save_steps": 1})
    with Running(workdir, "reprise", "train") as training:
        training.until(lambda: checkpoints(workdir))
        training.send(signal.SIGTERM)
        training.end(143)
    assert "train: resuming from step" in run(workdir, "reprise", "train").stdout
    first = only_run(workdir)
    assert logged(first) == expected(workdir)
    write_params(workdir, **TENSORBOARD)
    run(workdir, "reprise", "train")
    (second,) = set(first.parent.iterdir()) - {first}
    assert logged(second) == expected(workdir)
    assert first.name < second.name  # in the order of time


@pytest.mark.full
def test_adding_trackers_retrains_nothing_and_a_forced_run_has_the_same_bits(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    write_params(repo_copy, **TENSORBOARD)
    assert "Stage 'train' didn't change, skipping" in run(repo_copy, "dvc", "repro").stdout
    assert not (repo_copy / "tracking").exists()
    run(repo_copy, "dvc", "repro", "--force", "--single-item", "train")
    assert logged(only_run(repo_copy)) == expected(repo_copy)
    assert results(repo_copy) == before
    assert "tracking" not in run(repo_copy, "git", "status", "--porcelain", "--untracked-files=all").stdout


def test_recipe_is_flattened_to_numbers_and_strings() -> None:
    logged = flat_config(
        check_recipe(tiny_recipe(**{"train.lora": {"rank": 4, "alpha": 8.0, "targets": ["query"]}}), "")
    )
    assert {type(value) for value in logged.values()} == {int, float, str, bool, type(None)}
    assert logged["seed"] == 42
    assert logged["task.labels"] == '["rotten", "fresh"]'
    assert logged["task.filter.verdict"] == '["rotten", "fresh"]'
    assert logged["train.learning_rate"] == 5e-3
    assert logged["train.lora.targets"] == '["query"]'
    assert logged["train.max_steps"] is None


@pytest.mark.full
def test_tracker_that_cannot_start_is_one_line_and_keeps_the_earlier_model(workdir: Path, run: Run) -> None:
    write_params(workdir)
    run(workdir, "reprise", "train")
    earlier = results(workdir)
    (workdir / "tracking").write_text("in the way")
    write_params(workdir, **TENSORBOARD)
    refused = run(workdir, "reprise", "train", code=2).stderr
    assert re.fullmatch(r"reprise: error: params\.yaml: run\.trackers: tensorboard: .*tracking.*\n", refused)
    assert results(workdir) == earlier


def test_tracker_error_hides_the_password_in_a_url() -> None:
    with pytest.raises(UserError) as refused, wrap_tracker_errors("mlflow"):
        raise RuntimeError("API request to https://me:secret@example.org/api failed\nand more")
    assert (refused.value.file, refused.value.key) == ("params.yaml", "run.trackers")
    assert refused.value.problem == "mlflow: API request to https://…@example.org/api failed"
