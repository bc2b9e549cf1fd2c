"""`reprise predict --file`: predict the examples of a table."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, disable_progress_bars

from reprise.commands.predict import CHUNK_ROWS, predict_chunks
from reprise.core.display import to_json
from reprise.core.errors import UserError
from reprise.core.files import atomic_file, scratch_dir
from reprise.data.readers import read_table
from reprise.modeling.inputs import TextModel, Texts
from reprise.modeling.recipe import ModelRecipe


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


def predict_file(recipe: ModelRecipe, model: TextModel, file: Path, out: Path | None, top_k: int | None = None) -> None:
    """Predict the examples of a table; write all of its columns and the predictions to a file or as JSON lines.

    A prediction has the columns `label` and `probabilities`, or `label` and `top`; where the table has a column of that
    name already, it is `predicted_label` and so on. CSV has a column for each value in these, such as `top.1.label`.

    Args:
        recipe: what the model was trained for.
        model: computes the logits.
        file: CSV, TSV, JSON lines or Parquet.
        out: output file, ending in .jsonl, .csv or .parquet; None for JSON lines on standard output. It is replaced
            only when complete.
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
        chunks_of_rows = table_chunks(rows, file, columns, lists=recipe.kind.per_token)
        predicted = predict_chunks(recipe, model, chunks_of_rows, top_k)
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
