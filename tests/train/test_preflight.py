"""What does not fit is found before training starts, and is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
    XLNetConfig,
)

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.prepare.stage import prepare
from reprise.train.dropout import replace_dropout
from reprise.train.preflight import is_batch_invariant, preflight
from tiny import tiny_recipe

SIZES = {
    "vocab_size": 60,
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 0,
}
LORA = {"rank": 4, "alpha": 8.0}
MODEL = Path("models/pretrained/model")
TOKENIZER = Path("models/pretrained/tokenizer")


def recipe(**changes: Any) -> Recipe:
    return check_recipe(tiny_recipe(**changes), "test")


def edit_config(**changes: Any) -> None:
    file = MODEL / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def use_words(folder: Path, **special: str) -> None:
    """Write a tokenizer of whole words, with these special tokens only, and prepare the data with it."""
    words = [
        "<unk>",
        *special.values(),
        "the",
        "film",
        "story",
        "plot",
        "was",
        "and",
        "bright",
        "funny",
        "dull",
        "flat",
    ]
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, "<unk>"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", model_max_length=64, **special)
    for file in TOKENIZER.glob("*"):
        file.unlink()
    tokenizer.save_pretrained(folder / TOKENIZER)
    tiny = recipe()
    prepare(tiny.task, max_length=tiny.train.max_length)


def test_the_tiny_recipe_passes_without_a_warning(workdir: Path) -> None:
    result = preflight(recipe())
    assert result.new_parameters == ["classifier.bias", "classifier.weight"]
    assert result.batch_invariant
    assert (result.notes, result.warnings) == ([], [])


def test_the_check_is_deterministic_and_leaves_the_model_folder_alone(workdir: Path) -> None:
    before = {file: file.read_bytes() for file in Path("models").rglob("*") if file.is_file()}
    assert preflight(recipe()) == preflight(recipe())
    assert {file: file.read_bytes() for file in Path("models").rglob("*") if file.is_file()} == before


def remove_embeddings() -> None:
    weights = load_file(MODEL / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:20].clone()
    save_file(weights, MODEL / "model.safetensors", {"format": "pt"})
    edit_config(vocab_size=20)


def spoil_a_weight(value: float) -> None:
    weights = load_file(MODEL / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] = value
    save_file(weights, MODEL / "model.safetensors", {"format": "pt"})


def remove_types() -> None:
    weights = load_file(MODEL / "model.safetensors")
    weights["embeddings.token_type_embeddings.weight"] = weights["embeddings.token_type_embeddings.weight"][:1].clone()
    save_file(weights, MODEL / "model.safetensors", {"format": "pt"})
    edit_config(type_vocab_size=1)
    tiny = recipe(**{"task.text_columns": ["text", "film"]})
    prepare(tiny.task, max_length=tiny.train.max_length)


@pytest.mark.parametrize(
    ("change", "changes", "file", "key", "problem"),
    [
        (remove_embeddings, {}, "models/pretrained", "", "largest token id is 44, and the model has 20 embeddings"),
        (remove_types, {"task.text_columns": ["text", "film"]}, str(MODEL / "config.json"), "type_vocab_size", "got 1"),
        (lambda: edit_config(pad_token_id=3), {}, str(MODEL / "config.json"), "pad_token_id", "got 3"),
        (lambda: None, {"train.max_length": 100}, "params.yaml", "train.max_length", "got 100"),
        (lambda: spoil_a_weight(float("nan")), {}, str(MODEL), "", "encoder.layer.1.output.dense.bias is not finite"),
        (lambda: edit_config(hidden_act="tanhh"), {}, str(MODEL), "", "cannot be loaded"),
        (lambda: edit_config(num_attention_heads=5), {}, str(MODEL), "", "cannot be loaded"),
        (lambda: edit_config(model_type="vit"), {}, str(MODEL), "", "cannot be loaded"),
        (lambda: edit_config(num_hidden_layers=3), {}, str(MODEL), "", "16 weights without a match"),
        (
            lambda: None, {"train.lora": LORA | {"targets": ["query", "q_proj"]}},
            "params.yaml", "train.lora.targets", "no layer 'q_proj'",
        ),
        (
            lambda: None, {"train.lora": LORA | {"targets": ["LayerNorm"]}},
            "params.yaml", "train.lora.targets", "no layer 'LayerNorm'",
        ),
        (lambda: None, {"train.freeze": 3}, "params.yaml", "train.freeze", "got 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(
    workdir: Path, change: Callable[[], None], changes: dict[str, Any], file: str, key: str, problem: str
) -> None:
    change()
    with pytest.raises(UserError) as caught:
        preflight(recipe(**changes))
    assert (caught.value.file, caught.value.key) == (file, key)
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


def test_another_dropout_is_noted(workdir: Path) -> None:
    (note,) = preflight(recipe(**{"train.dropout": 0.3})).notes
    assert note == "dropout 0.3 replaces hidden_dropout_prob 0.1, attention_probs_dropout_prob 0.1"


def test_gradients_that_overflow_are_refused(workdir: Path) -> None:
    spoil_a_weight(1e38)
    weights = load_file(MODEL / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"] *= 1e38
    save_file(weights, MODEL / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError) as caught:
        preflight(recipe())
    assert "not finite" in caught.value.problem


def test_known_lora_targets_are_offered(workdir: Path) -> None:
    with pytest.raises(UserError) as caught:
        preflight(recipe(**{"train.lora": LORA | {"targets": ["q_proj"]}}))
    assert caught.value.expected == "all-linear, or some of dense, key, query, value"


def test_special_tokens_inside_texts_are_counted(workdir: Path) -> None:
    table = next(Path("data/raw/all").glob("*.csv"))
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(line.replace("the ", "the [SEP] ", 1) for line in lines[1:])]) + "\n")
    prepare(recipe().task, max_length=16)
    splits = [pa.ipc.open_stream(file).read_all() for file in Path("data/prepared").glob("*.arrow")]
    texts = [text for split in splits for text in split["text"].to_pylist()]
    # Truncation cuts none of them: the texts are shorter.
    expected = sum("[SEP]" in text for text in texts)
    assert 0 < expected < len(texts)
    (warning,) = preflight(recipe()).warnings
    assert warning.startswith(f"{expected} of {len(texts)} texts contain special tokens")


def test_a_decoder_without_a_padding_token_pads_with_the_end_of_a_text(workdir: Path) -> None:
    use_words(workdir, eos_token="<end>")
    AutoModel.from_config(
        GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1)
    ).save_pretrained(MODEL)
    result = preflight(recipe())
    assert result.notes == ["the tokenizer has no token for padding, so <end> pads"]
    assert result.batch_invariant


def test_gradient_checkpointing_is_refused_where_a_family_has_none(workdir: Path) -> None:
    AutoModel.from_config(MPNetConfig(max_position_embeddings=66, **SIZES)).save_pretrained(MODEL)
    with pytest.raises(UserError) as caught:
        preflight(recipe(**{"train.gradient_checkpointing": True}))
    assert (caught.value.key, caught.value.expected) == ("train.gradient_checkpointing", "false")


# Whether a family's dropout depends on the batch, as docs/guides/models.md lists it.
FAMILIES: dict[str, tuple[PretrainedConfig, bool]] = {
    "albert": (AlbertConfig(embedding_size=8, hidden_dropout_prob=0.1, **SIZES), True),
    "bert": (BertConfig(**SIZES), True),
    "deberta-v2": (DebertaV2Config(**SIZES), True),
    "distilbert": (DistilBertConfig(vocab_size=60, n_layers=2, dim=16, n_heads=2, hidden_dim=32), True),
    "electra": (ElectraConfig(embedding_size=8, **SIZES), True),
    "gpt2": (GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, pad_token_id=0), True),
    "modernbert": (ModernBertConfig(embedding_dropout=0.1, mlp_dropout=0.1, **SIZES), True),
    "mpnet": (MPNetConfig(**SIZES), True),
    "roberta": (RobertaConfig(**SIZES), True),
    "xlm-roberta": (XLMRobertaConfig(**SIZES), True),
    "bart": (
        BartConfig(
            vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0, eos_token_id=2,
        ),
        False,
    ),
    "xlnet": (XLNetConfig(vocab_size=60, d_model=16, n_layer=2, n_head=2, d_inner=32, pad_token_id=0), False),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_s_dependence_on_the_batch_is_measured(family: str) -> None:
    config, invariant = FAMILIES[family]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    keys = replace_dropout(model, 42)
    tokens = np.random.default_rng(0).integers(5, 60, (2, 12))
    tokens[:, -1], tokens[1, 7:] = 2, 0
    tokens[1, 6] = 2
    batch = {"input_ids": tokens, "attention_mask": (tokens != 0).astype(np.int64), "labels": np.array([0, 1])}
    assert is_batch_invariant(model, keys, {name: torch.tensor(value) for name, value in batch.items()}) == invariant
