"""The tokenizer of a file gives the tokens of transformers' tokenizer, which prepare uses."""

import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from reprise.core.errors import UserError
from reprise.data.tokenization import load_tokenizer
from reprise.data.tokenizer_file import FileTokenizer
from tiny import BAD, FILLER, GOOD

DRAW = random.Random(0)
TEXTS = [" ".join(DRAW.choices([*GOOD, *BAD, *FILLER, "Ünknown", "12,3"], k=DRAW.randint(1, 40))) for _ in range(200)]
ODD = ["", " ", "\t\n", "bright" * 30, "BRIGHT Füll", "[MASK] [SEP] bright", "a\u200bb", "映画", "👍🏽", "e\u0301"]
WINDOWS = {"return_overflowing_tokens": True, "return_offsets_mapping": True, "return_special_tokens_mask": True}


@pytest.mark.parametrize("max_length", [4, 8, 64])
def test_texts_and_pairs_have_the_same_tokens(tiny_model: Path, max_length: int) -> None:
    ours, expected = FileTokenizer(tiny_model), load_tokenizer(tiny_model)
    texts = [*TEXTS, *ODD]
    for columns in ([texts], [texts, texts[::-1]]):
        options = {"truncation": True, "max_length": max_length, "padding": False, "return_attention_mask": False}
        found, wanted = ours(*columns, **options), expected(*columns, **options)
        assert found["input_ids"] == wanted["input_ids"]
        assert found["token_type_ids"] == wanted["token_type_ids"]
    assert max(map(len, found["input_ids"])) == max_length


def test_windows_have_the_same_tokens_and_characters(tiny_model: Path) -> None:
    ours, expected = FileTokenizer(tiny_model), load_tokenizer(tiny_model)
    texts = [*TEXTS, *ODD]
    options = {"truncation": True, "max_length": 9, "stride": 3, "padding": False, "return_attention_mask": False}
    found, wanted = ours(texts, **options, **WINDOWS), expected(texts, **options, **WINDOWS)
    assert len(found["input_ids"]) > 2 * len(texts)
    for name in found:
        assert [list(row) if isinstance(row, list) else row for row in found[name]] == list(wanted[name]), name


def test_the_start_of_a_text_is_cut_where_the_tokenizer_does_so(tiny_model: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_model, truncation_side="left").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    text = "bright dull bright dull the film"
    (found,) = FileTokenizer(tmp_path)([text], max_length=4)["input_ids"]
    assert found == tokenizer(text, truncation=True, max_length=4)["input_ids"]
    assert tokenizer.decode(found) == "[CLS] the film [SEP]"


@pytest.mark.parametrize("content", [None, "", "{}", '{"version": "1.0", "model": 3}'])
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError) as refused:
        FileTokenizer(tmp_path)
    assert refused.value.file == str(tmp_path / "tokenizer.json")
    assert refused.value.expected == "the file of a fast tokenizer"
