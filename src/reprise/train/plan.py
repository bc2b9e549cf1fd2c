"""Which rows make which step: pure functions of the seed, the epoch and the lengths of the texts.

A step is what the optimizer sees: `batch_size` rows. A micro-batch is what one forward pass sees. Processes and
micro-batches only split a step, so they change the speed and not the mathematics.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reprise.recipe import Recipe, Train

# Steps whose rows are sorted by length together. Larger windows pad less and mix the rows less; at 50 steps of 32 rows
# the padding is down to a few percent.
WINDOW = 50


@dataclass(frozen=True)
class Step:
    """One optimizer step: its micro-batches, each the numbers of its rows."""

    micro_batches: list[list[int]]

    @property
    def rows(self) -> int:
        return sum(len(micro_batch) for micro_batch in self.micro_batches)

    def of(self, micro_batch: int) -> list[int]:
        """The rows of a micro-batch; a single one where it only fills the step up: `weight` counts it for nothing."""
        return self.micro_batches[micro_batch] if micro_batch < len(self.micro_batches) else self.micro_batches[0][:1]


def plan_epoch(
    lengths: npt.NDArray[np.int64], *, seed: int, epoch: int, batch_size: int, micro_batch_size: int
) -> list[Step]:
    """Deal all rows into steps of similar lengths, in an order that depends on nothing but the arguments.

    The rows are shuffled, each window of WINDOW steps is sorted by length and cut into steps, and the steps are
    shuffled. Every row comes exactly once; the step that holds the remainder is smaller.

    Args:
        lengths: tokens of each row, shape [rows].
        seed: the recipe's.
        epoch: counted from 0.
        batch_size: rows of a step.
        micro_batch_size: rows of a forward pass, at most `batch_size`.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    steps = []
    for window in range(0, len(shuffled), WINDOW * batch_size):
        rows = shuffled[window : window + WINDOW * batch_size]
        by_length = rows[np.argsort(lengths[rows], kind="stable")]
        steps += [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [
        Step([rows[start : start + micro_batch_size].tolist() for start in range(0, len(rows), micro_batch_size)])
        for rows in (steps[number] for number in random.permutation(len(steps)))
    ]


def order_digest(steps: list[Step]) -> str:
    """The SHA-256 of the order in which an epoch takes its rows: their numbers as little-endian int64, one by one."""
    rows = [row for step in steps for micro_batch in step.micro_batches for row in micro_batch]
    return hashlib.sha256(np.asarray(rows, dtype="<i8").tobytes()).hexdigest()


def steps_of_epoch(recipe: Recipe, lengths: npt.NDArray[np.int64], epoch: int, processes: int = 1) -> list[Step]:
    """The steps of an epoch of the recipe: `plan_epoch`'s, as far as `train.max_steps` goes.

    Args:
        recipe: says how many rows make a step.
        lengths: tokens of each row, shape [rows].
        epoch: counted from 0.
        processes: that share a step.
    """
    train = recipe.train
    micro_batch_size = micro_batch_rows(train, processes)
    steps = plan_epoch(
        lengths, seed=recipe.seed, epoch=epoch, batch_size=train.batch_size, micro_batch_size=micro_batch_size
    )
    in_all = steps_in_all(len(lengths), batch_size=train.batch_size, epochs=train.epochs, max_steps=train.max_steps)
    return steps[: max(in_all - epoch * len(steps), 0)]


def steps_in_all(rows: int, *, batch_size: int, epochs: int, max_steps: int | None) -> int:
    """The optimizer steps of a whole run."""
    steps = epochs * -(-rows // batch_size)
    return min(steps, max_steps) if max_steps else steps


def micro_batch_rows(train: Train, processes: int) -> int:
    """The rows of a micro-batch: as the recipe says, or a process's share of a step."""
    return train.micro_batch_size or -(-train.batch_size // processes)


def turns_of_step(train: Train, processes: int) -> int:
    """How many micro-batches of a step each process takes; of the smaller last one fewer may do."""
    return math.ceil(math.ceil(train.batch_size / micro_batch_rows(train, processes)) / processes)


def deal(steps: list[Step], processes: int = 1, turns: int = 0) -> list[list[int]]:
    """All micro-batches in the order in which they go round the processes: the first to process 0, the next to 1, …

    A step whose micro-batches do not go round evenly, or not as many times as `turns` says, is filled up with single
    rows, so that every process takes part in every step; `weight` counts them for nothing.
    """
    dealt = []
    for step in steps:
        count = len(step.micro_batches)
        fill = max(turns * processes - count, -count % processes)
        dealt += [step.of(micro_batch) for micro_batch in range(count + fill)]
    return dealt


def weight(step: Step, micro_batch: int) -> float:
    """What the summed loss of a micro-batch counts: 1 / rows of its step, or 0 where it only fills the step up."""
    return 1 / step.rows if micro_batch < len(step.micro_batches) else 0.0


def random_seed(seed: int, epoch: int, step: int, micro_batch: int) -> int:
    """The seed of what a model draws within one micro-batch: 63 bits, by NumPy's SeedSequence.

    Dropout is no part of it, see dropout.py.
    """
    (state,) = np.random.SeedSequence([seed, epoch, step, micro_batch]).generate_state(1, np.uint64)
    return int(state >> np.uint64(1))
