"""Windows cover long texts, and each word is decided once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from reprise.data.tokenization import load_tokenizer
from reprise.data.windows import locate_words, tokenize_windows, window_starts
from reprise.tasks.classification import Classification
from reprise.tasks.token_classification import IGNORED, TokenClassification, find_words

KIND = TokenClassification(("name",))


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model)


def windows_of(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: Any
) -> tuple[dict[str, list[Any]], Any]:
    """Return the windows of texts whose words have the tags 0, 1, 2, 0, 1, 2, …"""
    words = [find_words(text) for text in texts]
    labels = [[number % 3 for number in range(len(each.starts))] for each in words]
    return tokenize_windows(tokenizer, texts, kind=KIND, labels=labels, words=words, **options)


@pytest.mark.parametrize("stride", [0, 1, 2, 3])
@pytest.mark.parametrize("max_length", [8, 11, 64])
def test_every_word_of_every_text_is_decided_by_one_window(
    tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> None:
    texts = ["the film is very clever and bright , the unheardofword was empty", "", "tired", "the film " * 20]
    columns, kept = windows_of(tokenizer, texts, max_length=max_length, stride=stride)
    assert max(columns["length"]) <= max_length
    for text in range(len(texts)):
        rows = [row for row, example in enumerate(columns["example"]) if example == text]
        assert rows
        tags = [columns["label"][row][token] for row in rows for token in columns["word_tokens"][row]]
        assert tags == [number % 3 for number in range(len(find_words(texts[text]).starts))]
        assert kept[text].all()
    trained = [label for row in columns["label"] for label in row if label != IGNORED]
    assert len(trained) == sum(len(tokens) for tokens in columns["word_tokens"])


def test_the_words_of_the_windows_are_those_of_the_text(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "the clever film and the bright story was very moving , the end"
    columns, _ = windows_of(tokenizer, [text], max_length=8, stride=2)
    found = [
        tokenizer.convert_ids_to_tokens(columns["input_ids"][row][token])
        for row in range(len(columns["length"]))
        for token in columns["word_tokens"][row]
    ]
    assert found == text.split()


def test_a_short_text_has_the_tokens_that_it_has_without_windows(tokenizer: PreTrainedTokenizerBase) -> None:
    columns, _ = windows_of(tokenizer, ["the bright film"], max_length=16, stride=4)
    assert columns["input_ids"] == [tokenizer("the bright film")["input_ids"]]


def test_the_windows_of_a_text_weigh_as_much_as_one_text(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = ["the film " * 30, "the film"]
    labels, kind = [1, 0], Classification(("bad", "good"))
    columns, kept = tokenize_windows(tokenizer, texts, max_length=8, stride=2, kind=kind, labels=labels)
    assert kept == []
    example = np.array(columns["example"])
    assert np.bincount(example, columns["weight"]).tolist() == pytest.approx([1.0, 1.0])
    assert [labels[index] for index in example] == columns["label"]
    assert "word_tokens" not in columns


def test_words_without_a_token_are_reported_and_the_others_keep_their_tags(tokenizer: PreTrainedTokenizerBase) -> None:
    words = [find_words(["the", "\u200b\u200d", "film"])]
    columns, (kept,) = tokenize_windows(
        tokenizer, [words[0].text], max_length=8, stride=2, kind=KIND, labels=[[1, 1, 2]], words=words
    )
    assert kept.tolist() == [True, False, True]
    assert [columns["label"][0][token] for token in columns["word_tokens"][0]] == [1, 2]


def test_neighbouring_windows_decide_half_of_what_they_share() -> None:
    # Tokens 0 to 9, 6 to 15 and 12 to 17: four are shared, two of them go to each side.
    assert window_starts([10, 10, 6], stride=4).tolist() == [0, 8, 14]
    assert window_starts([3], stride=4).tolist() == [0]


def test_a_token_of_two_words_is_the_first_token_of_both() -> None:
    first, word = locate_words(find_words("end)."), np.array([[0, 3], [3, 5]]))
    assert first.tolist() == [0, 1, 1]
    assert word.tolist() == [0, 2]


def test_tokens_of_one_character_count_once() -> None:
    first, word = locate_words(find_words("a é"), np.array([[0, 1], [2, 3], [2, 3]]))
    assert first.tolist() == [0, 1]
    assert word.tolist() == [0, 1, 1]
