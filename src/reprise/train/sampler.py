"""The sample order: pure functions of the seed, the epoch and the lengths of the examples.

A step is what the optimizer sees: `batch_size` examples. A micro-batch is what one forward pass sees. Ranks and
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

# Steps whose examples are sorted by length together. Larger windows pad less and mix less; at 50 steps of 32 examples,
# padding is a few percent.
SORT_WINDOW_STEPS = 50
# Shards whose examples are shuffled together. Few, because their files should fit into memory.
SHUFFLE_SHARDS = 4

Rows = npt.NDArray[np.int64]  # one number per example


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step: its micro-batches, each a list of example indices."""

    micro_batches: list[list[int]]

    @property
    def num_examples(self) -> int:
        """Examples of the step."""
        return sum(len(micro_batch) for micro_batch in self.micro_batches)

    def rows_of_micro_batch(self, micro_batch: int) -> list[int]:
        """Return a micro-batch; beyond the last one, one dummy row with loss scale 0."""
        return self.micro_batches[micro_batch] if micro_batch < len(self.micro_batches) else self.micro_batches[0][:1]


@dataclass(frozen=True)
class EpochPlan(Sequence[StepPlan]):
    """The steps of an epoch. A chunk of them is planned when one of its steps is requested."""

    indices: range
    steps_per_chunk: int
    plan: Callable[[int], list[Rows]]  # from a chunk's index to its steps
    micro_batch_size: int

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> StepPlan: ...
    @overload
    def __getitem__(self, index: slice) -> "EpochPlan": ...
    def __getitem__(self, index: int | slice) -> "StepPlan | EpochPlan":
        """Plan a step, or return the plan of a slice."""
        if isinstance(index, slice):
            return replace(self, indices=self.indices[index])
        chunk, offset = divmod(self.indices[index], self.steps_per_chunk)
        rows, size = self.plan(chunk)[offset], self.micro_batch_size
        return StepPlan([rows[start : start + size].tolist() for start in range(0, len(rows), size)])


