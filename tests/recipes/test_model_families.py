"""The families of models on the shelf: of each a tiny one, in files as the Hub has them, through fetch to logits."""

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
from tiny import BAD, FILLER, GOOD, ROOT, tiny_recipe

TEXTS = ["the film is funny", "A dull story, and a very tired end"]
PAIRS = ["a warm cast", "the plot was hollow"]
WORDS = [*GOOD, *BAD, *FILLER, "a", "A", ","]
SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
# The longest text in tokens that each says it takes.
LONGEST = 64


@dataclass(frozen=True)
class Family:
    """How a family's files come: what makes them, and which of the tokenizer's are needed."""

    lay: Callable[[Path], tuple[PreTrainedTokenizerBase, PreTrainedModel]]
    tokenizer: set[str]
    encoder: str  # what its weights are called by
    inputs: set[str]


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def word_pieces(folder: Path) -> dict[str, int]:
    """Lay a vocabulary of words, and return it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return {word: number for number, word in enumerate(words)}


def byte_pairs(*special: str) -> ByteLevelBPETokenizer:
    """A vocabulary of byte pairs, learned from the words."""
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator([" ".join(WORDS)] * 3, vocab_size=320, special_tokens=list(special))
    return learned


def lay_bert(folder: Path, lower: bool = False) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """As the Hub has them, of 2018: two lines about the tokenizer, and weights that say gamma and beta."""
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


def lay_distilbert(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    vocabulary = word_pieces(folder)
    tokenizer = DistilBertTokenizer(vocab=vocabulary, model_max_length=LONGEST)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"do_lower_case": True, "model_max_length": LONGEST})
    sizes = {"n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": LONGEST}
    model = DistilBertForMaskedLM(DistilBertConfig(vocab_size=len(vocabulary), **sizes))
    model.save_pretrained(folder)
    return tokenizer, model


def lay_roberta(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>").save_model(str(folder))  # vocab.json and merges.txt
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"model_max_length": LONGEST})
    (folder / "dict.txt").write_text("of another library\n", encoding="utf-8")
    # Positions are counted from behind the padding token's number.
    sizes = {**SIZES, "max_position_embeddings": LONGEST + 2, "type_vocab_size": 1}
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=len(vocabulary), **sizes))
    model.save_pretrained(folder)
    return tokenizer, model


def lay_modernbert(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    learned = byte_pairs("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    ends = [(name, learned.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    learned._tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0", special_tokens=ends
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    says = {"model_input_names": ["input_ids", "attention_mask"], "model_max_length": LONGEST, **special}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learned._tokenizer, **says)
    learned._tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **says})
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
    "bert-base-uncased": Family(lambda folder: lay_bert(folder, lower=True), WORD_PIECES, "bert", WITH_TYPES),
    "bert-base-cased": Family(lay_bert, WORD_PIECES, "bert", WITH_TYPES),
    "minilm": Family(lambda folder: lay_bert(folder, lower=True), WORD_PIECES, "bert", WITH_TYPES),
    # Its two lines about the tokenizer do not tell its class, and BERT's, which stands in, numbers the texts of a pair.
    "distilbert": Family(lay_distilbert, WORD_PIECES, "distilbert", WITH_TYPES),
    "roberta-base": Family(lay_roberta, BYTE_PAIRS, "roberta", WITHOUT_TYPES),
    "modernbert-base": Family(
        lay_modernbert, {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}, "model", WITHOUT_TYPES
    ),
}


def test_every_model_of_the_shelf_has_its_family_here() -> None:
    assert FAMILIES.keys() == {file.stem for file in (ROOT / "recipes/model").glob("*.yaml")}


@dataclass(frozen=True)
class Fetched:
    """What was laid, and what fetch made of it in the current directory."""

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
    tokenizer, model = family.lay(Path("data/own/model"))
    for useless in ("pytorch_model.bin", "generation_config.json", "README.md"):
        Path("data/own/model", useless).write_bytes(b"of no use")
    recipe = check_recipe(tiny_recipe(**{"model.source.path": "data/own/model"}), "recipe")
    fetch(recipe.task.source, recipe.model.source)
    return Fetched(family, tokenizer, model)


def test_fetch_brings_what_its_tokenizer_needs(fetched: Fetched) -> None:
    brought = {file.name for file in (PRETRAINED / "tokenizer").iterdir()}
    assert brought == {"config.json", *fetched.family.tokenizer}
    assert {file.name for file in (PRETRAINED / "model").iterdir()} == {"config.json", "model.safetensors"}
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    assert tokenizer.model_max_length == LONGEST
    for texts in ([TEXTS], [TEXTS, PAIRS]):
        encoded, meant = tokenizer(*texts), fetched.tokenizer(*texts)
        assert encoded["input_ids"] == meant["input_ids"]
        assert not [ids for ids in encoded["input_ids"] if tokenizer.unk_token_id in ids]
    assert encoded.keys() - {"attention_mask"} == fetched.family.inputs


def test_its_encoder_is_loaded_whole_and_gets_a_new_head(fetched: Fetched) -> None:
    model = load_classifier(PRETRAINED / "model", ["bad", "fair", "good"])
    loaded = getattr(model, fetched.family.encoder).state_dict()
    laid = getattr(fetched.model, fetched.family.encoder).state_dict()
    assert len(laid) > 10
    assert {name for name in laid if name not in loaded or not torch.equal(loaded[name], laid[name])} == set()
    new = {name for name in loaded if name not in laid}
    assert {name.split(".")[0] for name in new} <= {"pooler"}


@pytest.mark.parametrize("labels", [["bad", "fair", "good"], []], ids=["labels", "a number"])
@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_it_gives_a_row_of_logits_for_each_text_whatever_it_is_padded_to(
    fetched: Fetched, labels: list[str], pairs: bool
) -> None:
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    model = load_classifier(PRETRAINED / "model", labels).eval()
    encoded = tokenizer(TEXTS, *([PAIRS] if pairs else []), return_attention_mask=False)
    label: float | int = 1 if labels else 1.5
    rows = [{**{name: encoded[name][n] for name in encoded}, "label": label} for n in range(len(TEXTS))]
    assert len(rows[0]["input_ids"]) < len(rows[1]["input_ids"])
    with torch.no_grad():
        together = model(**Collator(tokenizer)(rows)).logits
        alone = [model(**Collator(tokenizer)([row])).logits[0] for row in rows]
        longer = model(**Collator(tokenizer, (48,)).with_batch_size("predict", 2)(rows)).logits
    assert together.shape == (2, len(labels) or 1)
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)
    torch.testing.assert_close(together, longer, rtol=0, atol=1e-5)


def test_one_step_of_training_moves_every_weight_that_has_a_part_in_it(fetched: Fetched) -> None:
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    model = load_classifier(PRETRAINED / "model", ["bad", "good"]).train()
    encoded = tokenizer(TEXTS, return_attention_mask=False)
    rows = [{**{name: encoded[name][n] for name in encoded}, "label": n} for n in range(len(TEXTS))]
    model(**Collator(tokenizer)(rows)).loss.backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is None} == set()
