"""Checkpoints: which are restored or skipped, their content, and that resumed runs have the same bits.

Most runs here train in this process, where an interruption can come at one exact step.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from interrupts import Running, checkpoints, position, results, set_processes, take_results
from reprise.core import lock
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.paths import WORKSPACE_LOCK
from reprise.core.validation import check_recipe
from reprise.train import checkpoint as checkpointing
from reprise.train.checkpoint import CheckpointManager, checkpoint_dir, fingerprint
from tiny import ROOT, Run, tiny_recipe, write_params

Train = Callable[..., Recipe]
Stop = Callable[..., None]
Damage = Callable[[Path], object]
Patch = pytest.MonkeyPatch
Capsys = pytest.CaptureFixture[str]

# The tiny recipe has 9 steps per epoch, 18 in all.
EVERY = {f"every {steps}": {"run.save_steps": steps} for steps in (1, 3, 9, 1000)}
EVERY_3 = EVERY["every 3"]


class PowerCut(BaseException):
    """A power cut: no error handler and no signal handler runs."""


@pytest.fixture
def stop_after(train: Train, monkeypatch: Patch) -> Stop:
    """Train until SIGTERM arrives in this step: `stop_after(5, **changes)`."""

    def stop_after(step: int, **changes: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(
                CheckpointManager, "maybe_save", interrupted(step, lambda: signal.raise_signal(signal.SIGTERM))
            )
            with pytest.raises(SystemExit) as ended:
                train(**changes)
        assert ended.value.code == 143

    return stop_after


@pytest.fixture
def cut_after(train: Train, monkeypatch: Patch) -> Stop:
    """Train until a power cut after this step, before it is saved: `cut_after(5, **changes)`."""

    def cut_after(step: int, **changes: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(CheckpointManager, "maybe_save", interrupted(step, cut_power))
            with pytest.raises(PowerCut):
                train(**changes)

    return cut_after


def interrupted(step: int, interrupt: Callable[[], None]) -> Callable[[CheckpointManager], None]:
    """Return `maybe_save` with an interruption before it in one step."""
    after_step = CheckpointManager.maybe_save

    def interrupted(self: CheckpointManager) -> None:
        if self.recorder.history.steps_done == step:
            interrupt()
        after_step(self)

    return interrupted


def cut_power(*_: object) -> None:
    raise PowerCut


def resumed_steps(capsys: Capsys) -> list[int]:
    """The steps from which the runs resumed, in order."""
    return [int(step) for step in re.findall(r"resuming from step (\d+)/", capsys.readouterr().out)]


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("changes", EVERY.values(), ids=EVERY)
def test_save_interval_changes_no_bit(train: Train, workdir: Path, changes: dict[str, int]) -> None:
    train()
    uninterrupted = take_results(workdir)
    train(**changes)
    assert results(workdir) == uninterrupted


@pytest.mark.parametrize("changes", EVERY.values(), ids=EVERY)
def test_run_stopped_repeatedly_loses_no_step_and_ends_with_the_same_bits(
    train: Train, stop_after: Stop, workdir: Path, changes: dict[str, int], capsys: Capsys
) -> None:
    train()
    uninterrupted = take_results(workdir)
    stops = [1, 2, 8, 10, 17, 18]
    for step in stops:
        stop_after(step, **changes)
    train(**changes)
    assert resumed_steps(capsys) == stops
    assert results(workdir) == uninterrupted


def test_run_over_many_shards_resumes_in_any_chunk_with_the_same_bits(
    shard_rows: int, train: Train, stop_after: Stop, workdir: Path, capsys: Capsys
) -> None:
    train()
    uninterrupted = take_results(workdir)
    stops = [3, 4, 8, 14, 17]  # 144 rows: an epoch has chunks of 4, 4 and 1 steps
    for step in stops:
        stop_after(step)
    train()
    assert resumed_steps(capsys) == stops
    assert results(workdir) == uninterrupted


@pytest.mark.parametrize(
    ("changes", "kept"),
    [(EVERY["every 3"], [3, 9, 15, 15]), (EVERY["every 1000"], [9, 9, 9])],
    ids=["every 3", "never"],
)
def test_power_cut_costs_only_the_steps_since_the_last_checkpoint(
    train: Train, cut_after: Stop, workdir: Path, changes: dict[str, int], kept: list[int], capsys: Capsys
) -> None:
    train()
    uninterrupted = take_results(workdir)
    for step in (5, 10, 17, 18):
        cut_after(step, **changes)
    train(**changes)
    assert resumed_steps(capsys) == kept
    assert results(workdir) == uninterrupted


@pytest.mark.parametrize(
    "changes",
    [
        {"train.precision": "bf16"},
        {"train.micro_batch_size": 5},
        {"train.lr_scheduler": "cosine", "train.warmup_ratio": 0.5},
        {"train.keep_epoch": "last"},
        # With this learning rate the best epoch is not the last one.
        {"train.learning_rate": 0.02, "train.lr_scheduler": "constant", "train.epochs": 3, "seed": 1},
    ],
    ids=lambda changes: ",".join(str(value) for value in changes.values()),
)
def test_resumed_run_has_the_same_bits_for_other_recipes(
    train: Train, stop_after: Stop, workdir: Path, changes: dict[str, Any]
) -> None:
    train(**changes)
    uninterrupted = take_results(workdir)
    stop_after(4, **changes)
    stop_after(13, **changes)
    train(**changes)
    assert results(workdir) == uninterrupted


@pytest.mark.parametrize(("max_steps", "step"), [(None, 9), (9, 9), (11, 9), (11, 10), (11, 11), (4, 2), (4, 4)])
def test_run_stopped_before_a_validation_resumes_with_it(
    train: Train, stop_after: Stop, workdir: Path, max_steps: int | None, step: int, capsys: Capsys
) -> None:
    changes = {"train.max_steps": max_steps}
    train(**changes)
    uninterrupted, validated = take_results(workdir), capsys.readouterr().out.count("validation")
    stop_after(step, **changes)
    assert position(checkpoints(workdir)[-1]) == (step, step // 10)  # this epoch has no validation yet
    assert capsys.readouterr().out.count("validation") == step // 10
    train(**changes)
    output = capsys.readouterr().out
    assert f"train: resuming from step {step}/" in output
    assert output.count("validation") == validated - step // 10
    assert results(workdir) == uninterrupted


def test_run_cut_after_the_last_epoch_only_writes_outputs(
    train: Train, workdir: Path, monkeypatch: Patch, capsys: Capsys
) -> None:
    train()
    uninterrupted = take_results(workdir)
    with monkeypatch.context() as patch:
        patch.setattr("reprise.train.worker.write_outputs", cut_power)
        with pytest.raises(PowerCut):
            train()
    capsys.readouterr()
    train()
    output = capsys.readouterr().out
    assert "train: resuming from step 18/18" in output
    assert "validation" not in output
    assert results(workdir) == uninterrupted


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def halve(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


CHANGED = "has changed since it was written"
DAMAGES: dict[str, tuple[str, Damage, str]] = {
    "a bit of the weights": ("model.safetensors", flip_a_byte, f"model.safetensors {CHANGED}"),
    "the end of the optimizer": (
        "optimizer.safetensors",
        halve,
        f"optimizer.safetensors {CHANGED}",
    ),
    "half a manifest": ("manifest.json", halve, "manifest.json cannot be read"),
    "no manifest": ("manifest.json", Path.unlink, "manifest.json cannot be read"),
    "no history": ("state.json", Path.unlink, "state.json cannot be read"),
    "no best weights": ("best/model.safetensors", Path.unlink, "best/model.safetensors cannot be read"),
}


@pytest.mark.parametrize(("name", "damage", "problem"), DAMAGES.values(), ids=DAMAGES)
def test_corrupt_checkpoint_is_skipped_for_the_previous_one(
    train: Train, cut_after: Stop, workdir: Path, name: str, damage: Damage, problem: str, capsys: Capsys
) -> None:
    train()
    uninterrupted = take_results(workdir)
    cut_after(16, **EVERY_3)
    before, newest = checkpoints(Path())
    damage(newest / name)
    capsys.readouterr()
    train(**EVERY_3)
    skipped, resumed = (line for line in capsys.readouterr().out.splitlines() if "checkpoints/" in line)
    assert skipped == f"train: skipping corrupt checkpoint {newest}: {problem}"
    assert resumed == f"train: resuming from step 12/18, from {before}"
    assert results(workdir) == uninterrupted


def test_run_with_corrupt_checkpoints_only_starts_over(
    train: Train, cut_after: Stop, workdir: Path, capsys: Capsys
) -> None:
    train()
    uninterrupted = take_results(workdir)
    cut_after(8, **EVERY_3)
    for checkpoint in checkpoints(workdir):
        flip_a_byte(checkpoint / "model.safetensors")
    capsys.readouterr()
    train(**EVERY_3)
    output = capsys.readouterr().out
    assert output.count(": model.safetensors has changed since it was written") == 2
    assert "resuming" not in output
    assert results(workdir) == uninterrupted


def test_skipped_checkpoint_is_not_one_of_the_last_two(cut_after: Stop, workdir: Path) -> None:
    cut_after(8, **EVERY_3)
    flip_a_byte(checkpoints(workdir)[-1] / "model.safetensors")
    cut_after(6, **EVERY["every 1"])
    assert [position(checkpoint) for checkpoint in checkpoints(workdir)] == [(4, 0), (5, 0)]


def test_incomplete_checkpoint_is_never_read_and_is_removed(
    train: Train, cut_after: Stop, workdir: Path, capsys: Capsys
) -> None:
    train()
    uninterrupted = take_results(workdir)
    cut_after(8, **EVERY_3)
    newest = checkpoints(Path())[-1]
    # One that looks like the latest, and one that the run will write itself.
    half_written = [
        newest.with_name(f".step-{place}.partial") for place in ("0000007-epochs-000", "0000009-epochs-001")
    ]
    for partial in half_written:
        shutil.copytree(newest, partial)
        (partial / "rest").touch()
    capsys.readouterr()
    cut_after(10, **EVERY_3)
    assert f"train: resuming from step 6/18, from {newest}\n" in capsys.readouterr().out
    assert position(checkpoints(workdir)[-1]) == (9, 1)
    assert not list(checkpoints(workdir)[-1].rglob("rest"))
    train(**EVERY_3)
    assert not list(workdir.rglob("*.partial"))
    assert results(workdir) == uninterrupted


def test_last_two_checkpoints_are_kept_without_pickles_until_the_run_succeeds(
    train: Train, cut_after: Stop, workdir: Path
) -> None:
    cut_after(17, **EVERY_3)
    assert [position(checkpoint) for checkpoint in checkpoints(workdir)] == [(12, 1), (15, 1)]
    files = [file for file in (workdir / "checkpoints").rglob("*") if file.is_file()]
    assert {file.suffix or file.name for file in files} == {".safetensors", ".json", ".npy"}
    for file in files:
        match file.suffix:
            case ".json":
                json.loads(file.read_text())
            case ".npy":
                assert np.load(file, allow_pickle=False).shape[1] == 3
            case ".safetensors":
                with safe_open(file, framework="pt") as opened:
                    assert opened.keys()
    train(**EVERY_3)
    assert list((workdir / "checkpoints").iterdir()) == []


def test_checkpoints_of_another_run_stay_and_remain_usable(
    train: Train, stop_after: Stop, workdir: Path, capsys: Capsys
) -> None:
    uninterrupted = {}
    for seed in (42, 43):
        train(seed=seed)
        uninterrupted[seed] = take_results(workdir)
    stop_after(12, seed=43)
    others = read_files(workdir / "checkpoints")
    capsys.readouterr()
    train(seed=42)
    assert "resuming" not in capsys.readouterr().out
    assert results(workdir) == uninterrupted[42]
    assert read_files(workdir / "checkpoints") == others
    train(seed=43)
    assert "train: resuming from step 12/18" in capsys.readouterr().out
    assert results(workdir) == uninterrupted[43]


def run_of(**changes: Any) -> Path:
    return checkpoint_dir(fingerprint(check_recipe(tiny_recipe(**changes), "recipe")))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 43},
        {"train.learning_rate": 1e-3},
        {"train.epochs": 3},
        {"train.max_steps": 5},
        {"train.precision": "bf16"},
        {"train.bucket_lengths": [16]},
        {"task.labels": ["fresh", "rotten"]},
        {"task.metrics": ["f1", "accuracy"]},
        {"evaluate.batch_size": 8},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_recipe_has_another_fingerprint(workdir: Path, changes: dict[str, Any]) -> None:
    assert run_of(**changes) != run_of()


@pytest.mark.parametrize(
    "changes",
    [{"run.save_steps": 7}, {"run.trackers": ["tensorboard"]}, {"evaluate.bootstrap_resamples": 700}],
    ids=["every", "trackers", "other"],
)
def test_keys_without_effect_on_weights_keep_the_fingerprint(workdir: Path, changes: dict[str, Any]) -> None:
    assert run_of(**changes) == run_of()


def code_runs_from(folder: Path, monkeypatch: Patch) -> None:
    """Copy the checkout's code and pipeline to a folder, and let the fingerprint find them there."""
    shutil.copytree(ROOT / "src/reprise", folder / "src/reprise")
    shutil.copy(ROOT / "dvc.yaml", folder)
    monkeypatch.setattr(checkpointing, "REPOSITORY", folder)


