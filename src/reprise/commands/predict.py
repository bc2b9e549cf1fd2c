"""`reprise predict`: predict labels of texts, or of a test split for a benchmark submission."""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

import pandas as pd
from datasets import Dataset, disable_progress_bars

from reprise.core.config import PARAMS, Submission, to_dict
from reprise.core.display import echo, to_json
from reprise.core.dvc_lock import LOCK
from reprise.core.errors import UserError
from reprise.core.files import atomic_file, read_json, scratch_dir
from reprise.core.paths import FINAL_MODEL
from reprise.core.validation import read_recipe
from reprise.data.format import split_file, split_shards, stats_path
from reprise.data.readers import read_table
from reprise.data.text import decode_lines
from reprise.data.tokenization import load_tokenizer, tokenize
from reprise.modeling.inference import drop_text_columns, load_predictor, load_split
from reprise.modeling.recipe import ModelRecipe, model_recipe
from reprise.results.workspace import changed_keys, read_made

CHUNK_ROWS = 10_000  # examples in memory at a time; batches of similar lengths are formed within a chunk

Texts = tuple[str, ...]  # one text, or two for a sentence pair


def print_changes(recipe: ModelRecipe) -> None:
    """Report on stderr, in a line each, where params.yaml and dvc.lock differ from what the model was trained for."""
    for line in changes(recipe):
        echo(f"predict: {line}", err=True)


def changes(recipe: ModelRecipe) -> Iterator[str]:
    """Yield where params.yaml and dvc.lock differ from the recipe of the final model; nothing for a missing file."""
    trained = to_dict(recipe)
    try:
        made = read_made("this model was trained") if LOCK.is_file() else None
        foreign = changed_keys(trained, to_dict(model_recipe(made.recipe))) if made else []
        if made and not foreign:
            yield from made.changes
            return
    except UserError as error:
        yield str(error)
        foreign = []
    if foreign:
        yield f"{FINAL_MODEL} is not the model of {LOCK}: {', '.join(foreign)}; `dvc checkout` restores that one"
    if not PARAMS.is_file():
        return
    try:
        if keys := changed_keys(trained, to_dict(model_recipe(read_recipe()))):
            yield f"{PARAMS} has changed since this model was trained: {', '.join(keys)}"
    except UserError as error:
        yield str(error)


