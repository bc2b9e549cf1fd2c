"""Standard columns from raw tables: id, text, text_pair (of sentence pairs) and label."""

import difflib
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, Features, List, Value

from reprise.core.config import Split, Task
from reprise.core.errors import UserError
from reprise.core.validation import MAX_LISTED
from reprise.data.mmap import drop_mapped_pages
from reprise.data.readers import format_suffix, read_table
from reprise.tasks.classification import UNLABELED
from reprise.tasks.token_classification import TokenClassification

# The text columns of prepared data.
TEXT_COLUMNS = ("text", "text_pair")
# Of labels of words: their first characters, the ones after their last, and whether a span was widened to whole words.
WORD_COLUMNS = ("word_starts", "word_ends", "widened")
CUT_TABLES = ("all", "train")  # from which `task.split` cuts splits
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
    label_columns = task.kind.label_columns(task.label_column)
    label_key = "task.labels" if task.label_column is None else "task.label_column"
    named = {
        label_key: label_columns,
        "task.text_columns": task.text_columns,
        "task.filter": [*(task.filter or {})],
    }
    if task.id_column is not None:
        named["task.id_column"] = [task.id_column]
    if cut := _cut_by(table, task):
        named |= {
            f"task.split.{key}": [name] for key in ("group_by", "order_by") if (name := getattr(cut, key)) is not None
        }
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
    may_be_lists = {"task.label_column"} if task.multi_label or task.token_classification else set()
    may_be_lists |= {"task.text_columns"} if task.token_classification else set()
    for key, names in named.items():
        for name in names:
            feature = table.rows.features[name]
            if isinstance(feature, List) and key in may_be_lists:
                feature = feature.feature
                if isinstance(feature, dict) and key == "task.label_column":  # spans
                    continue
            if not isinstance(feature, Value | ClassLabel):
                problem = f"column {name!r} has lists, objects, or values of several kinds"
                raise UserError(problem, file=table.name, key=key, expected="texts only or numbers only")
            if key == "task.split.order_by":
                continue
            if table.suffix not in (".csv", ".tsv", ".parquet") and str(feature.dtype).startswith("timestamp"):
                problem = f"column {name!r} has dates, which are read from JSON as points in time"
                raise UserError(problem, file=table.name, key=key, expected="a table in CSV, TSV or Parquet")


def _cut_by(table: RawSplit, task: Task) -> Split | None:
    """Return what splits are cut from the table; None if none are."""
    return task.split if table.split in CUT_TABLES else None