def test_code_outside_the_deps_of_train_keeps_the_fingerprint(workdir: Path, monkeypatch: Patch) -> None:
    code_runs_from(workdir, monkeypatch)
    before = run_of()
    for other in ("report/build.py", "evaluate/stage.py", "commands/compare.py"):
        (workdir / "src/reprise" / other).write_text("")
    assert run_of() == before


@pytest.mark.parametrize("content", [None, "[", "stages: {}\n", "- 1\n"], ids=["missing", "broken", "no train", "list"])
def test_pipeline_without_the_stage_train_is_an_error(workdir: Path, monkeypatch: Patch, content: str | None) -> None:
    code_runs_from(workdir, monkeypatch)
    if content is None:
        (workdir / "dvc.yaml").unlink()
    else:
        (workdir / "dvc.yaml").write_text(content)
    with pytest.raises(UserError, match="not found") as refused:
        run_of()
    assert (refused.value.file, refused.value.key) == (str(workdir / "dvc.yaml"), "stages.train.deps")


@pytest.mark.parametrize(
    "name",
    [
        "data/prepared/stats.json",
        "models/pretrained/model/model.safetensors",
        "models/pretrained/model/config.json",
        "environment.json",
        "src/reprise/train/engines/accelerate.py",
        "src/reprise/train/checkpoint.py",
        "src/reprise/modeling/classifier.py",
        "src/reprise/modeling/bucketing.py",
        "src/reprise/core/config.py",
        "src/reprise/tasks/metrics/registry.py",
    ],
)
def test_other_data_weights_environment_or_code_have_another_fingerprint(
    workdir: Path, name: str, monkeypatch: Patch
) -> None:
    code_runs_from(workdir, monkeypatch)
    (workdir / "environment.json").write_text("{}\n")
    before = run_of()
    with (workdir / name).open("ab") as file:
        file.write(b"\n")
    assert run_of() != before


