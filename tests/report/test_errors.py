"""The most confident errors."""

import pandas as pd

from reprise.report.errors import MAX_TEXT_CHARS, Misprediction, find_errors
from reprise.tasks.registry import task_kind

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
