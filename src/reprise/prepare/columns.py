"""Standard columns from raw tables: id, text, text_pair (of sentence pairs) and label."""

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, Features, Value

from reprise.core.config import Task
from reprise.core.errors import UserError
from reprise.core.validation import MAX_LISTED
from reprise.data.mmap import drop_mapped_pages
from reprise.data.readers import format_suffix, read_table
from reprise.tasks.classification import UNLABELED

# The text columns of prepared data.
TEXT_COLUMNS = ("text", "text_pair")
DROP_PAGES_EVERY_ROWS = 100_000


@dataclass(frozen=True)
class RawSplit:
    """The raw rows of a split; `name` is the file or folder that error messages name, `suffix` its files' format."""

    split: str
    name: str
    suffix: str
    rows: Dataset


def read_tables(folder: Path, cache: Path) -> list[RawSplit]:
    """Read each split's files below `folder` into memory-mapped Arrow tables, which `datasets` keeps in `cache`.

    Raises:
        UserError: a file does not have the format of its suffix, or the files of one split differ in format.
    """
    tables = []
    for split in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(split.iterdir())
        name = str(files[0] if len(files) == 1 else split)
        tables.append(RawSplit(split.name, name, format_suffix(files[0]), read_table(files, cache)))
    return tables


def check_columns(table: RawSplit, task: Task) -> None:
    """Check that the table has every column that the recipe names.

    Raises:
        UserError: columns are missing, and it names all of them; or JSON holds something else than texts and numbers.
    """
    named = {
        "task.label_column": [task.label_column],
        "task.text_columns": task.text_columns,
        "task.filter": [*(task.filter or {})],
    }
    if task.id_column is not None:
        named["task.id_column"] = [task.id_column]
    if task.split and task.split.group_by is not None:
        named["task.split.group_by"] = [task.split.group_by]
    present = table.rows.column_names
    missing = []
    for key, names in named.items():
        for name in names:
            if name not in present:
                near = difflib.get_close_matches(name, present, n=1)
                missing.append(f"no column {name!r} ({key}{f'; did you mean {near[0]!r}?' if near else ''})")
    if missing:
        listed = ", ".join(present[:MAX_LISTED] + ["…"] * (len(present) > MAX_LISTED))
        raise UserError(", ".join(missing), file=table.name, expected=f"names among its columns {listed}")
    for key, names in named.items():
        for name in names:
            feature = table.rows.features[name]
            if not isinstance(feature, Value | ClassLabel):
                problem = f"column {name!r} has lists, objects, or values of several kinds"
                raise UserError(problem, file=table.name, key=key, expected="texts only or numbers only")
            if table.suffix not in (".csv", ".tsv", ".parquet") and str(feature.dtype).startswith("timestamp"):
                problem = f"column {name!r} has dates, which are read from JSON as points in time"
                raise UserError(problem, file=table.name, key=key, expected="a table in CSV, TSV or Parquet")


