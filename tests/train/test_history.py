"""The history of a run: tokens are counted, and each step has its own loss, gradient norm and place in the epoch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray

from reprise.core.validation import check_recipe
from reprise.data.tokenization import load_tokenizer
from reprise.modeling.bucketing import Buckets
from reprise.modeling.collator import Collator
from reprise.tasks.registry import task_kind
from reprise.train.device_metrics import FLUSH_EVERY_STEPS
from reprise.train.history import HISTORY_COLUMNS, TrainingHistory, epochs_without_gain
from reprise.train.recorder import Recorder
from reprise.train.sampler import StepPlan, order_digest
from reprise.train.throughput import count_tokens
from reprise.train.trackers import Trackers
from tiny import tiny_recipe

LENGTHS = np.array([3, 5, 9, 4, 7, 2])
STEPS = [StepPlan([[0, 1], [2, 3]]), StepPlan([[4, 5]])]


def make_recorder(
    tiny_model: Path, folder: Path, lengths: NDArray[np.int64] = LENGTHS, buckets: Buckets | None = None
) -> Recorder:
    """A recorder over texts of these lengths: 4 examples per step, 2 per micro-batch."""
    recipe = check_recipe(tiny_recipe(**{"train.batch_size": 4, "train.micro_batch_size": 2}), "recipe")
    collate = Collator(load_tokenizer(tiny_model), task_kind(["rotten", "fresh"]), buckets)
    trackers = Trackers(recipe, "run", is_main_process=True)
    session = {"started": "2025-01-31T12:00:00+00:00"}
    validation, references = Dataset.from_dict({"length": [3]}), np.array([1])
    return Recorder(recipe, PartialState(cpu=True), lengths, validation, references, collate, trackers, folder, session)


def losses(recorder: Recorder) -> list[float]:
    """The losses so far."""
    named = dict(zip(HISTORY_COLUMNS, recorder.history.curve.T.tolist(), strict=True))
    found: list[float] = named["loss"]
    return found


def log_steps(recorder: Recorder, steps: list[StepPlan]) -> None:
    """Record the first epoch; its n-th step has the loss n and the gradient norm 10 n."""
    recorder.start_epoch(0, steps)
    for number, step in enumerate(steps, start=1):
        recorder.log_device(torch.tensor(float(number)), torch.tensor(10.0 * number))
        recorder.log_step(step, learning_rate=0.5)


@pytest.mark.parametrize(
    ("scores", "min_delta", "waited"),
    [
        ([], 0.0, 0),
        ([0.5], 0.0, 0),
        ([0.5, 0.5], 0.0, 1),  # equal is not better
        ([0.5, 0.4, 0.6], 0.0, 0),
        ([0.5, 0.7, 0.6, 0.65], 0.0, 2),
        ([0.50, 0.54, 0.58, 0.62], 0.1, 0),  # gains add up until they are one
        ([0.50, 0.54, 0.58], 0.1, 2),
        ([-0.3, -0.2, -0.25], 0.0, 1),  # an error, with its sign reversed
    ],
)
def test_epochs_without_gain_are_counted_from_the_last_gain(scores: list[float], min_delta: float, waited: int) -> None:
    assert epochs_without_gain(scores, min_delta) == waited


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [
        ("accuracy", [0.7, 0.9, 0.8], 1),
        ("rmse", [0.7, 0.9, 0.6], 2),
        ("mae", [3.0, 3.0, 4.0], 0),
        ("r2", [-1, -2, 0], 2),
    ],
)
def test_the_best_epoch_has_the_lowest_error_or_the_highest_score(metric: str, scores: list[float], best: int) -> None:
    for keep, kept in (("best", best), ("last", 2)):
        history = TrainingHistory(3, 4, 4, metric, keep, {})  # type: ignore[arg-type]
        for epoch, score in enumerate(scores):
            history.log_step(0.1)
            history.log_metrics([[1.0, 1.0]])
            history.log_epoch(epoch, {metric: score}, "")
        assert history.best_epoch == kept


@pytest.mark.parametrize(
    ("buckets", "padded"),
    [
        (None, 2 * 5 + 2 * 9 + 2 * 7),
        ((16,), 3 * 2 * 16),
        ((6, 9), 2 * 6 + 2 * 9 + 2 * 9),
    ],
)
def test_a_batch_is_as_long_as_its_longest_example_or_its_bucket(
    tiny_model: Path, tmp_path: Path, buckets: Buckets | None, padded: int
) -> None:
    recorder = make_recorder(tiny_model, tmp_path, buckets=buckets)
    log_steps(recorder, STEPS)
    counted = recorder.throughput
    assert (counted.examples, counted.tokens, counted.padded_tokens) == (6, 30, padded)


@pytest.mark.parametrize(("buckets", "padded"), [(None, 5), ((6, 9), 2 * 6)])
def test_padding_rows_count_as_padding(buckets: Buckets | None, padded: int) -> None:
    assert count_tokens(StepPlan([[1]]), LENGTHS, buckets, micro_batch_size=2) == (5, padded)


@pytest.mark.parametrize(
    "steps", [1, FLUSH_EVERY_STEPS - 1, FLUSH_EVERY_STEPS, FLUSH_EVERY_STEPS + 1, 3 * FLUSH_EVERY_STEPS + 2]
)
def test_every_step_has_its_own_loss_and_gradient_norm_however_many_are_flushed_together(
    tiny_model: Path, tmp_path: Path, steps: int
) -> None:
    recorder = make_recorder(tiny_model, tmp_path, np.full(4 * steps, 3))
    log_steps(recorder, [StepPlan([[0]])] * steps)
    assert recorder.history.curve.tolist() == [[0.5, float(number), 10.0 * number] for number in range(1, steps + 1)]


def test_a_flush_in_between_reads_the_pending_steps_and_no_step_twice(tiny_model: Path, tmp_path: Path) -> None:
    recorder = make_recorder(tiny_model, tmp_path, np.full(4 * 8, 3))
    recorder.start_epoch(0, STEPS * 4)
    for number in range(1, 9):
        recorder.log_device(torch.tensor(float(number)), torch.tensor(1.0))
        recorder.log_step(STEPS[0], learning_rate=0.5)
        if number in (3, 4):  # as a checkpoint does
            recorder.flush()
            recorder.flush()
            assert losses(recorder) == list(range(1, number + 1))
    assert losses(recorder) == list(range(1, 9))


def test_the_sample_order_of_an_epoch_is_recorded_at_its_end(tiny_model: Path, tmp_path: Path) -> None:
    recorder = make_recorder(tiny_model, tmp_path)
    log_steps(recorder, STEPS)
    assert recorder.history.order_digests == []
    recorder.log_epoch(0, {"accuracy": 0.5})
    assert recorder.history.order_digests == [order_digest([StepPlan([[0, 1, 2, 3, 4, 5]])])]


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples(tiny_model: Path, tmp_path: Path) -> None:
    recorder = make_recorder(tiny_model, tmp_path)
    log_steps(recorder, STEPS)  # loss 1 over four examples, loss 2 over two
    recorder.log_epoch(0, {"accuracy": 0.5})
    assert recorder.history.epochs[0]["loss"] == pytest.approx((4 * 1 + 2 * 2) / 6)
    recorder.start_epoch(1, STEPS)
    recorder.log_device(torch.tensor(3.0), torch.tensor(1.0))
    recorder.log_step(STEPS[0], learning_rate=0.5)
    recorder.flush()
    recorder.log_epoch(1, {"accuracy": 0.5})  # `train.max_steps` can end an epoch early
    assert recorder.history.epochs[1]["loss"] == pytest.approx(3)


def test_the_clock_of_the_speed_runs_during_the_steps_only(tiny_model: Path, tmp_path: Path) -> None:
    recorder = make_recorder(tiny_model, tmp_path)
    log_steps(recorder, STEPS)
    seconds = recorder.throughput.elapsed
    assert 0 < seconds == recorder.throughput.elapsed == recorder.throughput.seconds == recorder.state()["seconds"]
    assert recorder.start_epoch(0, STEPS) == 2  # resumed before its validation: no step is left
    assert recorder.throughput.elapsed == seconds
    recorder.log_epoch(0, {"accuracy": 0.5})
    recorder.start_epoch(1, STEPS)
    assert recorder.throughput.elapsed > seconds


def test_a_restored_run_resumes_in_its_epoch_with_its_curve(tiny_model: Path, tmp_path: Path) -> None:
    recorder, restored = make_recorder(tiny_model, tmp_path), make_recorder(tiny_model, tmp_path)
    log_steps(recorder, STEPS)
    recorder.log_epoch(0, {"accuracy": 0.5})
    recorder.start_epoch(1, STEPS)
    recorder.log_device(torch.tensor(3.0), torch.tensor(30.0))
    recorder.log_step(STEPS[0], learning_rate=0.25)
    recorder.flush()
    restored.restore(recorder.state())
    assert restored.start_epoch(1, STEPS) == 1
    assert restored.history.steps_left == 1
    assert restored.history.curve.tolist() == [[0.5, 1.0, 10.0], [0.5, 2.0, 20.0], [0.25, 3.0, 30.0]]
    assert [session["from_step"] for session in restored.history.sessions] == [0, 3]
    assert restored.throughput.state().keys() == recorder.throughput.state().keys()
    assert make_recorder(tiny_model, tmp_path).start_epoch(0, STEPS) == 0
