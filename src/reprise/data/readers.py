"""Check and read tables from CSV, TSV, JSON lines and Parquet files with `datasets`."""

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

# The reader of `datasets` for each file extension.
READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
COMPRESSIONS = (".bz2", ".gz", ".xz")
# Raised by Python's readers of a damaged compressed file.
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


def format_suffix(file: Path) -> str:
    """Return the extension without that of a compression: `.csv` for `reviews.csv.bz2`."""
    return Path(file.stem).suffix if file.suffix in COMPRESSIONS else file.suffix


def delimiter(file: Path) -> str:
    """Return the column delimiter of a CSV or TSV file."""
    return "\t" if format_suffix(file) == ".tsv" else ","


def check_file(file: Path) -> None:
    """Check that the content of a file matches its extension, without loading all of it.

    Raises:
        UserError: If the extension is unknown, the file is empty, text is not UTF-8, or the format is another.
    """
    if format_suffix(file) not in READERS or (format_suffix(file) == ".parquet" and file.suffix != ".parquet"):
        raise UserError(f"{file}: unknown extension; expected {', '.join(READERS)}, text also with .bz2, .gz or .xz")
    if file.stat().st_size == 0:
        raise UserError(f"{file}: empty")
    if READERS[format_suffix(file)] == "parquet":
        try:
            pq.read_schema(file)
        except (pa.ArrowInvalid, OSError):
            raise UserError(f"{file}: not Parquet, although its extension is .parquet") from None
    elif file.suffix not in COMPRESSIONS:
        _check_utf8(file)
        if READERS[format_suffix(file)] == "json":
            _check_json_lines(file)
        else:
            read_header(file)


def _check_utf8(file: Path) -> None:
    line = 1
    with file.open("rb") as stream:
        for content in stream:
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{file}: line {line} is not UTF-8; convert it, for example with iconv") from None
            if b"\0" in content:
                raise UserError(f"{file}: line {line} contains a null byte; expected a text file")
            line += 1


def _check_json_lines(file: Path) -> None:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{file}: line {number} is not JSON: {getattr(error, 'msg', error)}; expected one object per line"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"{file}: line {number}: expected a JSON object, got {line.strip()[:40]!r}")


def read_header(file: Path) -> list[str]:
    """Return the column names in the first line of a CSV or TSV file.

    The second line is parsed too: pandas would take a field without a column name as an index column.

    Raises:
        UserError: If the line cannot be parsed, or a column name is duplicated.
    """
    try:
        lines = pd.read_csv(file, sep=delimiter(file), nrows=2, header=None, dtype=str, na_filter=False)
    except (*DECOMPRESSION_ERRORS, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file}: not a table with column names in the first line: {' '.join(str(error).split())}"
        ) from None
    names = [str(name) for name in lines.iloc[0]]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{file}: expected unique column names, got {min(duplicates)!r} twice")
    return names


def read_table(files: list[Path], cache: Path) -> Dataset:
    """Read files of one format as one table.

    Args:
        files: Files that passed `check_file`.
        cache: Directory for the Arrow files from which the table is memory-mapped.

    Returns:
        The rows of all files in order; every column of CSV and TSV files is a string.

    Raises:
        UserError: If the files cannot be read in the format of their extension, or contain no row.
    """
    reader = READERS[format_suffix(files[0])]
    options: dict[str, Any] = {}
    if reader == "csv":
        # Keep every field as the written text: "NA" must not become a missing value, nor "007" the number 7.
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
