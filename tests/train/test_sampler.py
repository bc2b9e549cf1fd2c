"""The plan of an epoch: every example once, steps independent of their split, and little padding."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.train import sampler
from reprise.train.sampler import (
    SHUFFLE_SHARDS,
    SORT_WINDOW_STEPS,
    StepPlan,
    iter_micro_batches,
    loss_scale,
    micro_batch_seed,
    order_digest,
    plan_epoch,
    total_steps,
)

Lengths = npt.NDArray[np.int64]


def random_lengths(rows: int) -> Lengths:
    """Lengths like those of texts: most short, some long, at most 128."""
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(3.3, 0.5, rows).astype(np.int64) + 2, 3, 128)


def plan(
    lengths: Lengths, *, seed: int = 0, epoch: int = 0, batch_size: int = 32, micro_batch_size: int = 32, **more: int
) -> list[StepPlan]:
    return list(
        plan_epoch(lengths, seed=seed, epoch=epoch, batch_size=batch_size, micro_batch_size=micro_batch_size, **more)
    )


def rows_of(step: StepPlan) -> list[int]:
    return [row for micro_batch in step.micro_batches for row in micro_batch]


def padding_fraction(batches: list[list[int]], lengths: Lengths) -> float:
    """The fraction of padding among all tokens of these batches."""
    seen = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1 - int(lengths.sum()) / seen


@given(st.lists(st.integers(3, 128), min_size=1, max_size=200), st.integers(1, 12), st.integers(1, 12))
def test_every_example_occurs_once_in_full_steps_and_one_remainder(
    lengths: list[int], batch_size: int, micro_batch_size: int
) -> None:
    steps = plan(np.array(lengths), batch_size=batch_size, micro_batch_size=min(micro_batch_size, batch_size))
    assert sorted(row for step in steps for row in rows_of(step)) == list(range(len(lengths)))
    full, rest = divmod(len(lengths), batch_size)
    assert sorted(step.num_examples for step in steps) == [*([rest] if rest else []), *[batch_size] * full]


@given(st.integers(1, 100), st.integers(1, 12), st.integers(1, 12))
def test_only_the_last_micro_batch_of_a_step_is_smaller(rows: int, batch_size: int, micro_batch_size: int) -> None:
    micro_batch_size = min(micro_batch_size, batch_size)
    for step in plan(random_lengths(rows), batch_size=batch_size, micro_batch_size=micro_batch_size):
        *full, last = map(len, step.micro_batches)
        assert set(full) <= {micro_batch_size}
        assert 1 <= last <= micro_batch_size


@pytest.mark.parametrize("micro_batch_size", [1, 5, 8, 31])
def test_examples_of_a_step_do_not_depend_on_the_micro_batches(micro_batch_size: int) -> None:
    lengths = random_lengths(500)
    split = plan(lengths, micro_batch_size=micro_batch_size)
    assert [rows_of(step) for step in split] == [rows_of(step) for step in plan(lengths)]
    assert [len(step.micro_batches) for step in split] == [-(-step.num_examples // micro_batch_size) for step in split]


def test_same_arguments_give_the_same_plan() -> None:
    lengths = random_lengths(500)
    before = lengths.copy()
    np.random.seed(1)  # noqa: NPY002 - the state that a careless implementation would draw from
    first = plan(lengths)
    np.random.seed(2)  # noqa: NPY002
    assert plan(lengths) == first
    assert lengths.tolist() == before.tolist()


def test_plan_has_known_values() -> None:
    steps = plan(np.array([5, 3, 9, 4, 7]), seed=1, batch_size=2, micro_batch_size=1)
    assert steps == [StepPlan([[0], [4]]), StepPlan([[1], [3]]), StepPlan([[2]])]


@pytest.mark.parametrize(
    ("rows", "arguments", "digest"),
    [
        (1, {}, "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"),
        (10_199, {"seed": 42}, "463b5434d4d5e6e1edc8ede97cdcff791f8b754afb66180252234f7f08e89e87"),
        (10_199, {"seed": 42, "epoch": 1}, "9e53d045002c5c827912f809be030e8581594d30a28cdeab365c5c3924d1ba2d"),
        (
            5_001,
            {"seed": 2**40, "epoch": 3, "batch_size": 48, "micro_batch_size": 7},
            "1517e3bcadc1ecd90d2c91d2e4a84971b0a0605f69ba5916c84d246a0784580b",
        ),
    ],
)
def test_order_within_one_shard_has_known_digests(rows: int, arguments: dict[str, int], digest: str) -> None:
    assert order_digest(plan(random_lengths(rows), **arguments)) == digest


@settings(deadline=None)
@given(st.integers(1, 2000), st.integers(1, 60), st.integers(10, 90))
def test_examples_of_many_shards_occur_once_in_full_steps_except_the_last_chunk(
    rows: int, batch_size: int, shard: int
) -> None:
    steps = plan(random_lengths(rows), batch_size=batch_size, micro_batch_size=batch_size, shard=shard)
    assert sorted(row for step in steps for row in rows_of(step)) == list(range(rows))
    *_, remainder = sorted((step.num_examples for step in steps), reverse=True)
    assert remainder == (rows % batch_size or batch_size)
    assert [step.num_examples for step in steps].count(batch_size) == rows // batch_size
    steps_per_chunk = max(SHUFFLE_SHARDS * shard // batch_size, 1)
    assert {step.num_examples for step in steps[: (len(steps) - 1) // steps_per_chunk * steps_per_chunk]} <= {
        batch_size
    }


def test_chunk_reads_few_shards_and_each_epoch_mixes_others() -> None:
    shard, batch_size, rows = 100, 48, 100 * 23 + 7
    chunks = {}
    for epoch in (0, 1):
        steps = plan(random_lengths(rows), epoch=epoch, batch_size=batch_size, shard=shard)
        steps_per_chunk = SHUFFLE_SHARDS * shard // batch_size
        chunks[epoch] = [
            {row // shard for step in steps[start : start + steps_per_chunk] for row in rows_of(step)}
            for start in range(0, len(steps), steps_per_chunk)
        ]
        assert len(chunks[epoch]) == 7
        # A chunk may begin within a shard, and may contain the smaller last shard.
        assert all(len(shards) <= SHUFFLE_SHARDS + 2 for shards in chunks[epoch])
        # They are mixed: the first steps already read most of them.
        first = {row // shard for step in steps[:3] for row in rows_of(step)}
        assert len(first) >= SHUFFLE_SHARDS
    assert chunks[0] != chunks[1]


def test_late_step_is_planned_without_earlier_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []

    def recording_plan(lengths: Lengths, chunk: int, **more: int) -> list[Lengths]:
        planned.append(chunk)
        return plan_chunk(lengths, chunk, **more)

    plan_chunk = sampler.plan_chunk
    monkeypatch.setattr(sampler, "plan_chunk", recording_plan)
    complete = plan(random_lengths(2000), batch_size=8, shard=50)
    assert planned == list(range(10))  # each once
    planned.clear()
    steps = plan_epoch(random_lengths(2000), seed=0, epoch=0, batch_size=8, micro_batch_size=32, shard=50)
    assert len(steps[230:]) == 20
    assert planned == []
    assert list(steps[230:]) == [*steps[-20:]] == complete[230:]
    assert planned == [9]
    assert steps[100] == complete[100]
    assert planned == [9, 4]


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epoch": 1}, {"seed": 1, "epoch": 1}])
def test_another_seed_or_epoch_gives_other_steps_in_another_order(changes: dict[str, int]) -> None:
    # More than one window, so that the examples of a step change too.
    lengths = random_lengths(SORT_WINDOW_STEPS * 8 * 3)
    one, other = plan(lengths, batch_size=8), plan(lengths, batch_size=8, **changes)
    same = {tuple(sorted(rows_of(step))) for step in one} & {tuple(sorted(rows_of(step))) for step in other}
    assert len(same) < 3
    assert [step.num_examples for step in one] == [step.num_examples for step in other]


def test_seed_and_epoch_are_independent() -> None:
    lengths = random_lengths(100)
    assert plan(lengths, seed=1, epoch=0) != plan(lengths, seed=0, epoch=1)


def test_grouping_by_length_reduces_padding() -> None:
    lengths = random_lengths(5000)
    grouped = [rows_of(step) for step in plan(lengths)]
    shuffled = np.random.default_rng(0).permutation(5000)
    assert padding_fraction(grouped, lengths) < 0.06
    assert padding_fraction([shuffled[start : start + 32].tolist() for start in range(0, 5000, 32)], lengths) > 0.5


def test_steps_are_not_sorted_by_length() -> None:
    lengths = random_lengths(SORT_WINDOW_STEPS * 32)
    means = [lengths[rows_of(step)].mean() for step in plan(lengths)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("rows", "epochs", "max_steps", "steps"),
    [(100, 1, None, 4), (96, 1, None, 3), (100, 3, None, 12), (100, 3, 5, 5), (100, 3, 50, 12), (1, 2, None, 2)],
)
def test_total_steps_count_all_epochs_up_to_max_steps(
    rows: int, epochs: int, max_steps: int | None, steps: int
) -> None:
    assert total_steps(rows, batch_size=32, epochs=epochs, max_steps=max_steps) == steps


def test_total_steps_equal_the_planned_steps() -> None:
    lengths = random_lengths(333)
    planned = sum(len(plan(lengths, epoch=epoch)) for epoch in range(3))
    assert total_steps(333, batch_size=32, epochs=3, max_steps=None) == planned == 33


@pytest.mark.parametrize(
    ("processes", "batches"),
    [
        (1, [[4, 5], [6, 7], [8], [1, 2]]),
        (2, [[4, 5], [6, 7], [8], [4], [1, 2], [1]]),
        (3, [[4, 5], [6, 7], [8], [1, 2], [1], [1]]),
    ],
)
def test_micro_batches_alternate_between_ranks_and_fill_each_step(processes: int, batches: list[list[int]]) -> None:
    assert list(iter_micro_batches([StepPlan([[4, 5], [6, 7], [8]]), StepPlan([[1, 2]])], processes)) == batches


@given(st.integers(1, 80), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_every_rank_takes_part_in_every_step_and_loss_scales_sum_to_one(
    rows: int, batch_size: int, micro_batch_size: int, processes: int
) -> None:
    steps = plan(random_lengths(rows), batch_size=batch_size, micro_batch_size=min(micro_batch_size, batch_size))
    batches = list(iter_micro_batches(steps, processes))
    assert len(batches) % processes == 0
    start = 0
    for step in steps:
        turns = -(-len(step.micro_batches) // processes)
        of_step = batches[start : start + turns * processes]
        start += turns * processes
        weights = [loss_scale(step, number) for number in range(len(of_step))]
        assert sum(w * len(batch) for w, batch in zip(weights, of_step, strict=True)) == pytest.approx(1)
        # Micro-batches of the step have a positive scale, each once; dummy rows have the scale 0.
        assert [batch for w, batch in zip(weights, of_step, strict=True) if w > 0] == step.micro_batches
        fillers = [batch for w, batch in zip(weights, of_step, strict=True) if w == 0]
        assert all(len(batch) == 1 and batch[0] in rows_of(step) for batch in fillers)
        assert len(fillers) < processes
    assert start == len(batches)


def test_loss_scale_does_not_depend_on_the_split_of_a_step() -> None:
    for step in StepPlan([[0, 1, 2, 3]]), StepPlan([[0, 1, 2], [3]]), StepPlan([[0], [1], [2], [3]]):
        assert [loss_scale(step, number) for number in range(5)] == [0.25] * len(step.micro_batches) + [0.0] * (
            5 - len(step.micro_batches)
        )


def test_loss_scale_divides_by_the_weights_of_the_whole_step() -> None:
    weights = np.array([0.1, 0.2, 0.3, 0.7, 9.0])
    for step in StepPlan([[0, 1, 2, 3]]), StepPlan([[3, 1, 2], [0]]), StepPlan([[0], [2], [1], [3]]):
        scales = [loss_scale(step, number, weights) for number in range(5)]
        count = len(step.micro_batches)
        assert scales == [1 / math.fsum([0.1, 0.2, 0.3, 0.7])] * count + [0.0] * (5 - count)


def test_micro_batch_seed_has_known_values() -> None:
    assert micro_batch_seed(42, 0, 0, 0) == 5732826375231505755
    assert micro_batch_seed(42, 1, 2, 3) == 3973600423109162145


def test_micro_batch_seed_depends_on_every_argument() -> None:
    seeds = [
        micro_batch_seed(seed, epoch, step, micro_batch)
        for seed in range(4)
        for epoch in range(4)
        for step in range(4)
        for micro_batch in range(4)
    ]
    assert len(set(seeds)) == 256
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
