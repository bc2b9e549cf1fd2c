"""Tags, spans and words in the spellings of the tools that write them."""

from typing import Any

import pytest

from reprise.own_data.entities import name_scheme, parse_words, to_span

SPAN = {"start": 3, "end": 7, "label": "place"}


@pytest.mark.parametrize(
    "value",
    [
        SPAN,
        [3, 7, "place"],
        {"start_offset": 3, "end_offset": 7, "label": "place", "id": 5},
        {"start": 3, "end": 7, "text": "Lyon", "labels": ["place"]},
        {"begin": 3, "end": 7, "entity": "place", "score": 0.5},
        {"start_char": 3, "end_char": 7, "type": "place"},
        {"start": 3, "end": 7, "tag": "place", "label": None},
    ],
)
def test_spans_of_any_tool_become_one_form(value: Any) -> None:
    assert to_span(value) == SPAN


@pytest.mark.parametrize(
    "value",
    [
        None,
        "place",
        [3, 7],
        ["a", "b", "c"],
        {"start": 3, "end": 7},
        {"start": "3", "end": 7, "label": "a"},
        {"start": 3, "end": 7, "labels": ["a", "b"]},
        {"start": 3, "end": 7, "label": ""},
    ],
)
def test_anything_else_is_no_span(value: Any) -> None:
    assert to_span(value) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('["in", "Lyon"]', ["in", "Lyon"]),
        ("['in', 'Lyon']", ["in", "Lyon"]),
        ("in Lyon", ["in", "Lyon"]),
        ("[0, 1]", ["0", "1"]),
        ("[ in Lyon", ["[", "in", "Lyon"]),
        ("[]", []),
        ('[{"a": 1}]', None),
        (" ", None),
        (None, None),
    ],
)
def test_words_are_lists_or_stand_between_spaces(value: str | None, words: list[str] | None) -> None:
    assert parse_words(value) == words


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-a I-a O", "IOB2"),
        ("B-a B-a O B-b", "IOB2"),
        ("O I-a I-a B-a O", "IOB1"),
        ("O I-a I-b O", "IOB1"),
        ("O B-a E-a S-b", "IOBES"),
        ("O B-a L-a U-b", "BILOU"),
        ("O a a b", "types without a prefix"),
    ],
)
def test_the_scheme_of_tags_is_named(tags: str, scheme: str) -> None:
    assert name_scheme([tags.split()]) == scheme
