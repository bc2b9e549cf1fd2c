"""The most confident errors."""

import pandas as pd

from reprise.report.errors import MAX_TEXT_CHARS, Misprediction, find_errors


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
    assert find_errors(predictions()) == [
        Misprediction(row="8", texts=["bad"], label="rotten", prediction="fresh", confidence=0.875),
        Misprediction(row="7", texts=["good"], label="fresh", prediction="rotten", confidence=0.75),
        Misprediction(row="10", texts=["poor"], label="rotten", prediction="fresh", confidence=0.5),
    ]


def test_the_number_of_errors_is_limited_and_ties_keep_their_order() -> None:
    many = pd.concat([predictions().head(1)] * 5, ignore_index=True).drop(columns="id")
    assert [each.row for each in find_errors(many, rows=3)] == ["0", "1", "2"]


def test_a_pair_has_two_texts_and_a_long_text_is_cut() -> None:
    pair = predictions().assign(text="x" * (MAX_TEXT_CHARS + 1), text_pair="short")
    assert find_errors(pair)[0].texts == ["x" * MAX_TEXT_CHARS + " …", "short"]
    exact = predictions().assign(text="x" * MAX_TEXT_CHARS)
    assert find_errors(exact)[0].texts == ["x" * MAX_TEXT_CHARS]


def test_a_regression_lists_the_largest_errors() -> None:
    numbers = pd.DataFrame({"text": ["a", "b"], "label": [1.0, 2.0], "prediction": [1.25, -1.0]})
    assert find_errors(numbers) == [
        Misprediction(row="1", texts=["b"], label="2.000", prediction="-1.000", confidence=3.0),
        Misprediction(row="0", texts=["a"], label="1.000", prediction="1.250", confidence=0.25),
    ]


def test_a_perfect_model_has_no_errors() -> None:
    assert find_errors(predictions().iloc[[2]]) == []