def to_standard_columns(table: RawSplit, task: Task) -> Dataset:
    """Bring the rows that pass `task.filter` to standard columns.

    Returns:
        Columns id (`task.id_column` as text, or the row's index), text, text_pair (of sentence pairs), label (as the
        kind of task prepares it), row (its index in the table, int64), of labels of words WORD_COLUMNS, and of a table
        from which the recipe cuts splits by such columns, group and time (fp64).

    Raises:
        UserError: a text is missing, a label does not fit the task, an id is not unique, or a time cannot be read.
    """
    kind, label_columns = task.kind, task.kind.label_columns(task.label_column)
    label_name: Callable[[Any], Any] = _as_it_is
    if kind.named_labels and task.label_column is not None:
        label_name = _label_decoder(table.rows, task.label_column, task.labels)
    keep = {
        column: (_label_decoder(table.rows, column, values), set(values))
        for column, values in (task.filter or {}).items()
    }
    cut = _cut_by(table, task)
    group_by, order_by = (cut.group_by, cut.order_by) if cut else (None, None)
    times = TimeParser()

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
                if not isinstance(value, str) and not kind.per_token:
                    problem = f"{value!r} in column {column!r}"
                    raise UserError(problem, file=table.name, key=f"row {number + 1}", expected="text")
        columns["label"] = []
        if task.label_column is None:
            cells = zip(*(batch[column] for column in label_columns), strict=True)
            raw_labels: list[Any] = [dict(zip(label_columns, row, strict=True)) for row in cells]
        else:
            raw_labels = batch[task.label_column]
        if isinstance(kind, TokenClassification):
            columns |= {name: [] for name in ("text", *WORD_COLUMNS)}
        for index, (value, number) in enumerate(zip(raw_labels, numbers, strict=True)):
            try:
                label = label_name(value)
                if isinstance(kind, TokenClassification):
                    words = kind.find_words(batch[task.text_columns[0]][index])
                    for name, each in zip(
                        WORD_COLUMNS, (words.starts, words.ends, kind.widened(label, words)), strict=True
                    ):
                        columns[name].append(each)
                    columns["text"].append(words.text)
                    label = (words, label)
                columns["label"].append(kind.parse_label(label, table.split))
            except ValueError as error:
                raise UserError(str(error), file=table.name, key=f"row {number + 1}") from None
        if cut and group_by:
            # Rows without a group have nothing but texts in common.
            texts = zip(*(batch[column] for column in task.text_columns), strict=True)
            alone = numbers if cut.group_texts else ("\x1f".join(row) for row in texts)
            groups = zip(batch[group_by], alone, strict=True)
            columns["group"] = [f"row {own}" if value in (None, "") else f"={value}" for value, own in groups]
        if order_by:
            columns["time"] = []
            for value, number in zip(batch[order_by], numbers, strict=True):
                try:
                    columns["time"].append(times.parse(value))
                except ValueError as error:
                    problem = f"{value!r} in column {order_by!r} (task.split.order_by)"
                    raise UserError(problem, file=table.name, key=f"row {number + 1}", expected=str(error)) from None
        return columns | {"row": numbers}

    strings = ["id", *TEXT_COLUMNS[: len(task.text_columns)], *(["group"] if group_by else [])]
    kinds = {"label": kind.label_feature, "row": Value("int64")}
    if kind.per_token:
        kinds |= {"word_starts": List(Value("int32")), "word_ends": List(Value("int32")), "widened": Value("bool")}
    if order_by:
        kinds["time"] = Value("float64")
    features = Features({name: Value("string") for name in strings} | kinds)
    needed = {*label_columns, *task.text_columns, *keep, *filter(None, (task.id_column, group_by, order_by))}
    rows = table.rows.select_columns(sorted(needed)).map(
        convert, batched=True, with_indices=True, remove_columns=sorted(needed), features=features
    )
    if task.id_column and len(rows):  # a table without rows has no columns
        _check_unique_ids(rows, table.name, task.id_column)
    return rows


class TimeParser:
    """Turns the values of a column of times into numbers, all of the same kind."""

    def __init__(self) -> None:
        """The first value decides the kind: number or date."""
        self.dates: bool | None = None

    def parse(self, value: Any) -> float:
        """Return a number as it is, and a date as seconds since 1970; UTC where it says no offset.

        Raises:
            ValueError: it is neither, or not of the kind of earlier values; the message says what was expected.
        """
        number = self._parse_number(value)
        time = self._parse_date(value) if number is None else number
        if time is None:
            raise ValueError("a number, or a date by ISO 8601 such as 2024-05-31 or 2024-05-31T08:30:00Z")
        if self.dates is None:
            self.dates = number is None
        if self.dates != (number is None):
            raise ValueError("a date, as in earlier rows" if self.dates else "a number, as in earlier rows")
        return time

    @staticmethod
    def _parse_number(value: Any) -> float | None:
        if not isinstance(value, int | float | Decimal | str) or isinstance(value, bool):
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    @staticmethod
    def _parse_date(value: Any) -> float | None:
        if isinstance(value, str):
            text = value.strip()
            try:
                value = datetime.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d\d", text) else text)
            except ValueError:
                return None
        if not isinstance(value, date):
            return None
        time = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _as_it_is(value: Any) -> Any:
    return value


def _label_decoder(rows: Dataset, column: str, names: Collection[str]) -> Callable[[Any], Any]:
    """Return the function that spells a raw value, or each value of a list, as `names` are spelled.

    Class ids become their published names. The rest becomes text: true as JSON and YAML write it (or as Python does, if
    a name is `True`), and a whole number without a decimal point, since a column with a gap or a fraction holds floats.
    """
    feature = rows.features[column]
    if isinstance(feature, List) and not isinstance(feature.feature, dict):
        spell_one = _value_decoder(feature.feature, names)
        return lambda values: values if values is None else [spell_one(value) for value in values]
    if isinstance(feature, List):
        return _as_it_is
    return _value_decoder(feature, names)


def _value_decoder(feature: Any, names: Collection[str]) -> Callable[[Any], Any]:
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
