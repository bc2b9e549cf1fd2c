"""Token classification: words, tags, and entities in texts."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from reprise.core.config import Loss
from reprise.tasks.labels import ragged
from reprise.tasks.token_classification import (
    IGNORED,
    Segment,
    TokenClassification,
    entity_texts,
    find_words,
    mark_entities,
)

KIND = TokenClassification(("person", "place"))
OUT, B_PERSON, I_PERSON, B_PLACE, I_PLACE = range(5)


def parse(words: object, label: object) -> list[int]:
    """Return the prepared label."""
    return KIND.parse_label((find_words(words), label), "train")


def words_of(text: str) -> list[str]:
    """Return the words of a text."""
    found = find_words(text)
    return [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)]


def test_words_are_letters_and_digits_or_one_other_character() -> None:
    assert words_of("Ada's 2nd note, 1843!") == ["Ada", "'", "s", "2nd", "note", ",", "1843", "!"]
    assert words_of("東京 tower") == ["東", "京", "tower"]
    assert words_of(" ") == []


def test_a_list_of_words_is_joined_by_spaces() -> None:
    found = find_words(["U.S.", "", "New York"])
    assert found.text == "U.S.  New York"
    assert [found.text[start:end] for start, end in zip(found.starts, found.ends, strict=True)] == [
        "U.S.",
        "",
        "New York",
    ]


@pytest.mark.parametrize("value", [None, 3, ["a", 3]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a text, or a list of words"):
        find_words(value)


WORDS = ["Ada", "King", "in", "London", "Paris"]


@pytest.mark.parametrize(
    "tags",
    [
        ["B-person", "I-person", "O", "B-place", "B-place"],
        ["B-person", "E-person", "O", "S-place", "S-place"],  # IOBES
        ["B-person", "L-person", "O", "U-place", "U-place"],  # BILOU
        ["I-person", "I-person", "O", "I-place", "B-place"],  # IOB1
        "B_person I_person O B_place B_place",
    ],
)
def test_every_scheme_of_tags_becomes_iob2(tags: object) -> None:
    assert parse(WORDS, tags) == [B_PERSON, I_PERSON, OUT, B_PLACE, B_PLACE]


def test_spans_of_characters_become_tags_of_their_words() -> None:
    text = "Ada King, in London"
    spans = [{"start": 0, "end": 8, "label": "person"}, {"start": 13, "end": 19, "label": "place"}]
    assert parse(text, spans) == [B_PERSON, I_PERSON, OUT, OUT, B_PLACE]
    assert not KIND.widened(spans, find_words(text))
    assert parse(text, []) == [OUT] * 5


def test_a_span_within_a_word_is_widened_and_said() -> None:
    spans = [{"start": 0, "end": 2, "label": "person"}]
    assert parse("Ada King", spans) == [B_PERSON, OUT]
    assert KIND.widened(spans, find_words("Ada King"))


@pytest.mark.parametrize(
    ("words", "label", "message"),
    [
        (WORDS, ["O"], "1 tags and 5 words; expected a tag for each word"),
        (WORDS, ["O", "O", "O", "O", "B-plase"], "unknown label 'plase'; did you mean 'place'?"),
        (WORDS, ["O", "O", "O", "O", "?"], "unknown label '?'"),
        (WORDS, None, "expected a list of tags, or of spans"),
        ("Ada", [{"start": 0, "end": 9, "label": "person"}], "got a span from 0 to 9; expected one within the 3"),
        ("Ada", [{"start": 2, "end": 2, "label": "person"}], "got a span from 2 to 2"),
        ("Ada", [{"start": 0, "label": "person"}], "expected {start, end, label}"),
        ("Ada", [{"start": 0, "end": 3, "label": "pet"}], "unknown label 'pet'"),
        (
            "Ada King",
            [{"start": 0, "end": 8, "label": "person"}, {"start": 4, "end": 8, "label": "person"}],
            "the span from 4 to 8 shares a word with another",
        ),
    ],
)
def test_a_label_that_does_not_fit_is_refused(words: object, label: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(words, label)


def test_only_the_first_token_of_a_word_is_trained_or_all_of_them() -> None:
    first, words, tags = np.array([0, 2]), np.array([0, 0, 1, 1, -1]), np.array([B_PERSON, OUT])
    assert KIND.token_labels(first, words, tags).tolist() == [B_PERSON, IGNORED, OUT, IGNORED, IGNORED]
    every = TokenClassification(KIND.labels, subwords="all")
    assert every.token_labels(first, words, tags).tolist() == [B_PERSON, I_PERSON, OUT, OUT, IGNORED]


def test_the_loss_is_the_sum_over_the_labelled_tokens() -> None:
    logits = torch.zeros(2, 3, 5)
    labels = torch.tensor([[OUT, IGNORED, B_PLACE], [IGNORED, I_PERSON, IGNORED]])
    assert KIND.summed_loss(logits, labels).item() == pytest.approx(3 * np.log(5))
    weights = KIND.loss_weights(lambda: ragged(labels.numpy()))
    assert weights.tolist() == [2.0, 1.0]


def test_weights_of_labels_are_refused() -> None:
    assert KIND.loss_problem(Loss(class_weights="balanced"))[0] == "class_weights"  # type: ignore[index]
    assert KIND.loss_problem(Loss(label_smoothing=0.1)) is None


def test_a_tag_that_continues_nothing_begins_an_entity() -> None:
    logits = ragged(
        [np.eye(5, dtype=np.float32)[[I_PLACE, I_PLACE, OUT, I_PERSON, I_PLACE]], np.zeros((0, 5), np.float32)]
    )
    decoded = KIND.decode(logits)
    assert decoded[0].tolist() == [B_PLACE, I_PLACE, OUT, B_PERSON, B_PLACE]
    assert decoded[1].tolist() == []


def test_predictions_are_entities_with_their_characters() -> None:
    text = "Ada King went to London"
    logits = ragged([10 * np.eye(5, dtype=np.float32)[[B_PERSON, I_PERSON, OUT, OUT, B_PLACE]]])
    (found,) = KIND.predictions(logits, words=[find_words(text)])
    assert [(each["start"], each["end"], each["label"], each["text"]) for each in found["entities"]] == [
        (0, 8, "person", "Ada King"),
        (17, 23, "place", "London"),
    ]
    assert found["entities"][0]["score"] == pytest.approx(1 / (1 + 4 * np.exp(-10)), abs=1e-6)


REFERENCES = ragged([np.array([B_PERSON, I_PERSON, OUT, B_PLACE]), np.array([OUT, B_PLACE])])
LOGITS = ragged(
    [np.eye(5, dtype=np.float32)[[B_PERSON, I_PERSON, OUT, B_PERSON]], np.eye(5, dtype=np.float32)[[B_PLACE, OUT]]]
)


def test_confusion_is_of_entities_with_the_same_words() -> None:
    plots = KIND.plots(LOGITS, REFERENCES)
    pairs = plots["confusion.csv"].value_counts().to_dict()
    assert pairs == {
        ("person", "person"): 1,
        ("place", "person"): 1,
        ("place", "no entity"): 1,
        ("no entity", "place"): 1,
    }
    scores = plots["per_class.csv"].set_index("label")
    assert scores.loc["person", ["precision", "recall", "support"]].tolist() == [0.5, 1.0, 1]
    assert scores.loc["place", ["precision", "recall", "support"]].tolist() == [0.0, 0.0, 2]


def test_errors_are_ranked_by_their_wrong_entities() -> None:
    table = pd.DataFrame(
        {"label": KIND.label_names(REFERENCES), "prediction": KIND.label_names(KIND.decode(LOGITS))}, index=[7, 9]
    )
    assert KIND.rank_errors(table).to_dict() == {7: 2.0, 9: 2.0}


def test_labels_are_spelled_as_tags_and_back() -> None:
    names = KIND.label_names(REFERENCES)
    assert names[1] == ["O", "B-place"]
    assert [each.tolist() for each in KIND.label_values(names)] == [each.tolist() for each in REFERENCES]
    with pytest.raises(ValueError, match="unknown tags: B-pet"):
        KIND.label_values([["B-pet"]])


def test_the_text_is_divided_at_its_entities() -> None:
    found = find_words("Ada King, in New London.")
    row = {"text": found.text, "word_starts": found.starts, "word_ends": found.ends}
    row |= {"label": ["B-person", "I-person", "O", "O", "B-place", "I-place", "O"]}
    row |= {"prediction": ["B-person", "I-person", "O", "O", "O", "B-place", "O"]}
    assert mark_entities(row) == [
        Segment("Ada King", "person", "person", True),
        Segment(", in", "", "", True),
        Segment(" ", "", "", True),
        Segment("New", "place", "", False),
        Segment(" ", "", "", True),
        Segment("London", "place", "place", False),
        Segment(".", "", "", True),
    ]
    assert entity_texts(row, "label") == "Ada King (person), New London (place)"
    assert entity_texts(row | {"label": ["O"] * 7}, "label") == "–"


def test_splits_can_be_stratified_by_the_rarest_label() -> None:
    strata, names = KIND.strata(REFERENCES, np.array([0, 1]))
    assert list(names) == ["person", "place", "none"]
    assert strata.tolist() == [0, 1]
