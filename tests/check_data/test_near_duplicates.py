"""Near duplicates: what is found, what is not, and independence of order."""

from itertools import chain

import numpy as np
import numpy.typing as npt
import pytest

from reprise.check_data import near_duplicates
from reprise.check_data.near_duplicates import Pairs, candidates, find_pairs, jaccard, shingles


def joined(texts: list[list[int]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the tokens of all texts and their offsets."""
    lengths = [len(text) for text in texts]
    return np.array(list(chain(*texts)), np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def pairs_of(texts: list[list[int]]) -> Pairs:
    return find_pairs(*joined(texts))


def found(texts: list[list[int]]) -> set[tuple[int, int]]:
    pairs = pairs_of(texts)
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def test_the_similarity_counts_pairs_of_neighbouring_tokens() -> None:
    texts = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [5, 4, 3, 2, 1], [1, 2, 1, 2, 1, 2]]
    hashes, starts = shingles(*joined(texts))
    assert np.diff(starts).tolist() == [4, 4, 4, 5]
    first, second = np.array([0, 0, 0, 0]), np.array([0, 1, 2, 3])
    # (1, 2) of the four pairs of the first text and of the two distinct ones of the last.
    assert jaccard(hashes, starts, first, second) == pytest.approx([1, 3 / 5, 0, 1 / 5])


def test_a_changed_token_is_found_and_several_are_not() -> None:
    text = list(range(100, 130))
    one = [*text[:10], 7, *text[11:]]
    several = [*text[:5], 7, *text[6:12], 8, *text[13:20], 9, *text[21:]]
    assert found([text, one, several, list(range(500, 530))]) == {(0, 1)}
    assert pairs_of([text, one]).similarity == pytest.approx([27 / 31])


def test_texts_of_one_token_and_of_none_are_compared_by_it() -> None:
    assert found([[4], [4], [5], [4, 4], []]) == {(0, 1)}
    assert found([[], []]) == set()
    assert found([]) == set()


def test_of_thousands_of_random_pairs_nearly_all_are_found_and_no_other() -> None:
    draw = np.random.default_rng(0)
    texts = [draw.integers(0, 5000, draw.integers(15, 40)).tolist() for _ in range(2000)]
    for index in range(1000):  # each of these is a copy with two changed neighbours
        copy = list(texts[index])
        place = int(draw.integers(1, len(copy) - 2))
        copy[place : place + 2] = [6000, 6001]
        texts.append(copy)
    hashes, starts = shingles(*joined(texts))
    originals = np.arange(1000)
    near = jaccard(hashes, starts, originals, originals + 2000) >= near_duplicates.SIMILARITY
    expected = {(int(index), int(index) + 2000) for index in originals[near]}
    assert len(expected) > 300
    pairs = found(texts)
    assert pairs <= expected
    assert len(pairs) >= 0.99 * len(expected)


def test_the_pairs_do_not_depend_on_the_order_of_the_texts() -> None:
    draw = np.random.default_rng(1)
    texts = [draw.integers(0, 30, 12).tolist() for _ in range(300)] + [[1] * 11 + [n] for n in range(20)]
    order = draw.permutation(len(texts))
    shuffled = found([texts[index] for index in order])
    assert {tuple(sorted((int(order[a]), int(order[b])))) for a, b in shuffled} == found(texts)


def test_a_chunk_border_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(2)
    texts = [draw.integers(0, 9, draw.integers(0, 9)).tolist() for _ in range(400)]
    expected = found(texts)
    assert expected
    monkeypatch.setattr(near_duplicates, "CHUNK", 7)
    monkeypatch.setattr(near_duplicates, "VERIFIED", 11)
    assert found(texts) == expected


def test_equal_keys_are_paired_and_too_many_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, complete = candidates(np.array([3, 1, 3, 2, 3], np.uint64))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(0, 2), (2, 4), (0, 4)}
    assert complete
    monkeypatch.setattr(near_duplicates, "MAX_CANDIDATES", 2)
    first, second, complete = candidates(np.array([3, 1, 3, 2, 3], np.uint64))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(0, 2), (2, 4)}
    assert not complete
    assert not pairs_of([[1, 2, n] for n in range(3)] * 9).complete
