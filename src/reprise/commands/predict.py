"""`reprise predict`: predict labels of texts, or of a test split for a benchmark submission."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, disable_progress_bars
from transformers import PreTrainedTokenizerBase

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
from reprise.data.windows import tokenize_windows
from reprise.modeling.inference import load_inputs, load_predictor, load_split
from reprise.modeling.recipe import ModelRecipe, model_recipe
from reprise.results.workspace import changed_keys, read_made
from reprise.tasks.kind import Logits
from reprise.tasks.token_classification import Words, find_words

CHUNK_ROWS = 10_000  # examples in memory at a time; batches of similar lengths are formed within a chunk
PART_CHARS = 2**22  # of them, characters in windows at a time

Texts = tuple[Any, ...]  # one text, or two for a sentence pair; a list of words if labels are of words
T = TypeVar("T")


def print_changes(recipe: ModelRecipe) -> None:
    """Report on stderr, in a line each, where params.yaml and dvc.lock differ from what the model was trained for."""
    for line in changes(recipe):
        echo(f"predict: {line}", err=True)


def changes(recipe: ModelRecipe) -> Iterator[str]:
    """Yield where params.yaml and dvc.lock differ from the recipe of the final model; nothing for a missing file."""
    trained = to_dict(replace(recipe, thresholds=None, temperatures=None))
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


def predict_texts(
    recipe: ModelRecipe, texts: Iterable[Texts], out: TextIO, *, cpu: bool, top_k: int | None = None
) -> None:
    """Write one JSON line per example: its texts, the predicted label, and the probability of each label.

    In regression the label is the predicted value, and there are no probabilities.

    Args:
        recipe: what the final model was trained for.
        texts: one or two texts per example, one per column of `task.text_columns`.
        out: stream for the JSON lines, in the order of the examples.
        cpu: use the CPU even if there is a GPU.
        top_k: how many labels to list, best first, instead of the probability of each; None for all.

    Raises:
        UserError: there is no final model, or it has no labels to list.
    """
    remaining = iter(texts)
    chunks = iter(lambda: list(islice(remaining, CHUNK_ROWS)), [])
    for chunk, predictions in predict_chunks(recipe, ((chunk, chunk) for chunk in chunks), cpu=cpu, top_k=top_k):
        for row, prediction in zip(chunk, predictions, strict=True):
            inputs = dict(zip(recipe.task.text_columns, row, strict=True))
            out.write(f"{to_json(inputs | prediction)}\n")
        out.flush()


def predict_chunks(
    recipe: ModelRecipe, chunks: Iterable[tuple[T, Sequence[Texts]]], *, cpu: bool, top_k: int | None
) -> Iterator[tuple[T, Iterator[dict[str, Any]]]]:
    """Predict chunk by chunk, so that few examples are in memory.

    Args:
        recipe: what the final model was trained for.
        chunks: anything, and the texts of its examples.
        cpu: use the CPU even if there is a GPU.
        top_k: as for `predict_texts`.

    Yields:
        The same thing, and the predictions of its examples.

    Raises:
        UserError: there is no final model, or it has no labels to list.
    """
    kind, done = recipe.kind, 0
    if top_k and not kind.labels:
        raise UserError("the model predicts a number", key="predict --top-k", expected="a model with labels")
    if top_k and kind.per_token:
        raise UserError("the model finds entities", key="predict --top-k", expected="a model of texts")
    forward, tokenizer = load_predictor(recipe, cpu=cpu), load_tokenizer(FINAL_MODEL)
    for chunk, texts in chunks:
        if done:
            echo(f"predict: {done} examples", err=True)
        logits: list[Logits] = []
        words: list[Words] = []
        for part in parts_of(texts) if recipe.data.windows else [texts]:
            rows, found = model_inputs(recipe, tokenizer, part)
            logits.append(forward(rows))
            words += found
        yield chunk, kind.predictions(np.concatenate(logits), top_k, words)
        done += len(texts)


def parts_of(texts: Sequence[Texts]) -> Iterator[Sequence[Texts]]:
    """Divide texts of any length into parts of at most PART_CHARS characters, or one text."""
    start = chars = 0
    for index, row in enumerate(texts):
        size = sum(map(len, row[0])) if isinstance(row[0], list) else len(row[0])
        if index > start and chars + size > PART_CHARS:
            yield texts[start:index]
            start, chars = index, 0
        chars += size
    yield texts[start:]


def model_inputs(
    recipe: ModelRecipe, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Texts]
) -> tuple[Dataset, list[Words]]:
    """Tokenize texts as prepare does.

    Returns:
        The rows that the model reads; and, if labels are of words, those of each text that have a token.
    """
    kind, windows, max_length = recipe.kind, recipe.data.windows, recipe.train.max_length
    if windows is None:
        columns = tokenize(tokenizer, [list(column) for column in zip(*texts, strict=True)], max_length)
        return Dataset.from_dict({**columns, "label": [kind.placeholder_label] * len(texts)}), []
    words = [find_words(text) for (text,) in texts] if kind.per_token else []
    rows, kept = tokenize_windows(
        tokenizer,
        [each.text for each in words] if words else [text for (text,) in texts],
        max_length=max_length,
        stride=windows.stride,
        kind=kind,
        labels=[[0] * len(each.starts) for each in words] or [kind.placeholder_label] * len(texts),
        words=words or None,
    )
    found = [Words(each.text, each.starts[own], each.ends[own]) for each, own in zip(words, kept, strict=True)]
    return Dataset.from_dict(rows), found


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


def read_file(file: Path, columns: list[str], cache: Path) -> Dataset:
    """Read a table with the recipe's text columns; it is mapped from a file, not loaded.

    Args:
        file: CSV, TSV, JSON lines or Parquet.
        columns: names of the text columns.
        cache: folder for the converted table.

    Raises:
        UserError: the file cannot be read, or a column is missing.
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
    return rows


