"""Whether a file is what its ending says, told before anything reads it as a whole."""

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
PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file with these bytes."""

    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def complaint(check: Callable[[Path], object], file: Path) -> str:
    """What is wrong with the file, in one line that begins with its path; that path is left out."""
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
def test_a_good_text_table_passes(write: Write, name: str, content: bytes) -> None:
    check_file(write(name, content))


def test_a_parquet_file_passes(tmp_path: Path) -> None:
    file = tmp_path / "reviews.parquet"
    pd.DataFrame({"text": ["warm"], "verdict": ["fresh"]}).to_parquet(file)
    check_file(file)


@pytest.mark.parametrize("name", ["reviews.txt", "reviews.xlsx", "reviews", "reviews.gz", "reviews.parquet.gz"])
def test_an_unknown_ending_is_refused_with_those_that_are_known(write: Write, name: str) -> None:
    assert complaint(check_file, write(name, CSV)) == (
        "unknown extension; expected .csv, .tsv, .jsonl, .ndjson, .parquet, text also with .bz2, .gz or .xz"
    )


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.jsonl", "reviews.parquet", "reviews.csv.gz"])
def test_an_empty_file_is_refused(write: Write, name: str) -> None:
    assert complaint(check_file, write(name, b"")) == "empty"


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
def test_text_that_is_not_utf8_names_the_line(write: Write, name: str, content: bytes) -> None:
    assert complaint(check_file, write(name, content)) == ("line 4 is not UTF-8; convert it, for example with iconv")


def test_a_table_exported_as_utf16_is_not_utf8(write: Write) -> None:
    assert complaint(check_file, write("reviews.csv", CSV.decode().encode("utf-16"))).startswith("line 1 is not UTF-8")


def test_a_zero_byte_names_the_line(write: Write) -> None:
    assert complaint(check_file, write("reviews.csv", CSV + b"\0,fresh\n")) == (
        "line 4 contains a null byte; expected a text file"
    )


@pytest.mark.parametrize("content", [CSV, b"PAR1", b"PAR1" + CSV + b"PAR1"], ids=["csv", "cut-off", "garbled"])
def test_a_parquet_ending_on_something_else_is_refused(write: Write, content: bytes) -> None:
    assert complaint(check_file, write("reviews.parquet", content)) == "not Parquet, although its extension is .parquet"


def test_a_csv_named_jsonl_says_what_was_expected(write: Write) -> None:
    message = complaint(check_file, write("reviews.jsonl", CSV))
    assert message.startswith("line 1 is not JSON: ")
    assert message.endswith("; expected one object per line")


@pytest.mark.parametrize("line", [b'["warm", "fresh"]', b'"warm"', b"1"])
def test_a_json_line_that_is_no_object_is_shown(write: Write, line: bytes) -> None:
    message = complaint(check_file, write("reviews.jsonl", JSON_LINES + line + b"\n"))
    assert message == f"line 4: expected a JSON object, got {line.decode()!r}"


@pytest.mark.parametrize("value", [b"1" * 5000, b"[" * 100_000], ids=["long-number", "deep-list"])
def test_json_that_no_parser_takes_names_the_line(write: Write, value: bytes) -> None:
    message = complaint(check_file, write("reviews.jsonl", JSON_LINES + b'{"text": ' + value + b"}\n"))
    assert message.startswith("line 4 is not JSON: ")


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.tsv"])
def test_a_column_named_twice_is_named(write: Write, name: str) -> None:
    header = b"text,verdict,text\n" if name.endswith(".csv") else b"text\tverdict\ttext\n"
    assert complaint(check_file, write(name, header)) == "expected unique column names, got 'text' twice"


@pytest.mark.parametrize("content", [b"\n\n", b'text,"verdict\nwarm,fresh\n'], ids=["blank", "open-quote"])
def test_a_first_line_without_columns_is_refused(write: Write, content: bytes) -> None:
    message = complaint(check_file, write("reviews.csv", content))
    assert message.startswith("not a table with column names in the first line: ")


@pytest.mark.parametrize("packing", ["", ".bz2", ".gz", ".xz"])
def test_columns_are_those_of_the_first_line_packed_or_not(write: Write, packing: str) -> None:
    pack = PACKERS.get(packing.removeprefix("."), bytes)
    assert read_header(write(f"reviews.csv{packing}", pack(CSV))) == ["text", "verdict"]
    assert read_header(write(f"reviews.tsv{packing}", pack(TSV))) == ["text", "verdict"]


def test_column_names_stay_as_written(write: Write) -> None:
    assert read_header(write("reviews.csv", b"NA,007,\n1,2,3\n")) == ["NA", "007", ""]


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("damage", ["cut-off", "garbled", "never-packed"])
def test_a_damaged_packed_table_is_refused(write: Write, packing: str, damage: str) -> None:
    packed = PACKERS[packing](CSV)
    third = len(packed) // 3
    content = {
        "cut-off": packed[: 2 * third],
        "garbled": packed[:third] + bytes(8) + packed[third + 8 :],
        "never-packed": CSV,
    }[damage]
    message = complaint(read_header, write(f"reviews.csv.{packing}", content))
    assert message.startswith("not a table with column names in the first line: ")
