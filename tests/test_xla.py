"""The path that a TPU takes, on XLA's own CPU device: what is typed for a TPU, with PJRT_DEVICE=CPU in front.

`make test-xla` sets up .venv-xla from the locks in docker/tpu and runs these tests. What they cook has texts of several
lengths and a last batch that is not full, in training as in validation, and dropout is on.

Compiling takes most of the time, so tests share what was trained. Two of them run at once, one from the middle of the
file on, so those that share something stand together.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest
from transformers import pipeline

from interrupting import Running, checkpoints, place, results
from tiny import ROOT, Run, write_params

# Several minutes for a test whose fixtures train, on a machine that does something else as well.
pytestmark = [pytest.mark.xla, pytest.mark.timeout(900)]

ON_XLA = {
    "PATH": f"{ROOT / '.venv-xla/bin'}:{os.environ['PATH']}",
    "REPRISE_HARDWARE": "tpu",
    "PJRT_DEVICE": "CPU",
    "OMP_NUM_THREADS": "1",
}
# A program of a test imports `reprise` from the kitchen that it runs in, as the command does.
PROGRAM = ON_XLA | {"PYTHONPATH": "src"}

# 144 rows to train on and 48 to validate with, in batches of as many rows, the last of either not full.
EPOCHS, BATCH_SIZE, STEPS, VALIDATIONS, FETCHES = 3, 10, 15, 5, 2
RECIPE: dict[str, Any] = {
    "train.epochs": EPOCHS, "train.batch_size": BATCH_SIZE, "evaluate.batch_size": BATCH_SIZE
}  # fmt: skip
ONE_BUCKET = {"train.bucket_lengths": [16]}
MICRO_BATCHES = {"train.micro_batch_size": 4}
EXACT = {"train.learning_rate": 1e-3, "train.epochs": 2}  # rounding does not grow from step to step

# Trains as `reprise train` does, and prints what XLA counted in the meantime.
COUNTING = """
import json
from torch_xla.debug import metrics
from reprise.hardware import current_hardware
from reprise.core.validation import read_recipe
from reprise.train.stage import launch
from reprise.train.recorder import Recorder

def happened(name):
    return (metrics.metric_data(name) or [0])[0]

counts = {"programs": [], "seconds": [], "read_back": []}
note, epoch = Recorder.log_device, Recorder.log_epoch

def note_and_count(self, *figures):  # in every step
    note(self, *figures)
    counts["read_back"].append(happened("TransferFromDeviceTime"))

def epoch_and_count(self, *scores):  # after every epoch
    epoch(self, *scores)
    counts["programs"].append(metrics.counter_value("UncachedCompile"))
    counts["seconds"].append(self.throughput.seconds)

Recorder.log_device, Recorder.log_epoch = note_and_count, epoch_and_count
launch(read_recipe(), current_hardware())
counts["runs"] = happened("ExecuteTime")
counts["not_by_xla"] = [name for name in metrics.counter_names() if name.startswith("aten::")]
print(json.dumps(counts))
"""

# From the second epoch on, the rows that only fill a batch up are left out of it by counting the others: another
# program for every number of them.
RECOMPILING = """
import itertools
from reprise.cli import app
from reprise.tasks.classification import Classification

steps, summed_loss = itertools.count(1), Classification.summed_loss

def of_counted_rows(self, logits, labels):
    rows = len(labels) if next(steps) <= 15 else int((labels >= 0).sum())
    return summed_loss(self, logits[:rows], labels[:rows])

Classification.summed_loss = of_counted_rows
app(["train"], prog_name="reprise")
"""

# SIGTERM comes in the last step of the first epoch: what goes on has none of its steps to do, only its validation.
STOPPING = """
import signal
from reprise.cli import app
from reprise.train.checkpoint import CheckpointManager

maybe_save = CheckpointManager.maybe_save

def stopped_after_step(self):
    if self.recorder.history.steps_done == 15:
        signal.raise_signal(signal.SIGTERM)
    maybe_save(self)

CheckpointManager.maybe_save = stopped_after_step
app(["train"], prog_name="reprise")
"""

DROPPING = """
import json
import torch
from reprise.train.dropout import DropoutKeys, dropout_mask
from reprise.modeling.xla import manual_seed

