"""The lengths that batches are padded to on XLA: few, and chosen to waste least."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprise.errors import InputError
from reprise.shapes import fit_buckets, padded_length, plan_buckets


def tokens(lengths: Sequence[int], buckets: Sequence[int]) -> int:
    return sum(min(bucket for bucket in buckets if bucket >= length) for length in lengths)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=25), st.integers(1, 4))
def test_no_other_choice_pads_less(lengths: list[int], most: int) -> None:
    found = fit_buckets(np.array(lengths), most)
    assert len(found) <= most
    assert list(found) == sorted(set(found))
    *shorter, longest = sorted(set(lengths))
    choices = [
        (*some, longest)
        for number in range(most)
        for some in itertools.combinations(shorter, min(number, len(shorter)))
    ]
    assert tokens(lengths, found) == min(tokens(lengths, choice) for choice in choices)


def test_auto_fits_the_first_split_and_holds_all() -> None:
    assert plan_buckets("auto", np.array([2, 2, 5, 9]), np.array([3, 14])) == (2, 5, 14)
    assert plan_buckets("auto", np.array([7]), np.array([3])) == (7,)


def test_given_buckets_are_taken_in_order_and_must_hold_the_longest_text() -> None:
    assert plan_buckets([64, 16, 64], np.array([3, 64])) == (16, 64)
    with pytest.raises(InputError, match=r"train.buckets: the longest text has 65 tokens; expected a bucket"):
        plan_buckets([64], np.array([3]), np.array([65]))


def test_a_batch_is_padded_to_the_next_bucket_or_to_its_longest_row() -> None:
    assert [padded_length(longest, (16, 64)) for longest in (1, 16, 17, 64)] == [16, 16, 64, 64]
    assert padded_length(17, None) == 17
