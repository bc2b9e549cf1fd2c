"""The three ways to train: the same recipe through the loop with Accelerate, plain PyTorch and Trainer, bit for bit."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState
from safetensors import safe_open

from interrupts import results, set_processes, take_results
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.evaluate.stage import evaluate
from reprise.prepare.stage import prepare
from reprise.train.checkpoint import CheckpointManager
from reprise.train.engines import hf_trainer as trainer
from reprise.train.stage import validate_engine
from tiny import Run, tiny_recipe, write_params

Cook = Callable[..., Recipe]
Patch = pytest.MonkeyPatch
Said = pytest.CaptureFixture[str]

OTHERS = ("pytorch", "trainer")
LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}


class Cut(BaseException):
    """The power is cut."""


def cooked_by(engine: str, cook: Cook, at: Path, **changes: Any) -> dict[str, bytes]:
    """What an engine makes of the recipe, predictions included, taken away."""
    recipe = cook(**{"train.engine": engine, **changes})
    AcceleratorState._reset_state(reset_partial_state=True)  # a stage is a process of its own
    evaluate(recipe, cpu=True)
    return take_results(at)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train.precision": "bf16"},
        {"train.micro_batch_size": 5},
        {"train.batch_size": 32, "train.micro_batch_size": 8},  # the smaller last step takes fewer micro-batches
        {"train.max_steps": 13, "train.lr_scheduler": "cosine", "train.keep_epoch": "last"},
        # A learning rate that spoils what an epoch learned: the best epoch is not the last one.
        {"train.learning_rate": 0.02, "train.lr_scheduler": "constant", "train.epochs": 3, "seed": 1},
        {"train.lora": LORA, "train.epochs": 3},
        {"train.gradient_checkpointing": True},
        {"seed": 2**40 + 1},
    ],
    ids=lambda changes: ",".join(str(value) for value in changes.values()) or "default",
)
def test_all_engines_give_the_same_losses_weights_and_predictions_to_the_bit(
    cook: Cook, at: Path, changes: dict[str, Any]
) -> None:
    expected = cooked_by("accelerate", cook, at, **changes)
    assert {"models/final/model.safetensors", "plots/train.csv", "predictions/test.parquet"} < expected.keys()
    for engine in OTHERS:
        assert cooked_by(engine, cook, at, **changes) == expected, engine


def test_all_engines_give_the_same_bits_of_a_regression_over_pairs(cook: Cook, at: Path) -> None:
    rows = pd.read_csv(at / "data/raw/all/reviews.csv")
    rows["stars"] = rows["text"].str.len() / 10
    rows.to_csv(at / "data/raw/all/reviews.csv", index=False)
    changes = {"task.label_column": "stars", "task.labels": [], "task.metrics": ["pearson"], "task.filter": None}
    changes |= {"task.text_columns": ["text", "film"], "task.id_column": None}
    recipe = check_recipe(tiny_recipe(**changes), "params.yaml")
    prepare(recipe.task, max_length=recipe.train.max_length)
    expected = cooked_by("accelerate", cook, at, **changes)
    for engine in OTHERS:
        assert cooked_by(engine, cook, at, **changes) == expected, engine


def test_checkpointing_of_gradients_changes_no_bit_of_the_weights(cook: Cook, at: Path) -> None:
    cook()
    whole = take_results(at)
    cook(**{"train.gradient_checkpointing": True})
    assert results(at) == whole


@pytest.mark.parametrize("changes", [{}, {"train.lora": LORA}], ids=["whole", "lora"])
@pytest.mark.parametrize("engine", ["accelerate", *OTHERS])
def test_stopped_or_cut_off_again_and_again_every_engine_ends_with_the_bits_of_an_unbroken_run(
    cook: Cook, at: Path, engine: str, changes: dict[str, Any], monkeypatch: Patch, capsys: Said
) -> None:
    changes = changes | {"train.engine": engine, "run.save_steps": 4}
    cook(**changes)
    whole = take_results(at)
    gone_on = []
    for step, power_cut in ((2, False), (7, True), (8, True), (11, False), (16, True), (17, True)):
        with monkeypatch.context() as patch:
            interrupt(patch, engine, step, power_cut=power_cut)
            with pytest.raises(Cut if power_cut else SystemExit):
                cook(**changes)
        gone_on += re.findall(r"goes on after step (\d+)/18", capsys.readouterr().out)
    cook(**changes)
    gone_on += re.findall(r"goes on after step (\d+)/18", capsys.readouterr().out)
    # A wish to stop keeps the very step; what a cut costs began after the last multiple of 4, or the epoch's end at 9.
    assert gone_on == ["2", "4", "4", "11", "12", "16"]
    assert results(at) == whole


def interrupt(patch: Patch, engine: str, step: int, *, power_cut: bool) -> None:
    """Have SIGTERM come, or the power be cut, when this step was taken and nothing is kept of it yet."""

    def now(steps: int) -> None:
        if steps == step:
            if power_cut:
                raise Cut
            signal.raise_signal(signal.SIGTERM)

    if engine == "trainer":
        on_step_end = trainer.HistoryCallback.on_step_end

        def step_ends(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
            now(state.global_step)
            on_step_end(self, args, state, control, **rest)

        patch.setattr(trainer.HistoryCallback, "on_step_end", step_ends)
    else:
        after_step = CheckpointManager.maybe_save

        def step_ended(self: CheckpointManager) -> None:
            now(len(self.record.history))
            after_step(self)

        patch.setattr(CheckpointManager, "maybe_save", step_ended)


def test_trainer_leaves_out_a_checkpoint_that_was_still_being_written(
    cook: Cook, at: Path, monkeypatch: Patch, capsys: Said
) -> None:
    changes = {"train.engine": "trainer", "run.save_steps": 4}
    cook(**changes)
    whole = take_results(at)
    with monkeypatch.context() as patch:
        interrupt(patch, "trainer", 10, power_cut=True)
        with pytest.raises(Cut):
            cook(**changes)
    checkpoints = sorted(at.glob("checkpoints/*/checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    assert [folder.name for folder in checkpoints] == ["checkpoint-8", "checkpoint-9"]
    (checkpoints[-1] / "record.json").unlink()
    (checkpoints[-1] / "optimizer.pt").write_bytes(b"half")
    capsys.readouterr()
    cook(**changes)
    assert "goes on after step 8/18" in capsys.readouterr().out
    assert results(at) == whole


@pytest.mark.parametrize("size", ["350k", "500k"], ids=["no room for weights", "no room for moments"])
def test_trainer_tells_of_a_full_disk_in_one_line_and_goes_on_once_there_is_room(
    cook: Cook, at: Path, run: Run, size: str
) -> None:
    changes = {"train.engine": "trainer", "run.save_steps": 3}
    cook(**changes)
    whole = take_results(at)
    write_params(at, **changes)
    # The disk is one of its own, in the memory, seen by these commands alone.
    typed = f"""
        mkdir -p checkpoints && mount -t tmpfs -o size={size} tmpfs checkpoints
        reprise train; echo "exit code $?"
        mount -o remount,size=64m checkpoints
        reprise train
    """
    done = run(at, "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", typed)
    _, after = done.stdout.split("exit code 2\n")
    assert re.fullmatch(r"reprise: error: checkpoints/\w+: .*; expected room for a checkpoint; .*\n", done.stderr)
    assert "goes on after step 3/18" in after
    assert results(at) == whole


def test_trainers_checkpoints_go_when_the_run_succeeds(cook: Cook, at: Path) -> None:
    cook(**{"train.engine": "trainer", "run.save_steps": 4})
    assert not list(at.glob("checkpoints/*"))


def test_trainer_tells_of_a_learning_rate_that_blows_up_and_leaves_the_earlier_model(cook: Cook, at: Path) -> None:
    cook()
    before = results(at)
    with pytest.raises(UserError, match=r"^params\.yaml: train\.learning_rate: 1e\+30 makes the .* try a tenth$"):
        cook(**{"train.engine": "trainer", "train.learning_rate": 1e30, "train.max_grad_norm": 1e30})
    assert results(at) == before


def test_two_processes_of_trainer_give_the_losses_of_two_with_accelerate(at: Path, run: Run) -> None:
    set_processes(at, 2)
    found = []
    for engine in ("accelerate", "trainer"):
        write_params(at, **{"train.engine": engine, "train.micro_batch_size": 3})
        run(at, "reprise", "train")
        found.append(pd.read_csv(at / "plots/train.csv")[["loss", "grad_norm", "learning_rate"]].to_numpy())
        assert json.loads((at / "metrics/speed.json").read_text())["processes"] == 2
        take_results(at)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "hardware", "processes", "message"),
    [
        ({"train.engine": "trainer"}, "tpu", 1, "train.engine: trainer does not train on XLA; expected accelerate"),
        ({"train.engine": "pytorch"}, "tpu", 1, "train.engine: pytorch does not train on XLA; expected accelerate"),
        (
            {"train.engine": "pytorch"},
            "cuda",
            2,
            "train.engine: pytorch trains in one process, not in 2; expected accelerate or trainer",
        ),
        (
            {"train.gradient_checkpointing": True},
            "tpu",
            1,
            "train.gradient_checkpointing: torch has none for XLA; expected false",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_told_before_any_work(
    changes: dict[str, Any], hardware: str, processes: int, message: str
) -> None:
    recipe = check_recipe(tiny_recipe(**changes), "params.yaml")
    with pytest.raises(UserError) as refused:
        validate_engine(recipe.train, hardware, processes)
    assert str(refused.value) == f"params.yaml: {message}"


def test_lora_trains_few_numbers_and_exports_a_plain_model(cook: Cook, at: Path) -> None:
    cook(**{"train.lora": LORA, "train.epochs": 1})
    config = json.loads((at / "models/final/config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    changed = {}
    with (
        safe_open(at / "models/pretrained/model/model.safetensors", "pt") as before,
        safe_open(at / "models/final/model.safetensors", "pt") as after,
    ):
        assert {name.removeprefix("bert.") for name in after.keys()} == {  # noqa: SIM118 - no mapping
            *before.keys(), "classifier.weight", "classifier.bias",
        }  # fmt: skip
        for name in before.keys():  # noqa: SIM118
            changed[name] = not before.get_tensor(name).equal(after.get_tensor(f"bert.{name}"))
    # Matrices of the layers moved; embeddings, biases and normalisation are the pretrained ones.
    assert all(
        moved == (name.endswith(".weight") and ("dense" in name or "self" in name)) for name, moved in changed.items()
    ), changed


def test_lora_of_layers_that_the_model_does_not_have_is_told_with_those_it_has(cook: Cook, at: Path) -> None:
    with pytest.raises(UserError) as refused:
        cook(**{"train.lora": LORA | {"targets": ["q_proj"]}})
    assert str(refused.value) == (
        "params.yaml: train.lora.targets: the model has no layers ['q_proj']; "
        "expected all-linear or some of dense, key, query, value"
    )


def test_named_layers_alone_get_low_rank_matrices(cook: Cook, at: Path) -> None:
    cook(**{"train.lora": LORA | {"targets": ["query", "value"]}, "train.max_steps": 3})
    with (
        safe_open(at / "models/pretrained/model/model.safetensors", "pt") as before,
        safe_open(at / "models/final/model.safetensors", "pt") as after,
    ):
        moved = [n for n in before.keys() if not before.get_tensor(n).equal(after.get_tensor(f"bert.{n}"))]  # noqa: SIM118
    assert {name.split(".")[-2] for name in moved} == {"query", "value"}