keys, found = DropoutKeys(42), []
for device in torch.device("cpu"), torch.device("xla"):
    keys.set_batch(3, [5, 9, 10000], torch.zeros(4, 1).to(device))
    found += [dropout_mask(keys.values, 17, torch.Size([4, 12, 9, 9]), 0.1, torch.bfloat16).cpu()]

def drawn(seed, device=torch.device("xla")):
    manual_seed(seed, device)
    return torch.rand(3).to(device).tolist() + torch.rand(3, device=device).tolist()

print(json.dumps([found[0].eq(found[1]).all().item(), found[0].ne(0).float().mean().item()]))
print(json.dumps([drawn(seed) for seed in (1, 2, 1)]))
"""


@dataclass(frozen=True)
class Counted:
    """A training that was counted: its kitchen and what COUNTING printed."""

    kitchen: Path
    programs: list[int]  # compiled until the end of each epoch
    seconds: list[float]  # of training, until the end of each epoch
    read_back: list[int]  # values that the host had read until each step
    runs: int  # of programs
    not_by_xla: list[str]  # operations that torch had to compute elsewhere, with a stop each

    @property
    def speed(self) -> dict[str, Any]:
        return read(self.kitchen / "metrics/speed.json")

    def show(self, name: str) -> None:
        """Print how long a step takes once everything is compiled."""
        seconds = (self.seconds[-1] - self.seconds[0]) / STEPS / (len(self.seconds) - 1)
        print(f"xla: {name}: {seconds:.4f} s a step after the first epoch; shapes: {self.speed['shapes']}")


Prepare = Callable[..., Path]
Count = Callable[..., Counted]
Losses = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def prepared(kitchen: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The kitchen with all that train reads. Do not change; `prepare` gives a copy."""
    folder = Path(shutil.copytree(kitchen, tmp_path_factory.mktemp("prepared") / "kitchen", symlinks=True))
    write_params(folder, **RECIPE)
    run(folder, "dvc", "repro", "environment", "prepare", env=ON_XLA)
    return folder


@pytest.fixture(scope="module")
def prepare(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    """A kitchen of one's own to train in: `prepare(**{"train.epochs": 1})` changes the recipe."""

    def prepare(**changes: Any) -> Path:
        folder = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("xla") / "kitchen", symlinks=True))
        write_params(folder, **{**RECIPE, **changes})
        return folder

    return prepare


@pytest.fixture(scope="module")
def count(prepare: Prepare, run: Run) -> Count:
    """Train in a kitchen of its own, and count: `count(**changes)`."""

    def count(**changes: Any) -> Counted:
        folder = prepare(**changes)
        printed = run(folder, "python", "-c", COUNTING, env=PROGRAM).stdout
        return Counted(folder, **json.loads(printed.splitlines()[-1]))

    return count


@pytest.fixture(scope="module")
def on_xla(prepare: Prepare, run: Run) -> Path:
    """A kitchen cooked on XLA by `dvc repro`, with up to four buckets. Do not change."""
    folder = prepare()
    said = run(folder, "dvc", "repro", env=ON_XLA).stdout
    assert "environment: tpu, " in said
    return folder


@pytest.fixture(scope="module")
def four_buckets(count: Count) -> Counted:
    """The training of `on_xla`, again and counted. Do not change."""
    return count()


@pytest.fixture(scope="module")
def one_bucket(count: Count) -> Counted:
    """The same with all texts padded to one length, which compiles in half the time. Do not change."""
    return count(**ONE_BUCKET)


@pytest.fixture(scope="module")
def on_the_cpu(prepare: Prepare, run: Run) -> Losses:
    """The losses where no batch is filled up."""
    return train(prepare(**EXACT), run)


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def trained(folder: Path) -> dict[str, bytes]:
    """What of the results train alone makes."""
    made = ("models/final/", "metrics/train.json", "plots/train.csv", "plots/validation.csv")
    found = {name: content for name, content in results(folder).items() if name.startswith(made)}
    assert {"models/final/model.safetensors", *made[1:]} <= set(found)
    return found


def first_steps(folder: Path) -> list[int]:
    """The steps after which each of the runs began that made what lies in a folder."""
    return [session["from_step"] for session in read(folder / "metrics/provenance.json")["sessions"]]


