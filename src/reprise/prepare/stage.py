"""From data/raw/ to data/prepared/: Arrow files of each split, and stats.json, which describes them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from datasets import Dataset

from reprise.core.config import PARAMS, LocalDataset, Split, Task
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, scratch_dir, sha256, write_json
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.data.format import SHARD_ROWS, split_file, stats_path
from reprise.data.tokenization import load_tokenizer
from reprise.data.warnings import describe_warnings
from reprise.prepare.checks import conflicting_labels, find_warnings, shared_texts
from reprise.prepare.columns import TEXT_COLUMNS, check_columns, read_tables, to_standard_columns
from reprise.prepare.split import TEST, TRAIN, VALIDATION, assign_splits, group_rows, stable_hash64, subsample
from reprise.prepare.texts import check_texts
from reprise.prepare.write import iter_batches, normalize, unknown_token_id, write_tokenized

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def prepare(
    task: Task,
    *,
    max_length: int,
    raw: Path = RAW,
    prepared: Path = PREPARED,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Split, label and tokenize the raw tables.

    The same input gives the same bytes with any number of cores: the tokenizer's threads keep the order of the rows,
    and one process writes. Tables are memory-mapped and written batch by batch, so they may be larger than memory.

    Args:
        task: names columns, labels, filter and split.
        max_length: tokens at which texts are truncated.
        raw: a folder per split, with its files.
        prepared: replaced as a whole.
        check: called before that; raises if it may not be.

    Raises:
        UserError: the raw data does not fit the recipe.
    """
    for needed in (raw, PRETRAINED / "tokenizer"):
        if not needed.is_dir():
            raise UserError("not found", file=needed, expected="the output of `reprise fetch`: run `dvc repro`")
    datasets.disable_caching()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    if max_length > tokenizer.model_max_length:
        expected = f"at most the model's {tokenizer.model_max_length}"
        raise UserError(file=PARAMS, key="train.max_length", expected=expected)

    with scratch_dir("prepare") as cache, atomic_dir(prepared) as partial:
        stats: dict[str, Any] = {"task": task.name, "labels": task.labels, "max_length": max_length, "splits": {}}
        try:
            splits, warnings = _load_splits(task, raw, cache)
        except UserError as error:
            named = _users_file(error.file, task, raw)
            raise UserError(error.problem, file=named, key=error.key, expected=error.expected) from None
        columns: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for split, rows in splits.items():
            if task.max_examples:
                rows = rows.select(subsample(_text_hashes(rows, TEXT_COLUMNS).ravel(), task.max_examples))
            files, written = _shard_files(split, len(rows), partial), []
            for number, file in enumerate(files):
                part = rows.select(range(number * SHARD_ROWS, min((number + 1) * SHARD_ROWS, len(rows))))
                name = split if len(files) == 1 else f"{split}, file {number + 1} of {len(files)}"
                written.append(write_tokenized(part, file, tokenizer, max_length, name=name))
            columns[split] = {key: np.concatenate([part[key] for part in written]) for key in written[0]}
            stats["splits"][split] = _split_stats(columns[split], files, task, max_length)
            echo(f"prepare: {split}: {len(rows)} examples")
        stats |= _compare_texts(columns, task)
        stats["warnings"] = warnings + find_warnings(
            stats,
            task.kind,
            sizes={split: len(rows) for split, rows in splits.items()},
            split=task.split,
            unknown_token="" if unknown_token_id(tokenizer) is None else str(tokenizer.unk_token),
        )
        for warning in describe_warnings(stats):
            echo(f"prepare: warning: {warning}")
        write_json(stats_path(partial), stats)
        check()


def _users_file(file: str, task: Task, raw: Path) -> str:
    """Return the user's own table if `file` is its copy in data/raw, else `file`."""
    if not isinstance(task.source, LocalDataset) or not Path(file).is_relative_to(raw) or Path(file) == raw:
        return file
    split, *name = Path(file).relative_to(raw).parts
    given = getattr(task.source, "train" if split == "all" else split, None)
    if given is None:
        return file
    if Path(given).is_dir():
        return str(Path(given, *name))
    return given if name in ([], [Path(given).name]) else file


