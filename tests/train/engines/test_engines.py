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
from kinds_of_tasks import prepare_again, prepare_topics, prepare_windows, prepare_words
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.evaluate.stage import evaluate
from reprise.prepare.stage import prepare
from reprise.train.checkpoint import CheckpointManager
from reprise.train.engines import hf_trainer as trainer
from reprise.train.history import epochs_without_gain
from reprise.train.stage import validate_engine
from tiny import Run, tiny_recipe, write_params

Train = Callable[..., Recipe]
Patch = pytest.MonkeyPatch
Capsys = pytest.CaptureFixture[str]

OTHERS = ("pytorch", "trainer")
RECIPE = "models/final/recipe.json"
LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}
# A part of the model is trained, with other rates and another dropout.
PARTLY: dict[str, Any] = {"train.freeze": 1, "train.layer_decay": 0.8, "train.dropout": 0.2}
# With this learning rate the best epoch is not the last one, and the metric stops improving.
EARLY = {"train.learning_rate": 0.02, "train.lr_scheduler": "constant", "train.epochs": 6, "seed": 1}
# A model with errors on the validation split, so that a temperature other than 1 is best.
CALIBRATED = {"train.learning_rate": 3e-3, "train.calibration": "temperature"}


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
        pytest.param({"train.micro_batch_size": 5}, marks=pytest.mark.full),
        {"train.batch_size": 32, "train.micro_batch_size": 8},  # the smaller last step has fewer micro-batches
        {"train.max_steps": 13, "train.lr_scheduler": "cosine", "train.keep_epoch": "last"},
        pytest.param(EARLY | {"train.epochs": 3}, marks=pytest.mark.full),
        {"train.lora": LORA, "train.epochs": 3},
        {"train.gradient_checkpointing": True},
        {"train.loss": {"class_weights": {"rotten": 0.5, "fresh": 3.0}}, "train.micro_batch_size": 5},
        pytest.param({"train.loss": {"class_weights": "balanced", "focal_gamma": 2.0}}, marks=pytest.mark.full),
        # 1 for the best epoch, as it has no errors.
        pytest.param(EARLY | {"train.epochs": 2, "train.calibration": "temperature"}, marks=pytest.mark.full),
        CALIBRATED,
        {**EARLY, "train.early_stopping": {"patience": 1, "min_delta": 0.05}},
        PARTLY,
        pytest.param({"train.lora": LORA, "train.layer_decay": 0.5, "train.max_steps": 5}, marks=pytest.mark.full),
        pytest.param({"seed": 2**40 + 1}, marks=pytest.mark.full),
    ],
    ids=lambda changes: ",".join(str(value) for value in changes.values()) or "default",
)
def test_all_engines_give_the_same_bits(train: Train, workdir: Path, changes: dict[str, Any]) -> None:
    expected = train_and_evaluate("accelerate", train, workdir, **changes)
    assert {"models/final/model.safetensors", "plots/train.csv", "predictions/test.parquet"} < expected.keys()
    for engine in OTHERS:
        assert train_and_evaluate(engine, train, workdir, **changes) == expected, engine


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"train.lora": LORA, "train.precision": "bf16"}, marks=pytest.mark.full)],
    ids=["full", "lora"],
)  # fmt: skip
def test_all_engines_give_the_same_bits_for_regression_on_pairs(
    train: Train, workdir: Path, options: dict[str, Any]
) -> None:
    rows = pd.read_csv(workdir / "data/raw/all/reviews.csv")
    rows["stars"] = 1000 + 100 * rows["text"].str.len()  # the output layer has to be scaled
    rows.to_csv(workdir / "data/raw/all/reviews.csv", index=False)
    changes = {"task.label_column": "stars", "task.labels": [], "task.metrics": ["pearson"], "task.filter": None}
    changes |= {"task.text_columns": ["text", "film"], "task.id_column": None, **options}
    recipe = check_recipe(tiny_recipe(**changes), "params.yaml")
    prepare(recipe.task, max_length=recipe.train.max_length)
    expected = train_and_evaluate("accelerate", train, workdir, **changes)
    for engine in OTHERS:
        assert train_and_evaluate(engine, train, workdir, **changes) == expected, engine


KINDS = [prepare_topics, prepare_words, prepare_windows]


@pytest.mark.parametrize(
    ("prepare_kind", "options"),
    [
        pytest.param(prepare_topics, {}, marks=pytest.mark.full),
        (prepare_topics, {"train.loss": {"class_weights": "balanced"}, "train.calibration": "temperature"}),
        (prepare_words, {"train.loss": {"focal_gamma": 1.0}, "train.micro_batch_size": 5}),
        pytest.param(prepare_words, {"train.lora": LORA, "train.calibration": "temperature"}, marks=pytest.mark.full),
        (prepare_windows, {"train.loss": {"class_weights": "balanced"}, "train.calibration": "temperature"}),
        pytest.param(prepare_windows, {"train.precision": "bf16", "train.micro_batch_size": 5}, marks=pytest.mark.full),
    ],
)
def test_all_engines_give_the_same_bits_for_every_kind_of_task(
    train: Train, workdir: Path, prepare_kind: Callable[[Path], dict[str, Any]], options: dict[str, Any]
) -> None:
    changes = prepare_kind(workdir) | options
    expected = train_and_evaluate("accelerate", train, workdir, **changes)
    for engine in OTHERS:
        assert train_and_evaluate(engine, train, workdir, **changes) == expected, engine


