"""`reprise predict`: what the final model says of texts, or of a split whose labels are not published."""

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
from reprise.data.readers import check_file, read_table
from reprise.data.tokenization import load_tokenizer, tokenize
from reprise.modeling.inference import drop_text_columns, load_predictor, load_split

CHUNK_ROWS = 10_000  # rows that are in memory together; within them, batches are of similar lengths

Texts = tuple[str, ...]  # one, or the two of a pair


def predict_texts(recipe: Recipe, texts: Iterable[Texts], out: TextIO, *, cpu: bool) -> None:
    """Write a JSON line for each text, in their order: the text, its label, and the probability of each label.

    In regression the label is the value, and there are no probabilities.

    Args:
        recipe: what was cooked.
        texts: one or two a row, as `task.text_columns` has columns.
        out: where the lines go.
        cpu: compute on the processor even where there is a GPU.

    Raises:
        UserError: nothing was trained yet.
    """
    forward, tokenizer = load_predictor(recipe, cpu=cpu), load_tokenizer(FINAL_MODEL)
    kind, remaining, done = recipe.task.kind, iter(texts), 0
    while chunk := list(islice(remaining, CHUNK_ROWS)):
        if done:
            print(f"predict: {done} rows", file=sys.stderr, flush=True)
        columns = tokenize(tokenizer, [list(column) for column in zip(*chunk, strict=True)], recipe.train.max_length)
        labels = [kind.placeholder_label] * len(chunk)
        logits = forward(Dataset.from_dict({**columns, "label": labels}))
        for row, said in zip(chunk, kind.predictions(logits), strict=True):
            print(
                json.dumps(dict(zip(recipe.task.text_columns, row, strict=True)) | said, ensure_ascii=False), file=out
            )
        out.flush()
        done += len(chunk)


def parse_row(texts: list[str], columns: list[str]) -> Texts:
    """The texts of one row.

    Raises:
        UserError: more or fewer than the recipe's columns of text.
    """
    if len(texts) != len(columns):
        expected = "one text" if len(columns) == 1 else "two texts, of which a tab in a line parts them"
        raise UserError(f"predict: expected {expected} ({', '.join(columns)}), got {len(texts)}: {texts}")
    return tuple(texts)


def read_lines(lines: Iterable[str], columns: list[str]) -> Iterator[Texts]:
    """A row a line; a tab parts the two texts of a pair."""
    for line in lines:
        text = line.rstrip("\n")
        yield parse_row(text.split("\t") if len(columns) == 2 else [text], columns)


def read_file(file: Path, columns: list[str], cache: Path) -> Iterator[Texts]:
    """The texts in a table, in columns of the recipe's names.

    Raises:
        UserError: the file cannot be read, a column is missing, or a text is none.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found; expected CSV, TSV, JSON lines or Parquet")
    check_file(file)
    disable_progress_bars()  # of reading, which would stand among the answers
    rows = read_table([file], cache)
    for column in columns:
        if column not in rows.column_names:
            there = ", ".join(rows.column_names)
            raise UserError(f"{file}: no column {column!r} (task.text_columns); its columns are {there}")
    return _texts(rows.select_columns(columns), file, columns)


def _texts(rows: Dataset, file: Path, columns: list[str]) -> Iterator[Texts]:
    for number, row in enumerate(rows, start=1):
        for column in columns:
            if not isinstance(row[column], str):
                raise UserError(f"{file}, row {number}: expected text in column {column!r}, got {row[column]!r}")
        yield tuple(row[column] for column in columns)


def predict_file(recipe: Recipe, file: Path, out: Path | None, *, cpu: bool) -> None:
    """Predict the rows of a table, to `out` or to standard output; `out` is whole in the end or stays as it was.

    Raises:
        UserError: the file cannot be read, or `out` is no place for JSON lines.
    """
    if out and (out.suffix != ".jsonl" or out.resolve() == file.resolve()):
        raise UserError(f"{out}: expected another file than the one that is read, ending in .jsonl")
    with tempfile.TemporaryDirectory(prefix="reprise-predict-") as cache:
        texts = read_file(file, recipe.task.text_columns, Path(cache))
        if out is None:
            predict_texts(recipe, texts, sys.stdout, cpu=cpu)
            return
        with atomic_file(out) as partial, partial.open("w", encoding="utf-8") as stream:
            predict_texts(recipe, texts, stream, cpu=cpu)


def predict_lines(recipe: Recipe, lines: TextIO, *, cpu: bool) -> None:
    """Predict each line, to standard output."""
    if lines.isatty():
        print("predict: reads a text a line; Ctrl-D ends them", file=sys.stderr)
    predict_texts(recipe, read_lines(lines, recipe.task.text_columns), sys.stdout, cpu=cpu)


def write_submission(recipe: Recipe, folder: Path, *, cpu: bool) -> None:
    """Predict the splits that a benchmark keeps the labels of, and write its files: tab-separated index and prediction.

    Raises:
        UserError: the recipe's task has no submission, or a split was not prepared.
    """
    task = recipe.task
    if task.submission is None:
        raise UserError(f"params.yaml: task.submission: {task.name} has none; expected a task of GLUE, say")
    for split in task.submission.files:
        if not split_shards(split):
            raise UserError(f"{split_file(split)}: not found; expected the {split} split that `dvc repro` prepares")
    forward = load_predictor(recipe, cpu=cpu)
    for split, name in task.submission.files.items():
        file, rows = folder / name, load_split(split)
        print(f"predict: {len(rows)} rows of the {split} split", flush=True)
        predictions = task.kind.decode(forward(drop_text_columns(rows)))
        if task.submission.labels == "names":
            predictions = task.kind.label_names(predictions)
        table = pd.DataFrame({"index": list(rows["id"]), "prediction": predictions})
        with atomic_file(file) as partial:
            table.to_csv(partial, sep="\t", index=False)
        print(f"predict: {file}", flush=True)
