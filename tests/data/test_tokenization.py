"""Texts are tokenized and truncated without importing model code."""

import json
import sys
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from reprise.core.errors import UserError
from reprise.data.tokenization import load_tokenizer, tokenize
from tiny import BAD, FILLER, GOOD, ROOT, Run


@pytest.mark.parametrize(
    ("texts", "tokens", "segments"),
    [
        ([["the film is funny"]], "[CLS] the film is funny [SEP]", [0] * 6),
        ([["the film"], ["dull"]], "[CLS] the film [SEP] dull [SEP]", [0, 0, 0, 0, 1, 1]),
        ([["the film was dull and flat"]], "[CLS] the film was dull and [SEP]", [0] * 7),
        ([["the film was dull"], ["flat and tired"]], "[CLS] the film [SEP] flat and [SEP]", [0, 0, 0, 0, 1, 1, 1]),
    ],
    ids=["text", "pair", "long text", "long pair"],
)
def test_texts_are_truncated_to_the_maximum_length(
    tiny_model: Path, texts: list[list[str]], tokens: str, segments: list[int]
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    encoded = tokenize(tokenizer, texts, 7)
    assert tokenizer.convert_ids_to_tokens(encoded.pop("input_ids")[0]) == tokens.split()
    assert encoded == {"token_type_ids": [segments], "length": [len(segments)]}


def test_a_tokenizer_is_loaded_with_its_models_maximum_length(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    assert tokenizer.model_max_length == 64
    assert tokenizer.convert_ids_to_tokens(tokenizer("the film").input_ids) == ["[CLS]", "the", "film", "[SEP]"]


def test_prepare_imports_no_model_code(run: Run) -> None:
    script = "import sys, reprise.prepare.stage; print('transformers.modeling_utils' in sys.modules)"
    assert run(ROOT, sys.executable, "-c", script).stdout == "False\n"


@pytest.fixture
def sentencepiece(tmp_path: Path) -> Path:
    """A folder with nothing but a sentencepiece model of words, and the config of a family."""
    SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join([*GOOD, *BAD, *FILLER])] * 20), model_prefix=str(tmp_path / "spm"),
        vocab_size=60, hard_vocab_limit=False, minloglevel=2, pad_id=0, bos_id=1, eos_id=2, unk_id=3,
        pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]", user_defined_symbols="[MASK]",
    )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    ("family", "file"),
    [
        ("deberta-v2", "spm.model"),
        ("albert", "spiece.model"),
        ("t5", "spiece.model"),
        ("xlm-roberta", "sentencepiece.bpe.model"),
    ],
)
def test_a_sentencepiece_model_is_a_whole_tokenizer(sentencepiece: Path, family: str, file: str) -> None:
    (sentencepiece / "spm.model").rename(sentencepiece / file)
    (sentencepiece / "config.json").write_text(json.dumps({"model_type": family}))
    tokenizer = load_tokenizer(sentencepiece)
    processor = SentencePieceProcessor(model_file=str(sentencepiece / file))
    pieces = processor.encode("the clever film", out_type=str)
    assert tokenizer.tokenize("the clever film") == pieces
    assert tokenizer.unk_token_id not in tokenizer("the clever film")["input_ids"]


@pytest.mark.parametrize(("family", "file"), [("bert", "vocab.txt"), ("roberta", "vocab.json"), ("t5", "spiece.model")])
def test_a_tokenizer_without_a_vocabulary_is_refused(tmp_path: Path, family: str, file: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.file == str(tmp_path)
    assert "no vocabulary" in caught.value.problem
    assert file in caught.value.expected


def test_a_broken_tokenizer_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_token_to_pad_with_uses_the_one_that_ends_a_text(tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({"<end>": 0, "warm": 1}, "<end>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token == "<end>"
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.expected == "pad_token or eos_token"
