"""Checkpoints: which are taken up, which are left out, what is in them, and that the bits are those of an unbroken run.

Most runs here train in this process, where an interruption can come at one exact step.
"""

import fcntl
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from interrupts import Running, checkpoints, position, results, take_results
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.train import checkpoint as checkpointing
from reprise.train.checkpoint import CheckpointManager, checkpoint_dir, fingerprint
from reprise.train.history import TrainingHistory
from tiny import ROOT, Run, tiny_recipe, write_params

Cook = Callable[..., Recipe]
Stop = Callable[..., None]
Damage = Callable[[Path], object]
Patch = pytest.MonkeyPatch
Said = pytest.CaptureFixture[str]

# The tiny recipe takes 9 steps an epoch, 18 in all.
EVERY = {f"every {steps}": {"run.save_steps": steps} for steps in (1, 3, 9, 1000)}
EVERY_3 = EVERY["every 3"]


class Cut(BaseException):
    """The power is cut: nothing that would take an error, and nothing that listens for a signal, has its turn."""


@pytest.fixture
def stop_after(cook: Cook, monkeypatch: Patch) -> Stop:
    """Train until SIGTERM comes in this very step: `stop_after(5, **changes)`."""

    def stop_after(step: int, **changes: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(
                CheckpointManager, "maybe_save", interrupted(step, lambda: signal.raise_signal(signal.SIGTERM))
            )
            with pytest.raises(SystemExit) as ended:
                cook(**changes)
        assert ended.value.code == 143

    return stop_after


@pytest.fixture
def cut_after(cook: Cook, monkeypatch: Patch) -> Stop:
    """Train until the power is cut after this step, before anything is kept of it: `cut_after(5, **changes)`."""

    def cut_after(step: int, **changes: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(CheckpointManager, "maybe_save", interrupted(step, cut))
            with pytest.raises(Cut):
                cook(**changes)

    return cut_after


def interrupted(step: int, interrupt: Callable[[], None]) -> Callable[[CheckpointManager], None]:
    """What comes after each step, with an interruption before it in one of them."""
    after_step = CheckpointManager.maybe_save

    def interrupted(self: CheckpointManager) -> None:
        if len(self.record.history) == step:
            interrupt()
        after_step(self)

    return interrupted


def cut(*_: object) -> None:
    raise Cut


def steps_gone_on_after(capsys: Said) -> list[int]:
    """The steps after which the runs since went on, in turn."""
    return [int(step) for step in re.findall(r"goes on after step (\d+)/", capsys.readouterr().out)]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("changes", EVERY.values(), ids=EVERY)
def test_however_often_checkpoints_are_made_a_run_that_is_never_stopped_has_the_same_bits(
    cook: Cook, at: Path, changes: dict[str, int]
) -> None:
    cook()
    whole = take_results(at)
    cook(**changes)
    assert results(at) == whole


@pytest.mark.parametrize("changes", EVERY.values(), ids=EVERY)
def test_a_run_stopped_again_and_again_loses_no_step_and_ends_with_the_same_bits(
    cook: Cook, stop_after: Stop, at: Path, changes: dict[str, int], capsys: Said
) -> None:
    cook()
    whole = take_results(at)
    stops = [1, 2, 8, 10, 17, 18]
    for step in stops:
        stop_after(step, **changes)
    cook(**changes)
    assert steps_gone_on_after(capsys) == stops
    assert results(at) == whole


def test_a_run_over_many_shards_goes_on_in_any_part_of_an_epoch_with_the_same_bits(
    in_shards: int, cook: Cook, stop_after: Stop, at: Path, capsys: Said
) -> None:
    cook()
    whole = take_results(at)
    stops = [3, 4, 8, 14, 17]  # 144 rows: an epoch is parts of 4, 4 and 1 steps
    for step in stops:
        stop_after(step)
    cook()
    assert steps_gone_on_after(capsys) == stops
    assert results(at) == whole


@pytest.mark.parametrize(
    ("changes", "kept"),
    [(EVERY["every 3"], [3, 9, 15, 15]), (EVERY["every 1000"], [9, 9, 9])],
    ids=["every 3", "never"],
)
def test_a_power_cut_costs_the_steps_since_the_last_checkpoint_and_no_bit(
    cook: Cook, cut_after: Stop, at: Path, changes: dict[str, int], kept: list[int], capsys: Said
) -> None:
    cook()
    whole = take_results(at)
    for step in (5, 10, 17, 18):
        cut_after(step, **changes)
    cook(**changes)
    assert steps_gone_on_after(capsys) == kept
    assert results(at) == whole


@pytest.mark.parametrize(
    "changes",
    [
        {"train.precision": "bf16"},
        {"train.micro_batch_size": 5},
        {"train.lr_scheduler": "cosine", "train.warmup_ratio": 0.5},
        {"train.keep_epoch": "last"},
        # A learning rate that spoils what an epoch learned: the weights to keep are not the last ones.
        {"train.learning_rate": 0.02, "train.lr_scheduler": "constant", "train.epochs": 3, "seed": 1},
    ],
    ids=lambda changes: ",".join(str(value) for value in changes.values()),
)
def test_whatever_the_recipe_asks_for_is_taken_up_again(
    cook: Cook, stop_after: Stop, at: Path, changes: dict[str, Any]
) -> None:
    cook(**changes)
    whole = take_results(at)
    stop_after(4, **changes)
    stop_after(13, **changes)
    cook(**changes)
    assert results(at) == whole


@pytest.mark.parametrize(("max_steps", "step"), [(None, 9), (9, 9), (11, 9), (11, 10), (11, 11), (4, 2), (4, 4)])
def test_an_interruption_between_an_epochs_last_step_and_its_validation_goes_on_with_the_validation(
    cook: Cook, stop_after: Stop, at: Path, max_steps: int | None, step: int, capsys: Said
) -> None:
    changes = {"train.max_steps": max_steps}
    cook(**changes)
    whole, validated = take_results(at), capsys.readouterr().out.count("validation")
    stop_after(step, **changes)
    assert position(checkpoints(at)[-1]) == (step, step // 10)  # of the epoch that ends here nothing is known yet
    assert capsys.readouterr().out.count("validation") == step // 10
    cook(**changes)
    said = capsys.readouterr().out
    assert f"train: goes on after step {step}/" in said
    assert said.count("validation") == validated - step // 10
    assert results(at) == whole


def test_a_power_cut_after_the_last_epoch_leaves_only_the_writing_to_do(
    cook: Cook, at: Path, monkeypatch: Patch, capsys: Said
) -> None:
    cook()
    whole = take_results(at)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingHistory, "write_outputs", cut)
        with pytest.raises(Cut):
            cook()
    capsys.readouterr()
    cook()
    said = capsys.readouterr().out
    assert "train: goes on after step 18/18" in said
    assert "validation" not in said
    assert results(at) == whole


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def halve(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


DAMAGES: dict[str, tuple[str, Damage, str]] = {
    "a bit of the weights": ("model.safetensors", flip_a_byte, "model.safetensors is not as it was written"),
    "the end of the optimizer": ("optimizer.safetensors", halve, "optimizer.safetensors is not as it was written"),
    "half a manifest": ("manifest.json", halve, "manifest.json cannot be read"),
    "no manifest": ("manifest.json", Path.unlink, "manifest.json cannot be read"),
    "no figures": ("state.json", Path.unlink, "state.json cannot be read"),
    "no chosen weights": ("best/model.safetensors", Path.unlink, "best/model.safetensors cannot be read"),
}


@pytest.mark.parametrize(("name", "damage", "problem"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_left_out_and_the_one_before_it_is_taken(
    cook: Cook, cut_after: Stop, at: Path, name: str, damage: Damage, problem: str, capsys: Said
) -> None:
    cook()
    whole = take_results(at)
    cut_after(16, **EVERY_3)
    before, newest = checkpoints(Path())
    damage(newest / name)
    capsys.readouterr()
    cook(**EVERY_3)
    left_out, goes_on = (line for line in capsys.readouterr().out.splitlines() if "checkpoints/" in line)
    assert left_out.startswith(f"train: {newest} is left out: ")
    assert left_out.endswith(problem)
    assert goes_on == f"train: goes on after step 12/18, from {before}"
    assert results(at) == whole


def test_a_run_whose_checkpoints_are_all_damaged_starts_over(
    cook: Cook, cut_after: Stop, at: Path, capsys: Said
) -> None:
    cook()
    whole = take_results(at)
    cut_after(8, **EVERY_3)
    for checkpoint in checkpoints(at):
        flip_a_byte(checkpoint / "model.safetensors")
    capsys.readouterr()
    cook(**EVERY_3)
    said = capsys.readouterr().out
    assert said.count("is left out: model.safetensors is not as it was written") == 2
    assert "goes on" not in said
    assert results(at) == whole


def test_a_checkpoint_that_was_left_out_is_none_of_the_two_that_are_kept(cut_after: Stop, at: Path) -> None:
    cut_after(8, **EVERY_3)
    flip_a_byte(checkpoints(at)[-1] / "model.safetensors")
    cut_after(6, **EVERY["every 1"])
    assert [position(checkpoint) for checkpoint in checkpoints(at)] == [(4, 0), (5, 0)]


def test_a_half_written_checkpoint_is_never_read_and_leaves_nothing_behind(
    cook: Cook, cut_after: Stop, at: Path, capsys: Said
) -> None:
    cook()
    whole = take_results(at)
    cut_after(8, **EVERY_3)
    newest = checkpoints(Path())[-1]
    # One that looks newer than all, and one whose place the run comes to write itself.
    half_written = [
        newest.with_name(f".step-{place}.partial") for place in ("0000007-epochs-000", "0000009-epochs-001")
    ]
    for partial in half_written:
        shutil.copytree(newest, partial)
        (partial / "rest").touch()
    capsys.readouterr()
    cut_after(10, **EVERY_3)
    assert f"train: goes on after step 6/18, from {newest}\n" in capsys.readouterr().out
    assert position(checkpoints(at)[-1]) == (9, 1)
    assert not list(checkpoints(at)[-1].rglob("rest"))
    cook(**EVERY_3)
    assert not list(at.rglob("*.partial"))
    assert results(at) == whole


def test_the_last_two_are_kept_in_files_that_hold_no_code_and_go_when_the_run_succeeds(
    cook: Cook, cut_after: Stop, at: Path
) -> None:
    cut_after(17, **EVERY_3)
    assert [position(checkpoint) for checkpoint in checkpoints(at)] == [(12, 1), (15, 1)]
    files = [file for file in (at / "checkpoints").rglob("*") if file.is_file()]
    assert {file.suffix or file.name for file in files} == {".safetensors", ".json", ".npy", "lock"}
    for file in files:
        match file.suffix:
            case ".json":
                json.loads(file.read_text())
            case ".npy":
                assert np.load(file, allow_pickle=False).shape[1] == 3
            case ".safetensors":
                with safe_open(file, framework="pt") as opened:
                    assert opened.keys()
            case _:
                assert file.read_bytes() == b""
    cook(**EVERY_3)
    assert list((at / "checkpoints").iterdir()) == []


def test_the_checkpoints_of_another_run_are_neither_read_nor_touched_and_serve_that_run(
    cook: Cook, stop_after: Stop, at: Path, capsys: Said
) -> None:
    whole = {}
    for seed in (42, 43):
        cook(seed=seed)
        whole[seed] = take_results(at)
    stop_after(12, seed=43)
    others = files_in(at / "checkpoints")
    capsys.readouterr()
    cook(seed=42)
    assert "goes on" not in capsys.readouterr().out
    assert results(at) == whole[42]
    assert files_in(at / "checkpoints") == others
    cook(seed=43)
    assert "train: goes on after step 12/18" in capsys.readouterr().out
    assert results(at) == whole[43]


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
def test_another_recipe_is_another_run(at: Path, changes: dict[str, Any]) -> None:
    assert run_of(**changes) != run_of()


@pytest.mark.parametrize(
    "changes",
    [{"run.save_steps": 7}, {"run.trackers": ["tensorboard"]}, {"evaluate.bootstrap_resamples": 700}],
    ids=["every", "trackers", "other"],
)
def test_what_decides_no_weight_leaves_it_the_same_run(at: Path, changes: dict[str, Any]) -> None:
    assert run_of(**changes) == run_of()


@pytest.mark.parametrize(
    "name",
    [
        "data/prepared/stats.json",
        "models/pretrained/model/model.safetensors",
        "models/pretrained/model/config.json",
        "environment.json",
        "reprise/train/engines/accelerate.py",
        "reprise/train/checkpoint.py",
        "reprise/modeling/classifier.py",
        "reprise/modeling/bucketing.py",
        "reprise/core/config.py",
        "reprise/metrics/accuracy/accuracy.py",
    ],
)
def test_other_data_weights_environment_or_code_make_it_another_run(at: Path, name: str, monkeypatch: Patch) -> None:
    code = shutil.copytree(ROOT / "src/reprise", at / "reprise")
    monkeypatch.setattr(checkpointing, "__file__", str(code / "train/checkpoint.py"))
    (at / "environment.json").write_text("{}\n")
    before = run_of()
    with (at / name).open("ab") as file:
        file.write(b"\n")
    assert run_of() != before


def test_a_second_training_of_one_run_waits_and_goes_on_where_the_first_was_stopped(cook: Cook, at: Path) -> None:
    long = {"train.epochs": 300, "run.save_steps": 5, "train.max_steps": 200}
    cook(**long)
    whole = take_results(at)
    write_params(at, **long)
    with Running(at, "reprise", "train") as first:
        first.until(lambda: checkpoints(at))
        # Stopped in its tracks, it still holds the lock, however long the second takes to come.
        first.send(signal.SIGSTOP)
        with Running(at, "reprise", "train") as second:
            second.until(lambda: "train: waits for another process that trains this recipe, in chec" in second.stdout)
            first.send(signal.SIGTERM)
            first.send(signal.SIGCONT)
            first.end(143)
            said = second.end()
    (stopped,) = re.findall(r"stopped after step (\d+)/200;", first.stderr)
    assert f"train: goes on after step {stopped}/200" in said
    assert results(at) == whole


def test_a_second_training_of_one_run_gives_up_where_the_first_goes_on(
    cook: Cook, at: Path, monkeypatch: Patch, capsys: Said
) -> None:
    monkeypatch.setattr(checkpointing, "LOCK_TIMEOUT_S", 1)
    folder = run_of()
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError) as refused:
            cook()
    assert str(refused.value) == f"{folder}: another process trains this recipe; expected it to end first"
    assert capsys.readouterr().out.count("train: waits for another process") == 1
    cook()
    assert (at / "models/final/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("size", "kept", "next_one"),
    [
        pytest.param("64k", [], (3, 0), marks=pytest.mark.thorough),
        pytest.param("384k", [(3, 0)], (6, 0), marks=pytest.mark.thorough),
        ("640k", [(3, 0), (6, 0)], (9, 1)),
    ],
)
def test_a_full_disk_is_one_line_keeps_the_checkpoints_before_and_goes_on_once_there_is_room(
    cook: Cook, at: Path, run: Run, size: str, kept: list[tuple[int, int]], next_one: tuple[int, int]
) -> None:
    cook()
    whole = take_results(at)
    write_params(at, **EVERY_3)
    # The disk is one of its own, in the memory, seen by these commands alone.
    typed = f"""
        mkdir -p checkpoints && mount -t tmpfs -o size={size} tmpfs checkpoints
        reprise train; echo "exit code $?"
        find checkpoints -mindepth 2 -maxdepth 2 -name '*step-*'
        mount -o remount,size=64m checkpoints
        reprise train
    """
    done = run(at, "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", typed)
    _, after = done.stdout.split("exit code 2\n")
    said = re.fullmatch(
        r"reprise: error: (checkpoints/[^:]*): .*No space left on device.*; "
        r"expected room for a checkpoint; those before are kept, and `dvc repro` goes on from there\n",
        done.stderr,
    )
    assert said, done.stderr
    assert position(Path(said[1])) == next_one
    found = sorted(line for line in after.splitlines() if line.startswith("checkpoints/"))
    assert [position(Path(name)) for name in found] == kept  # only complete checkpoints
    assert re.findall(r"goes on after step (\d+)/18", after) == [str(steps) for steps, _ in kept[-1:]]
    assert results(at) == whole