@pytest.mark.parametrize("prepare_kind", KINDS)
def test_every_kind_of_task_has_the_losses_of_a_whole_step_and_resumes_with_the_same_bits(
    train: Train, workdir: Path, prepare_kind: Callable[[Path], dict[str, Any]], monkeypatch: Patch
) -> None:
    changes = prepare_kind(workdir) | {"run.save_steps": 4, "train.calibration": "temperature"}
    train(**changes)
    assert len(json.loads(Path(RECIPE).read_text())["temperatures"]) == (3 if prepare_kind is prepare_topics else 1)
    losses, uninterrupted = pd.read_csv("plots/train.csv")["loss"], take_results(workdir)
    for step in (7, 13):
        with monkeypatch.context() as patch:
            interrupt(patch, "accelerate", step, power_cut=True)
            with pytest.raises(PowerCut):
                train(**changes)
    train(**changes)
    assert results(workdir) == uninterrupted
    train(**changes, **{"train.micro_batch_size": 3})
    assert pd.read_csv("plots/train.csv")["loss"].tolist() == pytest.approx(losses.tolist(), rel=1e-5)


@pytest.mark.parametrize("engine", ["accelerate", *OTHERS])
def test_data_with_folds_gives_the_bits_of_a_validation_split_of_that_share(
    train: Train, workdir: Path, engine: str
) -> None:
    found = []
    for split in {"validation": 0.16, "folds": None}, {"validation": None, "folds": 5}:  # of what the test split leaves
        changes: dict[str, Any] = {f"task.split.{key}": value for key, value in split.items()}
        changes |= {"task.split.stratify": True, "train.epochs": 1}
        recipe = check_recipe(tiny_recipe(**changes), "params.yaml")
        prepare(recipe.task, max_length=recipe.train.max_length)
        found.append(train_and_evaluate(engine, train, workdir, **changes))
    assert json.loads(Path("data/prepared/stats.json").read_text())["folds"]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "prepare_kind",
    [
        pytest.param(lambda _: {}, id="plain"),
        pytest.param(prepare_topics, marks=pytest.mark.full),
        pytest.param(prepare_words, marks=pytest.mark.full),
        prepare_windows,
    ],
)
def test_the_first_fold_has_the_bits_of_none_and_another_the_same_of_all_engines(
    train: Train, workdir: Path, prepare_kind: Callable[[Path], dict[str, Any]]
) -> None:
    changes = prepare_kind(workdir) | {"task.split.validation": None, "task.split.folds": 3}
    prepare_again(changes)
    changes |= {"train.epochs": 1, "evaluate.split": "validation"}
    none, first, second = (train_and_evaluate("accelerate", train, workdir, **changes, **{"train.fold": fold})
                           for fold in (None, 0, 1))  # fmt: skip
    assert first == none
    assert second.keys() == none.keys()
    assert second["models/final/model.safetensors"] != none["models/final/model.safetensors"]
    assert train_and_evaluate("pytorch", train, workdir, **changes, **{"train.fold": 1}) == second


def test_gradient_checkpointing_changes_no_bit(train: Train, workdir: Path) -> None:
    train()
    without = take_results(workdir)
    train(**{"train.gradient_checkpointing": True})
    assert {**results(workdir), RECIPE: b""} == {**without, RECIPE: b""}


@pytest.mark.parametrize(
    "changes",
    [
        CALIBRATED,
        pytest.param(PARTLY, marks=pytest.mark.full),
        pytest.param({"train.lora": LORA}, marks=pytest.mark.full),
    ],
    ids=["full", "partly", "lora"],
)
@pytest.mark.parametrize("engine", ["accelerate", *OTHERS])
def test_every_engine_ends_with_the_same_bits_after_interruptions(
    train: Train, workdir: Path, engine: str, changes: dict[str, Any], monkeypatch: Patch, capsys: Capsys
) -> None:
    changes = changes | {"train.engine": engine, "run.save_steps": 4}
    train(**changes)
    assert json.loads(Path(RECIPE).read_text())["temperatures"] != [1.0]  # which would change no bit
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


@pytest.mark.parametrize("engine", ["accelerate", *OTHERS])
def test_a_run_that_stopped_early_ends_the_same_way_after_an_interruption(
    train: Train, workdir: Path, engine: str, monkeypatch: Patch, capsys: Capsys
) -> None:
    changes = {**EARLY, "train.engine": engine, "train.early_stopping": {"patience": 1, "min_delta": 0.05}}
    train(**changes)
    scores = pd.read_csv("plots/validation.csv")["accuracy"].tolist()
    stopped = capsys.readouterr().out
    assert f"train: stops early, after epoch {len(scores)}/6: validation accuracy no longer improves" in stopped
    assert 1 < len(scores) < 6
    assert epochs_without_gain(scores, 0.05) == 1
    assert json.loads(Path("metrics/train.json").read_text())["best_epoch"] == 1 + int(np.argmax(scores))
    uninterrupted = take_results(workdir)
    with monkeypatch.context() as patch:  # the power is cut after the last checkpoint, before the results are written
        patch.setattr("reprise.train.worker.write_model_recipe", cut_power)
        with pytest.raises(PowerCut):
            train(**changes)
    capsys.readouterr()
    train(**changes)
    assert f"resuming from step {9 * len(scores)}/54" in capsys.readouterr().out
    assert results(workdir) == uninterrupted


def cut_power(*_: Any) -> None:
    """Cut the power."""
    raise PowerCut


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


@pytest.mark.full
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
