"""Splits keep groups together, meet the requested fractions and ignore the order of the rows."""

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprise.prepare.split import (
    assign_parts,
    find_largest_group,
    group_rows,
    order_by_content,
    order_by_time,
    stable_hash64,
    stratify,
    subsample,
)
from reprise.tasks.classification import Classification
from reprise.tasks.regression import Regression

TEST, VALIDATION, TRAIN = range(3)
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
    groups = group_rows(texts, films)
    return assign_parts(groups, order_by_content(groups, texts.min(axis=1), seed), [test, validation])


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
    assert np.bincount(split_rows(single_rows(1000), validation=0.1, test=0.2)).tolist() == [200, 100, 700]


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
    order = order_by_content(nothing, nothing.astype(np.uint64), seed=0)
    assert assign_parts(nothing, order, [0.1, 0.1]).tolist() == []


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


# Groups of rows with one label: label and size of each.
Groups = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=40)
LABELS = tuple("abcd")
ONE_GROUP = 1 + 1e-9  # a boundary is never further from its fraction


def expand(pure: list[tuple[int, int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the group and the label of each row."""
    labels, sizes = np.array(pure).T
    return np.repeat(np.arange(len(pure)), sizes), np.repeat(labels, sizes)


def stratified(
    groups: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], fractions: Sequence[float], seed: int = 0
) -> npt.NDArray[np.int8]:
    """Cut the groups by strata; the key of a group is its index."""
    order = order_by_content(groups, groups.astype(np.uint64), seed)
    return assign_parts(groups, order, fractions, stratify(*Classification(LABELS).strata(labels, groups), seed))


@given(Groups, Fractions, st.integers(0, 1000))
def test_each_label_meets_each_fraction_within_one_group(
    pure: list[tuple[int, int]], fractions: tuple[float, float], seed: int
) -> None:
    groups, labels = expand(pure)
    parts = stratified(groups, labels, fractions, seed)
    for label in {label for label, _ in pure}:
        largest = max(size for each, size in pure if each == label)
        of_label = parts[labels == label]
        for boundary in (1, 2):
            asked = sum(fractions[:boundary]) * len(of_label)
            assert abs((of_label < boundary).sum() - asked) <= largest * ONE_GROUP
        assert (of_label == 2).any(), "a label that no split trains on"


@given(Groups, Fractions, st.integers(0, 1000))
def test_strata_keep_groups_whole(pure: list[tuple[int, int]], fractions: tuple[float, float], seed: int) -> None:
    groups, labels = expand(pure)
    parts = stratified(groups, labels, fractions, seed)
    assert all(len(set(parts[groups == group].tolist())) == 1 for group in range(len(pure)))


@given(Groups, st.tuples(st.integers(0, 3), st.integers(0, 40)), Fractions, st.integers(0, 1000))
def test_an_added_row_moves_one_group_over_each_boundary_of_its_own_stratum(
    pure: list[tuple[int, int]], added: tuple[int, int], fractions: tuple[float, float], seed: int
) -> None:
    label, position = added
    longer = [*pure, (label, 1)]
    if position < len(pure):  # into a group of its label instead
        label, size = pure[position]
        longer = [*pure[:position], (label, size + 1), *pure[position + 1 :]]
    before, after = (
        stratified(*expand(each), fractions, seed)[np.unique(expand(each)[0], return_index=True)[1]]
        for each in (pure, longer)
    )
    moved = [number for number in range(len(pure)) if before[number] != after[number]]
    assert {pure[number][0] for number in moved} <= {label}
    for boundary in (1, 2):
        over = [number for number in moved if (before[number] < boundary) != (after[number] < boundary)]
        assert len(over) <= 1


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_the_stratum_of_a_group_does_not_depend_on_the_order_of_the_rows(
    rows: list[tuple[int, int]], random: Random
) -> None:
    shuffled = random.sample(rows, len(rows))
    of_key: list[dict[int, int]] = []
    for each in rows, shuffled:
        keys, groups = np.unique([key for key, _ in each], return_inverse=True)
        strata, _ = Classification(LABELS).strata(np.array([label for _, label in each]), groups)
        of_key.append(dict(zip(keys.tolist(), strata.tolist(), strict=True)))
    assert of_key[0] == of_key[1]


def test_a_groups_stratum_is_its_most_frequent_label_and_of_its_rare_ones_if_it_has_any() -> None:
    # 30 rows: label c has 2 rows, fewer than half of a quarter; d has none.
    groups = np.repeat([0, 1, 2, 3], [3, 4, 3, 20])
    labels = np.array([0, 0, 1, 1, 1, 0, 2, 2, 1, 1, *[0] * 10, *[1] * 10])
    strata, names = Classification(LABELS).strata(labels, groups)
    assert strata.tolist() == [0, 2, 2, 0]  # equally frequent ones: the first
    assert names == LABELS


def test_many_small_strata_get_their_fractions_together() -> None:
    labels = np.repeat(np.arange(300), 3)
    kind = Classification(tuple(map(str, range(300))))
    groups = np.arange(900)
    order = order_by_content(groups, groups.astype(np.uint64), 0)
    parts = assign_parts(groups, order, [0.1, 0.1], stratify(*kind.strata(labels, groups), 0))
    test, validation, train = np.bincount(parts).tolist()
    assert (test, validation, train) == (89, 88, 723)  # of 900; asked are 90, 90 and 720
    assert set(labels[parts == TRAIN].tolist()) == set(range(300))


def test_stratified_shares_are_exact_where_those_at_random_are_not() -> None:
    groups, labels = np.arange(1000), np.repeat([0, 1], [960, 40])
    order = order_by_content(groups, groups.astype(np.uint64), 0)
    at_random = assign_parts(groups, order, [0.1, 0.1])
    assert np.bincount(at_random[labels == 1]).tolist() == [3, 6, 31]
    assert np.bincount(stratified(groups, labels, [0.1, 0.1])[labels == 1]).tolist() == [4, 4, 32]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=200), st.randoms(use_true_random=False))
def test_strata_of_numbers_do_not_depend_on_the_order_of_the_rows(tenths: list[int], random: Random) -> None:
    groups, labels = np.arange(len(tenths)) // 2, np.array(tenths) / 10
    order = random.sample(range(len(tenths)), len(tenths))
    before, after = (Regression().strata(labels[rows], groups[rows])[0] for rows in (list(range(len(tenths))), order))
    assert before.tolist() == after.tolist()


def test_stratified_numbers_have_the_same_distribution_in_each_split() -> None:
    labels = np.random.default_rng(0).lognormal(size=2000)
    groups = np.arange(2000)
    order = order_by_content(groups, groups.astype(np.uint64), 0)
    strata, names = Regression().strata(labels, groups)
    assert np.bincount(strata).tolist() == [200] * len(names) == [200] * 10
    parts = assign_parts(groups, order, [0.1, 0.1], stratify(strata, names, 0))
    for part in TEST, VALIDATION:
        assert all(abs(count - 20) <= 1 for count in np.bincount(strata[parts == part]).tolist())


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30)), min_size=1, max_size=60),
    Fractions,
    st.randoms(use_true_random=False),
)
def test_by_time_nothing_newer_than_a_tested_group_is_trained_on(
    rows: list[tuple[int, int]], fractions: tuple[float, float], random: Random
) -> None:
    keys, times = (np.array(column) for column in zip(*rows, strict=True))
    groups = np.unique(keys, return_inverse=True)[1]
    units, order = order_by_time(groups, times.astype(np.float64))
    parts = assign_parts(units, order, fractions)
    latest = np.array([times[groups == group].max() for group in groups])
    for newer, older in ((TEST, VALIDATION), (TEST, TRAIN), (VALIDATION, TRAIN)):
        if (parts == newer).any() and (parts == older).any():
            assert latest[parts == newer].min() > latest[parts == older].max()
    half_a_group = np.bincount(units).max() / 2 + 1e-9
    assert abs((parts == TEST).sum() - fractions[0] * len(rows)) <= half_a_group
    assert abs((parts != TRAIN).sum() - sum(fractions) * len(rows)) <= half_a_group
    shuffled = random.sample(range(len(rows)), len(rows))
    again = assign_parts(*order_by_time(groups[shuffled], times[shuffled].astype(np.float64)), fractions)
    assert again.tolist() == parts[shuffled].tolist()


def test_the_newest_rows_are_tested_and_those_before_them_validated() -> None:
    times = np.array([5, 1, 9, 7, 3, 8, 2, 6, 4, 0], dtype=np.float64)
    parts = assign_parts(*order_by_time(np.arange(10), times), [0.2, 0.3])
    assert sorted(times[parts == TEST].tolist()) == [8, 9]
    assert sorted(times[parts == VALIDATION].tolist()) == [5, 6, 7]


@given(Groups, st.floats(0.05, 0.4), st.integers(2, 8), st.integers(0, 1000))
def test_folds_divide_what_is_not_tested_and_the_first_is_the_validation_split(
    pure: list[tuple[int, int]], test: float, folds: int, seed: int
) -> None:
    groups, labels = expand(pure)
    order = order_by_content(groups, groups.astype(np.uint64), seed)
    share = (1 - test) / folds
    for strata in None, stratify(*Classification(LABELS).strata(labels, groups), seed):
        parts = assign_parts(groups, order, [test, *[share] * (folds - 1)], strata)
        assert set(parts.tolist()) <= set(range(folds + 1))
        assert all(len(set(parts[groups == group].tolist())) == 1 for group in range(len(pure)))
        split = assign_parts(groups, order, [test, share], strata)
        assert np.minimum(parts, TRAIN).tolist() == split.tolist()


@given(Rows)
def test_the_largest_group_is_named_with_the_value_that_most_of_its_rows_share(rows: list[Row]) -> None:
    texts, films = texts_and_films(rows)
    groups = group_rows(texts, films)
    largest = find_largest_group(groups, texts, films)
    assert largest.rows == np.bincount(groups).max()
    members = [row for row, group in zip(rows, groups, strict=True) if group == groups[largest.row]]
    counts = Counter(value for *pair, film in members for value in {("film", film), *(("text", text) for text in pair)})
    assert len(members) == largest.rows
    assert largest.sharing == max(counts.values())
    value = (texts, films)[largest.key][largest.row, largest.column]
    named = {stable_hash64(kind, number): count for (kind, number), count in counts.items()}
    assert named[int(value)] == largest.sharing
