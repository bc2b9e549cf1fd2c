"""Copies and near copies within a split and across splits."""

import numpy as np
import pytest

from factories import examples
from reprise.check_data import duplicates
from reprise.check_data.duplicates import near_duplicates, repeated, shared_with_earlier

WORDS = [
    "a",
    "quiet",
    "and",
    "moving",
    "film",
    "about",
    "a",
    "family",
    "that",
    "loses",
    "its",
    "farm",
    "and",
    "finds",
    "another",
    "way",
    "to",
    "live",
    "in",
    "the",
    "city",
]
TEXT = " ".join(WORDS)


def test_a_repeated_text_is_one_that_another_row_has() -> None:
    assert repeated(np.array([5, 7, 5, 5, 9], np.uint64)) == 2
    assert repeated(np.array([], np.uint64)) == 0


def test_a_text_is_shared_with_any_earlier_split() -> None:
    splits = {"train": examples("a", "b"), "validation": examples("B", "c"), "test": examples("c", "a", "d")}
    found = shared_with_earlier(splits)
    assert {split: flags.tolist() for split, flags in found.items()} == {
        "validation": [True, False],
        "test": [True, True, False],
    }


def test_a_near_duplicate_of_an_earlier_split_is_found_but_no_copy() -> None:
    changed = TEXT.replace("farm", "house")
    splits = {"train": examples(TEXT, "a dull one"), "validation": examples(changed, "other"), "test": examples(TEXT)}
    near = near_duplicates(splits, 10)
    assert near.across["validation"].tolist() == [True, False]
    assert near.across["test"].tolist() == [False]  # a copy of a training text: `shared_texts` counts it
    assert not near.train.any()
    (pair,) = near.pairs
    assert (pair.split, pair.row, pair.other, pair.other_row) == ("validation", 0, "train", 0)
    assert 0.8 <= pair.similarity < 1
    assert near.complete


def test_near_duplicates_of_the_training_split_are_counted_with_their_copies() -> None:
    changed = TEXT.replace("farm", "house")
    near = near_duplicates({"train": examples(TEXT, changed, "x y z", TEXT), "test": examples("q")}, 10)
    assert near.train.tolist() == [True, True, False, True]
    assert len(near.pairs) == 1


def test_short_texts_that_differ_in_punctuation_are_nearly_equal() -> None:
    near = near_duplicates({"train": examples("a pretentious mess"), "test": examples("A pretentious mess .")}, 10)
    assert near.across["test"].tolist() == [True]
    assert near.pairs[0].similarity == 1


def test_the_order_of_the_rows_does_not_matter() -> None:
    texts = [TEXT, TEXT.replace("farm", "house"), TEXT.replace("city", "town"), *"abcdefgh"]
    order = np.random.default_rng(0).permutation(len(texts))
    test = examples(TEXT.replace("quiet", "loud"), "z")
    near = near_duplicates({"train": examples(*texts), "test": test}, 10)
    shuffled = near_duplicates({"train": examples(*(texts[index] for index in order)), "test": test}, 10)
    assert (shuffled.train == near.train[order]).all()
    assert shuffled.across["test"].tolist() == near.across["test"].tolist() == [True, False]
    assert [(texts[order[pair.other_row]], pair.similarity) for pair in shuffled.pairs if pair.split == "test"] == [
        (texts[pair.other_row], pair.similarity) for pair in near.pairs if pair.split == "test"
    ]


def test_a_limit_on_the_tokens_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_TOKENS", 5)
    compared, texts = near_duplicates(
        {"train": examples("a b c", "d e", "f g h i"), "test": examples("q")}, 10
    ).compared
    assert texts == 4
    assert 1 <= compared < 4