def table_chunks(
    rows: Dataset, file: Path, columns: list[str], *, lists: bool = False
) -> Iterator[tuple[pa.Table, list[Texts]]]:
    """Yield a table in chunks with all of its columns, each with the texts of its examples.

    Args:
        rows: the table.
        file: its file, for errors.
        columns: names of the text columns.
        lists: whether a text may be a list of words.

    Raises:
        UserError: a value is not a text.
    """
    tables, decoded = rows.with_format("arrow"), rows.select_columns(columns)
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        table, values = tables[chunk], decoded[chunk]
        texts = list(zip(*(values[column] for column in columns), strict=True))
        for index, row in enumerate(texts, start=start + 1):
            for column, text in zip(columns, row, strict=True):
                if not isinstance(text, str) and not (lists and is_words(text)):
                    expected = "text, or a list of words" if lists else "text"
                    raise UserError(f"got {text!r} in row {index}", file=file, key=column, expected=expected)
        yield table, texts


def is_words(value: Any) -> bool:
    """Return whether a value is a list of words."""
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def predict_file(recipe: ModelRecipe, file: Path, out: Path | None, *, cpu: bool, top_k: int | None = None) -> None:
    """Predict the examples of a table; write all of its columns and the predictions to a file or as JSON lines.

    A prediction has the columns `label` and `probabilities`, or `label` and `top`; where the table has a column of that
    name already, it is `predicted_label` and so on. CSV has a column for each value in these, such as `top.1.label`.

    Args:
        recipe: what the final model was trained for.
        file: CSV, TSV, JSON lines or Parquet.
        out: output file, ending in .jsonl, .csv or .parquet; None for JSON lines on standard output. It is replaced
            only when complete.
        cpu: use the CPU even if there is a GPU.
        top_k: how many labels to list, best first, instead of the probability of each; None for all.

    Raises:
        UserError: the file cannot be read, `out` is the same file or has another ending, or the model has no labels to
            list.
    """
    if out and (out.suffix not in WRITERS or out.resolve() == file.resolve()):
        raise UserError(file=out, expected=f"another file than the input, ending in {' or '.join(WRITERS)}")
    with scratch_dir("predict") as cache:
        columns = recipe.task.text_columns
        rows = read_file(file, columns, cache)
        predicted = predict_chunks(
            recipe, table_chunks(rows, file, columns, lists=recipe.kind.per_token), cpu=cpu, top_k=top_k
        )
        if out and out.suffix == ".csv":
            predicted = ((table, map(flatten, predictions)) for table, predictions in predicted)
        chunks = (add_columns(table, list(predictions)) for table, predictions in predicted)
        if out is None:
            write_jsonl(chunks, sys.stdout.buffer)
            return
        with atomic_file(out) as partial, partial.open("wb") as stream:
            WRITERS[out.suffix](chunks, stream)


