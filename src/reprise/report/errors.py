"""The most confident mistakes: the rows of the evaluation split that say most about a model."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MAX_ERRORS = 25
MAX_TEXT_CHARS = 600  # of a text: enough to see what went wrong, and the page stays small whatever the texts are


@dataclass(frozen=True)
class Misprediction:
    """A row that was judged wrong.

    Attributes:
        row: its id in the data, or else its number in the split, from 0 on.
        texts: one, or the two of a pair; long ones are cut.
        label: what it is.
        prediction: what the model said.
        sureness: how sure it was of it, from 0 to 1; in a regression how far off it is.
    """

    row: str
    texts: list[str]
    label: str
    prediction: str
    sureness: float


def find_errors(predictions: pd.DataFrame, rows: int = MAX_ERRORS) -> list[Misprediction]:
    """The mistakes that the model was surest of; in a regression those that are furthest off.

    Args:
        predictions: the columns of `evaluate.stage.prediction_table`.
        rows: how many at most.
    """
    if "probabilities" in predictions:
        wrong = predictions[predictions["label"] != predictions["prediction"]]
        sureness = wrong["probabilities"].map(np.max)
    else:
        wrong = predictions
        sureness = (wrong["label"] - wrong["prediction"]).abs()
    listed = wrong.assign(sureness=sureness.astype(np.float64)).sort_values("sureness", ascending=False, kind="stable")
    return [
        Misprediction(
            row=str(row.get("id", number)),
            texts=[truncate(row[name]) for name in ("text", "text_pair") if name in row],
            label=format_label(row["label"]),
            prediction=format_label(row["prediction"]),
            sureness=row["sureness"],
        )
        for number, row in listed.head(rows).to_dict(orient="index").items()
    ]


def format_label(answer: object) -> str:
    """A label's name, or a number as it is read."""
    return f"{answer:.3f}" if isinstance(answer, float) else str(answer)


def truncate(text: str) -> str:
    """A text of at most CHARACTERS, with … where it was cut."""
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS].rstrip() + " …"
