"""The commands for a TPU, run on XLA's CPU device with PJRT_DEVICE=CPU.

`make test-xla` sets up .venv-xla from the locks in docker/tpu and runs these tests. Their data has texts of several
lengths and an incomplete last batch, in training and in validation; dropout is on.

Compilation takes most of the time, so tests share trained models. Two workers run the tests, one of them from the
middle of the file, so tests that share a fixture are neighbours.
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

from interrupts import Running, checkpoints, position, results
from kinds_of_tasks import prepare_windows, prepare_words
from tiny import ROOT, Run, write_params

# Tests whose fixtures train take several minutes on a busy machine.
pytestmark = [pytest.mark.xla, pytest.mark.timeout(900)]

ON_XLA = {
    "PATH": f"{ROOT / '.venv-xla/bin'}:{os.environ['PATH']}",
    "REPRISE_HARDWARE": "tpu",
    "PJRT_DEVICE": "CPU",
    "OMP_NUM_THREADS": "1",
}
# Test programs import `reprise` from the repository that they run in, as the command does.
PROGRAM = ON_XLA | {"PYTHONPATH": "src"}

# 144 training and 48 validation examples; the last batch of both is incomplete.
EPOCHS, BATCH_SIZE, STEPS, VALIDATIONS, FLUSHES = 3, 10, 15, 5, 2
RECIPE: dict[str, Any] = {
    "train.epochs": EPOCHS, "train.batch_size": BATCH_SIZE, "evaluate.batch_size": BATCH_SIZE
}  # fmt: skip
ONE_BUCKET = {"train.bucket_lengths": [16]}
MICRO_BATCHES = {"train.micro_batch_size": 4}
EXACT = {"train.learning_rate": 1e-3, "train.epochs": 2}  # so that rounding differences do not grow from step to step

# Trains like `reprise train` and prints XLA's counters.
COUNTING = """
import json
from torch_xla.debug import metrics
from reprise.hardware import current_hardware
from reprise.core.validation import read_recipe
from reprise.train.stage import launch
from reprise.train.recorder import Recorder

def metric_count(name):
    return (metrics.metric_data(name) or [0])[0]

counts = {"programs": [], "seconds": [], "read_back": []}
log_device, log_epoch = Recorder.log_device, Recorder.log_epoch

def log_device_and_count(self, *values):  # in every step
    log_device(self, *values)
    counts["read_back"].append(metric_count("TransferFromDeviceTime"))

def log_epoch_and_count(self, *scores):  # after every epoch
    log_epoch(self, *scores)
    counts["programs"].append(metrics.counter_value("UncachedCompile"))
    counts["seconds"].append(self.throughput.seconds)

Recorder.log_device, Recorder.log_epoch = log_device_and_count, log_epoch_and_count
launch(read_recipe(), current_hardware())
counts["runs"] = metric_count("ExecuteTime")
counts["fallbacks"] = [name for name in metrics.counter_names() if name.startswith("aten::")]
print(json.dumps(counts))
"""

# From the second epoch on, padding rows are sliced off, which compiles a program for every number of real rows.
RECOMPILE = """
import itertools
from reprise.cli import app
from reprise.tasks.classification import Classification

steps, summed_loss = itertools.count(1), Classification.summed_loss

def loss_of_real_rows(self, logits, labels, weights=None):
    rows = len(labels) if next(steps) <= 15 else int((labels >= 0).sum())
    return summed_loss(self, logits[:rows], labels[:rows], None if weights is None else weights[:rows])

Classification.summed_loss = loss_of_real_rows
app(["train"], prog_name="reprise")
"""

# SIGTERM arrives in the last step of the first epoch: the resumed run only has to validate that epoch.
STOPPING = """
import signal
from reprise.cli import app
from reprise.train.checkpoint import CheckpointManager

maybe_save = CheckpointManager.maybe_save

def maybe_save_and_stop(self):
    if self.recorder.history.steps_done == 15:
        signal.raise_signal(signal.SIGTERM)
    maybe_save(self)

CheckpointManager.maybe_save = maybe_save_and_stop
app(["train"], prog_name="reprise")
"""

DROPOUT = """
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
    """A training with counters: its repository and what COUNTING printed."""

    repo: Path
    programs: list[int]  # number of compilations after each epoch
    seconds: list[float]  # training time after each epoch
    read_back: list[int]  # transfers from the device after each step
    runs: int  # program executions
    fallbacks: list[str]  # operations that XLA does not support; each interrupts the step

    @property
    def speed(self) -> dict[str, Any]:
        return read(self.repo / "metrics/speed.json")

    def show(self, name: str) -> None:
        """Print the time per step after the first epoch, when everything is compiled."""
        seconds = (self.seconds[-1] - self.seconds[0]) / STEPS / (len(self.seconds) - 1)
        print(f"xla: {name}: {seconds:.4f} s per step after epoch 1; lengths: {self.speed['num_bucket_lengths']}")