def test_second_process_waits_for_the_lock_and_resumes_from_the_first(train: Train, workdir: Path) -> None:
    long = {"train.epochs": 300, "run.save_steps": 5, "train.max_steps": 200}
    train(**long)
    uninterrupted = take_results(workdir)
    write_params(workdir, **long)
    with Running(workdir, "reprise", "train") as first:
        first.until(lambda: checkpoints(workdir))
        # The stopped process keeps the lock until the second one waits for it.
        first.send(signal.SIGSTOP)
        with Running(workdir, "reprise", "train") as second:
            waits = f"train: waiting for a lock held by another run: train, process {first.process.pid} on "
            second.until(lambda: waits in second.stdout)
            first.send(signal.SIGTERM)
            first.send(signal.SIGCONT)
            first.end(143)
            output = second.end()
    (stopped,) = re.findall(r"stopped after step (\d+)/200;", first.stderr)
    assert f"train: resuming from step {stopped}/200" in output
    assert results(workdir) == uninterrupted


def test_second_process_gives_up_when_the_lock_stays_held(
    train: Train, workdir: Path, monkeypatch: Patch, capsys: Capsys
) -> None:
    monkeypatch.setattr(lock, "TIMEOUT_S", 1)
    with lock.write_lock(WORKSPACE_LOCK, "evaluate"), pytest.raises(UserError, match="held by another run") as refused:
        train()
    assert refused.value.file == str(WORKSPACE_LOCK)
    assert f"evaluate, process {os.getpid()} on " in refused.value.problem
    assert capsys.readouterr().out.count("train: waiting for a lock") == 1
    train()
    assert (workdir / "models/final/model.safetensors").is_file()
    assert not list((workdir / "checkpoints").iterdir())


