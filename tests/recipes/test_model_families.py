"""The model families of the catalog: a tiny model of each, with files as on the Hub, from fetch to logits."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertTokenizer,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
)

from reprise.core.paths import PRETRAINED
from reprise.core.validation import check_recipe
from reprise.data.tokenization import load_tokenizer
from reprise.fetch.stage import fetch
from reprise.modeling.classifier import load_classifier
from reprise.modeling.collator import Collator
from reprise.tasks.registry import task_kind
from tiny import BAD, FILLER, GOOD, ROOT, tiny_recipe

TEXTS = ["the film is funny", "A dull story, and a very tired end"]
PAIRS = ["a warm cast", "the plot was hollow"]
WORDS = [*GOOD, *BAD, *FILLER, "a", "A", ","]
SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
# Maximum length in tokens that each model declares.
LONGEST = 64


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        write: writes the files of a tiny model to a folder.
        tokenizer: files that its tokenizer needs.
        encoder: attribute of the model that holds the encoder.
        inputs: columns that the tokenizer returns.
    """

    write: Callable[[Path], tuple[PreTrainedTokenizerBase, PreTrainedModel]]
    tokenizer: set[str]
    encoder: str
    inputs: set[str]


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def word_pieces(folder: Path) -> dict[str, int]:
    """Write a vocabulary of words and return it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return {word: number for number, word in enumerate(words)}


def byte_pairs(*special: str) -> ByteLevelBPETokenizer:
    """Train a byte-pair vocabulary on the words."""
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator([" ".join(WORDS)] * 3, vocab_size=320, special_tokens=list(special))
    return learned


def write_bert(folder: Path, lower: bool = False) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Write the files as on the Hub, from 2018: a minimal tokenizer config, and weights named gamma and beta."""
    vocabulary = word_pieces(folder)
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=lower, model_max_length=LONGEST)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"do_lower_case": lower, "model_max_length": LONGEST})
    model = BertForMaskedLM(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=LONGEST, **SIZES))
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in weights.items()
    }
    assert old.keys() != weights.keys()
    save_file(old, folder / "model.safetensors", {"format": "pt"})
    return tokenizer, model


def write_distilbert(folder: Path, lower: bool = False) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    vocabulary = word_pieces(folder)
    tokenizer = DistilBertTokenizer(vocab=vocabulary, do_lower_case=lower, model_max_length=LONGEST)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"do_lower_case": lower, "model_max_length": LONGEST})
    sizes = {"n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": LONGEST}
    model = DistilBertForMaskedLM(DistilBertConfig(vocab_size=len(vocabulary), **sizes))
    model.save_pretrained(folder)
    return tokenizer, model


def write_roberta(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>").save_model(str(folder))  # vocab.json and merges.txt
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"model_max_length": LONGEST})
    (folder / "dict.txt").write_text("of another library\n", encoding="utf-8")
    # Positions start after the id of the padding token.
    sizes = {**SIZES, "max_position_embeddings": LONGEST + 2, "type_vocab_size": 1}
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=len(vocabulary), **sizes))
    model.save_pretrained(folder)
    return tokenizer, model


def write_modernbert(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    learned = byte_pairs("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    special_tokens = [(name, learned.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    learned._tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0", special_tokens=special_tokens
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    config = {"model_input_names": ["input_ids", "attention_mask"], "model_max_length": LONGEST, **special}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learned._tokenizer, **config)
    learned._tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **config})
    write(folder, "special_tokens_map.json", special)
    numbers = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad")}
    numbers |= {"bos_token_id": numbers["cls_token_id"], "eos_token_id": numbers["sep_token_id"]}
    model = ModernBertForMaskedLM(
        ModernBertConfig(vocab_size=len(tokenizer), max_position_embeddings=LONGEST, **SIZES, **numbers)
    )
    model.save_pretrained(folder)
    return tokenizer, model


WORD_PIECES = {"tokenizer.json", "tokenizer_config.json", "vocab.txt"}
BYTE_PAIRS = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"}
WITH_TYPES, WITHOUT_TYPES = {"input_ids", "token_type_ids"}, {"input_ids"}

FAMILIES = {
    "bert-base-uncased": Family(lambda folder: write_bert(folder, lower=True), WORD_PIECES, "bert", WITH_TYPES),
    "bert-base-cased": Family(write_bert, WORD_PIECES, "bert", WITH_TYPES),
    "minilm": Family(lambda folder: write_bert(folder, lower=True), WORD_PIECES, "bert", WITH_TYPES),
    # Their tokenizer config does not name a class, and the default, BERT's, returns token types.
    "distilbert": Family(lambda folder: write_distilbert(folder, lower=True), WORD_PIECES, "distilbert", WITH_TYPES),
    "distil-mbert": Family(write_distilbert, WORD_PIECES, "distilbert", WITH_TYPES),
    "roberta-base": Family(write_roberta, BYTE_PAIRS, "roberta", WITHOUT_TYPES),
    "modernbert-base": Family(
        write_modernbert, {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}, "model", WITHOUT_TYPES
    ),
}


