"""CoNLL files in the variants that people have: separators, comments, numbers of words, documents."""

import json

import pytest

from own_files import conll, delimited, lines, word_rows
from reprise.core.errors import UserError
from reprise.own_data.conll import is_conll, is_entity_tagging, read_conll

BLOCK = "The O\nEU B-ORG\nrejects O\n\nPeter B-PER\nleaves O\n\n"


def rows(text: str) -> list[tuple[list[str], list[str]]]:
    """Return the words and tags of each sentence."""
    table, _ = read_conll(text, "news.conll")
    return [(json.loads(row["words"]), json.loads(row["tags"])) for row in table.to_pylist()]


PLAIN = [(["The", "EU", "rejects"], ["O", "B-ORG", "O"]), (["Peter", "leaves"], ["B-PER", "O"])]


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        BLOCK.rstrip(),
        BLOCK.replace("\n", "\r\n"),
        BLOCK.replace(" ", "\t"),
        BLOCK.replace(" ", "   "),
        BLOCK.replace("\n\n", "\n\n\n \n"),
        BLOCK.replace(" ", " NN _ "),
        BLOCK.replace("\n", " \n"),
        f"-DOCSTART- -X- O\n\n{BLOCK}",
        f"-DOCSTART-\n{BLOCK}",
        f"# id 17 domain=en\n# B\n{BLOCK}".replace("Peter", "# text = Peter leaves\nPeter"),
        f"word ner_tag\n{BLOCK}",
        "1 The O\n2 EU B-ORG\n3 rejects O\n\n1 Peter B-PER\n2 leaves O\n\n",
    ],
)
def test_sentences_are_read_in_each_variant(text: str) -> None:
    assert is_conll(text)
    assert rows(text) == PLAIN


@pytest.mark.parametrize("word", ["#", "\u00a0", "\u2028", '"', "-DOCSTART", "New York"])
def test_a_word_may_be_any_sign(word: str) -> None:
    separator = "\t" if " " in word else " "
    text = f"{word} O\nEU B-ORG\n\n".replace(" O", "\tO").replace(" B", "\tB").replace("\t", separator) + (
        BLOCK.replace(" ", separator)
    )
    assert rows(text)[0] == ([word, "EU"], ["O", "B-ORG"])


def test_documents_are_numbered() -> None:
    start = "-DOCSTART- -X- O\n\n"
    table, notes = read_conll(start + BLOCK + start + BLOCK, "a/news.train.conll")
    assert table["document"].to_pylist() == ["news.train-1"] * 2 + ["news.train-2"] * 2
    assert any("2 documents" in note for note in notes)


def test_one_document_is_no_column() -> None:
    assert read_conll("-DOCSTART- -X- O\n\n" + BLOCK, "news.conll")[0].column_names == ["words", "tags"]


def test_a_line_without_a_word_is_left_out_and_counted() -> None:
    text = BLOCK.replace(" ", "\t").replace("rejects\tO", "\tO")
    assert rows(text)[0] == (["The", "EU"], ["O", "B-ORG"])
    assert "1 lines without a word are left out" in read_conll(text, "news.conll")[1]


@pytest.mark.parametrize("line", ["word\n", "a b c d O\n"])
def test_a_line_of_another_width_is_named(line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_conll(BLOCK * 50 + line, "news.conll")
    assert (caught.value.file, caught.value.key) == ("news.conll", f"line {BLOCK.count(chr(10)) * 50 + 1}")


@pytest.mark.parametrize(
    "text",
    [
        "the film is good\n\nthe plot is bad\n",
        "text label\n",
        delimited([["text", "label"], *([f"the film {n}", "O"] for n in range(9))]),
        lines(word_rows()),
        "\n\n\n",
        "# only\n# comments\n\n",
    ],
)
def test_other_texts_are_no_conll(text: str) -> None:
    assert not is_conll(text)


def test_the_format_is_found_in_a_long_file() -> None:
    assert is_conll(conll() * 400)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"O": 3, "B-a": 1}, True),
        ({"B-a": 2, "I-a": 1}, True),
        ({"O": 3, "person": 1}, True),
        ({"O": 3, "B": 1, "I": 4}, True),
        ({"O": 3}, False),
        ({"NN": 3, "DT": 1}, False),
        ({"the": 3, "O": 1, "Canada": 1}, False),
        ({}, False),
    ],
)
def test_tags_of_entities_are_told_from_other_words(tags: dict[str, int], expected: bool) -> None:
    assert is_entity_tagging(tags) == expected
