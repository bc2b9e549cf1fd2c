"""Which rows make which step: pure functions of the seed, the epoch and the lengths of the texts.

A step is what the optimizer sees: `batch_size` rows. A micro-batch is what one forward pass sees. Processes and
micro-batches only split a step, so they change the speed and not the mathematics.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import overload

import numpy as np
import numpy.typing as npt

from reprise.core.config import Recipe, Train
from reprise.data.format import SHARD_ROWS

# Steps whose rows are sorted by length together. Larger windows pad less and mix the rows less; at 50 steps of 32 rows
# the padding is down to a few percent.
SORT_WINDOW_STEPS = 50
# Shards whose rows are shuffled together. Few, as their files should fit into memory: rows are read across them.
SHUFFLE_SHARDS = 4

Rows = npt.NDArray[np.int64]  # a number for each row


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step: its micro-batches, each the numbers of its rows."""

    micro_batches: list[list[int]]

    @property
    def num_examples(self) -> int:
        return sum(len(micro_batch) for micro_batch in self.micro_batches)

    def rows_of_micro_batch(self, micro_batch: int) -> list[int]:
        """The rows of a micro-batch; a single one where it only fills the step up: `weight` counts it for nothing."""
        return self.micro_batches[micro_batch] if micro_batch < len(self.micro_batches) else self.micro_batches[0][:1]


@dataclass(frozen=True)
class EpochPlan(Sequence[StepPlan]):
    """Steps of an epoch by their numbers. A part of the epoch is planned when a step of it is asked for."""

    numbers: range
    steps_per_chunk: int
    plan: Callable[[int], list[Rows]]  # from a part's number to its steps
    micro_batch_size: int

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, number: int) -> StepPlan: ...
    @overload
    def __getitem__(self, number: slice) -> "EpochPlan": ...
    def __getitem__(self, number: int | slice) -> "StepPlan | EpochPlan":
        if isinstance(number, slice):
            return replace(self, numbers=self.numbers[number])
        part, place = divmod(self.numbers[number], self.steps_per_chunk)
        rows, size = self.plan(part)[place], self.micro_batch_size
        return StepPlan([rows[start : start + size].tolist() for start in range(0, len(rows), size)])