def _shard_files(split: str, rows: int, folder: Path) -> list[Path]:
    """Name the files of a split: one per SHARD_ROWS rows."""
    shards = -(-rows // SHARD_ROWS)
    return [split_file(split, folder, shard, shards) for shard in range(shards)]


def _load_splits(task: Task, raw: Path, cache: Path) -> tuple[dict[str, Dataset], list[dict[str, Any]]]:
    """Load each split in standard columns, none of them empty; and warnings about the tables."""
    rows, warnings = _standard_tables(task, raw, cache)
    if task.split and list(rows) not in (["all"], ["train"]):
        expected = f"null, since the source has splits: {', '.join(rows)}"
        raise UserError(file=PARAMS, key="task.split", expected=expected)
    if task.split:
        rows = _split_table(next(iter(rows.values())), task.split)
    if missing := {"train", "validation"} - rows.keys():
        raise UserError(
            f"the source has no {' and no '.join(sorted(missing))} split",
            file=PARAMS,
            key="task.split",
            expected="fractions such as {validation: 0.1, test: 0.1}",
        )
    for split, part in rows.items():
        if len(part) == 0:
            reason = "its fraction gives no row" if task.split else "no row of its table is left"
            key = "task.split" if task.split else "task.source"
            raise UserError(f"the {split} split is empty: {reason}", file=PARAMS, key=key)
    rows = {
        split: part.remove_columns([c for c in ("group", "row") if c in part.column_names])
        for split, part in rows.items()
    }
    return rows, warnings


def _standard_tables(task: Task, raw: Path, cache: Path) -> tuple[dict[str, Dataset], list[dict[str, Any]]]:
    """Bring each raw table to standard columns, without rows that have no text; and warnings about the tables."""
    echo(f"prepare: read {raw}")
    tables = read_tables(raw, cache)
    for table in tables:
        check_columns(table, task)
    standard, warnings = {}, []
    for table in tables:
        standard[table.split], found = check_texts(table, to_standard_columns(table, task), task)
        warnings += found
    return standard, warnings


def _split_table(rows: Dataset, split: Split) -> dict[str, Dataset]:
    """Split one table in three; rows that share a text or a value of `group_by` stay together."""
    if len(rows) == 0:
        raise UserError("no row is left", file=PARAMS, key="task.filter")
    echo(f"prepare: split {len(rows)} rows")
    texts = _text_hashes(rows, TEXT_COLUMNS, each=True)
    keys = [texts] if split.group_by is None else [texts, _text_hashes(rows, ("group",))]
    side = assign_splits(
        group_rows(*keys), texts.min(axis=1), validation=split.validation, test=split.test, seed=split.seed
    )
    named = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return {name: rows.select(np.flatnonzero(side == number)) for name, number in named.items()}


def _text_hashes(rows: Dataset, columns: tuple[str, ...], *, each: bool = False) -> npt.NDArray[np.uint64]:
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


def _compare_texts(columns: dict[str, dict[str, npt.NDArray[Any]]], task: Task) -> dict[str, Any]:
    """Compare the texts of all splits: how many are in two of them, and how many have different labels."""
    exact, normalized = ({split: each[key] for split, each in columns.items()} for key in ("exact", "normalized"))
    # Numbers may well differ for one text: ratings of "good", say.
    named = [each for each in columns.values() if task.kind.named_labels and not task.kind.is_unlabeled(each["labels"])]
    texts, labels = (
        np.concatenate([np.empty(0, dtype), *(each[key] for each in named)])
        for key, dtype in (("normalized", np.uint64), ("labels", np.int64))
    )
    return {
        "shared_texts": shared_texts(exact, normalized),
        "conflicting_labels": conflicting_labels(texts, labels),
    }


def _split_stats(
    columns: dict[str, npt.NDArray[Any]], files: list[Path], task: Task, max_length: int
) -> dict[str, Any]:
    lengths, full_lengths = columns["lengths"], columns["full_lengths"]
    stats: dict[str, Any] = {
        "num_examples": len(lengths),
        "tokens": int(lengths.sum()),
        "unknown_tokens": int(columns["unknown"].sum()),
        "length_quantiles": {str(q): int(np.quantile(full_lengths, q, method="lower")) for q in QUANTILES},
        "rows_at_max_length": int((lengths == max_length).sum()),
        "truncated_rows": int((full_lengths > lengths).sum()),
        "sha256": sha256(*files),
    }
    if len(files) > 1:
        stats["shards"] = {file.name: sha256(file) for file in files}
    return stats | task.kind.label_stats(columns["labels"])
