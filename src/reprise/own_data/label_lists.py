"""Several labels per row: find the columns that hold them, and bring each row to a list of labels.

They are lists, texts such as `comedy; drama`, or columns of 0 and 1. A text is a list of labels only if its parts are a
small vocabulary that rows combine in different ways: `Paris, France` and a class named `Arts, Music` are not.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from reprise.core.errors import UserError
from reprise.own_data.guess import GROUP_WORDS, ID_WORDS, NO_LABEL, NO_TEXT_WORDS, Column, name_hint, plain, words
from reprise.tasks.multi_label import NO, YES

SEPARATORS = (";", "|", ",")  # that are guessed
JOINED_BY = ("|", ";", ",", "/", "+", "~")  # the first that is in no label joins them
SHARE_COMBINED = 0.05  # of the rows, those that have several labels at least
FEW_LABELS = 20  # a vocabulary that is small whatever the number of rows
MAX_LABEL_WORDS = 4  # the mean; longer parts are clauses of a text
SEVERAL = "lists of labels, labels between ; | or , or a column of 0 and 1 for each"
ITEM = r"""\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[\w.+-]+)\s*"""
FLAT_LIST = re.compile(rf"\[(?:{ITEM}(?:,{ITEM})*,?|\s*)\]", re.S)


@dataclass(frozen=True)
class LabelLists:
    """Where the labels of a row are.

    Attributes:
        columns: one of lists or texts, or several of 0 and 1.
        separator: between the labels of a text; None for the others.
    """

    columns: Sequence[str]
    separator: str | None = None

    @property
    def has_flags(self) -> bool:
        """Whether each label has a column."""
        return len(self.columns) > 1

    def describe(self) -> str:
        """Say what was found, and the option that changes it."""
        if self.has_flags:
            return (
                f"{', '.join(map(repr, self.columns))} are columns of 0 and 1 (--label COLUMN for each, or one alone)"
            )
        how = "lists" if self.separator is None else f"labels between {self.separator!r}"
        return f"{self.columns[0]!r} has {how} (--task classification if not)"


def parse_list(text: str) -> list[str] | None:
    """Read a flat list of texts and numbers, as JSON or Python writes it; None for anything else."""
    if not FLAT_LIST.fullmatch(text.strip()):
        return None
    try:
        values = json.loads(text)
    except ValueError:
        try:
            values = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            return None
    spelled = ["true" if value is True else "false" if value is False else str(value) for value in values]
    return None if None in values else list(dict.fromkeys(filter(None, (each.strip() for each in spelled))))


def split_labels(text: str, separator: str) -> list[str]:
    """Return the labels between separators, each once."""
    return list(dict.fromkeys(filter(None, (part.strip() for part in text.split(separator)))))


def find_label_lists(columns: Mapping[str, Column], taken: set[str]) -> list[LabelLists]:
    """Return the columns of lists and of texts with several labels, the best first."""
    found = [
        LabelLists([name], separator)
        for name, column in columns.items()
        if name not in taken
        for separator in (None, *SEPARATORS)
        if _is_vocabulary(column, separator)
    ]
    return sorted(found, key=lambda each: (-name_hint(each.columns[0]), columns[each.columns[0]].position))


def find_flags(columns: Mapping[str, Column], taken: set[str]) -> LabelLists | None:
    """Return the columns of 0 and 1, if there are several."""
    others = ID_WORDS | GROUP_WORDS | NO_TEXT_WORDS
    names = [n for n, column in columns.items() if n not in taken and is_flag(column) and not words(n) & others]
    return LabelLists(names) if len(names) > 1 else None


def is_flag(column: Column) -> bool:
    """Return whether a column has 0 and 1 only."""
    return bool(column.counts) and {value.strip() for value in column.counts} <= YES | NO


def likely_separator(column: Column) -> str | None:
    """Return the separator that most texts contain."""
    counts = {each: sum(each in value for value in column.sample) for each in SEPARATORS}
    best = max(SEPARATORS, key=lambda each: counts[each])
    return best if counts[best] else None


def _is_vocabulary(column: Column, separator: str | None) -> bool:
    """Return whether the cells are combinations of a few labels."""
    if (separator is None) != column.is_list or column.is_numeric or len(column.counts) < 2:
        return False
    parsed = [parse_list(value) if separator is None else split_labels(value, separator) for value in column.sample]
    if None in parsed:
        return False
    cells = [labels for labels in parsed if labels is not None]
    rows = [column.counts[value] for value in column.sample]
    raw = [_count_parts(value, separator) for value in column.sample]
    if any(parts > len(labels) for parts, labels in zip(raw, cells, strict=True)):
        return False  # a label twice in a row: a list of tags of words, or a text
    combined = sum(times for labels, times in zip(cells, rows, strict=True) if len(labels) > 1)
    in_cells = Counter(label for labels in cells for label in labels)
    in_rows: Counter[str] = Counter()
    for labels, times in zip(cells, rows, strict=True):
        in_rows.update(dict.fromkeys(labels, times))
    if len(in_rows) < 2 or combined < SHARE_COMBINED * sum(rows):
        return separator is None and len(in_rows) > 1 and in_rows.total() >= 3 * len(in_rows)
    recombined = sum(times > 1 for times in in_cells.values())
    return (
        in_rows.total() >= 3 * len(in_rows)
        and len(in_rows) <= max(FEW_LABELS, sum(rows) / 10)
        and sum(len(label.split()) for label in in_rows) <= MAX_LABEL_WORDS * len(in_rows)
        and (separator is None or 2 * recombined >= len(in_rows))
    )


def _count_parts(value: str, separator: str | None) -> int:
    if separator is not None:
        return sum(bool(part.strip()) for part in value.split(separator))
    return len(re.findall(ITEM, value.strip()[1:-1], re.S))


def to_lists(table: pa.Table, found: LabelLists, label: str, split: str, notes: list[str]) -> pa.Table:
    """Replace the columns of labels by one of lists, written as JSON; null where it is not known.

    Args:
        table: of a split; without the columns, it is returned unchanged.
        found: the columns.
        label: the name of the column that replaces them.
        split: which it is.
        notes: receives what was done to the rows.

    Raises:
        UserError: a cell is no list of labels.
    """
    if not {*found.columns} <= {*table.column_names}:
        return table
    cells = [table[column].to_pylist() for column in found.columns]
    if found.has_flags:
        lists = [_names_of_flags(found.columns, row) for row in zip(*cells, strict=True)]
    elif found.separator is not None:
        texts = (value if value and value.strip() not in NO_LABEL else "" for value in cells[0])
        lists = [split_labels(text, found.separator) for text in texts]
        if empty := sum(not labels for labels in lists):
            notes.append(f"{split}: {empty:,} rows without {label!r} have none of the labels")
    else:
        lists = [None if value is None or not value.strip() else parse_list(value) for value in cells[0]]
        for row, (value, labels) in enumerate(zip(cells[0], lists, strict=True), start=1):
            if labels is None and value and value.strip():
                raise UserError(f"got {value[:60]}", file=split, key=f"row {row}, {label}", expected="a list of labels")
    written = pa.array([None if each is None else json.dumps(each, ensure_ascii=False) for each in lists], pa.string())
    if found.has_flags:
        return table.drop_columns([*found.columns]).append_column(label, written)
    return table.set_column(table.column_names.index(label), label, written)


def _names_of_flags(columns: Sequence[str], row: Sequence[str | None]) -> list[str] | None:
    flags = [(value or "").strip() for value in row]
    if not {*flags} <= YES | NO:
        return None
    return [column for column, flag in zip(columns, flags, strict=True) if flag in YES]


def free_name(columns: Sequence[str]) -> str:
    """Return a name for the column of labels that no other column has."""
    name = "labels"
    while any(plain(name) == plain(column) for column in columns):
        name += "_of_row"
    return name


def join_labels(table: pa.Table, label: str, spelled: Mapping[str, str], separator: str) -> pa.Table:
    """Write lists of labels as texts, each label as `spelled` says and in its order."""
    order = {each: number for number, each in enumerate(spelled)}
    lists = (sorted(json.loads(value), key=order.__getitem__) for value in table[label].to_pylist())
    joined = [separator.join(spelled[each] for each in labels) for labels in lists]
    return table.set_column(table.column_names.index(label), label, pa.array(joined, pa.string()))


def count_labels(table: pa.Table, label: str) -> Counter[str]:
    """Count the rows that have each label."""
    counts: Counter[str] = Counter()
    found = pc.value_counts(table[label].combine_chunks())
    for value, times in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
        counts.update(dict.fromkeys(json.loads(value), times))
    return counts


def choose_separator(labels: Sequence[str], name: str) -> str:
    """Return a separator that no label contains.

    Raises:
        UserError: there is none.
    """
    for separator in JOINED_BY:
        if not any(separator in label for label in labels):
            return separator
    expected = f"labels without one of {' '.join(JOINED_BY)}"
    raise UserError("the labels contain every separator", file=name, key="--label", expected=expected)