def plan_epoch(
    lengths: Rows, *, seed: int, epoch: int, batch_size: int, micro_batch_size: int, shard: int = SHARD_ROWS
) -> EpochPlan:
    """Deal all rows into steps of similar lengths, in an order that depends on nothing but the arguments.

    Every row comes exactly once; the step that holds the remainder is smaller. An epoch comes in parts of as many whole
    steps as SHARDS_MIXED shards fill, and a part can be planned without those before it; see `plan_chunk`.

    Args:
        lengths: tokens of each row, shape [rows].
        seed: the recipe's.
        epoch: counted from 0.
        batch_size: rows of a step.
        micro_batch_size: rows of a forward pass, at most `batch_size`.
        shard: rows of each shard, the last has what is left.
    """
    in_a_part = max(SHUFFLE_SHARDS * shard // batch_size, 1)
    plan = partial(plan_chunk, lengths, seed=seed, epoch=epoch, batch_size=batch_size, steps=in_a_part, shard=shard)
    # Two, since batches are loaded ahead of the steps that take them.
    return EpochPlan(range(-(-len(lengths) // batch_size)), in_a_part, lru_cache(maxsize=2)(plan), micro_batch_size)


def plan_chunk(
    lengths: Rows, part: int, *, seed: int, epoch: int, batch_size: int, steps: int, shard: int
) -> list[Rows]:
    """The steps of one part of an epoch, each the numbers of its rows.

    The shards are shuffled, and a part is so many steps' rows of them, one shard after the other. These rows are
    shuffled, each window of WINDOW steps is sorted by length and cut into steps, and the steps are shuffled.

    Args:
        lengths, seed, epoch, batch_size, shard: as for `plan_epoch`.
        part: counted from 0.
        steps: of a part; the last one has what is left.
    """
    rows = _rows_between(part * steps * batch_size, (part + 1) * steps * batch_size, len(lengths), shard, seed, epoch)
    # NumPy fills up with zeros: [seed, epoch, 0] is what [seed, epoch] is.
    random = np.random.default_rng([seed, epoch, part])
    shuffled = rows[random.permutation(len(rows))]
    cut = []
    for window in range(0, len(shuffled), SORT_WINDOW_STEPS * batch_size):
        rows = shuffled[window : window + SORT_WINDOW_STEPS * batch_size]
        by_length = rows[np.argsort(lengths[rows], kind="stable")]
        cut += [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [cut[number] for number in random.permutation(len(cut))]


def _rows_between(first: int, last: int, rows: int, shard: int, seed: int, epoch: int) -> Rows:
    """The numbers of the rows from one place up to another, when the shards come in the shuffled order of an epoch."""
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(0,)))
    starts = random.permutation(-(-rows // shard)) * shard
    sizes = np.minimum(shard, rows - starts)
    before = np.cumsum(sizes) - sizes
    low, high = starts + np.clip(first - before, 0, sizes), starts + np.clip(last - before, 0, sizes)
    return np.concatenate([np.arange(*ends) for ends in zip(low, high, strict=True)])


def order_digest(steps: Iterable[StepPlan]) -> str:
    """The SHA-256 of the order in which an epoch takes its rows: their numbers as little-endian int64, one by one."""
    digest = hashlib.sha256()
    for step in steps:
        for rows in step.micro_batches:
            digest.update(np.asarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()


def plan_recipe_epoch(recipe: Recipe, lengths: Rows, epoch: int, processes: int = 1) -> EpochPlan:
    """The steps of an epoch of the recipe: `plan_epoch`'s, as far as `train.max_steps` goes.

    Args:
        recipe: says how many rows make a step.
        lengths: tokens of each row, shape [rows].
        epoch: counted from 0.
        processes: that share a step.
    """
    train = recipe.train
    micro_batch_size = resolve_micro_batch_size(train, processes)
    steps = plan_epoch(
        lengths, seed=recipe.seed, epoch=epoch, batch_size=train.batch_size, micro_batch_size=micro_batch_size
    )
    in_all = total_steps(len(lengths), batch_size=train.batch_size, epochs=train.epochs, max_steps=train.max_steps)
    return steps[: max(in_all - epoch * len(steps), 0)]


def total_steps(rows: int, *, batch_size: int, epochs: int, max_steps: int | None) -> int:
    """The optimizer steps of a whole run."""
    steps = epochs * -(-rows // batch_size)
    return min(steps, max_steps) if max_steps else steps


def resolve_micro_batch_size(train: Train, processes: int) -> int:
    """The rows of a micro-batch: as the recipe says, or a process's share of a step."""
    return train.micro_batch_size or -(-train.batch_size // processes)


def gradient_accumulation_steps(train: Train, processes: int) -> int:
    """How many micro-batches of a step each process takes; of the smaller last one fewer may do."""
    return math.ceil(math.ceil(train.batch_size / resolve_micro_batch_size(train, processes)) / processes)


def iter_micro_batches(steps: Iterable[StepPlan], processes: int = 1, turns: int = 0) -> Iterator[list[int]]:
    """All micro-batches in the order in which they go round the processes: the first to process 0, the next to 1, …

    A step whose micro-batches do not go round evenly, or not as many times as `turns` says, is filled up with single
    rows, so that every process takes part in every step; `weight` counts them for nothing.
    """
    for step in steps:
        count = len(step.micro_batches)
        fill = max(turns * processes - count, -count % processes)
        for micro_batch in range(count + fill):
            yield step.rows_of_micro_batch(micro_batch)


def loss_scale(step: StepPlan, micro_batch: int) -> float:
    """What the summed loss of a micro-batch counts: 1 / rows of its step, or 0 where it only fills the step up."""
    return 1 / step.num_examples if micro_batch < len(step.micro_batches) else 0.0


def micro_batch_seed(seed: int, epoch: int, step: int, micro_batch: int) -> int:
    """The seed of what a model draws within one micro-batch: 63 bits, by NumPy's SeedSequence.

    Dropout is no part of it, see dropout.py.
    """
    (state,) = np.random.SeedSequence([seed, epoch, step, micro_batch]).generate_state(1, np.uint64)
    return int(state >> np.uint64(1))
