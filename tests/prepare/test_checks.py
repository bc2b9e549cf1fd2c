"""Counts of shared texts and conflicting labels equal those of plain Python."""

from collections import defaultdict

import numpy as np
import pytest

from reprise.prepare.checks import conflicting_labels, shared_texts


@pytest.mark.parametrize("seed", range(20))
def test_conflicting_labels_are_counted_as_in_plain_python(seed: int) -> None:
    draw = np.random.default_rng(seed)
    texts, labels = draw.integers(0, 30, 40).astype(np.uint64), draw.integers(0, 3, 40)
    labels_of = defaultdict(set)
    for text, label in zip(texts.tolist(), labels.tolist(), strict=True):
        labels_of[text].add(label)
    conflicting = {text for text, found in labels_of.items() if len(found) > 1}
    assert conflicting_labels(texts, labels) == {
        "texts": len(conflicting),
        "examples": sum(text in conflicting for text in texts.tolist()),
    }


def test_no_examples_have_no_conflicting_labels() -> None:
    assert conflicting_labels(np.empty(0, np.uint64), np.empty(0, np.int64)) == {"texts": 0, "examples": 0}


def test_each_pair_of_splits_is_compared_training_first() -> None:
    hashes = {split: np.array(values, np.uint64) for split, values in (("odd", [1, 1, 5]), ("train", [1, 2]))}
    hashes["validation"] = np.array([2, 2, 3, 5], np.uint64)
    counts = shared_texts(hashes, hashes)
    assert [(each["split"], each["other"], each["exact"]) for each in counts] == [
        ("validation", "train", 2),
        ("odd", "train", 2),
        ("odd", "validation", 1),
    ]
