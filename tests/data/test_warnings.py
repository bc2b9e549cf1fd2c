"""Warnings of stats.json become sentences."""

import pytest

from reprise.data.warnings import MAX_NAMES, SENTENCES, describe_warnings

TABLE = {"table": "train", "examples": 1200, "first_row": 7}
WARNINGS = [
    {"id": "empty_texts", **TABLE},
    {"id": "quoted_texts", **TABLE},
    {"id": "row_in_text", **TABLE},
    {"id": "shared_texts", "split": "test", "other": "train", "exact": 3, "normalized": 5, "examples": 10},
    {"id": "conflicting_labels", "texts": 2, "examples": 5},
    {"id": "split_share", "split": "test", "asked": 0.1, "obtained": 0.25},
    {
        "id": "large_group",
        "rows": 5210,
        "of": 9000,
        "sharing": 4100,
        "value": "yes",
        "column": "hypothesis",
        "key": "group_texts",
    },
    {"id": "truncated", "split": "test", "examples": 2, "share": 0.5, "median": 5, "longest": 43},
    {"id": "unknown_tokens", "split": "test", "share": 0.02, "token": "[UNK]"},
    {"id": "single_label", "split": "test", "label": "a"},
    {"id": "labels_not_in_train", "split": "train", "labels": ["a", "b"]},
    {"id": "labels_not_in_split", "split": "test", "labels": ["a"]},
    {"id": "constant_label", "split": "test", "label": 2.5},
    {"id": "widened_spans", **TABLE},
    {"id": "words_without_tokens", "split": "test", "words": 3},
]


def test_every_warning_has_a_sentence_with_its_numbers() -> None:
    assert [warning["id"] for warning in WARNINGS] == list(SENTENCES)
    sentences = describe_warnings({"warnings": WARNINGS})
    assert sentences[0] == "train: 1,200 rows without text were left out, the first is row 7"
    assert sentences[5] == "test: 25.0% of the examples, although task.split asks for 10.0%"
    assert sentences[6] == (
        "5,210 of 9,000 rows stay together in one split, 4,100 of them through 'yes' in column 'hypothesis' "
        "(task.split.group_texts)"
    )
    assert all("{" not in sentence and "\n" not in sentence for sentence in sentences)


@pytest.mark.parametrize(("labels", "end"), [(MAX_NAMES, "l4,"), (MAX_NAMES + 2, "l4, and 2 more,")])
def test_many_labels_are_shortened(labels: int, end: str) -> None:
    names = [f"l{number}" for number in range(labels)]
    (sentence,) = describe_warnings({"warnings": [{"id": "labels_not_in_train", "split": "train", "labels": names}]})
    assert end in sentence


def test_statistics_of_earlier_versions_have_no_warnings() -> None:
    assert describe_warnings({"splits": {}}) == []
