"""The raw table's other columns: do they give the label away, or lead from one split to another?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pandas as pd
from datasets import ClassLabel, Dataset, Value

from reprise.check_data.examples import Examples
from reprise.core.config import Task
from reprise.core.paths import RAW
from reprise.data.readers import read_table
from reprise.tasks.kind import TaskKind

MAX_COLUMNS = 50  # of a table: some hold thousands
BLOCKS = 100  # of the file, for the line on its order
BATCH_ROWS = 100_000


def raw_columns(
    task: Task, examples: Mapping[str, Examples], cache: Path, raw: Path = RAW
) -> dict[str, dict[str, pd.Series[Any]]]:
    """Read the columns of the raw tables that the model does not see, for prepared examples.

    Args:
        task: names text, label and id.
        examples: by split; their ids lead to their rows.
        cache: for the Arrow files from which the tables are memory-mapped.
        raw: a folder per raw table; splits that were cut come from that of the training rows.

    Returns:
        By split the values by name, each in the order of the examples; and `(row)`, the index of the row in its table.
    """
    datasets.disable_progress_bars()
    tables: dict[Path, Dataset] = {}
    found = {}
    for split, each in examples.items():
        folder = next(raw / name for name in (split, "all", "train") if (raw / name).is_dir())
        if folder not in tables:
            tables[folder] = read_table(sorted(folder.iterdir()), cache)
        rows = _row_numbers(tables[folder], task, each)
        columns = {name: _column(tables[folder], name).iloc[rows] for name in _other_columns(tables[folder], task)}
        found[split] = {"(row)": pd.Series(rows)} | columns
    return found


def _other_columns(table: Dataset, task: Task) -> list[str]:
    """Name the columns that are neither text, label nor id, that of the groups first, at most MAX_COLUMNS."""
    left_out = {*task.kind.label_columns(task.label_column), task.id_column, *task.text_columns}
    group_by = task.split.group_by if task.split else None
    names = [
        name
        for name, feature in table.features.items()
        if name not in left_out and isinstance(feature, Value | ClassLabel)
    ]
    return sorted(names, key=lambda name: name != group_by)[:MAX_COLUMNS]


def _column(table: Dataset, name: str) -> pd.Series[Any]:
    values: pd.Series[Any] = table.select_columns([name]).with_format("pandas")[:][name]
    return values


def _row_numbers(table: Dataset, task: Task, examples: Examples) -> npt.NDArray[np.int64]:
    """Return the index of each example in its raw table."""
    if task.id_column is None:
        return examples.ids.astype(np.int64)
    ids = pd.Index([str(value) for value in table[task.id_column][:]])
    return np.asarray(ids.get_indexer(pd.Index(examples.ids)), dtype=np.int64)


def give_aways(
    kind: TaskKind, examples: Examples, columns: Mapping[str, pd.Series[Any]]
) -> tuple[list[dict[str, Any]], float]:
    """Measure how much of the baseline's error each column alone removes, if it names the label of its other rows.

    Beside the raw columns, it measures what a model may read instead of the text: its first and last word, its length.

    Returns:
        The names and shares, the highest first; and the share of the position in the file, which no model reads.
    """
    values = {
        **{name: pd.factorize(column)[0] for name, column in columns.items() if name != "(row)"},
        "the first word": pd.factorize(examples.first_words)[0],
        "the last word": pd.factorize(examples.last_words)[0],
        "the length": examples.lengths,
    }
    shares = [
        {"column": name, "share": kind.explained_share(np.asarray(codes), examples.labels)}
        for name, codes in values.items()
    ]
    rows = columns["(row)"].to_numpy()
    position = kind.explained_share(rows * BLOCKS // (rows.max() + 1), examples.labels)
    return sorted(shares, key=lambda each: (-each["share"], each["column"])), position


def shared_groups(groups: Mapping[str, pd.Series[Any]]) -> dict[str, dict[str, int]]:
    """Count the examples of each split whose group is also in an earlier split; those without a group have none.

    Args:
        groups: the values of `task.split.group_by`, by split, training first.
    """
    seen: set[Any] = set()
    found = {}
    for split, values in groups.items():
        given = values[values.notna() & (values.astype(str) != "")]
        if seen:
            found[split] = {"count": int(given.isin(seen).sum()), "of": len(values)}
        seen |= set(given)
    return found
