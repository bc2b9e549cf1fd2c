"""Find texts that are hardly meant: empty ones, and what a wrong quote made of a table."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from datasets import Dataset

from reprise.core.config import Task
from reprise.data.labels import column_array
from reprise.prepare.columns import TEXT_COLUMNS, RawSplit
from reprise.prepare.write import iter_batches

# RE2 patterns.
EMPTY = r"\A[\s\v\pZ\x{1c}-\x{1f}\x{85}]*\z"
QUOTED = r'\A"(?:[^"]|"")*""(?:[^"]|"")*"\z'


def check_texts(table: RawSplit, rows: Dataset, task: Task) -> tuple[Dataset, list[dict[str, Any]]]:
    """Leave out the rows without text, and find texts that contain the quotes or the rows of their file.

    Args:
        table: the raw table.
        rows: its rows in standard columns.
        task: names the labels.

    Returns:
        The rows whose texts are not empty, or all of a test split with unpublished labels, since a benchmark asks for
        a prediction of each; and warnings for stats.json.
    """
    if len(rows) == 0:
        return rows, []
    patterns = {}
    if table.suffix == ".tsv":
        patterns["quoted_texts"] = QUOTED
    if table.suffix == ".csv" and task.labels:
        # A quoted text may contain line breaks; a line of it with a label as one of its fields looks like a row.
        label = "|".join(map(re.escape, task.labels))
        patterns["row_in_text"] = rf",(?:{label})(?:,[^\n]*)?\r?\n|\n(?:{label}),"
    if not task.kind.is_unlabeled(column_array(rows)):
        patterns["empty_texts"] = EMPTY
    found = {name: _matching_rows(rows, pattern) for name, pattern in patterns.items()}
    if "widened" in rows.column_names:
        found["widened_spans"] = np.asarray(rows["widened"][:], dtype=bool)
    warnings = [
        {
            "id": name,
            "table": table.split,
            "examples": int(matching.sum()),
            "first_row": int(rows[int(np.argmax(matching))]["row"]) + 1,
        }
        for name, matching in found.items()
        if matching.any()
    ]
    empty = found.get("empty_texts")
    return (rows.select(np.flatnonzero(~empty)) if empty is not None and empty.any() else rows), warnings


def _matching_rows(rows: Dataset, pattern: str) -> npt.NDArray[np.bool_]:
    """Return which rows have a text that matches the pattern, shape [rows]."""
    texts = rows.select_columns([column for column in TEXT_COLUMNS if column in rows.column_names])
    masks = [
        np.any([pc.match_substring_regex(column, pattern).to_numpy() for column in batch.columns], axis=0)
        for batch in iter_batches(texts, "check texts")
    ]
    return np.concatenate(masks)
