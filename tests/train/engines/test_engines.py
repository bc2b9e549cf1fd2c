"""The three engines: Accelerate, plain PyTorch and Trainer give the same bits for a recipe."""

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

Train = Callable[..., Recipe]
Patch = pytest.MonkeyPatch
Capsys = pytest.CaptureFixture[str]

OTHERS = ("pytorch", "trainer")
RECIPE = "models/final/recipe.json"
LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}


class PowerCut(BaseException):
    """A power cut."""


def train_and_evaluate(engine: str, train: Train, workdir: Path, **changes: Any) -> dict[str, bytes]:
    """Train and evaluate with an engine; return its results without the recipe, which names it, and remove them."""
    recipe = train(**{"train.engine": engine, **changes})
    AcceleratorState._reset_state(reset_partial_state=True)  # each stage normally has its own process
    evaluate(recipe, cpu=True)
    taken = take_results(workdir)
    assert json.loads(taken.pop(RECIPE))["train"]["engine"] == engine
    return taken


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train.precision": "bf16"},
        {"train.micro_batch_size": 5},
        {"train.batch_size": 32, "train.micro_batch_size": 8},  # the smaller last step has fewer micro-batches
        {"train.max_steps": 13, "train.lr_scheduler": "cosine", "train.keep_epoch": "last"},
        # With this learning rate the best epoch is not the last one.
        {"train.learning_rate": 0.02, "train.lr_scheduler": "constant", "train.epochs": 3, "seed": 1},
        {"train.lora": LORA, "train.epochs": 3},
        {"train.gradient_checkpointing": True},
        {"seed": 2**40 + 1},
    ],
    ids=lambda changes: ",".join(str(value) for value in changes.values()) or "default",
)
def test_all_engines_give_the_same_bits(train: Train, workdir: Path, changes: dict[str, Any]) -> None:
    expected = train_and_evaluate("accelerate", train, workdir, **changes)
    assert {"models/final/model.safetensors", "plots/train.csv", "predictions/test.parquet"} < expected.keys()
    for engine in OTHERS:
        assert train_and_evaluate(engine, train, workdir, **changes) == expected, engine


def test_all_engines_give_the_same_bits_for_regression_on_pairs(train: Train, workdir: Path) -> None:
    rows = pd.read_csv(workdir / "data/raw/all/reviews.csv")
    rows["stars"] = rows["text"].str.len() / 10
    rows.to_csv(workdir / "data/raw/all/reviews.csv", index=False)
    changes = {"task.label_column": "stars", "task.labels": [], "task.metrics": ["pearson"], "task.filter": None}
    changes |= {"task.text_columns": ["text", "film"], "task.id_column": None}
    recipe = check_recipe(tiny_recipe(**changes), "params.yaml")
    prepare(recipe.task, max_length=recipe.train.max_length)
    expected = train_and_evaluate("accelerate", train, workdir, **changes)
    for engine in OTHERS:
        assert train_and_evaluate(engine, train, workdir, **changes) == expected, engine


def test_gradient_checkpointing_changes_no_bit(train: Train, workdir: Path) -> None:
    train()
    without = take_results(workdir)
    train(**{"train.gradient_checkpointing": True})
    assert {**results(workdir), RECIPE: b""} == {**without, RECIPE: b""}


@pytest.mark.parametrize(
    "changes", [{}, pytest.param({"train.lora": LORA}, marks=pytest.mark.full)], ids=["full", "lora"]
)
@pytest.mark.parametrize("engine", ["accelerate", *OTHERS])
def test_every_engine_ends_with_the_same_bits_after_interruptions(
    train: Train, workdir: Path, engine: str, changes: dict[str, Any], monkeypatch: Patch, capsys: Capsys
) -> None:
    changes = changes | {"train.engine": engine, "run.save_steps": 4}
    train(**changes)
    uninterrupted = take_results(workdir)
    resumed = []
    for step, power_cut in ((2, False), (7, True), (8, True), (11, False), (16, True), (17, True)):
        with monkeypatch.context() as patch:
            interrupt(patch, engine, step, power_cut=power_cut)
            with pytest.raises(PowerCut if power_cut else SystemExit):
                train(**changes)
        resumed += re.findall(r"resuming from step (\d+)/18", capsys.readouterr().out)
    train(**changes)
    resumed += re.findall(r"resuming from step (\d+)/18", capsys.readouterr().out)
    # A signal saves its step; after a power cut the run resumes from a multiple of 4, or from the epoch's end at 9.
    assert resumed == ["2", "4", "4", "11", "12", "16"]
    assert results(workdir) == uninterrupted


def interrupt(patch: Patch, engine: str, step: int, *, power_cut: bool) -> None:
    """Send SIGTERM, or cut the power, after this step and before it is saved."""

    def now(steps: int) -> None:
        if steps == step:
            if power_cut:
                raise PowerCut
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
            now(self.recorder.history.steps_done)
            after_step(self)

        patch.setattr(CheckpointManager, "maybe_save", step_ended)


