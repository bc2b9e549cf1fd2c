"""A smaller encoder keeps layers evenly spread, and is what its config.json says."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from reprise.core.errors import UserError
from reprise.modeling.classifier import load_classifier, load_pretrained
from reprise.modeling.layers import encoder_layers, spread_layers
from reprise.tasks.registry import task_kind

SIZES = {"vocab_size": 40, "num_hidden_layers": 5, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES),
    "electra": ElectraConfig(embedding_size=8, **SIZES),
    "distilbert": DistilBertConfig(vocab_size=40, n_layers=5, dim=16, n_heads=2, hidden_dim=32),
    "modernbert": ModernBertConfig(**SIZES, pad_token_id=0),  # attends to neighbours in layers 1, 2 and 4
}
LABELS = task_kind(["bad", "fair", "good"])


def save_family(config: PretrainedConfig, folder: Path) -> Path:
    """Write a model with a trained head."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("count", "layers", "kept"),
    [
        (6, 12, [0, 2, 4, 7, 9, 11]),  # as DistilBERT's authors
        (2, 6, [0, 5]),
        (3, 6, [0, 3, 5]),
        (1, 6, [0]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_layers_are_kept_evenly_spread_with_the_first_and_the_last(count: int, layers: int, kept: list[int]) -> None:
    assert spread_layers(count, layers) == kept


def test_any_number_of_layers_is_kept_once_each_and_in_order() -> None:
    for layers in range(1, 40):
        for count in range(1, layers + 1):
            kept = spread_layers(count, layers)
            assert kept == sorted(set(kept))
            assert (len(kept), kept[0]) == (count, 0)
            assert count == 1 or kept[-1] == layers - 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_smaller_model_is_loaded_from_its_config_json_with_the_same_logits(
    tmp_path: Path, family: str, count: int
) -> None:
    folder = save_family(FAMILIES[family], tmp_path / "pretrained")
    complete = load_pretrained(folder, LABELS).model
    pretrained = load_pretrained(folder, LABELS, num_hidden_layers=count)
    model = pretrained.model.eval()
    kept = spread_layers(count, 5)
    for smaller, index in zip(encoder_layers(model.base_model), kept, strict=True):
        for name, weight in smaller.state_dict().items():
            assert torch.equal(weight, encoder_layers(complete.base_model)[index].state_dict()[name])
    assert f"{count} of 5 layers are kept: {', '.join(map(str, kept))}, counted from 0" in pretrained.notes
    model.save_pretrained(tmp_path / "student")
    inputs = {"input_ids": torch.tensor([[1, 5, 6, 7], [1, 8, 9, 2]]), "attention_mask": torch.ones(2, 4).long()}
    with torch.no_grad():
        expected = model(**inputs).logits
        for loaded in (
            AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", dtype=torch.float32),
            load_classifier(tmp_path / "student"),
        ):
            assert loaded.config.num_hidden_layers == count
            torch.testing.assert_close(loaded.eval()(**inputs).logits, expected)


def test_more_layers_than_there_are_is_one_line(tmp_path: Path) -> None:
    folder = save_family(FAMILIES["bert"], tmp_path)
    with pytest.raises(UserError) as refused:
        load_pretrained(folder, LABELS, num_hidden_layers=6)
    expected = "params.yaml: train.num_hidden_layers: got 6; expected at most the 5 layers of the pretrained model"
    assert str(refused.value) == expected


def test_a_family_that_shares_its_layers_is_one_line(tmp_path: Path) -> None:
    folder = save_family(AlbertConfig(embedding_size=8, **SIZES), tmp_path)
    with pytest.raises(UserError, match=r"^params.yaml: train.num_hidden_layers: albert is not known to work without"):
        load_pretrained(folder, LABELS, num_hidden_layers=2)
