"""Embeddings, layers and head are found in every family of models, and what is frozen keeps its bits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    MixtralConfig,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    T5Config,
    XLMRobertaConfig,
    XLNetConfig,
)

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.train.depth import freeze, parameter_depths
from reprise.train.model import build_model
from reprise.train.optimizer import build_optimizer
from tiny import tiny_recipe

Train = Callable[..., Recipe]

SIZES = {"vocab_size": 40, "num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
DECODER = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
# Where each family's layers are, and what besides `*.embeddings.*` comes before the first of them.
FAMILIES: dict[str, tuple[PretrainedConfig, str, tuple[str, ...]]] = {
    "bert": (BertConfig(**SIZES), "bert.encoder.layer", ()),
    "xlm-roberta": (XLMRobertaConfig(**SIZES), "roberta.encoder.layer", ()),  # defines its head before the encoder
    "distilbert": (
        DistilBertConfig(vocab_size=40, n_layers=3, dim=16, n_heads=2, hidden_dim=32),
        "distilbert.transformer.layer", (),
    ),
    "electra": (ElectraConfig(embedding_size=8, **SIZES), "electra.encoder.layer", ("electra.embeddings_project",)),
    "modernbert": (ModernBertConfig(**SIZES, pad_token_id=0), "model.layers", ()),
    "deberta-v2": (
        DebertaV2Config(relative_attention=True, **SIZES), "deberta.encoder.layer", ("deberta.encoder.rel_embeddings",),
    ),
    "mpnet": (MPNetConfig(**SIZES), "mpnet.encoder.layer", ()),
    "albert": (
        AlbertConfig(embedding_size=8, num_hidden_groups=3, **SIZES), "albert.encoder.albert_layer_groups",
        ("albert.encoder.embedding_hidden_mapping_in",),
    ),
    "xlnet": (
        XLNetConfig(vocab_size=40, d_model=16, n_layer=3, n_head=2, d_inner=32), "transformer.layer",
        ("transformer.mask_emb", "transformer.word_embedding"),
    ),
    "gpt2": (
        GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=2), "transformer.h",
        ("transformer.wte", "transformer.wpe"),
    ),
    "mixtral": (  # more experts in a layer than layers
        MixtralConfig(num_local_experts=8, num_key_value_heads=2, head_dim=8, **SIZES), "model.layers",
        ("model.embed_tokens",),
    ),
    "bart": (  # more layers in the decoder
        BartConfig(vocab_size=40, d_model=16, encoder_layers=3, decoder_layers=4, **DECODER), "model.encoder.layers",
        (
            "model.shared", "model.encoder.embed_positions", "model.encoder.layernorm_embedding",
            "model.decoder.embed_positions", "model.decoder.layernorm_embedding",
        ),
    ),
    "t5": (
        T5Config(vocab_size=40, d_model=16, num_layers=3, num_heads=2, d_kv=8, d_ff=32), "transformer.encoder.block",
        ("transformer.shared",),
    ),
}  # fmt: skip


def classifier(family: str) -> Any:
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(FAMILIES[family][0])


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_layers_and_head_are_found_in_every_family(family: str) -> None:
    model = classifier(family)
    _, layers, others = FAMILIES[family]
    depths = parameter_depths(model, "train.freeze")
    assert list(depths) == list(model.parameters())
    for name, parameter in model.named_parameters():
        expected = 4
        if name.startswith(f"{layers}."):
            expected = 1 + int(name.removeprefix(f"{layers}.").split(".")[0])
        elif ".embeddings." in name or name.startswith(others or "no other"):
            expected = 0
        assert depths[parameter] == expected, name
    assert set(depths.values()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("until", "frozen"), [("embeddings", {0}), (1, {0, 1}), (3, {0, 1, 2, 3})])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "bart"])
def test_embeddings_and_the_first_layers_are_frozen(family: str, until: str | int, frozen: set[int]) -> None:
    model = classifier(family)
    freeze(model, until)
    depths = parameter_depths(model, "train.freeze")
    assert {depths[p] for p in model.parameters() if not p.requires_grad} == frozen
    assert {depths[p] for p in model.parameters() if p.requires_grad} == {0, 1, 2, 3, 4} - frozen


def test_more_frozen_layers_than_there_are_is_one_line() -> None:
    with pytest.raises(UserError) as refused:
        freeze(classifier("bert"), 4)
    assert (refused.value.file, refused.value.key) == ("params.yaml", "train.freeze")
    assert refused.value.expected == "null, embeddings, or at most the 3 layers of bert"


@pytest.mark.parametrize("key", ["train.freeze", "train.layer_decay"])
def test_a_model_without_a_list_of_layers_is_one_line(key: str) -> None:
    model = classifier("bert")
    model.bert.encoder = torch.nn.Linear(2, 2)
    with pytest.raises(UserError) as refused:
        parameter_depths(model, key)
    assert (refused.value.file, refused.value.key, refused.value.expected) == ("params.yaml", key, "null")


def test_frozen_parameters_keep_their_bits_and_have_no_optimizer_state(train: Train, workdir: Path) -> None:
    train(**{"train.freeze": 1, "train.epochs": 1})
    before = load_file(workdir / "models/pretrained/model/model.safetensors")
    after = load_file(workdir / "models/final/model.safetensors")
    for name, tensor in before.items():
        frozen = name.startswith(("embeddings.", "encoder.layer.0."))
        assert torch.equal(tensor, after[f"bert.{name}"]) == frozen, name
    recipe = check_recipe(tiny_recipe(**{"train.freeze": 1}), "params.yaml")
    model, _ = build_model(recipe)
    optimizer = build_optimizer(model, recipe.train)
    model(input_ids=torch.arange(4, 12)[None]).logits.square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    names = {parameter: name for name, parameter in model.named_parameters()}
    untouched = {name for parameter, name in names.items() if parameter.grad is None}
    assert untouched == {n for n in names.values() if n.startswith(("bert.embeddings.", "bert.encoder.layer.0."))}
    assert {names[parameter] for parameter in optimizer.state} == set(names.values()) - untouched


def test_a_model_says_with_which_dropout_it_was_trained(train: Train, workdir: Path) -> None:
    train(**{"train.dropout": 0.25, "train.max_steps": 1})
    config = json.loads((workdir / "models/final/config.json").read_text())
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0.25, 0.25)
