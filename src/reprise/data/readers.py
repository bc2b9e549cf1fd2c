"""Check and read tables from CSV, TSV, JSON lines and Parquet files with `datasets`."""

import bz2
import csv
import glob
import gzip
import io
import json
import lzma
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from logging import CRITICAL
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow.parquet as pq
from datasets import Dataset, Features, Value, load_dataset

from reprise.core.config import MAX_COLUMNS, MAX_DEPTH, MAX_FIELD, MAX_LINE, MAX_ROWS, may_unpack
from reprise.core.errors import UserError

# The reader of `datasets` for each file extension.
READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
COMPRESSIONS: dict[str, Callable[[Path], Any]] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
# Raised by Python's readers of a damaged compressed file.
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


def format_suffix(file: Path) -> str:
    """Return the extension without that of a compression: `.csv` for `reviews.csv.bz2`."""
    return Path(file.stem).suffix if file.suffix in COMPRESSIONS else file.suffix


def csv_format(file: Path) -> dict[str, Any]:
    """Return the format of a CSV or TSV file, as Python's csv module, pandas and `datasets` take it.

    A TSV file has no quoting: each line is a row, and a quote is a character of the text.
    """
    if format_suffix(file) == ".tsv":
        return {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    return {"delimiter": ",", "quoting": csv.QUOTE_MINIMAL}


def check_file(file: Path) -> int:
    """Check that the content of a file matches its extension, with one row in memory at a time.

    Returns:
        The number of its rows.

    Raises:
        UserError: If the extension is unknown, the file is empty, text is not UTF-8, the format is another, or the
            table is beyond a limit of core/config.py.
    """
    if format_suffix(file) not in READERS or (format_suffix(file) == ".parquet" and file.suffix != ".parquet"):
        raise UserError(
            "unknown extension", file=file, expected=f"{', '.join(READERS)}, text also with .bz2, .gz or .xz"
        )
    if file.stat().st_size == 0:
        raise UserError("empty", file=file)
    match READERS[format_suffix(file)]:
        case "parquet":
            rows = _count_parquet_rows(file)
        case "json":
            rows = _count_json_lines(file)
        case _:
            rows = _count_csv_rows(file)
            read_header(file)
    if rows > MAX_ROWS:
        raise UserError(f"{rows:,} rows", file=file, expected=f"at most {MAX_ROWS:,}")
    return rows


def _count_parquet_rows(file: Path) -> int:
    """Return the number of rows that the metadata gives, if it can be true of a file of that size."""
    try:
        metadata = pq.read_metadata(file)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        rows, unpacked = metadata.num_rows, sum(group.total_byte_size for group in groups)
    except Exception:  # of a damaged file
        raise UserError("not Parquet, although its extension is .parquet", file=file) from None
    _check_columns(metadata.num_columns, file)
    size = file.stat().st_size
    if not may_unpack(unpacked, size) or rows > max(size, 2**20):  # a row of text has at least a byte
        raise UserError(f"{rows:,} rows of {unpacked:,} bytes in {size:,} bytes", file=file, expected="texts")
    return int(rows)


def _check_columns(columns: int, file: Path, line: int = 1) -> None:
    if columns > MAX_COLUMNS:
        raise UserError(f"{columns:,} columns", file=file, key=f"line {line}", expected=f"at most {MAX_COLUMNS:,}")


def _lines(file: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a text file with their ends, which are LF, CR LF or CR.

    Raises:
        UserError: If the file is not UTF-8, contains a null byte, is a damaged compressed file, or has a line or a
            compressed content beyond the limits.
    """
    number = unpacked = 0
    size = file.stat().st_size
    try:
        with (
            COMPRESSIONS.get(file.suffix, Path.open)(file, mode="rb") as binary,
            io.TextIOWrapper(binary, encoding, errors="surrogateescape", newline="") as text,
        ):
            for number, line in enumerate(iter(partial(text.readline, MAX_LINE + 1), ""), start=1):
                unpacked += len(line)
                if len(line) > MAX_LINE:
                    expected = f"at most {MAX_LINE:,} characters"
                    raise UserError("a line without an end", file=file, key=f"line {number}", expected=expected)
                if file.suffix in COMPRESSIONS and not may_unpack(unpacked, size):
                    expected = "a table, whose texts compress to more than a hundredth"
                    raise UserError(f"unpacks to more than {unpacked:,} characters", file=file, expected=expected)
                if not line.isascii():
                    line.encode()  # refuses the surrogates of bytes that are not UTF-8
                if "\0" in line:
                    raise UserError("contains a null byte", file=file, key=f"line {number}", expected="a text file")
                yield line
    except UnicodeEncodeError:
        raise UserError("not UTF-8; convert it, for example with iconv", file=file, key=f"line {number}") from None
    except DECOMPRESSION_ERRORS as error:
        raise UserError(f"cannot be read after line {number}: {_one_line(error)}", file=file) from None


def _count_json_lines(file: Path) -> int:
    rows = 0
    columns: set[str] = set()
    for number, line in enumerate(_lines(file, "utf-8"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"not JSON: {getattr(error, 'msg', error)}",
                file=file,
                key=f"line {number}",
                expected="one object per line",
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"got {line.strip()[:40]!r}", file=file, key=f"line {number}", expected="a JSON object")
        rows += 1
        columns.update(row)
        _check_columns(len(columns), file, number)
        if any(type(value) is int and value.bit_length() > 63 for value in row.values()):
            raise UserError("a larger number", file=file, key=f"line {number}", expected="64 bits, or a text in quotes")
        if len(line) > MAX_FIELD and any(isinstance(value, str) and len(value) > MAX_FIELD for value in row.values()):
            expected = f"texts of at most {MAX_FIELD:,} characters"
            raise UserError("a longer text", file=file, key=f"line {number}", expected=expected)
        if _is_deep(row, MAX_DEPTH):
            expected = f"at most {MAX_DEPTH} lists and objects inside each other"
            raise UserError("nested too deeply", file=file, key=f"line {number}", expected=expected)
    return rows


def _is_deep(value: Any, levels: int) -> bool:
    """Return whether a JSON value has more levels of lists and objects inside each other."""
    if not isinstance(value, dict | list):
        return False
    return not levels or any(
        _is_deep(part, levels - 1) for part in (value.values() if isinstance(value, dict) else value)
    )


def _count_csv_rows(file: Path) -> int:
    """Count the rows below the header with a strict parser.

    pandas would read on behind an open quote, and fill short rows with empty fields.

    Raises:
        UserError: If a quote does not close, or a row has another number of fields than the header.
    """
    csv.field_size_limit(MAX_FIELD)
    pending: list[str] = []  # the lines of the current row
    length = 0

    def lines() -> Iterator[str]:
        nonlocal length
        for line in _lines(file, "utf-8-sig"):
            pending.append(line)
            length += len(line)
            if length > MAX_LINE:
                expected = f"at most {MAX_LINE:,} characters; is there an open quote?"
                raise UserError("a longer row", file=file, key=f"line {start}", expected=expected)
            yield line

    columns = rows = 0
    start = 1
    reader = csv.reader(lines(), strict=True, **csv_format(file))
    try:
        for row in reader:
            if not row or (len(row) == 1 and row[0] and not row[0].strip(" \t")):
                pass  # a blank line, which pandas skips
            elif not columns:
                columns = len(row)
                _check_columns(columns, file, start)
            elif len(row) == columns:
                rows += 1
            else:
                raise _wrong_number_of_fields(file, start, len(row), columns)
            start, length = reader.line_num + 1, 0
            pending.clear()
    except csv.Error as error:
        raise _malformed_row(file, start, "".join(pending)[: 2**20], str(error)) from None
    return rows


def _wrong_number_of_fields(file: Path, line: int, got: int, columns: int) -> UserError:
    hint = (
        "a TSV file has no quoting, so a text cannot contain a tab or a line break; save such a table as CSV"
        if format_suffix(file) == ".tsv"
        else "a text with a comma or a line break must be in quotes"
    )
    return UserError(
        f"got {got} field{'s' if got > 1 else ''}",
        file=file,
        key=f"line {line}",
        expected=f"{columns}, as in the header: {hint}",
    )


def _malformed_row(file: Path, line: int, row: str, problem: str) -> UserError:
    """Return the error about the first field of a CSV row that is not well-formed; the row begins in `line`."""
    well_formed = re.match(r'(?:"(?:[^"]|"")*"(?=[,\r\n]|$)|[^",\r\n][^,\r\n]*|,)*', row)
    line += len(re.findall(r"\r\n|\r|\n", well_formed[0])) if well_formed else 0
    if "field limit" in problem:
        problem = f"a field of more than {MAX_FIELD:,} characters; is there an open quote?"
    elif "end of data" in problem:
        problem = "the quote that opens here does not close"
    elif "expected after" in problem:
        problem = "the quoted text that begins here continues after its closing quote"
    return UserError(problem, file=file, key=f"line {line}", expected='a quote inside a quoted text as ""')


def read_header(file: Path) -> list[str]:
    """Return the column names in the first line of a CSV or TSV file; a column without a name has the name "".

    Raises:
        UserError: If the line cannot be parsed, or a column name is duplicated.
    """
    try:
        lines = pd.read_csv(file, nrows=1, header=None, dtype=str, na_filter=False, **csv_format(file))
    except (*DECOMPRESSION_ERRORS, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"not a table with column names in the first line: {_one_line(error)}", file=file) from None
    names = [str(name) for name in lines.iloc[0]]
    if duplicates := {name for name, times in Counter(names).items() if name and times > 1}:
        raise UserError(f"got {min(duplicates)!r} twice", file=file, expected="unique column names")
    return names


def read_table(files: list[Path], cache: Path) -> Dataset:
    """Check files of one format and read them as one table.

    Args:
        files: The files, whose rows are read in this order.
        cache: Directory for the Arrow files from which the table is memory-mapped.

    Returns:
        All rows of all files; every column of CSV and TSV files is a string. A column without a name, as pandas writes
        it for an index, is named `Unnamed: 0` after its position, as pandas reads it.

    Raises:
        UserError: If the files cannot be read in the format of their extension, or contain no row.
    """
    rows = sum(map(check_file, files))
    if rows == 0:
        raise UserError("no rows", file=files[0], expected="at least one")
    reader = READERS[format_suffix(files[0])]
    options: dict[str, Any] = {}
    if reader == "csv":
        # Keep every field as the written text: "NA" must not become a missing value, nor "007" the number 7.
        options = csv_format(files[0]) | {"na_filter": False}
        names = pd.read_csv(files[0], nrows=0, **options).columns
        options["features"] = Features({str(name): Value("string") for name in names})
    datasets.logging.set_verbosity(CRITICAL)  # errors are reported once, as a UserError
    try:
        named = _links(files, cache)
        table = load_dataset(reader, data_files={"rows": named}, split="rows", cache_dir=str(cache), **options)
    except Exception as error:  # of any of the libraries that read the formats
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None  # such as a full disk
        raise UserError(f"cannot be read as {reader}: {_one_line(cause)[:200]}", file=files[0]) from None
    if len(table) != rows:
        raise UserError(f"{len(table)} rows were read", file=files[0], expected=f"all {rows}")
    return table


def _links(files: list[Path], cache: Path) -> list[str]:
    """Return links to files, under plain names: `datasets` expands others, such as `q[1].csv` and `$HOME.csv`."""
    cache.mkdir(parents=True, exist_ok=True)
    folder, links = Path(tempfile.mkdtemp(dir=cache)), []
    for number, file in enumerate(files):
        suffix = format_suffix(file) + (file.suffix if file.suffix in COMPRESSIONS else "")
        links.append(folder / f"{number:05d}{suffix}")
        links[-1].symlink_to(file.resolve())
    return [glob.escape(str(link)) for link in links]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