def holds_lock(folder: Path, command: Running) -> bool:
    """Whether a command has the lock; the file exists a moment earlier."""
    file = folder / WORKSPACE_LOCK
    return file.is_file() and f"process {command.process.pid} " in file.read_text()


def test_trainings_of_different_recipes_never_write_at_once(train: Train, workdir: Path) -> None:
    alone = {}
    for seed in (1, 2):
        train(seed=seed)
        alone[seed] = take_results(workdir)
    write_params(workdir, seed=1)
    with Running(workdir, "reprise", "train") as first:
        first.until(lambda: holds_lock(workdir, first))
        first.send(signal.SIGSTOP)
        write_params(workdir, seed=2)
        with Running(workdir, "reprise", "train") as second:
            second.until(lambda: "train: waiting for a lock" in second.stdout)
            write_params(workdir, seed=1)
            first.send(signal.SIGCONT)
            first.end()
            second.end(2)  # it read another recipe than the one that params.yaml now has
    (line,) = second.stderr.splitlines()
    assert line.startswith("reprise: error: params.yaml: seed: changed while train ran; nothing was replaced; expected")
    assert results(workdir) == alone[1]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.full)])
def test_recipe_edited_while_it_trains_is_refused_and_reverting_the_edit_loses_nothing(
    workdir: Path, type_train: Callable[[int], str], processes: int
) -> None:
    set_processes(workdir, processes)
    edited = {"train.learning_rate": 1e-3}
    write_params(workdir, **EVERY["every 1"])
    type_train(processes)
    uninterrupted = results(workdir)
    write_params(workdir, **EVERY["every 1"])
    with Running(workdir, "reprise", "train") as training:
        training.until(lambda: checkpoints(workdir))
        write_params(workdir, **edited)
        training.end(2)
    (line,) = training.stderr.splitlines()
    assert "params.yaml: train.learning_rate: changed while train ran; nothing was replaced; expected " in line
    assert results(workdir) == uninterrupted  # those of the run before
    take_results(workdir)
    write_params(workdir)
    assert "train: resuming from step 18/18" in type_train(processes)
    assert results(workdir) == uninterrupted


