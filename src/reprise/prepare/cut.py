"""Cut the splits that the source lacks from a table: which columns decide, and what was obtained."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset, Value

from reprise.core.config import PARAMS, Task
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.data.labels import column_array
from reprise.data.text import normalize
from reprise.prepare.columns import TEXT_COLUMNS, RawSplit
from reprise.prepare.split import (
    assign_parts,
    find_largest_group,
    group_rows,
    order_by_content,
    order_by_time,
    stable_hash64,
    stratify,
)
from reprise.prepare.write import iter_batches

MAX_VALUE = 60  # characters of a text in a warning


@dataclass(frozen=True)
class Splits:
    """The rows of each split in standard columns, and how they were cut.

    Attributes:
        rows: by split.
        warnings: about the tables, for stats.json.
        shares: of each split that was cut, the share asked and obtained of the rows that were divided.
        folds: rows of each fold; empty without folds.
        largest_group: rows that stay together, as the warning `large_group` describes them; empty if none were cut.
    """

    rows: dict[str, Dataset]
    warnings: list[dict[str, Any]]
    shares: dict[str, dict[str, Any]] = field(default_factory=dict)
    folds: list[int] = field(default_factory=list)
    largest_group: dict[str, Any] = field(default_factory=dict)


def cut_splits(table: RawSplit, rows: Dataset, task: Task) -> Splits:
    """Cut the splits of `task.split` from a table.

    Args:
        table: the raw table.
        rows: its rows in standard columns, with group and time if the recipe names them.
        task: names the columns, and how to cut.

    Returns:
        The splits without the other ones of the source, and without warnings.

    Raises:
        UserError: there is no row.
    """
    split = task.split
    assert split is not None
    if len(rows) == 0:
        raise UserError("no row is left", file=PARAMS, key="task.filter")
    echo(f"prepare: split {len(rows)} rows")
    # What keeps rows together, by the key that decides it, and the columns that it is from.
    keys: dict[str, tuple[npt.NDArray[np.uint64], list[str]]] = {}
    if split.group_texts:
        keys["group_texts"] = text_hashes(rows, TEXT_COLUMNS, each=True), task.text_columns
    if split.group_by is not None:
        keys["group_by"] = text_hashes(rows, ("group",)), [split.group_by]
    values = [key for key, _ in keys.values()]
    groups = group_rows(*values)
    if split.order_by is not None:
        times = column_array(rows, "time")
        keys["order_by"] = times.view(np.uint64)[:, None], [split.order_by]
        values.append(keys["order_by"][0])
        groups, order = order_by_time(groups, times)
    else:
        order = order_by_content(groups, values[0].min(axis=1), split.seed)
    strata = stratify(*task.kind.strata(column_array(rows), groups), split.seed) if split.stratify else None
    fractions = {"validation": 0.0, "test": 0.0} | split.fractions
    folds = split.folds or 0
    part = assign_parts(groups, order, [fractions["test"], *[fractions["validation"]] * max(folds - 1, 1)], strata)
    if folds:
        rows = rows.add_column("fold", part - 1, feature=Value("int8"))
    parts = {"train": part > 1, "validation": part == 1, "test": part == 0}
    cut = {name: rows.select(np.flatnonzero(parts[name])) for name in ("train", *split.fractions)}
    if folds and "test" in cut:
        cut["test"] = cut["test"].remove_columns("fold")
    largest = find_largest_group(groups, *values)
    key = list(keys)[largest.key]
    column = keys[key][1][largest.column]
    return Splits(
        cut,
        [],
        shares={
            name: {"rows": len(cut[name]), "of": len(rows), "asked": asked, "obtained": len(cut[name]) / len(rows)}
            for name, asked in split.fractions.items()
        },
        folds=np.bincount(part[part > 0] - 1, minlength=folds).tolist() if folds else [],
        largest_group={
            "id": "large_group",
            "rows": largest.rows,
            "of": len(rows),
            "sharing": largest.sharing,
            "key": key,
            "column": column,
            "value": _shorten(table.rows[int(rows[largest.row]["row"])][column]),
        },
    )


def _shorten(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def text_hashes(rows: Dataset, columns: tuple[str, ...], *, each: bool = False) -> npt.NDArray[np.uint64]:
    """Hash each row's columns together, [rows, 1], or with `each` column by column, [rows, columns].

    Case and white space are ignored: texts that differ only in them are the same text.
    """
    present = [column for column in columns if column in rows.column_names]
    digests = np.empty((len(rows), len(present) if each else 1), dtype=np.uint64)
    filled = 0
    for batch in iter_batches(rows.select_columns(present), f"read {' and '.join(present)}"):
        for values in zip(*(batch[column].to_pylist() for column in present), strict=True):
            normalized = [normalize(value) for value in values]
            digests[filled] = [stable_hash64(value) for value in normalized] if each else stable_hash64(*normalized)
            filled += 1
    return digests
