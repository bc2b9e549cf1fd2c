"""The most confident errors."""

import pandas as pd

from reprise.report.errors import MAX_TEXT_CHARS, Misprediction, find_errors
from reprise.tasks.registry import task_kind
from reprise.tasks.token_classification import Segment, find_words

REVIEWS = task_kind(["rotten", "fresh"])


def predictions(rows: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [7, 8, 9, 10],
            "text": ["good", "bad", "fair", "poor"],
            "label": ["fresh", "rotten", "fresh", "rotten"],
            "prediction": ["rotten", "fresh", "fresh", "fresh"],
            "probabilities": [[0.75, 0.25], [0.125, 0.875], [0.0, 1.0], [0.5, 0.5]],
        }
    )


def test_errors_are_sorted_by_confidence_without_correct_predictions() -> None:
    assert find_errors(predictions(), REVIEWS) == [
        Misprediction(row="8", texts=["bad"], label="rotten", prediction="fresh", description="87.5 % confidence"),
        Misprediction(row="7", texts=["good"], label="fresh", prediction="rotten", description="75.0 % confidence"),
        Misprediction(row="10", texts=["poor"], label="rotten", prediction="fresh", description="50.0 % confidence"),
    ]


def test_the_number_of_errors_is_limited_and_ties_keep_their_order() -> None:
    many = pd.concat([predictions().head(1)] * 5, ignore_index=True).drop(columns="id")
    assert [each.row for each in find_errors(many, REVIEWS, rows=3)] == ["0", "1", "2"]


def test_a_pair_has_two_texts_and_a_long_text_is_cut() -> None:
    pair = predictions().assign(text="x" * (MAX_TEXT_CHARS + 1), text_pair="short")
    assert find_errors(pair, REVIEWS)[0].texts == ["x" * MAX_TEXT_CHARS + " …", "short"]
    exact = predictions().assign(text="x" * MAX_TEXT_CHARS)
    assert find_errors(exact, REVIEWS)[0].texts == ["x" * MAX_TEXT_CHARS]


def test_a_regression_lists_the_largest_errors() -> None:
    numbers = pd.DataFrame({"text": ["a", "b"], "label": [1.0, 2.0], "prediction": [1.25, -1.0]})
    assert find_errors(numbers, task_kind([])) == [
        Misprediction(row="1", texts=["b"], label="2.000", prediction="-1.000", description="error 3.000"),
        Misprediction(row="0", texts=["a"], label="1.000", prediction="1.250", description="error 0.250"),
    ]


def test_a_perfect_model_has_no_errors() -> None:
    assert find_errors(predictions().iloc[[2]], REVIEWS) == []


def entities(text: str, label: str, prediction: str) -> pd.DataFrame:
    """Return predictions of a text with tags between spaces."""
    words = find_words(text)
    row = {"id": 7, "text": text, "word_starts": words.starts, "word_ends": words.ends}
    return pd.DataFrame([row | {"label": label.split(), "prediction": prediction.split()}])


ENTITIES = task_kind(["person", "place"], token_classification={"subwords": "first"})


def test_wrong_entities_are_marked_in_their_text() -> None:
    table = entities("Ada King left London", "B-person I-person O B-place", "B-person I-person B-place O")
    (found,) = find_errors(table, ENTITIES)
    assert found.texts == [
        [
            Segment("Ada King", "person", "person", True),
            Segment(" ", "", "", True),
            Segment("left", "", "place", False),
            Segment(" ", "", "", True),
            Segment("London", "place", "", False),
        ]
    ]
    assert (found.label, found.prediction) == ("Ada King (person), London (place)", "Ada King (person), left (place)")
    assert found.description == "2 missed or wrong"


def test_of_a_long_text_the_part_around_the_first_wrong_entity_is_shown() -> None:
    words = ["so"] * 2000 + ["London"] + ["so"] * 2000
    right, wrong = ["O"] * 4001, ["O"] * 4001
    right[2000] = "B-place"
    (found,) = find_errors(entities(" ".join(words), " ".join(right), " ".join(wrong)), ENTITIES)
    (parts,) = found.texts
    assert [part.text for part in parts if isinstance(part, Segment) and part.actual] == ["London"]
    assert sum(len(part.text) for part in parts if isinstance(part, Segment)) < 3 * MAX_TEXT_CHARS