def check_compilations(counted: Counted) -> None:
    """Hold what was compiled against the shapes of the batches."""
    shapes, compilations = counted.speed["num_bucket_lengths"], counted.speed["compilations"]
    assert compilations <= 2 * shapes + 3
    assert counted.programs == [compilations] * len(counted.programs)  # all of them in the first epoch


def check_steps(counted: Counted, programs: int) -> None:
    """A step is so many programs, with nothing to wait for in it.

    Beside the steps, each validation batch is one, each fetch of the figures, and what the optimizer starts from.
    """
    epochs = len(counted.programs)
    assert counted.runs == programs + epochs * (VALIDATIONS + FETCHES) + 1
    # The figures are fetched after the tenth step, and after the last of an epoch with the validation's.
    by_epoch = np.reshape(counted.read_back, (epochs, STEPS))
    assert (by_epoch[:, :10] == by_epoch[:, :1]).all()
    assert (by_epoch[:, 10:] == by_epoch[:, :1] + 1).all()
    assert counted.not_by_xla == []


def train(folder: Path, run: Run, env: dict[str, str] | None = None) -> Losses:
    """The losses of a training; by default in the environment of the CPU."""
    run(folder, "reprise", "train", env=env)
    return pd.read_csv(folder / "plots/train.csv")["loss"].to_numpy()


def check_losses(losses: Losses, others: Losses) -> None:
    assert losses.shape == (2 * STEPS,)
    apart = np.abs(losses / others - 1).max()
    print(f"xla: losses apart from the CPU's: {apart:.1e} at most")
    assert apart < 1e-5


# What is trained is learned, and has the same bits again, or the same predictions elsewhere.


def test_the_loss_falls_and_the_model_is_better_than_the_baseline(on_xla: Path) -> None:
    losses = pd.read_csv(on_xla / "plots/train.csv")["loss"]
    assert len(losses) == EPOCHS * STEPS
    assert losses[-STEPS:].mean() < losses[:STEPS].mean() / 2
    judged = read(on_xla / "metrics/evaluate.json")
    assert judged["accuracy"] > judged["baseline"]["accuracy"] + 0.2
    assert judged["constant_prediction"] is False


def test_a_second_run_has_the_same_bits(on_xla: Path, four_buckets: Counted, run: Run) -> None:
    run(four_buckets.kitchen, "reprise", "evaluate", env=ON_XLA)
    assert results(four_buckets.kitchen) == results(on_xla)
    assert "predictions/test.parquet" in results(on_xla)


def test_the_model_predicts_the_same_in_the_environment_of_the_cpu(on_xla: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(on_xla, tmp_path / "kitchen", symlinks=True))
    shutil.rmtree(folder / "predictions")
    run(folder, "reprise", "evaluate")
    here, there = (pq.read_table(place / "predictions/test.parquet").to_pydict() for place in (folder, on_xla))
    for column in ("id", "text", "label", "prediction"):
        assert here[column] == there[column]
    np.testing.assert_allclose(here["probabilities"], there["probabilities"], rtol=0, atol=1e-4)


def test_the_exported_model_predicts_what_was_evaluated_on_xla(on_xla: Path, tmp_path: Path, run: Run) -> None:
    run(on_xla, "reprise", "export", str(tmp_path / "model"), env=ON_XLA)
    rows = pq.read_table(on_xla / "predictions/test.parquet").to_pydict()
    predicted = pipeline("text-classification", model=str(tmp_path / "model"), device="cpu")(
        rows["text"], truncation=True, max_length=16
    )
    assert [one["label"] for one in predicted] == rows["prediction"]
    best = [max(probabilities) for probabilities in rows["probabilities"]]
    assert [one["score"] for one in predicted] == pytest.approx(best, abs=1e-4)


def test_a_run_that_is_killed_before_the_last_step_of_an_epoch_goes_on_and_has_the_same_bits(
    on_xla: Path, prepare: Prepare, run: Run
) -> None:
    folder = prepare(**{"run.save_steps": STEPS - 1})
    with Running(folder, "reprise", "train", env=ON_XLA) as training:
        training.until(lambda: checkpoints(folder))
        training.kill(training.groups())
    assert place(checkpoints(folder)[-1]) == (STEPS - 1, 0)
    assert not (folder / "models/final").exists()
    said = run(folder, "reprise", "train", env=ON_XLA).stdout
    assert trained(folder) == trained(on_xla)
    assert first_steps(folder) == [0, STEPS - 1]
    assert f"train: resuming from step {STEPS - 1}/{EPOCHS * STEPS}, from checkpoints/" in said