@pytest.mark.full  # tests/core/test_unchanged.py has the rule
def test_keys_that_training_does_not_read_may_be_edited_while_it_runs(workdir: Path) -> None:
    write_params(workdir, **EVERY["every 1"])
    with Running(workdir, "reprise", "train") as training:
        training.until(lambda: checkpoints(workdir))
        write_params(workdir, **{"run.save_steps": 7, "evaluate.bootstrap_resamples": 300, "task.submission": None})
        training.end()


def test_input_that_changes_while_it_trains_is_refused_and_the_checkpoint_is_kept(workdir: Path) -> None:
    write_params(workdir, **EVERY["every 1"])
    with Running(workdir, "reprise", "train") as training:
        training.until(lambda: checkpoints(workdir))
        with (workdir / "models/pretrained/model/config.json").open("a") as file:
            file.write("\n")
        training.end(2)
    (line,) = training.stderr.splitlines()
    assert "models/pretrained/model/config.json" in line
    assert "it changed while train ran" in line
    assert not (workdir / "models/final").exists()
    assert position(checkpoints(workdir)[-1]) == (18, 2)


@pytest.mark.parametrize(
    ("size", "kept", "next_one"),
    [
        pytest.param("64k", [], (3, 0), marks=pytest.mark.full),
        pytest.param("384k", [(3, 0)], (6, 0), marks=pytest.mark.full),
        ("640k", [(3, 0), (6, 0)], (9, 1)),
    ],
)
def test_full_disk_is_one_line_keeps_earlier_checkpoints_and_allows_resuming(
    train: Train, workdir: Path, run: Run, size: str, kept: list[tuple[int, int]], next_one: tuple[int, int]
) -> None:
    train()
    uninterrupted = take_results(workdir)
    write_params(workdir, **EVERY_3)
    # A small file system in memory that only these commands see.
    typed = f"""
        mkdir -p checkpoints && mount -t tmpfs -o size={size} tmpfs checkpoints
        reprise train; echo "exit code $?"
        find checkpoints -mindepth 2 -maxdepth 2 -name '*step-*'
        mount -o remount,size=64m checkpoints
        reprise train
    """
    done = run(workdir, "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", typed)
    _, after = done.stdout.split("exit code 2\n")
    output = re.fullmatch(
        r"reprise: error: (checkpoints/[^:]*): .*No space left on device.*; "
        r"expected space for a checkpoint; earlier ones are kept, and `dvc repro` resumes from there\n",
        done.stderr,
    )
    assert output, done.stderr
    assert position(Path(output[1])) == next_one
    found = sorted(line for line in after.splitlines() if line.startswith("checkpoints/"))
    assert [position(Path(name)) for name in found] == kept  # and no incomplete one
    assert re.findall(r"resuming from step (\d+)/18", after) == [str(steps) for steps, _ in kept[-1:]]
    assert results(workdir) == uninterrupted