def test_every_model_of_the_catalog_is_tested() -> None:
    assert FAMILIES.keys() == {file.stem for file in (ROOT / "recipes/model").glob("*.yaml")}


@dataclass(frozen=True)
class Fetched:
    """A model family with its tokenizer and model, after fetch into the current directory."""

    family: Family
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel


@pytest.fixture(params=FAMILIES)
def fetched(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetched:
    family = FAMILIES[request.param]
    monkeypatch.chdir(tmp_path)
    Path("data/own/model").mkdir(parents=True)
    Path("data/own/reviews.csv").write_text("text,verdict\na warm film,fresh\n", encoding="utf-8")
    torch.manual_seed(0)
    tokenizer, model = family.write(Path("data/own/model"))
    for useless in ("pytorch_model.bin", "generation_config.json", "README.md"):
        Path("data/own/model", useless).write_bytes(b"of no use")
    recipe = check_recipe(tiny_recipe(**{"model.source.path": "data/own/model"}), "recipe")
    fetch(recipe.task.source, recipe.model.source)
    return Fetched(family, tokenizer, model)


def test_fetch_copies_the_files_of_the_tokenizer(fetched: Fetched) -> None:
    brought = {file.name for file in (PRETRAINED / "tokenizer").iterdir()}
    assert brought == {"config.json", *fetched.family.tokenizer}
    assert {file.name for file in (PRETRAINED / "model").iterdir()} == {"config.json", "model.safetensors"}
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    assert tokenizer.model_max_length == LONGEST
    for texts in ([TEXTS], [TEXTS, PAIRS]):
        encoded, expected = tokenizer(*texts), fetched.tokenizer(*texts)
        assert encoded["input_ids"] == expected["input_ids"]
        assert not [ids for ids in encoded["input_ids"] if tokenizer.unk_token_id in ids]
    assert encoded.keys() - {"attention_mask"} == fetched.family.inputs


def test_the_encoder_is_loaded_completely_and_gets_a_new_head(fetched: Fetched) -> None:
    model = load_classifier(PRETRAINED / "model", task_kind(["bad", "fair", "good"]))
    loaded = getattr(model, fetched.family.encoder).state_dict()
    written = getattr(fetched.model, fetched.family.encoder).state_dict()
    assert len(written) > 10
    assert {name for name in written if name not in loaded or not torch.equal(loaded[name], written[name])} == set()
    new = {name for name in loaded if name not in written}
    assert {name.split(".")[0] for name in new} <= {"pooler"}


@pytest.mark.parametrize("labels", [["bad", "fair", "good"], []], ids=["labels", "a number"])
@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_logits_do_not_depend_on_padding(fetched: Fetched, labels: list[str], pairs: bool) -> None:
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    model = load_classifier(PRETRAINED / "model", task_kind(labels)).eval()
    encoded = tokenizer(TEXTS, *([PAIRS] if pairs else []), return_attention_mask=False)
    label: float | int = 1 if labels else 1.5
    rows = [{**{name: encoded[name][n] for name in encoded}, "label": label} for n in range(len(TEXTS))]
    assert len(rows[0]["input_ids"]) < len(rows[1]["input_ids"])
    with torch.no_grad():
        together = model(**Collator(tokenizer, task_kind(labels))(rows)).logits
        alone = [model(**Collator(tokenizer, task_kind(labels))([row])).logits[0] for row in rows]
        longer = model(**Collator(tokenizer, task_kind(labels), (48,)).with_batch_size("predict", 2)(rows)).logits
    assert together.shape == (2, len(labels) or 1)
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)
    torch.testing.assert_close(together, longer, rtol=0, atol=1e-5)


def test_a_training_step_has_a_gradient_for_every_weight(fetched: Fetched) -> None:
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    model = load_classifier(PRETRAINED / "model", task_kind(["bad", "good"])).train()
    encoded = tokenizer(TEXTS, return_attention_mask=False)
    rows = [{**{name: encoded[name][n] for name in encoded}, "label": n} for n in range(len(TEXTS))]
    model(**Collator(tokenizer, task_kind(["bad", "good"]))(rows)).loss.backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is None} == set()