def test_what_is_dropped_has_the_same_bits_as_on_the_cpu_and_all_else_is_drawn_from_the_seed(
    kitchen: Path, run: Run
) -> None:
    dropped, drawn = map(json.loads, run(kitchen, "python", "-c", DROPPING, env=PROGRAM).stdout.splitlines())
    assert dropped == [True, pytest.approx(0.9, abs=0.02)]
    first, other, again = drawn
    assert first == again
    assert not set(first) & set(other)


# Every shape is compiled once, and nothing is read back in a step.


def test_one_epoch_and_three_compile_as_much_and_run_one_program_a_step(four_buckets: Counted, count: Count) -> None:
    four_buckets.show("four buckets")
    assert four_buckets.speed["num_bucket_lengths"] == 4
    one_epoch = count(**{"train.epochs": 1})
    assert one_epoch.speed["compilations"] == four_buckets.speed["compilations"]
    for counted in (one_epoch, four_buckets):
        check_compilations(counted)
        check_steps(counted, len(counted.programs) * STEPS)


def test_a_step_of_micro_batches_is_a_program_for_each_and_one_more(count: Count) -> None:
    counted = count(**MICRO_BATCHES)
    counted.show("micro-batches of 4")
    check_compilations(counted)
    micro_batches = (STEPS - 1) * 3 + 1  # 4 + 4 + 2 rows; the last step has 4
    check_steps(counted, EPOCHS * (micro_batches + STEPS))


def test_a_run_that_compiles_again_fails_with_one_line_that_names_the_shapes(prepare: Prepare, run: Run) -> None:
    folder = prepare(**ONE_BUCKET)
    refused = run(folder, "python", "-c", RECOMPILING, env=PROGRAM, code=2)
    assert re.fullmatch(r"reprise: error: train: XLA compiled \d+ programs .*10 × 16.*\n", refused.stderr)
    assert "train: epoch 1/3: validation" in refused.stdout
    assert not (folder / "models/final").exists()
    assert not list(folder.rglob("*.partial"))


# Filling batches up changes no loss.


@pytest.mark.parametrize("changes", [{}, ONE_BUCKET, {**ONE_BUCKET, **MICRO_BATCHES}], ids=["four", "one", "micro"])
def test_the_losses_are_those_of_the_cpu(prepare: Prepare, on_the_cpu: Losses, run: Run, changes: Any) -> None:
    check_losses(train(prepare(**EXACT, **changes), run, env=ON_XLA), on_the_cpu)


def test_the_losses_of_a_regression_are_those_of_the_cpu(prepare: Prepare, run: Run) -> None:
    number = {"task.label_column": "stars", "task.labels": [], "task.metrics": ["pearson"]}
    folder = prepare(**number, **ONE_BUCKET, **EXACT)
    raw = folder / "data/raw/all/reviews.csv"
    reviews = pd.read_csv(raw)
    reviews.assign(stars=(reviews["verdict"] == "fresh") * 1.0).to_csv(raw, index=False)
    run(folder, "reprise", "prepare")
    on_the_cpu = train(folder, run)
    check_losses(train(folder, run, env=ON_XLA), on_the_cpu)


def test_the_losses_with_low_rank_matrices_are_those_of_the_cpu(prepare: Prepare, run: Run) -> None:
    folder = prepare(**EXACT, **ONE_BUCKET, **{"train.lora": {"rank": 4, "alpha": 8, "targets": "all-linear"}})
    on_the_cpu = train(folder, run)
    check_losses(train(folder, run, env=ON_XLA), on_the_cpu)


def test_bf16_computes_in_bf16(prepare: Prepare, on_the_cpu: Losses, run: Run) -> None:
    folder = prepare(**EXACT, **ONE_BUCKET, **{"train.precision": "bf16"})
    apart = np.abs(train(folder, run, env=ON_XLA) / on_the_cpu - 1).max()
    print(f"xla: losses in bf16 apart from the CPU's in fp32: {apart:.1e} at most")
    assert 1e-5 < apart < 0.1  # fp32 stays below


