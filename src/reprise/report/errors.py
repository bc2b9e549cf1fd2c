"""The most confident errors of a model, which reveal hard examples and wrong labels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from reprise.tasks.kind import TaskKind
from reprise.tasks.token_classification import Segment, entity_texts, mark_entities

MAX_ERRORS = 25
MAX_TEXT_CHARS = 600  # per text: enough to understand an error, and the page stays small


@dataclass(frozen=True)
class Misprediction:
    """A mispredicted example.

    Attributes:
        row: id of the example, or its index in the split, from 0.
        texts: one text, or two for a sentence pair; long ones are cut. Of labels of words, its parts.
        label: true label or value.
        prediction: predicted label or value.
        description: how bad the error is, in words.
    """

    row: str
    texts: list[str] | list[list[Segment]]
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
            texts=[shorten(mark_entities(row))]
            if kind.per_token
            else [truncate(row[name]) for name in ("text", "text_pair") if name in row],
            label=entity_texts(row, "label") if kind.per_token else format_label(row["label"]),
            prediction=entity_texts(row, "prediction") if kind.per_token else format_label(row["prediction"]),
            description=kind.describe_error(score),
        )
        for (index, row), score in zip(
            predictions.loc[scores.index].to_dict(orient="index").items(), scores.tolist(), strict=True
        )
    ]


def format_label(label: object) -> str:
    """Format a label, several labels, or a value to three decimals."""
    if isinstance(label, np.ndarray):
        return ", ".join(label) or "–"
    return f"{label:.3f}" if isinstance(label, float) else str(label)


def shorten(segments: list[Segment]) -> list[Segment]:
    """Keep about `MAX_TEXT_CHARS` characters, from a little before the first wrong entity."""
    sizes = np.cumsum([len(each.text) for each in segments])
    wrong = next((number for number, each in enumerate(segments) if not each.correct), 0)
    first = int(np.searchsorted(sizes, sizes[wrong] - MAX_TEXT_CHARS // 3))
    last = int(np.searchsorted(sizes, sizes[first] + MAX_TEXT_CHARS)) + 1
    kept = [each if each.actual or each.predicted else each._replace(text=truncate(each.text)) for each in segments]
    mark = Segment("… ", "", "", True)
    return [*([mark] if first else []), *kept[first:last], *([mark] if last < len(segments) else [])]


def truncate(text: str) -> str:
    """Cut a text after `MAX_TEXT_CHARS` characters and mark the cut by …."""
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS].rstrip() + " …"
