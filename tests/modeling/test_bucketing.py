"""The lengths that batches are padded to on XLA: few, and with the least padding."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprise.core.errors import UserError
from reprise.modeling.bucketing import optimal_buckets, padded_length, resolve_buckets


def padded_tokens(lengths: Sequence[int], buckets: Sequence[int]) -> int:
    return sum(min(bucket for bucket in buckets if bucket >= length) for length in lengths)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=25), st.integers(1, 4))
def test_no_other_choice_has_less_padding(lengths: list[int], max_buckets: int) -> None:
    found = optimal_buckets(np.array(lengths), max_buckets)
    assert len(found) <= max_buckets
    assert list(found) == sorted(set(found))
    *shorter, longest = sorted(set(lengths))
    choices = [
        (*some, longest)
        for number in range(max_buckets)
        for some in itertools.combinations(shorter, min(number, len(shorter)))
    ]
    assert padded_tokens(lengths, found) == min(padded_tokens(lengths, choice) for choice in choices)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=60))
def test_at_most_four_buckets_are_chosen_with_no_more_padding_than_one(lengths: list[int]) -> None:
    found = optimal_buckets(np.array(lengths))
    assert 1 <= len(found) <= 4
    assert list(found) == sorted(set(found))
    assert found[-1] == max(lengths)
    assert set(found) <= set(lengths)
    assert padded_tokens(lengths, found) <= len(lengths) * max(lengths)
    if len(set(lengths)) <= 4:  # then there is no padding
        assert padded_tokens(lengths, found) == sum(lengths)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_more_buckets_never_add_padding(lengths: list[int]) -> None:
    totals = [padded_tokens(lengths, optimal_buckets(np.array(lengths), max_buckets)) for max_buckets in range(1, 6)]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] == len(lengths) * max(lengths)


@given(st.lists(st.integers(1, 128), min_size=1, max_size=40), st.randoms())
def test_the_order_of_the_texts_does_not_matter(lengths: list[int], random: random.Random) -> None:
    shuffled = random.sample(lengths, len(lengths))
    assert optimal_buckets(np.array(shuffled)) == optimal_buckets(np.array(lengths))


@given(
    st.one_of(st.just("auto"), st.lists(st.integers(64, 128), min_size=1, max_size=6)),
    st.lists(st.lists(st.integers(1, 64), min_size=1, max_size=20), min_size=1, max_size=3),
)
def test_buckets_ascend_and_fit_every_text_of_every_split(config: str | list[int], splits: list[list[int]]) -> None:
    found = resolve_buckets(config, *map(np.array, splits))
    assert list(found) == sorted(set(found))
    assert all(type(bucket) is int for bucket in found)
    assert found[-1] >= max(map(max, splits))
    if config == "auto":
        assert len(found) <= 4
    else:
        assert set(found) == set(config)
    for length in itertools.chain(*splits):
        assert padded_length(length, found) == min(bucket for bucket in found if bucket >= length)


def test_auto_optimises_for_the_first_split_and_fits_all() -> None:
    assert resolve_buckets("auto", np.array([2, 2, 5, 9]), np.array([3, 14])) == (2, 5, 14)
    assert resolve_buckets("auto", np.array([7]), np.array([3])) == (7,)


def test_given_buckets_are_sorted_and_must_fit_the_longest_text() -> None:
    assert resolve_buckets([64, 16, 64], np.array([3, 64])) == (16, 64)
    with pytest.raises(UserError, match=r"train.bucket_lengths: the longest text has 65 tokens; expected a bucket"):
        resolve_buckets([64], np.array([3]), np.array([65]))


def test_a_batch_is_padded_to_the_next_bucket_or_to_its_longest_row() -> None:
    assert [padded_length(longest, (16, 64)) for longest in (1, 16, 17, 64)] == [16, 16, 64, 64]
    assert padded_length(17, None) == 17