# With one bucket, which compiles in half the time: interruptions and launchers.


def test_with_one_bucket_there_is_one_shape(one_bucket: Counted) -> None:
    one_bucket.show("one bucket")
    assert one_bucket.speed["num_bucket_lengths"] == 1
    check_compilations(one_bucket)
    check_steps(one_bucket, EPOCHS * STEPS)


def test_a_run_that_is_stopped_again_and_again_loses_no_step_and_has_the_same_bits(
    one_bucket: Counted, prepare: Prepare, run: Run
) -> None:
    folder = prepare(**ONE_BUCKET, **{"run.save_steps": 2})
    assert run(folder, "python", "-c", STOPPING, env=PROGRAM, code=143).stderr == (
        "train: SIGTERM: finishing the step and writing a checkpoint\n"
        "reprise train: stopped after step 15/45; `dvc repro` resumes from there\n"
    )
    with Running(folder, "reprise", "train", env=ON_XLA) as training:
        training.until(lambda: place(checkpoints(folder)[-1])[0] > 2 * STEPS)  # in the last epoch
        training.send(signal.SIGINT)  # as Ctrl-C does
        training.end(130)
    (step,) = re.findall(r"reprise train: stopped after step (\d+)/45;", training.errors)
    run(folder, "reprise", "train", env=ON_XLA)
    assert trained(folder) == trained(one_bucket.kitchen)
    assert first_steps(folder) == [0, STEPS, int(step)]


def test_a_full_disk_leaves_nothing_half_made_and_the_run_goes_on_once_there_is_room(
    one_bucket: Counted, prepare: Prepare, run: Run
) -> None:
    folder = prepare(**ONE_BUCKET, **{"run.save_steps": 10})
    (folder / "models/final").mkdir()
    (folder / "models/final/earlier").touch()
    # The disks are in the memory, seen by these commands alone: no room for a checkpoint, then none for the model.
    typed = """
        left() { find checkpoints models -name '.*' -o -name 'step-*' -prune -o -path 'models/final/*'; }
        mkdir -p checkpoints kept && mount -t tmpfs -o size=64k tmpfs checkpoints
        cp -a models/. kept && mount -t tmpfs -o size=160k tmpfs models && cp -a kept/. models
        reprise train || left > no-checkpoint
        mount -o remount,size=64m checkpoints
        reprise train || left > no-model
        mount -o remount,size=64m models
        reprise train && cp -a models/final kept/made
    """
    run(folder, "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", typed, env=ON_XLA)
    left = [[Path(line).name for line in (folder / name).read_text().split()] for name in ("no-checkpoint", "no-model")]
    assert left == [["earlier"], ["step-0000010-epochs-000", "earlier"]]
    shutil.rmtree(folder / "models/final")
    shutil.move(folder / "kept/made", folder / "models/final")
    assert trained(folder) == trained(one_bucket.kitchen)
    assert first_steps(folder) == [0, 10]


def test_two_processes_are_refused_where_one_comes_up_and_earlier_results_stay(
    one_bucket: Counted, tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(one_bucket.kitchen, tmp_path / "kitchen", symlinks=True))
    profile = folder / "docker/tpu/accelerate.yaml"
    profile.write_text(profile.read_text().replace("num_processes: 1", "num_processes: 2"))
    refused = run(folder, "reprise", "train", env=ON_XLA, code=2)
    assert refused.stderr == "reprise: error: train: 1 process(es) started, expected 2\n"
    assert results(folder) == results(one_bucket.kitchen)
    assert not list(folder.rglob("*.partial"))


def test_accelerate_launch_trains_to_the_same_bits(one_bucket: Counted, prepare: Prepare, run: Run) -> None:
    folder = prepare(**ONE_BUCKET)
    launch = ("accelerate", "launch", "--tpu", "--config_file", "docker/tpu/accelerate.yaml")
    said = run(folder, *launch, "--module", "reprise.train.worker", env=PROGRAM | {"REPRISE_WORLD_SIZE": "1"}).stdout
    assert trained(folder) == trained(one_bucket.kitchen)
    assert "train: tiny on 144 examples, xla:0, fp32, processes: 1, threads: 1\n" in said