def to_standard_columns(table: RawSplit, task: Task) -> Dataset:
    """Bring the rows that pass `task.filter` to standard columns.

    Returns:
        Columns id (`task.id_column` as text, or the row's index), text, text_pair (of sentence pairs), label (as the
        kind of task prepares it), row (its index in the table, int64), and group if the recipe's split names one.

    Raises:
        UserError: a text is missing, a label does not fit the task, or an id is not unique.
    """
    kind = task.kind
    label_name = (
        _label_decoder(table.rows, task.label_column, task.labels) if kind.named_labels else lambda value: value
    )
    keep = {
        column: (_label_decoder(table.rows, column, values), set(values))
        for column, values in (task.filter or {}).items()
    }
    group_by = task.split.group_by if task.split else None

    def convert(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        if numbers[0] % DROP_PAGES_EVERY_ROWS < len(numbers):
            drop_mapped_pages()
        kept = [n for n in range(len(numbers)) if all(as_text(batch[c][n]) in v for c, (as_text, v) in keep.items())]
        batch, numbers = {c: [values[n] for n in kept] for c, values in batch.items()}, [numbers[n] for n in kept]
        columns: dict[str, list[Any]] = {
            "id": [str(value) for value in (batch[task.id_column] if task.id_column else numbers)]
        }
        for name, column in zip(TEXT_COLUMNS, task.text_columns, strict=False):
            columns[name] = batch[column]
            for value, number in zip(batch[column], numbers, strict=True):
                if not isinstance(value, str):
                    problem = f"{value!r} in column {column!r}"
                    raise UserError(problem, file=table.name, key=f"row {number + 1}", expected="text")
        columns["label"] = []
        for value, number in zip(batch[task.label_column], numbers, strict=True):
            try:
                columns["label"].append(kind.parse_label(label_name(value), table.split))
            except ValueError as error:
                raise UserError(str(error), file=table.name, key=f"row {number + 1}") from None
        if group_by:
            # Rows without a group have nothing in common: each is a group of its own.
            groups = zip(batch[group_by], numbers, strict=True)
            columns["group"] = [f"row {number}" if value in (None, "") else f"={value}" for value, number in groups]
        return columns | {"row": numbers}

    strings = ["id", *TEXT_COLUMNS[: len(task.text_columns)], *(["group"] if group_by else [])]
    kinds = {"label": Value(kind.label_dtype), "row": Value("int64")}
    features = Features({name: Value("string") for name in strings} | kinds)
    needed = {task.label_column, *task.text_columns, *keep, *filter(None, (task.id_column, group_by))}
    rows = table.rows.select_columns(sorted(needed)).map(
        convert, batched=True, with_indices=True, remove_columns=sorted(needed), features=features
    )
    if task.id_column and len(rows):  # a table without rows has no columns
        _check_unique_ids(rows, table.name, task.id_column)
    return rows


def _label_decoder(rows: Dataset, column: str, names: Collection[str]) -> Callable[[Any], Any]:
    """Return the function that spells a raw value as `names` are spelled.

    Class ids become their published names. The rest becomes text: true as JSON and YAML write it (or as Python does, if
    a name is `True`), and a whole number without a decimal point, since a column with a gap or a fraction holds floats.
    """
    feature = rows.features[column]
    if isinstance(feature, ClassLabel):
        return lambda value: value if value is None or value == UNLABELED else feature.int2str(value)
    as_in_python = not {"True", "False"}.isdisjoint(names)

    def spell(value: Any) -> str | None:
        if isinstance(value, bool):
            return str(value) if as_in_python else str(value).lower()
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return value if value is None else str(value)

    return spell


def _check_unique_ids(rows: Dataset, name: str, column: str) -> None:
    # All ids may not fit into memory: first compare hashes, then the ids of equal hashes.
    hashes = np.empty(0, dtype=np.uint64)
    for ids in rows.select_columns(["id"]).with_format("numpy").iter(batch_size=DROP_PAGES_EVERY_ROWS):
        hashes = np.append(hashes, pd.util.hash_array(ids["id"].astype(object)))
        drop_mapped_pages()
    ascending = np.sort(hashes)
    rows = rows.select(np.flatnonzero(np.isin(hashes, ascending[1:][ascending[1:] == ascending[:-1]])))
    # Ids are numbered by first occurrence: while all are unique, each has the index of its row.
    numbers, _ = pd.factorize(np.array(rows["id"][:], dtype=object))
    duplicates = np.flatnonzero(numbers != np.arange(len(rows)))
    if len(duplicates):
        first, second = rows[int(numbers[duplicates[0]])], rows[int(duplicates[0])]
        raise UserError(
            f"the same id {second['id']!r} in column {column!r} (task.id_column)",
            file=name,
            key=f"rows {first['row'] + 1} and {second['row'] + 1}",
            expected="different ids",
        )
