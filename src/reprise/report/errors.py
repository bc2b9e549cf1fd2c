"""The most confident errors of a model, which reveal hard examples and wrong labels."""

from dataclasses import dataclass

import pandas as pd

from reprise.tasks.kind import TaskKind

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
        description: how bad the error is, in words.
    """

    row: str
    texts: list[str]
    label: str
    prediction: str
    description: str


def find_errors(predictions: pd.DataFrame, kind: TaskKind, rows: int = MAX_ERRORS) -> list[Misprediction]:
    """Return the worst predictions.

    Args:
        predictions: table with the columns of `evaluate.stage.predictions_table`.
        kind: of the task, ranks the errors.
        rows: maximum number of errors.
    """
    scores = kind.rank_errors(predictions).sort_values(ascending=False, kind="stable").head(rows)
    return [
        Misprediction(
            row=str(row.get("id", index)),
            texts=[truncate(row[name]) for name in ("text", "text_pair") if name in row],
            label=format_label(row["label"]),
            prediction=format_label(row["prediction"]),
            description=kind.describe_error(score),
        )
        for (index, row), score in zip(
            predictions.loc[scores.index].to_dict(orient="index").items(), scores.tolist(), strict=True
        )
    ]


def format_label(label: object) -> str:
    """Format a label, or a value to three decimals."""
    return f"{label:.3f}" if isinstance(label, float) else str(label)


def truncate(text: str) -> str:
    """Cut a text after `MAX_TEXT_CHARS` characters and mark the cut by …."""
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS].rstrip() + " …"