def predict_texts(recipe: ModelRecipe, texts: Iterable[Texts], out: TextIO, *, cpu: bool) -> None:
    """Write one JSON line per example: its texts, the predicted label, and the probability of each label.

    In regression the label is the predicted value, and there are no probabilities.

    Args:
        recipe: what the final model was trained for.
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
            echo(f"predict: {done} examples", err=True)
        columns = tokenize(tokenizer, [list(column) for column in zip(*chunk, strict=True)], recipe.train.max_length)
        labels = [kind.placeholder_label] * len(chunk)
        logits = forward(Dataset.from_dict({**columns, "label": labels}))
        for row, prediction in zip(chunk, kind.predictions(logits), strict=True):
            inputs = dict(zip(recipe.task.text_columns, row, strict=True))
            out.write(f"{to_json(inputs | prediction)}\n")
        out.flush()
        done += len(chunk)


def parse_row(texts: list[str], columns: list[str]) -> Texts:
    """Check the texts of one example.

    Raises:
        UserError: their number differs from the recipe's text columns.
    """
    if len(texts) != len(columns):
        expected = "one text" if len(columns) == 1 else "two texts, separated by a tab on standard input"
        raise UserError(f"predict: got {len(texts)}: {texts}", expected=f"{expected} ({', '.join(columns)})")
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
        raise UserError("not found", file=file, expected="CSV, TSV, JSON lines or Parquet")
    disable_progress_bars()  # they would mix with the predictions on the terminal
    rows = read_table([file], cache)
    for column in columns:
        if column not in rows.column_names:
            present = ", ".join(rows.column_names)
            raise UserError(
                f"no column {column!r}", file=file, key=column, expected=f"the model's text columns; found {present}"
            )
    return _texts(rows.select_columns(columns), file, columns)


def _texts(rows: Dataset, file: Path, columns: list[str]) -> Iterator[Texts]:
    for index, row in enumerate(rows, start=1):
        for column in columns:
            if not isinstance(row[column], str):
                raise UserError(f"got {row[column]!r} in row {index}", file=file, key=column, expected="text")
        yield tuple(row[column] for column in columns)


def predict_file(recipe: ModelRecipe, file: Path, out: Path | None, *, cpu: bool) -> None:
    """Predict the examples of a table and write JSON lines to a file or to standard output.

    Args:
        recipe: what the final model was trained for.
        file: CSV, TSV, JSON lines or Parquet.
        out: output file, ending in .jsonl; None for standard output. It is replaced only when complete.
        cpu: use the CPU even if there is a GPU.

    Raises:
        UserError: the file cannot be read, or `out` is the same file or has another ending.
    """
    if out and (out.suffix != ".jsonl" or out.resolve() == file.resolve()):
        raise UserError(file=out, expected="another file than the input, ending in .jsonl")
    with scratch_dir("predict") as cache:
        texts = read_file(file, recipe.task.text_columns, cache)
        if out is None:
            predict_texts(recipe, texts, sys.stdout, cpu=cpu)
            return
        with atomic_file(out) as partial, partial.open("w", encoding="utf-8") as stream:
            predict_texts(recipe, texts, stream, cpu=cpu)


def predict_lines(recipe: ModelRecipe, lines: TextIO, *, cpu: bool) -> None:
    """Predict each line of a stream and write JSON lines to standard output."""
    if lines.isatty():
        echo("predict: reading one example per line; end with Ctrl-D", err=True)
    decoded = decode_lines(lines.buffer, "standard input")
    predict_texts(recipe, read_lines(decoded, recipe.task.text_columns), sys.stdout, cpu=cpu)


def write_submission(recipe: ModelRecipe, folder: Path, *, cpu: bool) -> None:
    """Predict the test splits of a benchmark and write its submission files: tab-separated index and prediction.

    Args:
        recipe: what the final model was trained for.
        folder: folder for the files.
        cpu: use the CPU even if there is a GPU.

    Raises:
        UserError: the task has no submission, params.yaml or the prepared data are not those of the model, or a split
            is not prepared.
    """
    submission = read_submission(recipe)
    for split in submission.files:
        if not split_shards(split):
            raise UserError("not found", file=split_file(split), expected=f"the {split} split, prepared by `dvc repro`")
    forward = load_predictor(recipe, cpu=cpu)
    kind = recipe.task.kind
    for split, name in submission.files.items():
        file, rows = folder / name, load_split(split)
        echo(f"predict: {len(rows)} examples of the {split} split")
        predictions = kind.decode(forward(drop_text_columns(rows)))
        if submission.labels == "names":
            predictions = kind.label_names(predictions)
        table = pd.DataFrame({"index": list(rows["id"]), "prediction": predictions})
        with atomic_file(file) as partial:
            table.to_csv(partial, sep="\t", index=False)
        echo(f"predict: {file}")


def read_submission(recipe: ModelRecipe) -> Submission:
    """Read the format of the benchmark's files from params.yaml; training does not depend on it.

    Raises:
        UserError: there is none, or params.yaml or the prepared data are of another task than the model.
    """
    current, stats = read_recipe(), read_json(stats_path())
    if keys := changed_keys(to_dict(recipe.task), to_dict(model_recipe(current).task)):
        raise UserError(
            "not what the model was trained for", file=PARAMS, key=f"task.{keys[0]}", expected="`dvc repro` first"
        )
    prepared = {"task": recipe.task.name, "labels": recipe.task.labels, "max_length": recipe.train.max_length}
    for key, value in prepared.items():
        if stats.get(key) != value:
            raise UserError(
                f"{stats.get(key)!r}, and the model was trained for {value!r}",
                file=stats_path(), key=key, expected="`dvc repro` first",
            )  # fmt: skip
    if current.task.submission is None:
        raise UserError(
            f"{current.task.name} has none",
            file=PARAMS, key="task.submission", expected="a benchmark task, such as those of GLUE",
        )  # fmt: skip
    return current.task.submission
