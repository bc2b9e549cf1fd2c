"""Tables in files: CSV, TSV, JSON lines and Parquet, read as `datasets` reads them, checked before."""

import json
import lzma
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Value, load_dataset
from datasets.exceptions import DatasetGenerationError

from reprise.core.errors import UserError

# What a name may end on, and which reader of `datasets` takes it.
READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
COMPRESSIONS = (".bz2", ".gz", ".xz")
# What reading a damaged compressed file raises.
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


def format_suffix(file: Path) -> str:
    """The ending that says the format, with a compression's own ending set aside: `.csv` of `reviews.csv.bz2`."""
    return Path(file.stem).suffix if file.suffix in COMPRESSIONS else file.suffix


def delimiter(file: Path) -> str:
    """What stands between the columns of a CSV or TSV file."""
    return "\t" if format_suffix(file) == ".tsv" else ","


def check_file(file: Path) -> None:
    """Check that a file is what its ending says, reading it in pieces.

    Raises:
        UserError: an unknown ending, an empty file, text that is not UTF-8, or content of another format.
    """
    if format_suffix(file) not in READERS or (format_suffix(file) == ".parquet" and file.suffix != ".parquet"):
        raise UserError(f"{file}: unknown ending; expected {', '.join(READERS)}, text ones also with .bz2, .gz or .xz")
    if file.stat().st_size == 0:
        raise UserError(f"{file}: empty")
    if READERS[format_suffix(file)] == "parquet":
        try:
            pq.read_schema(file)
        except (pa.ArrowInvalid, OSError):
            raise UserError(f"{file}: not Parquet, although its name says so") from None
    elif file.suffix not in COMPRESSIONS:
        _check_utf8(file)
        if READERS[format_suffix(file)] == "json":
            _check_json_lines(file)
        else:
            read_header(file)


def _check_utf8(file: Path) -> None:
    line = 1
    with file.open("rb") as stream:
        for piece in stream:
            try:
                piece.decode("utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{file}: line {line} is not UTF-8; convert it, for example with iconv") from None
            if b"\0" in piece:
                raise UserError(f"{file}: line {line} holds a zero byte: not a text file, although its name says so")
            line += 1


def _check_json_lines(file: Path) -> None:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{file}: line {number} is not JSON: {getattr(error, 'msg', error)}; expected one object a line"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"{file}: line {number}: expected a JSON object, got {line.strip()[:40]!r}")


def read_header(file: Path) -> list[str]:
    """The column names in the first line of a CSV or TSV file.

    The second line is read too: pandas would take a field more than there are names for a column without one.

    Raises:
        UserError: the line cannot be read, or names a column twice.
    """
    try:
        line = pd.read_csv(file, sep=delimiter(file), nrows=2, header=None, dtype=str, na_filter=False)
    except (*DECOMPRESSION_ERRORS, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file}: not a table whose first line names its columns: {' '.join(str(error).split())}"
        ) from None
    names = [str(name) for name in line.iloc[0]]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{file}: expected different column names, got {min(twice)!r} twice")
    return names


def read_table(files: list[Path], cache: Path) -> Dataset:
    """The rows of files of one format that `check_file` has passed, memory-mapped from Arrow files in `cache`.

    Raises:
        UserError: they cannot be read as what their ending says, or hold no row.
    """
    reader = READERS[format_suffix(files[0])]
    options: dict[str, Any] = {}
    if reader == "csv":
        # Everything is text as written: no guessing that "NA" is missing or that "007" is a number.
        features = Features({name: Value("string") for name in read_header(files[0])})
        options = {"sep": delimiter(files[0]), "na_filter": False, "features": features}
    try:
        return load_dataset(
            reader, data_files={"rows": [str(file) for file in files]}, split="rows", cache_dir=str(cache), **options
        )
    except (DatasetGenerationError, ValueError, OSError, EOFError) as error:
        cause = error.__cause__ or error
        if "corresponds to no data" in str(cause):
            raise UserError(f"{files[0]}: no rows; expected at least one") from None
        raise UserError(f"{files[0]}: cannot be read as {reader}: {' '.join(str(cause).split())[:200]}") from None
