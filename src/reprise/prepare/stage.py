"""From data/raw/ to data/prepared/: Arrow files of each split, and stats.json, which describes them."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from datasets import Dataset

from reprise.core.config import PARAMS, LocalDataset, Task, Windows, to_dict
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, scratch_dir, sha256, write_json
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.data.format import SHARD_ROWS, WINDOWS, split_file, stats_path
from reprise.data.tokenization import load_tokenizer
from reprise.data.warnings import describe_warnings
from reprise.prepare.checks import conflicting_labels, find_warnings, shared_texts
from reprise.prepare.columns import CUT_TABLES, TEXT_COLUMNS, RawSplit, check_columns, read_tables, to_standard_columns
from reprise.prepare.cut import Splits, cut_splits, text_hashes
from reprise.prepare.split import subsample
from reprise.prepare.texts import check_texts
from reprise.prepare.write import WindowFile, unknown_token_id, write_tokenized, write_windows
from reprise.tasks.labels import equal_labels

# Maximum lengths whose cost is reported, beside the recipe's own.
MAX_LENGTHS = (128, 256, 512)
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def prepare(
    task: Task,
    *,
    max_length: int,
    windows: Windows | None = None,
    raw: Path = RAW,
    prepared: Path = PREPARED,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Split, label and tokenize the raw tables.

    The same input gives the same bytes with any number of cores: the tokenizer's threads keep the order of the rows,
    and one process writes. Tables are memory-mapped and written batch by batch, so they may be larger than memory.

    Args:
        task: names columns, labels, filter and split.
        max_length: tokens at which texts are truncated, or that a window has.
        windows: how long texts are divided; None to truncate them.
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
    if windows and not tokenizer.is_fast:
        raise UserError(f"{type(tokenizer).__name__} has no windows", file=PARAMS, key="data.windows", expected="null")

    with scratch_dir("prepare") as cache, atomic_dir(prepared) as partial:
        stats: dict[str, Any] = {"task": task.name, "labels": task.labels, "max_length": max_length, "splits": {}}
        if task.multi_label:
            stats["multi_label"] = to_dict(task.multi_label)
        if task.token_classification:
            stats["token_classification"] = to_dict(task.token_classification)
        if windows:
            stats["windows"] = to_dict(windows)
            (partial / WINDOWS).mkdir()
        try:
            splits = _load_splits(task, raw, cache)
        except UserError as error:
            named = _users_file(error.file, task, raw)
            raise UserError(error.problem, file=named, key=error.key, expected=error.expected) from None
        columns: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for split, rows in splits.rows.items():
            if task.max_examples:
                rows = rows.select(subsample(text_hashes(rows, TEXT_COLUMNS).ravel(), task.max_examples))
            files, written = _shard_files(split, len(rows), partial), []
            for number, file in enumerate(files):
                first = number * SHARD_ROWS
                part = rows.select(range(first, min(first + SHARD_ROWS, len(rows))))
                name = split if len(files) == 1 else f"{split}, file {number + 1} of {len(files)}"
                if windows:
                    beside = WindowFile(partial / WINDOWS / file.name, windows.stride, task.kind, first)
                    written.append(write_windows(part, file, tokenizer, max_length, beside, name=name))
                else:
                    written.append(write_tokenized(part, file, tokenizer, max_length, name=name))
            columns[split] = {key: np.concatenate([part[key] for part in written]) for key in written[0]}
            if windows:
                files += [partial / WINDOWS / file.name for file in files]
            stats["splits"][split] = _split_stats(columns[split], files, task, max_length)
            share = f" ({_describe_share(splits.shares[split], len(rows))})" if split in splits.shares else ""
            several = f", {columns[split]['windows'].sum()} windows" if windows else ""
            echo(f"prepare: {split}: {len(rows)} examples{several}{share}")
        if task.split:
            stats["split_shares"] = splits.shares
        if splits.folds:
            stats["folds"] = splits.folds
            echo(f"prepare: folds: {len(splits.folds)} of {min(splits.folds)} to {max(splits.folds)} examples")
        stats |= _compare_texts(columns, task)
        stats["warnings"] = splits.warnings + find_warnings(
            stats,
            task.kind,
            shares=splits.shares,
            largest_group=splits.largest_group,
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


def _describe_share(share: dict[str, Any], examples: int) -> str:
    """Compare the share of a split with the one asked; `examples` of its rows are prepared."""
    drawn = f"of {share['rows']:,}, " if examples < share["rows"] else ""
    return f"{drawn}{100 * share['obtained']:.1f} % of {share['of']:,}; asked {100 * share['asked']:.4g} %"


def _load_splits(task: Task, raw: Path, cache: Path) -> Splits:
    """Load each split in standard columns, none of them empty."""
    tables, warnings = _standard_tables(task, raw, cache)
    splits = Splits({table.split: rows for table, rows in tables}, warnings)
    if task.split:
        if known := sorted(splits.rows.keys() & task.split.fractions.keys()):
            expected = f"null, since the source has splits: {', '.join(splits.rows)}"
            key = "folds" if known[0] == "validation" and task.split.folds else known[0]
            raise UserError(file=PARAMS, key=f"task.split.{key}", expected=expected)
        for table, rows in tables:
            if table.split in CUT_TABLES:
                cut = cut_splits(table, rows, task)
                others = {name: part for name, part in splits.rows.items() if name != table.split}
                splits = replace(cut, rows=cut.rows | others, warnings=warnings)
    if missing := {"train", "validation"} - splits.rows.keys():
        raise UserError(
            f"the source has no {' and no '.join(sorted(missing))} split",
            file=PARAMS,
            key="task.split",
            expected="fractions such as {validation: 0.1, test: 0.1}",
        )
    for split, part in splits.rows.items():
        if len(part) == 0:
            raise _empty_split(split, splits)
    if splits.folds and not min(splits.folds):
        problem = f"fold {splits.folds.index(0)} of 0 to {len(splits.folds) - 1} is empty"
        raise UserError(problem, file=PARAMS, key="task.split.folds", expected="fewer folds")
    helpers = {"group", "row", "time", "widened"}
    return replace(
        splits,
        rows={
            split: part.remove_columns([column for column in part.column_names if column in helpers])
            for split, part in splits.rows.items()
        },
    )


def _empty_split(split: str, splits: Splits) -> UserError:
    if not splits.shares or split not in ("train", *splits.shares):
        problem = f"the {split} split is empty: no row of its table is left"
        return UserError(problem, file=PARAMS, key="task.source")
    asked = {name: share["asked"] for name, share in splits.shares.items()}
    rows = asked.get(split, 1 - sum(asked.values())) * splits.largest_group["of"]
    reason = "its fraction gives no row"
    if 1 <= rows <= splits.largest_group["rows"]:
        (reason,) = describe_warnings({"warnings": [splits.largest_group]})
    return UserError(f"the {split} split is empty: {reason}", file=PARAMS, key="task.split")


def _standard_tables(task: Task, raw: Path, cache: Path) -> tuple[list[tuple[RawSplit, Dataset]], list[dict[str, Any]]]:
    """Bring each raw table to standard columns, without rows that have no text; and warnings about the tables."""
    echo(f"prepare: read {raw}")
    tables = read_tables(raw, cache)
    for table in tables:
        check_columns(table, task)
    standard, warnings = [], []
    for table in tables:
        rows, found = check_texts(table, to_standard_columns(table, task), task)
        standard.append((table, rows))
        warnings += found
    return standard, warnings


def _compare_texts(columns: dict[str, dict[str, npt.NDArray[Any]]], task: Task) -> dict[str, Any]:
    """Compare the texts of all splits: how many are in two of them, and how many have different labels."""
    exact, normalized = ({split: each[key] for split, each in columns.items()} for key in ("exact", "normalized"))
    # Numbers may well differ for one text: ratings of "good", say.
    named = [each for each in columns.values() if task.kind.named_labels and not task.kind.is_unlabeled(each["labels"])]
    texts = np.concatenate([np.empty(0, np.uint64), *(each["normalized"] for each in named)])
    labels = np.concatenate([each["labels"] for each in named]) if named else np.empty(0, np.int64)
    if labels.ndim > 1 or labels.dtype == object:  # sets of labels, or tags
        labels = equal_labels(labels)
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
        "truncation": {
            str(limit): {
                "rows": int((full_lengths > limit).sum()),
                "tokens": int(np.maximum(full_lengths.astype(np.int64) - limit, 0).sum()),
            }
            for limit in sorted({max_length, *MAX_LENGTHS})
        },
        "full_tokens": int(full_lengths.sum(dtype=np.int64)),
        "sha256": sha256(*files),
    }
    if len(files) > 1:
        stats["shards"] = {
            f"{file.parent.name}/{file.name}" if file.parent.name == WINDOWS else file.name: sha256(file)
            for file in files
        }
    if "windows" in columns:
        stats |= {
            "windows": int(columns["windows"].sum()),
            "most_windows": int(columns["windows"].max()),
            "tokens": int(columns["window_tokens"].sum()),
            "rows_at_max_length": int((columns["full_lengths"] >= max_length).sum()),
            "lost_words": int(columns["lost_words"].sum()),
        }
    return stats | task.kind.label_stats(columns["labels"])