Prepare = Callable[..., Path]
Count = Callable[..., Counted]
Losses = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def prepared(repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Prepare a repository for training. Read-only; `prepare` returns a copy."""
    folder = Path(shutil.copytree(repo, tmp_path_factory.mktemp("prepared") / "repo", symlinks=True))
    write_params(folder, **RECIPE)
    run(folder, "dvc", "repro", "environment", "prepare", env=ON_XLA)
    return folder


@pytest.fixture(scope="module")
def prepare(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    """Return a function that copies the prepared repository: `prepare(**{"train.epochs": 1})` changes the recipe."""

    def prepare(**changes: Any) -> Path:
        folder = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("xla") / "repo", symlinks=True))
        write_params(folder, **{**RECIPE, **changes})
        return folder

    return prepare


@pytest.fixture(scope="module")
def count(prepare: Prepare, run: Run) -> Count:
    """Return a function that trains in a copy with counters: `count(**changes)`."""

    def count(**changes: Any) -> Counted:
        folder = prepare(**changes)
        printed = run(folder, "python", "-c", COUNTING, env=PROGRAM).stdout
        return Counted(folder, **json.loads(printed.splitlines()[-1]))

    return count


@pytest.fixture(scope="module")
def on_xla(prepare: Prepare, run: Run) -> Path:
    """Run `dvc repro` on XLA with up to four buckets. Read-only."""
    folder = prepare()
    output = run(folder, "dvc", "repro", env=ON_XLA).stdout
    assert "environment: tpu, " in output
    return folder


@pytest.fixture(scope="module")
def four_buckets(count: Count) -> Counted:
    """Repeat the training of `on_xla` with counters. Read-only."""
    return count()


@pytest.fixture(scope="module")
def one_bucket(count: Count) -> Counted:
    """Train with one bucket and counters, which compiles in half the time. Read-only."""
    return count(**ONE_BUCKET)


@pytest.fixture(scope="module")
def on_the_cpu(prepare: Prepare, run: Run) -> Losses:
    """Return the losses on the CPU, where batches have no padding rows."""
    return train(prepare(**EXACT), run)


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def trained(folder: Path) -> dict[str, bytes]:
    """Return the results of the stage train."""
    outputs = ("models/final/", "metrics/train.json", "plots/train.csv", "plots/validation.csv")
    found = {name: content for name, content in results(folder).items() if name.startswith(outputs)}
    assert {"models/final/model.safetensors", *outputs[1:]} <= set(found)
    return found


def first_steps(folder: Path) -> list[int]:
    """Return the first step of each session of a run."""
    return [session["from_step"] for session in read(folder / "metrics/provenance.json")["sessions"]]


def check_compilations(counted: Counted) -> None:
    """Check the number of compilations against the number of batch lengths."""
    shapes, compilations = counted.speed["num_bucket_lengths"], counted.speed["compilations"]
    assert compilations <= 2 * shapes + 3
    assert counted.programs == [compilations] * len(counted.programs)  # all of them in the first epoch


def check_steps(counted: Counted, programs: int) -> None:
    """Check that training executed `programs` programs and that no step waited for the host.

    Each validation batch, each flush of the metrics and the optimizer's initial state are one program each, too.
    """
    epochs = len(counted.programs)
    assert counted.runs == programs + epochs * (VALIDATIONS + FLUSHES) + 1
    # Metrics are flushed after the tenth step, and with the validation metrics after the last step of an epoch.
    by_epoch = np.reshape(counted.read_back, (epochs, STEPS))
    assert (by_epoch[:, :10] == by_epoch[:, :1]).all()
    assert (by_epoch[:, 10:] == by_epoch[:, :1] + 1).all()
    assert counted.fallbacks == []


def train(folder: Path, run: Run, env: dict[str, str] | None = None) -> Losses:
    """Train and return the losses; by default in the CPU environment."""
    run(folder, "reprise", "train", env=env)
    return pd.read_csv(folder / "plots/train.csv")["loss"].to_numpy()


def check_losses(losses: Losses, others: Losses, steps: int = 2 * STEPS) -> None:
    assert losses.shape == (steps,)
    difference = np.abs(losses / others - 1).max()
    print(f"xla: largest relative difference from the CPU's losses: {difference:.1e}")
    assert difference < 1e-5


# The trained model is better than the baseline, bit-identical in a second run, and predicts the same on the CPU.


def test_the_loss_falls_and_the_model_is_better_than_the_baseline(on_xla: Path) -> None:
    losses = pd.read_csv(on_xla / "plots/train.csv")["loss"]
    assert len(losses) == EPOCHS * STEPS
    assert losses[-STEPS:].mean() < losses[:STEPS].mean() / 2
    metrics = read(on_xla / "metrics/evaluate.json")
    assert metrics["accuracy"] > metrics["baseline"]["accuracy"] + 0.2
    assert metrics["constant_prediction"] is False


def test_a_second_run_has_the_same_bits(on_xla: Path, four_buckets: Counted, run: Run) -> None:
    run(four_buckets.repo, "reprise", "evaluate", env=ON_XLA)
    assert results(four_buckets.repo) == results(on_xla)
    assert "predictions/test.parquet" in results(on_xla)


def test_the_model_predicts_the_same_in_the_cpu_environment(on_xla: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(on_xla, tmp_path / "repo", symlinks=True))
    shutil.rmtree(folder / "predictions")
    run(folder, "reprise", "evaluate")
    here, there = (pq.read_table(place / "predictions/test.parquet").to_pydict() for place in (folder, on_xla))
    for column in ("id", "text", "label", "prediction"):
        assert here[column] == there[column]
    np.testing.assert_allclose(here["probabilities"], there["probabilities"], rtol=0, atol=1e-4)


@pytest.mark.full
def test_the_exported_model_predicts_the_same_as_evaluate_on_xla(on_xla: Path, tmp_path: Path, run: Run) -> None:
    run(on_xla, "reprise", "export", str(tmp_path / "model"), env=ON_XLA)
    rows = pq.read_table(on_xla / "predictions/test.parquet").to_pydict()
    predicted = pipeline("text-classification", model=str(tmp_path / "model"), device="cpu")(
        rows["text"], truncation=True, max_length=16
    )
    assert [one["label"] for one in predicted] == rows["prediction"]
    best = [max(probabilities) for probabilities in rows["probabilities"]]
    assert [one["score"] for one in predicted] == pytest.approx(best, abs=1e-4)


def test_a_run_killed_before_the_last_step_of_an_epoch_resumes_bit_identically(
    on_xla: Path, prepare: Prepare, run: Run
) -> None:
    folder = prepare(**{"run.save_steps": STEPS - 1})
    with Running(folder, "reprise", "train", env=ON_XLA) as training:
        training.until(lambda: checkpoints(folder))
        training.kill(training.groups())
    assert position(checkpoints(folder)[-1]) == (STEPS - 1, 0)
    assert not (folder / "models/final").exists()
    output = run(folder, "reprise", "train", env=ON_XLA).stdout
    assert trained(folder) == trained(on_xla)
    assert first_steps(folder) == [0, STEPS - 1]
    assert f"train: resuming from step {STEPS - 1}/{EPOCHS * STEPS}, from checkpoints/" in output


def test_dropout_masks_equal_those_of_the_cpu_and_other_draws_depend_on_the_seed(repo: Path, run: Run) -> None:
    masks, drawn = map(json.loads, run(repo, "python", "-c", DROPOUT, env=PROGRAM).stdout.splitlines())
    assert masks == [True, pytest.approx(0.9, abs=0.02)]
    first, other, again = drawn
    assert first == again
    assert not set(first) & set(other)


# Every shape is compiled once, and no step reads a value back.


def test_more_epochs_compile_nothing_new_and_a_step_runs_one_program(four_buckets: Counted, count: Count) -> None:
    four_buckets.show("four buckets")
    assert four_buckets.speed["num_bucket_lengths"] == 4
    one_epoch = count(**{"train.epochs": 1})
    assert one_epoch.speed["compilations"] == four_buckets.speed["compilations"]
    for counted in (one_epoch, four_buckets):
        check_compilations(counted)
        check_steps(counted, len(counted.programs) * STEPS)


@pytest.mark.full
def test_a_step_runs_one_program_per_micro_batch_and_one_more(count: Count) -> None:
    counted = count(**MICRO_BATCHES)
    counted.show("micro-batches of 4")
    check_compilations(counted)
    micro_batches = (STEPS - 1) * 3 + 1  # 4 + 4 + 2 rows; the last step has 4
    check_steps(counted, EPOCHS * (micro_batches + STEPS))


def test_a_run_that_recompiles_fails_with_an_error_that_lists_the_shapes(prepare: Prepare, run: Run) -> None:
    folder = prepare(**ONE_BUCKET)
    rejected = run(folder, "python", "-c", RECOMPILE, env=PROGRAM, code=2)
    assert re.fullmatch(r"reprise: error: train: XLA compiled \d+ programs .*10 × 16.*\n", rejected.stderr)
    assert "train: epoch 1/3: validation" in rejected.stdout
    assert not (folder / "models/final").exists()
    assert not list(folder.rglob("*.partial"))


# Padding rows do not change the losses.


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="four"),
        pytest.param(ONE_BUCKET, id="one", marks=pytest.mark.full),
        pytest.param({**ONE_BUCKET, **MICRO_BATCHES}, id="micro", marks=pytest.mark.full),
    ],
)
def test_the_losses_equal_those_of_the_cpu(prepare: Prepare, on_the_cpu: Losses, run: Run, changes: Any) -> None:
    check_losses(train(prepare(**EXACT, **changes), run, env=ON_XLA), on_the_cpu)


@pytest.mark.full
def test_the_losses_of_a_regression_equal_those_of_the_cpu(prepare: Prepare, run: Run) -> None:
    number = {"task.label_column": "stars", "task.labels": [], "task.metrics": ["pearson"]}
    folder = prepare(**number, **ONE_BUCKET, **EXACT)
    raw = folder / "data/raw/all/reviews.csv"
    reviews = pd.read_csv(raw)
    reviews.assign(stars=(reviews["verdict"] == "fresh") * 1.0).to_csv(raw, index=False)
    run(folder, "reprise", "prepare")
    on_the_cpu = train(folder, run)
    check_losses(train(folder, run, env=ON_XLA), on_the_cpu)


@pytest.mark.full
def test_the_losses_of_any_number_of_labels_equal_those_of_the_cpu(prepare: Prepare, run: Run) -> None:
    labels = {"task.label_column": None, "task.labels": ["fresh", "rotten"], "task.positive_label": None}
    labels |= {"task.multi_label": {"separator": None, "thresholds": "tuned"}, "task.metrics": ["f1_micro"]}
    folder = prepare(**labels, **ONE_BUCKET, **EXACT)
    raw = folder / "data/raw/all/reviews.csv"
    reviews = pd.read_csv(raw)
    reviews.assign(**{name: (reviews["verdict"] == name) * 1 for name in ("fresh", "rotten")}).to_csv(raw, index=False)
    run(folder, "reprise", "prepare")
    on_the_cpu = train(folder, run)
    check_losses(train(folder, run, env=ON_XLA), on_the_cpu)


@pytest.mark.parametrize("prepare_kind", [prepare_words, pytest.param(prepare_windows, marks=pytest.mark.full)])
def test_the_losses_of_windows_and_of_words_equal_those_of_the_cpu(
    prepare: Prepare, run: Run, prepare_kind: Callable[[Path], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare(**ONE_BUCKET, **EXACT)
    monkeypatch.chdir(folder)
    changes = prepare_kind(folder) | {"train.bucket_lengths": [8], "train.epochs": 1}
    write_params(folder, **EXACT | changes)
    on_the_cpu = train(folder, run)
    check_losses(train(folder, run, env=ON_XLA), on_the_cpu, steps=len(on_the_cpu))


@pytest.mark.full
def test_the_losses_with_lora_equal_those_of_the_cpu(prepare: Prepare, run: Run) -> None:
    folder = prepare(**EXACT, **ONE_BUCKET, **{"train.lora": {"rank": 4, "alpha": 8, "targets": "all-linear"}})
    on_the_cpu = train(folder, run)
    check_losses(train(folder, run, env=ON_XLA), on_the_cpu)


@pytest.mark.full
def test_the_losses_of_a_model_trained_in_part_equal_those_of_the_cpu(prepare: Prepare, run: Run) -> None:
    partly = {"train.freeze": 1, "train.layer_decay": 0.8, "train.dropout": 0.2}
    folder = prepare(**EXACT, **ONE_BUCKET, **partly)
    on_the_cpu = train(folder, run)
    check_losses(train(folder, run, env=ON_XLA), on_the_cpu)


def test_bf16_computes_in_bf16(prepare: Prepare, on_the_cpu: Losses, run: Run) -> None:
    folder = prepare(**EXACT, **ONE_BUCKET, **{"train.precision": "bf16"})
    difference = np.abs(train(folder, run, env=ON_XLA) / on_the_cpu - 1).max()
    print(f"xla: largest relative difference of bf16 from the CPU's fp32 losses: {difference:.1e}")
    assert 1e-5 < difference < 0.1  # fp32 is below 1e-5


# Interruptions and launchers, with one bucket, which compiles in half the time.


@pytest.mark.full
def test_one_bucket_gives_one_length(one_bucket: Counted) -> None:
    one_bucket.show("one bucket")
    assert one_bucket.speed["num_bucket_lengths"] == 1
    check_compilations(one_bucket)
    check_steps(one_bucket, EPOCHS * STEPS)


@pytest.mark.full
def test_a_run_stopped_several_times_loses_no_step_and_is_bit_identical(
    one_bucket: Counted, prepare: Prepare, run: Run
) -> None:
    folder = prepare(**ONE_BUCKET, **{"run.save_steps": 2})
    assert run(folder, "python", "-c", STOPPING, env=PROGRAM, code=143).stderr == (
        "train: SIGTERM: finishing the step and writing a checkpoint\n"
        "reprise train: stopped after step 15/45; `dvc repro` resumes from there\n"
    )
    with Running(folder, "reprise", "train", env=ON_XLA) as training:
        training.until(lambda: position(checkpoints(folder)[-1])[0] > 2 * STEPS)  # in the last epoch
        training.send(signal.SIGINT)  # as Ctrl-C does
        training.end(130)
    (step,) = re.findall(r"reprise train: stopped after step (\d+)/45;", training.stderr)
    run(folder, "reprise", "train", env=ON_XLA)
    assert trained(folder) == trained(one_bucket.repo)
    assert first_steps(folder) == [0, STEPS, int(step)]


@pytest.mark.full
def test_a_full_disk_leaves_no_partial_output_and_the_run_resumes_with_free_space(
    one_bucket: Counted, prepare: Prepare, run: Run
) -> None:
    folder = prepare(**ONE_BUCKET, **{"run.save_steps": 10})
    (folder / "models/final").mkdir()
    (folder / "models/final/earlier").touch()
    # Two tmpfs, visible only to these commands: first too small for a checkpoint, then for the model.
    script = """
        left() { find checkpoints models -name '.*' -o -name 'step-*' -prune -o -path 'models/final/*'; }
        mkdir -p checkpoints kept && mount -t tmpfs -o size=64k tmpfs checkpoints
        cp -a models/. kept && mount -t tmpfs -o size=160k tmpfs models && cp -a kept/. models
        reprise train || left > no-checkpoint
        mount -o remount,size=64m checkpoints
        reprise train || left > no-model
        mount -o remount,size=64m models
        reprise train && cp -a models/final kept/made
    """
    run(folder, "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script, env=ON_XLA)
    left = [[Path(line).name for line in (folder / name).read_text().split()] for name in ("no-checkpoint", "no-model")]
    assert left == [["earlier"], ["step-0000010-epochs-000", "earlier"]]
    shutil.rmtree(folder / "models/final")
    shutil.move(folder / "kept/made", folder / "models/final")
    assert trained(folder) == trained(one_bucket.repo)
    assert first_steps(folder) == [0, 10]


def test_two_processes_are_rejected_if_one_starts_and_earlier_results_stay(
    one_bucket: Counted, tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(one_bucket.repo, tmp_path / "repo", symlinks=True))
    profile = folder / "docker/tpu/accelerate.yaml"
    profile.write_text(profile.read_text().replace("num_processes: 1", "num_processes: 2"))
    rejected = run(folder, "reprise", "train", env=ON_XLA, code=2)
    assert rejected.stderr == "reprise: error: train: 1 process(es) started; expected 2\n"
    assert results(folder) == results(one_bucket.repo)
    assert not list(folder.rglob("*.partial"))


@pytest.mark.full
def test_accelerate_launch_trains_to_the_same_bits(one_bucket: Counted, prepare: Prepare, run: Run) -> None:
    folder = prepare(**ONE_BUCKET)
    launch = ("accelerate", "launch", "--tpu", "--config_file", "docker/tpu/accelerate.yaml")
    output = run(folder, *launch, "--module", "reprise.train.worker", env=PROGRAM | {"REPRISE_WORLD_SIZE": "1"}).stdout
    assert trained(folder) == trained(one_bucket.repo)
    assert "train: tiny on 144 examples, xla:0, fp32, processes: 1, threads: 1\n" in output
