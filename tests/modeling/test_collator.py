"""Batches are padded to their longest row, or to buckets and a fixed number of rows."""

import math
from typing import Any

import torch

from reprise.modeling.collator import Collator
from reprise.tasks.registry import task_kind


def test_a_batch_is_padded_to_its_longest_row_and_has_no_text_columns(collate: Collator) -> None:
    text = {"id": "7", "text": "the film", "text_pair": "dull", "length": 4}
    batch = collate(
        [
            {"input_ids": [2, 9, 3], "token_type_ids": [0, 0, 1], "label": 1, **text},
            {"input_ids": [2, 9, 8, 7, 3], "token_type_ids": [0, 0, 0, 1, 1], "label": 0, **text},
        ]
    )
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[2, 9, 3, 0, 0], [2, 9, 8, 7, 3]],
        "token_type_ids": [[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        "labels": [1, 0],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_with_buckets_a_batch_is_padded_to_the_next_length_and_filled_with_unlabeled_rows(
    collate: Collator,
) -> None:
    rows = [
        {"input_ids": [2, 9, 3], "token_type_ids": [0, 0, 1], "label": 1},
        {"input_ids": [2, 9, 8, 7, 3], "token_type_ids": [0, 0, 0, 1, 1], "label": 0},
    ]
    batch = Collator(collate.tokenizer, collate.kind, buckets=(4, 6, 12)).with_batch_size("train", 4)(rows)
    first, second = [2, 9, 3, 0, 0, 0], [2, 9, 8, 7, 3, 0]
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [first, second, first, first],
        "token_type_ids": [[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]],
        "attention_mask": [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]],
        "labels": [1, 0, -100, -100],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert len(rows) == 2  # the caller's list is unchanged


def test_a_text_of_the_length_of_a_bucket_fits_and_a_full_batch_gets_no_padding_rows(collate: Collator) -> None:
    rows = [{"input_ids": [2, 9, 8, 3], "label": 1}, {"input_ids": [2, 3], "label": 0}]
    batch = Collator(collate.tokenizer, collate.kind, buckets=(4, 8)).with_batch_size("train", 2)(rows)
    assert batch["input_ids"].tolist() == [[2, 9, 8, 3], [2, 3, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


def test_padding_rows_of_a_regression_have_nan_as_label(collate: Collator) -> None:
    rows: list[dict[str, Any]] = [{"input_ids": [2, 3], "label": 2.5}, {"input_ids": [2, 3], "label": -1.0}]
    labels = Collator(collate.tokenizer, task_kind([]), buckets=(4,)).with_batch_size("train", 4)(rows)["labels"]
    assert labels.dtype == torch.float32
    assert labels.tolist()[:2] == [2.5, -1.0]
    assert all(math.isnan(label) for label in labels.tolist()[2:])


def test_collators_with_other_batch_sizes_record_their_shapes_in_one_set(collate: Collator) -> None:
    bucketed = Collator(collate.tokenizer, collate.kind, buckets=(4, 8))
    short, long = ({"input_ids": [2] * length, "label": 0} for length in (3, 7))
    train, validate = bucketed.with_batch_size("train", 2), bucketed.with_batch_size("predict", 5)
    for rows in [short], [short, short], [short, long]:
        train(rows)
    assert bucketed.seen_shapes == {("train", 2, 4), ("train", 2, 8)}
    validate([short])
    assert train.seen_shapes is validate.seen_shapes is bucketed.seen_shapes
    assert bucketed.seen_shapes == {("train", 2, 4), ("train", 2, 8), ("predict", 5, 4)}
    assert (train.batch_size, validate.batch_size) == (2, 5)


def test_without_buckets_the_batch_size_adds_no_rows(collate: Collator) -> None:
    rows = [{"input_ids": [2, 9, 3], "label": 1}, {"input_ids": [2, 9, 8, 7, 3], "label": 0}]
    plain, with_batch_size = collate(rows), collate.with_batch_size("train", 64)(rows)
    assert with_batch_size.keys() == plain.keys()
    assert all(torch.equal(with_batch_size[name], plain[name]) for name in plain)
    assert plain["input_ids"].shape == (2, 5)
    assert collate.seen_shapes == set()


def test_labels_of_a_regression_are_floats(collate: Collator) -> None:
    rows: list[dict[str, Any]] = [{"input_ids": [2, 3], "label": 2.5}, {"input_ids": [2, 3], "label": -1.0}]
    labels = collate(rows)["labels"]
    assert labels.dtype == torch.float32
    assert labels.tolist() == [2.5, -1.0]
