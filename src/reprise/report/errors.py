"""The most confident errors of a model, which reveal hard examples and wrong labels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MAX_ERRORS = 25
MAX_TEXT_CHARS = 600  # per text: enough to understand an error, and the page stays small


@dataclass(frozen=True)
class Misprediction:
    """A mispredicted example.

    Attributes:
        row: id of the example, or its index in the split, from 0.
        texts: one text, or two for a sentence pair; long ones are cut.
        label: true label or value.
        prediction: predicted label or value.
        confidence: probability of the predicted label; in regression the absolute error.
    """

    row: str
    texts: list[str]
    label: str
    prediction: str
    confidence: float


def find_errors(predictions: pd.DataFrame, rows: int = MAX_ERRORS) -> list[Misprediction]:
    """Return the most confident errors; in regression the predictions with the largest error.

    Args:
        predictions: table with the columns of `evaluate.stage.prediction_table`.
        rows: maximum number of errors.
    """
    if "probabilities" in predictions:
        wrong = predictions[predictions["label"] != predictions["prediction"]]
        confidence = wrong["probabilities"].map(np.max)
    else:
        wrong = predictions
        confidence = (wrong["label"] - wrong["prediction"]).abs()
    ranked = wrong.assign(confidence=confidence.astype(np.float64))
    ranked = ranked.sort_values("confidence", ascending=False, kind="stable")
    return [
        Misprediction(
            row=str(row.get("id", index)),
            texts=[truncate(row[name]) for name in ("text", "text_pair") if name in row],
            label=format_label(row["label"]),
            prediction=format_label(row["prediction"]),
            confidence=row["confidence"],
        )
        for index, row in ranked.head(rows).to_dict(orient="index").items()
    ]


def format_label(label: object) -> str:
    """Format a label, or a value to three decimals."""
    return f"{label:.3f}" if isinstance(label, float) else str(label)


def truncate(text: str) -> str:
    """Cut a text after `MAX_TEXT_CHARS` characters and mark the cut by …."""
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS].rstrip() + " …"
