"""The figures of a run, counted and fetched: how much is padding, and which loss and norm belong to which step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from numpy.typing import NDArray

from reprise.core.validation import check_recipe
from reprise.data.tokenization import load_tokenizer
from reprise.modeling.bucketing import Buckets
from reprise.modeling.collator import Collator
from reprise.tasks.registry import task_kind
from reprise.train.history import FLUSH_EVERY_STEPS, HISTORY_COLUMNS, TrainingHistory
from reprise.train.sampler import StepPlan, order_digest
from reprise.train.trackers import Trackers
from tiny import tiny_recipe

LENGTHS = np.array([3, 5, 9, 4, 7, 2])
STEPS = [StepPlan([[0, 1], [2, 3]]), StepPlan([[4, 5]])]


def record(
    tiny_model: Path, folder: Path, buckets: Buckets | None = None, lengths: NDArray[np.int64] = LENGTHS
) -> TrainingHistory:
    """The record of a run over texts of these lengths: 4 rows a step, 2 a micro-batch."""
    recipe = check_recipe(tiny_recipe(**{"train.batch_size": 4, "train.micro_batch_size": 2}), "recipe")
    collate = Collator(load_tokenizer(tiny_model), task_kind(["rotten", "fresh"]), buckets)
    session = {"started": "2025-01-31T12:00:00+00:00"}
    trackers = Trackers(recipe, "run", first=True)
    return TrainingHistory(
        PartialState(cpu=True), recipe.train, "accuracy", lengths, folder, session, collate, trackers
    )


def losses(record: TrainingHistory) -> list[float]:
    """The losses so far."""
    named = dict(zip(HISTORY_COLUMNS, record.history.T.tolist(), strict=True))
    found: list[float] = named["loss"]
    return found


def take(record: TrainingHistory, steps: list[StepPlan]) -> None:
    """Take up an epoch of these steps; the n-th has the loss n and the norm 10 n."""
    record.start_epoch(0, steps)
    for number, step in enumerate(steps, start=1):
        record.log_device(torch.tensor(float(number)), torch.tensor(10.0 * number))
        record.log_step(0, step, learning_rate=0.5)


@pytest.mark.parametrize(
    ("buckets", "padded"),
    [
        (None, 2 * 5 + 2 * 9 + 2 * 7),
        ((16,), 3 * 2 * 16),
        ((6, 9), 2 * 6 + 2 * 9 + 2 * 9),
    ],
)
def test_a_batch_counts_as_long_as_its_longest_row_or_as_its_bucket(
    tiny_model: Path, tmp_path: Path, buckets: Buckets | None, padded: int
) -> None:
    kept = record(tiny_model, tmp_path, buckets)
    take(kept, STEPS)
    assert (kept.rows, kept.tokens, kept.padded_tokens) == (6, 30, padded)


@pytest.mark.parametrize(("buckets", "padded"), [(None, 5), ((6, 9), 2 * 6)])
def test_rows_that_only_fill_a_batch_up_count_as_padding(
    tiny_model: Path, tmp_path: Path, buckets: Buckets | None, padded: int
) -> None:
    kept = record(tiny_model, tmp_path, buckets)
    take(kept, [StepPlan([[1]])])
    assert (kept.rows, kept.tokens, kept.padded_tokens) == (1, 5, padded)


@pytest.mark.parametrize(
    "steps", [1, FLUSH_EVERY_STEPS - 1, FLUSH_EVERY_STEPS, FLUSH_EVERY_STEPS + 1, 3 * FLUSH_EVERY_STEPS + 2]
)
def test_every_step_has_its_own_loss_and_norm_however_many_are_fetched_together(
    tiny_model: Path, tmp_path: Path, steps: int
) -> None:
    kept = record(tiny_model, tmp_path, lengths=np.full(4 * steps, 3))
    take(kept, [StepPlan([[0]])] * steps)
    assert kept.history.tolist() == [[0.5, float(number), 10.0 * number] for number in range(1, steps + 1)]


def test_a_fetch_in_between_takes_what_waits_and_no_step_twice(tiny_model: Path, tmp_path: Path) -> None:
    kept = record(tiny_model, tmp_path, lengths=np.full(4 * 8, 3))
    kept.start_epoch(0, STEPS * 4)
    for number in range(1, 9):
        kept.log_device(torch.tensor(float(number)), torch.tensor(1.0))
        kept.log_step(0, STEPS[0], learning_rate=0.5)
        if number in (3, 4):  # as a checkpoint does
            kept.flush()
            kept.flush()
            assert losses(kept) == list(range(1, number + 1))
    assert losses(kept) == list(range(1, 9))


def test_the_order_of_an_epoch_is_told_when_all_of_its_steps_are_taken(tiny_model: Path, tmp_path: Path) -> None:
    kept = record(tiny_model, tmp_path)
    kept.start_epoch(0, STEPS)
    for step in STEPS:
        assert kept.order_digests == []
        kept.log_device(torch.tensor(1.0), torch.tensor(1.0))
        kept.log_step(0, step, learning_rate=0.5)
    assert kept.order_digests == [order_digest([StepPlan([[0, 1, 2, 3, 4, 5]])])]


def test_what_is_restored_goes_on_in_its_epoch_with_the_curve_it_had(tiny_model: Path, tmp_path: Path) -> None:
    kept, other = record(tiny_model, tmp_path), record(tiny_model, tmp_path)
    take(kept, STEPS)
    kept.start_epoch(1, STEPS)
    kept.log_device(torch.tensor(3.0), torch.tensor(30.0))
    kept.log_step(1, STEPS[0], learning_rate=0.25)
    kept.flush()
    other.restore(kept.state())
    assert other.start_epoch(1, STEPS) == 1
    assert other.history.tolist() == [[0.5, 1.0, 10.0], [0.5, 2.0, 20.0], [0.25, 3.0, 30.0]]
    assert record(tiny_model, tmp_path).start_epoch(0, STEPS) == 0
