"""`reprise predict`: predict labels of texts, or of a test split for a benchmark submission."""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

import pandas as pd
from datasets import Dataset, disable_progress_bars

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.files import atomic_file
from reprise.core.paths import FINAL_MODEL
from reprise.data.format import split_file, split_shards
from reprise.data.readers import read_table
from reprise.data.tokenization import load_tokenizer, tokenize
from reprise.modeling.inference import drop_text_columns, load_predictor, load_split

CHUNK_ROWS = 10_000  # examples in memory at a time; batches of similar lengths are formed within a chunk

Texts = tuple[str, ...]  # one text, or two for a sentence pair


def predict_texts(recipe: Recipe, texts: Iterable[Texts], out: TextIO, *, cpu: bool) -> None:
    """Write one JSON line per example: its texts, the predicted label, and the probability of each label.

    In regression the label is the predicted value, and there are no probabilities.

    Args:
        recipe: recipe of the final model.
        texts: one or two texts per example, one per column of `task.text_columns`.
        out: stream for the JSON lines, in the order of the examples.
        cpu: use the CPU even if there is a GPU.

    Raises:
        UserError: there is no final model.
    """
    forward, tokenizer = load_predictor(recipe, cpu=cpu), load_tokenizer(FINAL_MODEL)
    kind, remaining, done = recipe.task.kind, iter(texts), 0
    while chunk := list(islice(remaining, CHUNK_ROWS)):
        if done:
            print(f"predict: {done} examples", file=sys.stderr, flush=True)
        columns = tokenize(tokenizer, [list(column) for column in zip(*chunk, strict=True)], recipe.train.max_length)
        labels = [kind.placeholder_label] * len(chunk)
        logits = forward(Dataset.from_dict({**columns, "label": labels}))
        for row, prediction in zip(chunk, kind.predictions(logits), strict=True):
            inputs = dict(zip(recipe.task.text_columns, row, strict=True))
            print(json.dumps(inputs | prediction, ensure_ascii=False), file=out)
        out.flush()
        done += len(chunk)


def parse_row(texts: list[str], columns: list[str]) -> Texts:
    """Check the texts of one example.

    Raises:
        UserError: their number differs from the recipe's text columns.
    """
    if len(texts) != len(columns):
        expected = "one text" if len(columns) == 1 else "two texts, separated by a tab on standard input"
        raise UserError(f"predict: expected {expected} ({', '.join(columns)}), got {len(texts)}: {texts}")
    return tuple(texts)


def read_lines(lines: Iterable[str], columns: list[str]) -> Iterator[Texts]:
    """Parse one example per line; a tab separates the two texts of a pair."""
    for line in lines:
        text = line.rstrip("\n")
        yield parse_row(text.split("\t") if len(columns) == 2 else [text], columns)


def read_file(file: Path, columns: list[str], cache: Path) -> Iterator[Texts]:
    """Read the recipe's text columns from a table.

    Args:
        file: CSV, TSV, JSON lines or Parquet.
        columns: names of the text columns.
        cache: folder for the converted table.

    Raises:
        UserError: the file cannot be read, a column is missing, or a value is not a text.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found; expected CSV, TSV, JSON lines or Parquet")
    disable_progress_bars()  # they would mix with the predictions on the terminal
    rows = read_table([file], cache)
    for column in columns:
        if column not in rows.column_names:
            present = ", ".join(rows.column_names)
            raise UserError(f"{file}: no column {column!r} (task.text_columns); its columns are {present}")
    return _texts(rows.select_columns(columns), file, columns)


def _texts(rows: Dataset, file: Path, columns: list[str]) -> Iterator[Texts]:
    for index, row in enumerate(rows, start=1):
        for column in columns:
            if not isinstance(row[column], str):
                raise UserError(f"{file}, row {index}: expected text in column {column!r}, got {row[column]!r}")
        yield tuple(row[column] for column in columns)


def predict_file(recipe: Recipe, file: Path, out: Path | None, *, cpu: bool) -> None:
    """Predict the examples of a table and write JSON lines to a file or to standard output.

    Args:
        recipe: recipe of the final model.
        file: CSV, TSV, JSON lines or Parquet.
        out: output file, ending in .jsonl; None for standard output. It is replaced only when complete.
        cpu: use the CPU even if there is a GPU.

    Raises:
        UserError: the file cannot be read, or `out` is the same file or has another ending.
    """
    if out and (out.suffix != ".jsonl" or out.resolve() == file.resolve()):
        raise UserError(f"{out}: expected another file than the input, ending in .jsonl")
    with tempfile.TemporaryDirectory(prefix="reprise-predict-") as cache:
        texts = read_file(file, recipe.task.text_columns, Path(cache))
        if out is None:
            predict_texts(recipe, texts, sys.stdout, cpu=cpu)
            return
        with atomic_file(out) as partial, partial.open("w", encoding="utf-8") as stream:
            predict_texts(recipe, texts, stream, cpu=cpu)


def predict_lines(recipe: Recipe, lines: TextIO, *, cpu: bool) -> None:
    """Predict each line of a stream and write JSON lines to standard output."""
    if lines.isatty():
        print("predict: reading one example per line; end with Ctrl-D", file=sys.stderr)
    predict_texts(recipe, read_lines(lines, recipe.task.text_columns), sys.stdout, cpu=cpu)


def write_submission(recipe: Recipe, folder: Path, *, cpu: bool) -> None:
    """Predict the test splits of a benchmark and write its submission files: tab-separated index and prediction.

    Args:
        recipe: recipe of the final model; its `task.submission` names splits and files.
        folder: folder for the files.
        cpu: use the CPU even if there is a GPU.

    Raises:
        UserError: the task has no submission, or a split is not prepared.
    """
    task = recipe.task
    if task.submission is None:
        raise UserError(
            f"params.yaml: task.submission: {task.name} has none; expected a benchmark task, such as those of GLUE"
        )
    for split in task.submission.files:
        if not split_shards(split):
            raise UserError(f"{split_file(split)}: not found; expected the {split} split, prepared by `dvc repro`")
    forward = load_predictor(recipe, cpu=cpu)
    for split, name in task.submission.files.items():
        file, rows = folder / name, load_split(split)
        print(f"predict: {len(rows)} examples of the {split} split", flush=True)
        predictions = task.kind.decode(forward(drop_text_columns(rows)))
        if task.submission.labels == "names":
            predictions = task.kind.label_names(predictions)
        table = pd.DataFrame({"index": list(rows["id"]), "prediction": predictions})
        with atomic_file(file) as partial:
            table.to_csv(partial, sep="\t", index=False)
        print(f"predict: {file}", flush=True)