def add_columns(table: pa.Table, predictions: Sequence[dict[str, Any]]) -> pa.Table:
    """Add the predictions of its rows to a table, under names that it does not have."""
    taken = any(name in table.column_names for name in predictions[0])
    for name in predictions[0]:
        values = pa.array([prediction[name] for prediction in predictions])
        table = table.append_column(unused(f"predicted_{name}" if taken else name, table.column_names), values)
    return table


def unused(name: str, names: Sequence[str]) -> str:
    """Return a name, with underscores added until it is not one of `names`."""
    return unused(f"{name}_", names) if name in names else name


def write_jsonl(tables: Iterable[pa.Table], stream: BinaryIO) -> None:
    """Write the rows as JSON lines; what JSON has no type for, such as a date, is written as text."""
    for table in tables:
        for row in table.to_pylist():
            stream.write(f"{to_json(jsonable(row))}\n".encode())
        stream.flush()


def jsonable(value: Any) -> Any:
    """Replace what JSON cannot hold: a number that is not finite by None, anything else by its text."""
    match value:
        case dict():
            return {str(key): jsonable(each) for key, each in value.items()}
        case list():
            return [jsonable(each) for each in value]
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def write_csv(tables: Iterable[pa.Table], stream: BinaryIO) -> None:
    """Write CSV; a nested value of the table is written as JSON."""
    for number, table in enumerate(tables):
        rows = [
            [to_json(jsonable(value)) if isinstance(value, dict | list) else value for value in row.values()]
            for row in table.to_pylist()
        ]
        frame = pd.DataFrame(rows, columns=table.column_names, dtype=object)  # integers with gaps stay integers
        frame.to_csv(stream, index=False, header=number == 0)


def flatten(prediction: dict[str, Any]) -> dict[str, Any]:
    """Give each nested value of a prediction a name of its own, such as `probabilities.fresh` or `top.1.label`."""
    flat: dict[str, Any] = {}
    for name, value in prediction.items():
        nested = dict(enumerate(value, start=1)) if isinstance(value, list) else value
        if isinstance(nested, dict):
            flat |= flatten({f"{name}.{key}": each for key, each in nested.items()})
        else:
            flat[name] = value
    return flat


def write_parquet(tables: Iterable[pa.Table], stream: BinaryIO) -> None:
    """Write Parquet; columns keep their types."""
    writer = None
    for table in tables:
        writer = writer or pq.ParquetWriter(stream, table.schema)
        writer.write_table(table.cast(writer.schema))
    if writer:
        writer.close()


# By the ending of the output file.
WRITERS: dict[str, Callable[[Iterable[pa.Table], BinaryIO], None]] = {
    ".jsonl": write_jsonl,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


def predict_lines(recipe: ModelRecipe, lines: TextIO, *, cpu: bool, top_k: int | None = None) -> None:
    """Predict each line of a stream and write JSON lines to standard output."""
    if lines.isatty():
        echo("predict: reading one example per line; end with Ctrl-D", err=True)
    decoded = decode_lines(lines.buffer, "standard input")
    predict_texts(recipe, read_lines(decoded, recipe.task.text_columns), sys.stdout, cpu=cpu, top_k=top_k)


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
    kind = recipe.kind
    for split, name in submission.files.items():
        file, rows = folder / name, load_split(split)
        echo(f"predict: {len(rows)} examples of the {split} split")
        values = kind.decode(forward(load_inputs(split)))
        predictions = kind.label_names(values) if submission.labels == "names" else values
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