def test_trainer_skips_an_incomplete_checkpoint(
    train: Train, workdir: Path, monkeypatch: Patch, capsys: Capsys
) -> None:
    changes = {"train.engine": "trainer", "run.save_steps": 4}
    train(**changes)
    uninterrupted = take_results(workdir)
    with monkeypatch.context() as patch:
        interrupt(patch, "trainer", 10, power_cut=True)
        with pytest.raises(PowerCut):
            train(**changes)
    checkpoints = sorted(workdir.glob("checkpoints/*/checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    assert [folder.name for folder in checkpoints] == ["checkpoint-8", "checkpoint-9"]
    (checkpoints[-1] / "history.json").unlink()
    (checkpoints[-1] / "optimizer.pt").write_bytes(b"half")
    capsys.readouterr()
    train(**changes)
    assert "resuming from step 8/18" in capsys.readouterr().out
    assert results(workdir) == uninterrupted


@pytest.mark.parametrize(
    "size",
    ["350k", pytest.param("500k", marks=pytest.mark.full)],
    ids=["no space for weights", "no space for optimizer state"],
)
def test_full_disk_is_one_line_with_trainer_and_allows_resuming(
    train: Train, workdir: Path, run: Run, size: str
) -> None:
    changes = {"train.engine": "trainer", "run.save_steps": 3}
    train(**changes)
    uninterrupted = take_results(workdir)
    write_params(workdir, **changes)
    # A small file system in memory that only these commands see.
    typed = f"""
        mkdir -p checkpoints && mount -t tmpfs -o size={size} tmpfs checkpoints
        reprise train; echo "exit code $?"
        mount -o remount,size=64m checkpoints
        reprise train
    """
    done = run(workdir, "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", typed)
    _, after = done.stdout.split("exit code 2\n")
    assert re.fullmatch(r"reprise: error: checkpoints/\w+: .*; expected space for a checkpoint; .*\n", done.stderr)
    assert "resuming from step 3/18" in after
    assert results(workdir) == uninterrupted


def test_trainers_checkpoints_are_removed_on_success(train: Train, workdir: Path) -> None:
    train(**{"train.engine": "trainer", "run.save_steps": 4})
    assert not list(workdir.glob("checkpoints/*"))


def test_diverging_loss_with_trainer_is_an_error_and_keeps_the_earlier_model(train: Train, workdir: Path) -> None:
    train()
    before = results(workdir)
    with pytest.raises(UserError, match=r"1e\+30 makes the .* try a tenth$") as refused:
        train(**{"train.engine": "trainer", "train.learning_rate": 1e30, "train.max_grad_norm": 1e30})
    assert (refused.value.file, refused.value.key) == ("params.yaml", "train.learning_rate")
    assert results(workdir) == before


def test_trainer_on_two_ranks_has_the_losses_of_accelerate(workdir: Path, run: Run) -> None:
    set_processes(workdir, 2)
    found = []
    for engine in ("accelerate", "trainer"):
        write_params(workdir, **{"train.engine": engine, "train.micro_batch_size": 3})
        run(workdir, "reprise", "train")
        found.append(pd.read_csv(workdir / "plots/train.csv")[["loss", "grad_norm", "learning_rate"]].to_numpy())
        assert json.loads((workdir / "metrics/speed.json").read_text())["processes"] == 2
        take_results(workdir)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "device", "processes", "nodes", "expected"),
    [
        ({"train.engine": "trainer"}, "xla", 1, 1, "accelerate"),
        ({"train.engine": "pytorch"}, "xla", 1, 1, "accelerate"),
        ({"train.engine": "pytorch"}, "cuda", 2, 1, "accelerate or trainer"),
        ({"train.engine": "trainer"}, "cpu", 1, 2, "accelerate"),
        ({"train.gradient_checkpointing": True}, "xla", 1, 1, "false"),
    ],
)
def test_unsupported_engine_options_are_refused(
    changes: dict[str, Any], device: str, processes: int, nodes: int, expected: str
) -> None:
    recipe = check_recipe(tiny_recipe(**changes), "params.yaml")
    with pytest.raises(UserError) as refused:
        validate_engine(recipe.train, device, processes, nodes)
    assert (refused.value.file, refused.value.key, refused.value.expected) == ("params.yaml", *changes, expected)


def test_lora_trains_adapters_only_and_exports_a_plain_model(train: Train, workdir: Path) -> None:
    train(**{"train.lora": LORA, "train.epochs": 1})
    config = json.loads((workdir / "models/final/config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    changed = {}
    with (
        safe_open(workdir / "models/pretrained/model/model.safetensors", "pt") as before,
        safe_open(workdir / "models/final/model.safetensors", "pt") as after,
    ):
        assert {name.removeprefix("bert.") for name in after.keys()} == {  # noqa: SIM118 - no mapping
            *before.keys(), "classifier.weight", "classifier.bias",
        }  # fmt: skip
        for name in before.keys():  # noqa: SIM118
            changed[name] = not before.get_tensor(name).equal(after.get_tensor(f"bert.{name}"))
    # Matrices of the layers changed; embeddings, biases and normalization are the pretrained ones.
    assert all(
        moved == (name.endswith(".weight") and ("dense" in name or "self" in name)) for name, moved in changed.items()
    ), changed


def test_lora_changes_only_its_targets(train: Train, workdir: Path) -> None:
    train(**{"train.lora": LORA | {"targets": ["query", "value"]}, "train.max_steps": 3})
    with (
        safe_open(workdir / "models/pretrained/model/model.safetensors", "pt") as before,
        safe_open(workdir / "models/final/model.safetensors", "pt") as after,
    ):
        moved = [n for n in before.keys() if not before.get_tensor(n).equal(after.get_tensor(f"bert.{n}"))]  # noqa: SIM118
    assert {name.split(".")[-2] for name in moved} == {"query", "value"}
