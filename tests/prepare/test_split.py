"""Splits keep groups together, meet the requested fractions and ignore the order of the rows."""

import subprocess
import sys
from collections import defaultdict
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprise.prepare.split import TEST, TRAIN, VALIDATION, assign_splits, group_rows, stable_hash64, subsample

# A test row: first text, second text, film.
Row = tuple[int, int, int]
Rows = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=60)
Fractions = st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45))


def texts_and_films(rows: list[Row]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    texts = np.array(
        [[stable_hash64("text", first), stable_hash64("text", second)] for first, second, _ in rows], dtype=np.uint64
    )
    films = np.array([[stable_hash64("film", film)] for *_, film in rows], dtype=np.uint64)
    return texts, films


def split_rows(rows: list[Row], validation: float, test: float, seed: int = 0) -> npt.NDArray[np.int8]:
    texts, films = texts_and_films(rows)
    return assign_splits(group_rows(texts, films), texts.min(axis=1), validation=validation, test=test, seed=seed)


def single_rows(count: int) -> list[Row]:
    """Return rows without common values."""
    return [(2 * number, 2 * number + 1, number) for number in range(count)]


@given(Rows, Fractions, st.integers(0, 1000))
def test_no_text_and_no_film_is_in_two_splits(rows: list[Row], fractions: tuple[float, float], seed: int) -> None:
    splits_of = defaultdict(set)
    for (first, second, film), split in zip(rows, split_rows(rows, *fractions, seed).tolist(), strict=True):
        for value in ("text", first), ("text", second), ("film", film):
            splits_of[value].add(split)
    assert {value: splits for value, splits in splits_of.items() if len(splits) > 1} == {}


@given(Rows, Fractions, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_change_their_splits(
    rows: list[Row], fractions: tuple[float, float], seed: int, random: Random
) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = split_rows([rows[number] for number in order], *fractions, seed)
    assert shuffled.tolist() == split_rows(rows, *fractions, seed)[order].tolist()


@given(Rows, Fractions, st.integers(0, 1000))
def test_each_fraction_is_met_within_half_a_group(rows: list[Row], fractions: tuple[float, float], seed: int) -> None:
    validation, test = fractions
    splits = split_rows(rows, validation, test, seed)
    half_a_group = np.bincount(group_rows(*texts_and_films(rows))).max() / 2 + 1e-9
    assert abs((splits == TEST).sum() - test * len(rows)) <= half_a_group
    assert abs((splits != TRAIN).sum() - (test + validation) * len(rows)) <= half_a_group


@given(Rows, Fractions)
def test_every_row_gets_one_of_three_splits(rows: list[Row], fractions: tuple[float, float]) -> None:
    splits = split_rows(rows, *fractions)
    assert splits.shape == (len(rows),)
    assert set(splits.tolist()) <= {TRAIN, VALIDATION, TEST}


def test_rows_without_common_values_meet_the_fractions_exactly() -> None:
    assert np.bincount(split_rows(single_rows(1000), validation=0.1, test=0.2)).tolist() == [700, 100, 200]


def test_another_seed_gives_other_splits_of_the_same_sizes() -> None:
    one, other = (split_rows(single_rows(1000), validation=0.1, test=0.2, seed=seed) for seed in (0, 1))
    assert np.bincount(one).tolist() == np.bincount(other).tolist()
    # Two independent splits agree on 0.7² + 0.1² + 0.2² = 54 % of the rows.
    assert 0.48 < (one == other).mean() < 0.60


def test_adding_rows_moves_few_other_rows() -> None:
    before, after = split_rows(single_rows(1000), validation=0.1, test=0.2), split_rows(single_rows(1010), 0.1, 0.2)
    assert (before != after[:1000]).mean() < 0.03


def test_no_rows_give_an_empty_result() -> None:
    nothing = np.array([], dtype=np.int64)
    assert assign_splits(nothing, nothing.astype(np.uint64), validation=0.1, test=0.1, seed=0).tolist() == []


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        pytest.param([(0, 1, 0), (2, 3, 1), (4, 5, 2)], [0, 1, 2], id="nothing in common"),
        pytest.param([(0, 1, 0), (0, 3, 1), (4, 5, 2)], [0, 0, 1], id="a first text"),
        pytest.param([(0, 1, 0), (1, 2, 1), (4, 5, 2)], [0, 0, 1], id="first text in one, second in the other"),
        pytest.param([(0, 1, 0), (0, 3, 1), (4, 5, 1)], [0, 0, 0], id="A and B by a text, B and C by a film"),
        pytest.param([(0, 1, 0), (2, 3, 1), (4, 2, 2), (1, 4, 3)], [0, 0, 0, 0], id="a chain of texts"),
        pytest.param([(0, 0, 5), (5, 5, 0)], [0, 1], id="a text and a film of the same name are not the same"),
    ],
)
def test_rows_are_grouped_by_direct_and_indirect_common_values(rows: list[Row], groups: list[int]) -> None:
    assert group_rows(*texts_and_films(rows)).tolist() == groups


@given(Rows)
def test_group_indices_have_no_gaps(rows: list[Row]) -> None:
    groups = group_rows(*texts_and_films(rows))
    assert np.unique(groups).tolist() == list(range(groups.max() + 1))


@given(
    st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50), st.integers(1, 60), st.randoms(use_true_random=False)
)
def test_a_sample_does_not_depend_on_the_order_of_the_rows(keys: list[int], size: int, random: Random) -> None:
    shuffled = list(keys)
    random.shuffle(shuffled)
    chosen = {keys[number] for number in subsample(np.array(keys, dtype=np.uint64), size)}
    assert {shuffled[number] for number in subsample(np.array(shuffled, dtype=np.uint64), size)} == chosen
    assert len(chosen) == min(size, len(keys))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(1, 60))
def test_a_sample_keeps_the_order_of_the_rows(keys: list[int], size: int) -> None:
    numbers = subsample(np.array(keys, dtype=np.uint64), size).tolist()
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(size, len(keys))


def test_a_sample_has_the_smallest_keys() -> None:
    assert subsample(np.array([50, 10, 40, 20, 30], dtype=np.uint64), 3).tolist() == [1, 3, 4]


def test_a_hash_is_a_fixed_number() -> None:
    assert stable_hash64("a", "b") == 17891760522800452624
    assert stable_hash64(0, 17) == 5780446734462527169


def test_a_hash_depends_on_the_boundaries_between_parts() -> None:
    assert (
        len({stable_hash64("ab", "c"), stable_hash64("a", "bc"), stable_hash64("abc"), stable_hash64("abc", "")}) == 4
    )


@pytest.mark.parametrize("salt", ["1", "2"])
def test_a_hash_does_not_depend_on_the_process(salt: str) -> None:
    code = "from reprise.prepare.split import stable_hash64; print(stable_hash64('a text', 3))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": salt}, capture_output=True, text=True)
    assert int(done.stdout) == stable_hash64("a text", 3)
