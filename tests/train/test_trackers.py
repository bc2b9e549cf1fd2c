"""Trackers: what TensorBoard is told of a run, read back from its files, and a run that is the same without."""

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
from reprise.train.history import TrainingHistory
from reprise.train.trackers import flat_config, wrap_tracker_errors
from tiny import Run, tiny_recipe, write_params

Cook = Callable[..., Recipe]
Patch = pytest.MonkeyPatch

TENSORBOARD = {"run.trackers": ["tensorboard"]}


class Cut(BaseException):
    """The power is cut."""


def the_run(at: Path) -> Path:
    """The folder of the one run that TensorBoard's files are of."""
    (run,) = (at / "tracking/tensorboard").iterdir()
    return run


def told(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: step and value of each tag's points, in the order in which they were told."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(at: Path) -> dict[str, list[tuple[int, float]]]:
    """What it must show, by the run's own curves, in fp32 as TensorBoard keeps them."""
    curve, validation = (pd.read_csv(at / f"plots/{name}.csv") for name in ("train", "validation"))
    steps, last_steps = curve["step"], curve.groupby("epoch")["step"].max()
    columns = {f"train/{name}": (steps, curve[name]) for name in ("loss", "learning_rate", "grad_norm")}
    columns |= {f"validation/{name}": (last_steps, validation[name]) for name in ("accuracy", "f1")}
    return {
        tag: list(zip(steps, map(float, np.float32(values)), strict=True)) for tag, (steps, values) in columns.items()
    }


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_tensorboard_is_told_every_figure_of_the_curves_once_and_no_bit_of_the_run_changes(
    at: Path, run: Run, processes: int
) -> None:
    set_processes(at, processes)
    write_params(at)
    run(at, "reprise", "train")
    assert not (at / "tracking").exists()
    without = take_results(at)
    write_params(at, **TENSORBOARD)
    run(at, "reprise", "train")
    assert results(at) == without
    shown = told(the_run(at))
    assert len(shown["train/loss"]) == 18
    assert shown == expected(at)
    losses = pd.read_csv(at / "plots/train.csv")["loss"].tolist()
    assert [value for _, value in shown["train/loss"]] == losses  # which are fp32 from the start


@pytest.mark.parametrize("engine", ["accelerate", "pytorch", "trainer"])
def test_a_run_that_goes_on_after_a_power_cut_goes_on_in_its_folder_and_shows_no_step_twice(
    cook: Cook, at: Path, monkeypatch: Patch, engine: str
) -> None:
    changes = TENSORBOARD | {"train.engine": engine, "run.save_steps": 7}
    epoch = TrainingHistory.log_epoch

    def cut(self: TrainingHistory, number: int, scores: dict[str, float]) -> None:
        if number == 1:  # the last step has been told, and kept is the fourteenth
            raise Cut
        epoch(self, number, scores)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingHistory, "log_epoch", cut)
        with pytest.raises(Cut):
            cook(**changes)
    before = told(the_run(at))["train/loss"]
    assert [step for step, _ in before] == list(range(1, 19))
    recipe = cook(**changes)
    assert json.loads((at / "metrics/provenance.json").read_text())["sessions"][-1]["from_step"] == 14
    assert told(the_run(at)) == expected(at)
    assert told(the_run(at))["train/loss"] == before
    (file,) = the_run(at).glob("*/hparams.yml")  # the recipe, once
    assert YAML(typ="safe").load(file) == flat_config(recipe)
    assert the_run(at).name.endswith(f"-{checkpoint_dir(fingerprint(recipe)).name[:8]}")


def test_stopped_by_a_signal_it_goes_on_in_its_folder_and_another_run_has_a_folder_of_its_own(
    at: Path, run: Run
) -> None:
    write_params(at, **TENSORBOARD, **{"train.epochs": 20, "run.save_steps": 1})
    with Running(at, "reprise", "train") as training:
        training.until(lambda: checkpoints(at))
        training.send(signal.SIGTERM)
        training.end(143)
    assert "train: goes on after step" in run(at, "reprise", "train").stdout
    first = the_run(at)
    assert told(first) == expected(at)
    write_params(at, **TENSORBOARD)
    run(at, "reprise", "train")
    (second,) = set(first.parent.iterdir()) - {first}
    assert told(second) == expected(at)
    assert first.name < second.name  # in the order of time


def test_set_after_cooking_they_train_nothing_anew_and_a_forced_training_has_the_bits_of_before(
    served: Path, run: Run
) -> None:
    before = results(served)
    write_params(served, **TENSORBOARD)
    assert "Stage 'train' didn't change, skipping" in run(served, "dvc", "repro").stdout
    assert not (served / "tracking").exists()
    run(served, "dvc", "repro", "--force", "--single-item", "train")
    assert told(the_run(served)) == expected(served)
    assert results(served) == before
    assert "tracking" not in run(served, "git", "status", "--porcelain", "--untracked-files=all").stdout


def test_a_tracker_takes_the_recipe_as_numbers_texts_and_nothing_else() -> None:
    told = flat_config(check_recipe(tiny_recipe(**{"train.lora": {"rank": 4, "alpha": 8.0, "targets": ["query"]}}), ""))
    assert {type(value) for value in told.values()} == {int, float, str, bool, type(None)}
    assert told["seed"] == 42
    assert told["task.labels"] == '["rotten", "fresh"]'
    assert told["task.filter.verdict"] == '["rotten", "fresh"]'
    assert told["train.learning_rate"] == 5e-3
    assert told["train.lora.targets"] == '["query"]'
    assert told["train.max_steps"] is None


def test_a_tracker_that_cannot_start_is_one_line_and_the_earlier_model_stays(at: Path, run: Run) -> None:
    write_params(at)
    run(at, "reprise", "train")
    earlier = results(at)
    (at / "tracking").write_text("in the way")
    write_params(at, **TENSORBOARD)
    refused = run(at, "reprise", "train", code=2).stderr
    assert re.fullmatch(r"reprise: error: params\.yaml: train\.trackers: tensorboard: .*tracking.*\n", refused)
    assert results(at) == earlier


def test_what_a_tracker_fails_with_is_told_without_the_password_in_its_address() -> None:
    with pytest.raises(UserError) as refused, wrap_tracker_errors("mlflow"):
        raise RuntimeError("API request to https://me:secret@example.org/api failed\nand more")
    assert str(refused.value) == (
        "params.yaml: run.trackers: mlflow: API request to https://…@example.org/api failed; expected it to take the "
        "run's figures; `dvc repro` goes on from the last checkpoint"
    )
