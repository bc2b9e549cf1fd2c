"""Classifiers have a head from the seed and pretrained weights, and load neither pickles nor foreign code."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from reprise.modeling.classifier import load_classifier
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
