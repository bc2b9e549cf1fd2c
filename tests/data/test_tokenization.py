"""Texts are tokenized and truncated without importing model code."""

import sys
from pathlib import Path

import pytest

from reprise.data.tokenization import load_tokenizer, tokenize
from tiny import ROOT, Run


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