def plan_epoch(
    lengths: Rows, *, seed: int, epoch: int, batch_size: int, micro_batch_size: int, shard: int = SHARD_ROWS
) -> EpochPlan:
    """Arrange all examples into steps of similar lengths, as a pure function of the arguments.

    Every example occurs exactly once; the step with the remainder is smaller. An epoch is divided into chunks of the
    steps that SHUFFLE_SHARDS shards fill. A chunk is planned independently of earlier ones; see `plan_chunk`.

    Args:
        lengths: tokens of each example, shape [examples].
        seed: the recipe's.
        epoch: counted from 0.
        batch_size: examples per step.
        micro_batch_size: examples per forward pass, at most `batch_size`.
        shard: examples per shard; the last one has the remainder.
    """
    steps_per_chunk = max(SHUFFLE_SHARDS * shard // batch_size, 1)
    plan = partial(
        plan_chunk, lengths, seed=seed, epoch=epoch, batch_size=batch_size, steps=steps_per_chunk, shard=shard
    )
    # Two chunks, because batches are loaded ahead of their steps.
    return EpochPlan(
        range(-(-len(lengths) // batch_size)), steps_per_chunk, lru_cache(maxsize=2)(plan), micro_batch_size
    )


def plan_chunk(
    lengths: Rows, chunk: int, *, seed: int, epoch: int, batch_size: int, steps: int, shard: int
) -> list[Rows]:
    """Plan the steps of one chunk of an epoch.

    The shards are shuffled, and consecutive examples of theirs make a chunk. Its examples are shuffled, each window of
    SORT_WINDOW_STEPS steps is sorted by length and cut into steps, and the steps are shuffled.

    Args:
        lengths: tokens of each example, shape [examples].
        chunk: counted from 0.
        seed: the recipe's.
        epoch: counted from 0.
        batch_size: examples per step.
        steps: steps per chunk; the last chunk has the remainder.
        shard: examples per shard.

    Returns:
        The example indices of each step.
    """
    rows = _rows_between(chunk * steps * batch_size, (chunk + 1) * steps * batch_size, len(lengths), shard, seed, epoch)
    # NumPy pads seeds with zeros: [seed, epoch, 0] equals [seed, epoch].
    random = np.random.default_rng([seed, epoch, chunk])
    shuffled = rows[random.permutation(len(rows))]
    cut = []
    for window in range(0, len(shuffled), SORT_WINDOW_STEPS * batch_size):
        rows = shuffled[window : window + SORT_WINDOW_STEPS * batch_size]
        by_length = rows[np.argsort(lengths[rows], kind="stable")]
        cut += [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [cut[index] for index in random.permutation(len(cut))]


def _rows_between(start: int, stop: int, rows: int, shard: int, seed: int, epoch: int) -> Rows:
    """Return the indices of examples `start` to `stop` in the epoch's shuffled order of shards."""
    random = np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(0,)))
    starts = random.permutation(-(-rows // shard)) * shard
    sizes = np.minimum(shard, rows - starts)
    before = np.cumsum(sizes) - sizes
    low, high = starts + np.clip(start - before, 0, sizes), starts + np.clip(stop - before, 0, sizes)
    return np.concatenate([np.arange(*ends) for ends in zip(low, high, strict=True)])


def order_digest(steps: Iterable[StepPlan]) -> str:
    """Return the SHA-256 of an epoch's sample order: the example indices as little-endian int64."""
    digest = hashlib.sha256()
    for step in steps:
        for rows in step.micro_batches:
            digest.update(np.asarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()


def plan_recipe_epoch(recipe: Recipe, lengths: Rows, epoch: int, world_size: int = 1) -> EpochPlan:
    """Plan an epoch of the recipe, up to `train.max_steps`.

    Args:
        recipe: gives the batch sizes and the seed.
        lengths: tokens of each example, shape [examples].
        epoch: counted from 0.
        world_size: ranks that split a step.
    """
    train = recipe.train
    micro_batch_size = resolve_micro_batch_size(train, world_size)
    steps = plan_epoch(
        lengths, seed=recipe.seed, epoch=epoch, batch_size=train.batch_size, micro_batch_size=micro_batch_size
    )
    total = total_steps(len(lengths), batch_size=train.batch_size, epochs=train.epochs, max_steps=train.max_steps)
    return steps[: max(total - epoch * len(steps), 0)]


def total_steps(rows: int, *, batch_size: int, epochs: int, max_steps: int | None) -> int:
    """Return the optimizer steps of a complete run over `rows` examples."""
    steps = epochs * -(-rows // batch_size)
    return min(steps, max_steps) if max_steps else steps


def resolve_micro_batch_size(train: Train, world_size: int) -> int:
    """Return the recipe's micro-batch size, or by default a rank's part of a step."""
    return train.micro_batch_size or -(-train.batch_size // world_size)


def gradient_accumulation_steps(train: Train, world_size: int) -> int:
    """Return the micro-batches of a full step per rank; a smaller last step may have fewer."""
    return math.ceil(math.ceil(train.batch_size / resolve_micro_batch_size(train, world_size)) / world_size)


def iter_micro_batches(steps: Iterable[StepPlan], world_size: int = 1, micro_steps: int = 0) -> Iterator[list[int]]:
    """Iterate over all micro-batches in the order that assigns them to the ranks in turn.

    Every rank takes part in every step. So a step is filled with dummy rows until each rank has the same number of
    micro-batches, at least `micro_steps`; their loss scale is 0.
    """
    for step in steps:
        count = len(step.micro_batches)
        fill = max(micro_steps * world_size - count, -count % world_size)
        for micro_batch in range(count + fill):
            yield step.rows_of_micro_batch(micro_batch)


def loss_scale(step: StepPlan, micro_batch: int, weights: npt.NDArray[np.float64] | None = None) -> float:
    """Return the factor of a micro-batch's summed loss: 1 / the weight of its whole step; 0 for a dummy.

    Args:
        step: the step of the micro-batch.
        micro_batch: its index in the step.
        weights: the weight of each example's loss, shape [examples]; None if every example weighs 1.
    """
    if micro_batch >= len(step.micro_batches):
        return 0.0
    if weights is None:
        return 1 / step.num_examples
    return 1 / math.fsum(weights[row] for rows in step.micro_batches for row in rows)  # exact in any order


def micro_batch_seed(seed: int, epoch: int, step: int, micro_batch: int) -> int:
    """Return the seed of a micro-batch's random draws: 63 bits, by NumPy's SeedSequence.

    Dropout does not use it, see dropout.py.
    """
    (state,) = np.random.SeedSequence([seed, epoch, step, micro_batch]).generate_state(1, np.uint64)
    return int(state >> np.uint64(1))
