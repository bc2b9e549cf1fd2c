"""Models and batches: logits in the order of the rows, heads from the seed, nothing pickled and no foreign code."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from reprise.modeling.classifier import load_classifier
from reprise.modeling.collator import Collator
from reprise.tasks.registry import task_kind

LABELS = ["bad", "fair", "good"]


def head(model: PreTrainedModel) -> torch.Tensor:
    weight: torch.Tensor = model.classifier.weight.detach()
    return weight


@pytest.fixture
def pickled(model: PreTrainedModel, tmp_path: Path) -> Path:
    """A folder with a complete model, but with pickled weights."""
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path


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


def test_a_new_head_is_initialized_from_the_seed(tiny_model: Path) -> None:
    heads = []
    for seed in 1, 1, 2:
        torch.manual_seed(seed)
        heads.append(head(load_classifier(tiny_model, task_kind(LABELS))))
    assert heads[0].shape == (3, 32)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_encoder_has_the_pretrained_weights(tiny_model: Path) -> None:
    torch.manual_seed(1)
    one = load_classifier(tiny_model, task_kind(LABELS)).bert.state_dict()
    torch.manual_seed(2)
    other = load_classifier(tiny_model, task_kind(LABELS)).bert.state_dict()
    assert {name for name in one if not torch.equal(one[name], other[name])} == set()
    assert one["embeddings.word_embeddings.weight"][5, :8].mean() > 0.9  # the first word of GOOD, see conftest.py


def test_the_configuration_names_the_label_of_each_output(model: PreTrainedModel) -> None:
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert model.config.label2id == {"bad": 0, "fair": 1, "good": 2}
    assert model.config.problem_type == "single_label_classification"


def test_a_head_for_regression_has_one_output(tiny_model: Path) -> None:
    model = load_classifier(tiny_model, task_kind([]))
    assert head(model).shape == (1, 32)
    assert model.config.problem_type == "regression"


def test_a_trained_head_is_loaded_unchanged(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    torch.manual_seed(99)
    again = load_classifier(tmp_path)
    assert torch.equal(head(again), head(model))
    assert again.config.id2label == {0: "bad", 1: "fair", 2: "good"}


def test_a_trained_head_of_another_size_is_replaced_by_a_new_one(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    heads = []
    for seed in 1, 1, 2:
        torch.manual_seed(seed)
        heads.append(head(load_classifier(tmp_path, task_kind(["rotten", "fresh"]))))
    assert heads[0].shape == (2, 32)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_half_precision_weights_are_loaded_in_fp32(model: PreTrainedModel, tmp_path: Path) -> None:
    model.bfloat16().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_classifier(tmp_path).parameters()} == {torch.float32}


def test_pickled_weights_are_refused(pickled: Path) -> None:
    with pytest.raises(OSError, match="safetensors"):
        load_classifier(pickled)
    # Only the pickle is the reason: transformers itself would load it.
    assert AutoModelForSequenceClassification.from_pretrained(pickled).config.num_labels == 3


def test_code_beside_the_weights_is_not_run(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "foreign.Foreign"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "foreign.py").write_text("raise SystemExit('foreign code was run')\n")
    assert type(load_classifier(tmp_path)) is type(model)
