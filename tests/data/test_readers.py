"""Tables are checked against their extension before they are read."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from reprise.core.errors import UserError
from reprise.data.readers import check_file, read_header

CSV = b'text,verdict\n"warm, funny",fresh\nna\xc3\xafve,rotten\n'
TSV = b"text\tverdict\nwarm, funny\tfresh\n"
JSON_LINES = b'{"text": "warm", "verdict": "fresh"}\n\n{"text": "na\xc3\xafve", "verdict": null}\n'
COMPRESSORS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes bytes to a file."""

    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def error_message(check: Callable[[Path], object], file: Path) -> str:
    """Return the error message about the file, one line, without the path at its start."""
    with pytest.raises(UserError) as caught:
        check(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reviews.csv", CSV),
        ("no-newline-at-the-end.csv", CSV.rstrip()),
        ("carriage-returns.csv", CSV.replace(b"\n", b"\r\n")),
        ("reviews.tsv", TSV),
        ("reviews.jsonl", JSON_LINES),
        ("reviews.ndjson", JSON_LINES),
        ("reviews.csv.bz2", bz2.compress(CSV)),
        ("reviews.csv.gz", gzip.compress(CSV)),
        ("reviews.tsv.xz", lzma.compress(TSV)),
        ("reviews.jsonl.gz", gzip.compress(JSON_LINES)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_valid_text_table_passes(write: Write, name: str, content: bytes) -> None:
    check_file(write(name, content))


def test_a_parquet_file_passes(tmp_path: Path) -> None:
    file = tmp_path / "reviews.parquet"
    pd.DataFrame({"text": ["warm"], "verdict": ["fresh"]}).to_parquet(file)
    check_file(file)


@pytest.mark.parametrize("name", ["reviews.txt", "reviews.xlsx", "reviews", "reviews.gz", "reviews.parquet.gz"])
def test_an_unknown_extension_is_rejected_with_the_known_ones(write: Write, name: str) -> None:
    assert error_message(check_file, write(name, CSV)) == (
        "unknown extension; expected .csv, .tsv, .jsonl, .ndjson, .parquet, text also with .bz2, .gz or .xz"
    )


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.jsonl", "reviews.parquet", "reviews.csv.gz"])
def test_an_empty_file_is_rejected(write: Write, name: str) -> None:
    assert error_message(check_file, write(name, b"")) == "empty"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reviews.csv", CSV + "ein gefühlvoller Film,fresh\n".encode("latin-1") + CSV),
        ("reviews.jsonl", b'{"text": "warm"}\n{"text": "dull"}\n{"text": "flat"}\n{"text": "na\xefve"}\n'),
        ("cut-off.csv", CSV + "naï".encode()[:-1]),
        ("cut-off.jsonl", b'{"text": "warm"}\n' * 3 + '{"text": "naï'.encode()[:-1]),
    ],
    ids=["csv", "jsonl", "csv-cut-off", "jsonl-cut-off"],
)
def test_text_that_is_not_utf8_is_reported_with_its_line(write: Write, name: str, content: bytes) -> None:
    assert error_message(check_file, write(name, content)) == (
        "line 4 is not UTF-8; convert it, for example with iconv"
    )


def test_a_table_exported_as_utf16_is_not_utf8(write: Write) -> None:
    assert error_message(check_file, write("reviews.csv", CSV.decode().encode("utf-16"))).startswith(
        "line 1 is not UTF-8"
    )


def test_a_null_byte_is_reported_with_its_line(write: Write) -> None:
    assert error_message(check_file, write("reviews.csv", CSV + b"\0,fresh\n")) == (
        "line 4 contains a null byte; expected a text file"
    )


@pytest.mark.parametrize("content", [CSV, b"PAR1", b"PAR1" + CSV + b"PAR1"], ids=["csv", "cut-off", "garbled"])
def test_another_format_with_the_extension_parquet_is_rejected(write: Write, content: bytes) -> None:
    assert (
        error_message(check_file, write("reviews.parquet", content))
        == "not Parquet, although its extension is .parquet"
    )


def test_a_csv_with_the_extension_jsonl_is_rejected(write: Write) -> None:
    message = error_message(check_file, write("reviews.jsonl", CSV))
    assert message.startswith("line 1 is not JSON: ")
    assert message.endswith("; expected one object per line")


@pytest.mark.parametrize("line", [b'["warm", "fresh"]', b'"warm"', b"1"])
def test_a_json_line_that_is_not_an_object_is_shown(write: Write, line: bytes) -> None:
    message = error_message(check_file, write("reviews.jsonl", JSON_LINES + line + b"\n"))
    assert message == f"line 4: expected a JSON object, got {line.decode()!r}"


@pytest.mark.parametrize("value", [b"1" * 5000, b"[" * 100_000], ids=["long-number", "deep-list"])
def test_json_that_cannot_be_parsed_is_reported_with_its_line(write: Write, value: bytes) -> None:
    message = error_message(check_file, write("reviews.jsonl", JSON_LINES + b'{"text": ' + value + b"}\n"))
    assert message.startswith("line 4 is not JSON: ")


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.tsv"])
def test_a_duplicate_column_name_is_reported(write: Write, name: str) -> None:
    header = b"text,verdict,text\n" if name.endswith(".csv") else b"text\tverdict\ttext\n"
    assert error_message(check_file, write(name, header)) == "expected unique column names, got 'text' twice"


@pytest.mark.parametrize("content", [b"\n\n", b'text,"verdict\nwarm,fresh\n'], ids=["blank", "open-quote"])
def test_a_first_line_without_column_names_is_rejected(write: Write, content: bytes) -> None:
    message = error_message(check_file, write("reviews.csv", content))
    assert message.startswith("not a table with column names in the first line: ")


@pytest.mark.parametrize("compression", ["", ".bz2", ".gz", ".xz"])
def test_column_names_are_read_from_compressed_and_plain_files(write: Write, compression: str) -> None:
    compress = COMPRESSORS.get(compression.removeprefix("."), bytes)
    assert read_header(write(f"reviews.csv{compression}", compress(CSV))) == ["text", "verdict"]
    assert read_header(write(f"reviews.tsv{compression}", compress(TSV))) == ["text", "verdict"]


def test_column_names_are_kept_as_written(write: Write) -> None:
    assert read_header(write("reviews.csv", b"NA,007,\n1,2,3\n")) == ["NA", "007", ""]


@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("damage", ["cut-off", "garbled", "not-compressed"])
def test_a_damaged_compressed_table_is_rejected(write: Write, compression: str, damage: str) -> None:
    compressed = COMPRESSORS[compression](CSV)
    third = len(compressed) // 3
    content = {
        "cut-off": compressed[: 2 * third],
        "garbled": compressed[:third] + bytes(8) + compressed[third + 8 :],
        "not-compressed": CSV,
    }[damage]
    message = error_message(read_header, write(f"reviews.csv.{compression}", content))
    assert message.startswith("not a table with column names in the first line: ")
