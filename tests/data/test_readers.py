"""Tables are checked before they are read, and no row is lost."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import datasets
import numpy as np
import pandas as pd
import pytest

from reprise.core.config import MAX_COLUMNS, MAX_FIELD, MAX_LINE
from reprise.core.errors import UserError
from reprise.data.readers import check_file, csv_format, read_header, read_table

CSV = b'text,verdict\n"warm, funny",fresh\nna\xc3\xafve,rotten\n'
TSV = b"text\tverdict\nwarm, funny\tfresh\n"
JSON_LINES = b'{"text": "warm", "verdict": "fresh"}\n\n{"text": "na\xc3\xafve", "verdict": null}\n'
COMPRESSORS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}

Write = Callable[[str, bytes], Path]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set offline mode like the command: otherwise `datasets` reports each use of a reader to the Hub."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes bytes to a file."""

    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def refused(check: Callable[[Path], object], file: Path) -> UserError:
    """Return the error about the file, which is one line."""
    with pytest.raises(UserError) as caught:
        check(file)
    assert caught.value.file == str(file)
    assert "\n" not in str(caught.value)
    return caught.value


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
    assert refused(check_file, write(name, CSV)).expected == (
        ".csv, .tsv, .jsonl, .ndjson, .parquet, text also with .bz2, .gz or .xz"
    )


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.jsonl", "reviews.parquet", "reviews.csv.gz"])
def test_an_empty_file_is_rejected(write: Write, name: str) -> None:
    assert refused(check_file, write(name, b"")).problem == "empty"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reviews.csv", CSV + "ein gefühlvoller Film,fresh\n".encode("latin-1") + CSV),
        ("reviews.jsonl", b'{"text": "warm"}\n{"text": "dull"}\n{"text": "flat"}\n{"text": "na\xefve"}\n'),
        ("cut-off.csv", CSV + "naï".encode()[:-1]),
        ("cut-off.jsonl", b'{"text": "warm"}\n' * 3 + '{"text": "naï'.encode()[:-1]),
        ("reviews.csv.gz", gzip.compress(CSV + "ein gefühlvoller Film,fresh\n".encode("latin-1"))),
    ],
    ids=["csv", "jsonl", "csv-cut-off", "jsonl-cut-off", "compressed"],
)
def test_text_that_is_not_utf8_is_reported_with_its_line(write: Write, name: str, content: bytes) -> None:
    error = refused(check_file, write(name, content))
    assert (error.key, error.problem) == ("line 4", "not UTF-8; convert it, for example with iconv")


def test_a_table_exported_as_utf16_is_not_utf8(write: Write) -> None:
    error = refused(check_file, write("reviews.csv", CSV.decode().encode("utf-16")))
    assert error.key == "line 1"
    assert "not UTF-8" in error.problem


def test_a_null_byte_is_reported_with_its_line(write: Write) -> None:
    error = refused(check_file, write("reviews.csv", CSV + b"\0,fresh\n"))
    assert (error.key, error.problem) == ("line 4", "contains a null byte")


@pytest.mark.parametrize("content", [CSV, b"PAR1", b"PAR1" + CSV + b"PAR1"], ids=["csv", "cut-off", "garbled"])
def test_another_format_with_the_extension_parquet_is_rejected(write: Write, content: bytes) -> None:
    assert "not Parquet" in refused(check_file, write("reviews.parquet", content)).problem


def test_a_csv_with_the_extension_jsonl_is_rejected(write: Write) -> None:
    error = refused(check_file, write("reviews.jsonl", CSV))
    assert (error.key, error.expected) == ("line 1", "one object per line")


@pytest.mark.parametrize("line", [b'["warm", "fresh"]', b'"warm"', b"1"])
def test_a_json_line_that_is_not_an_object_is_shown(write: Write, line: bytes) -> None:
    error = refused(check_file, write("reviews.jsonl", JSON_LINES + line + b"\n"))
    assert (error.key, error.expected) == ("line 4", "a JSON object")
    assert line.decode() in error.problem


@pytest.mark.parametrize("value", [b"1" * 5000, b"[" * 100_000], ids=["long-number", "deep-list"])
def test_json_that_cannot_be_parsed_is_reported_with_its_line(write: Write, value: bytes) -> None:
    error = refused(check_file, write("reviews.jsonl", JSON_LINES + b'{"text": ' + value + b"}\n"))
    assert (error.key, error.expected) == ("line 4", "one object per line")


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.tsv"])
def test_a_duplicate_column_name_is_reported(write: Write, name: str) -> None:
    header = b"text,verdict,text\n" if name.endswith(".csv") else b"text\tverdict\ttext\n"
    error = refused(check_file, write(name, header))
    assert error.expected == "unique column names"
    assert "'text'" in error.problem


def test_a_table_of_blank_lines_is_rejected(write: Write) -> None:
    assert "column names in the first line" in refused(check_file, write("reviews.csv", b"\n\n")).problem


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (b'text,"verdict\nwarm,fresh\n', 1),
        (b'text,verdict\nwarm,fresh\n"dull,rotten\nflat,rotten\n', 3),
        (b'text,verdict\n"two\nlines","rotten\nflat,rotten\n', 3),
        (b'text,verdict\n"dull,rotten\nflat,rotten\na "quoted" word,fresh\n', 2),
        (b'text,verdict\n\nwarm,fresh\n"dull,rotten\nflat,"rotten"\n', 4),
        (b'text,verdict\r\n"a ""doubled"" quote",fresh\r\n"an \\"escaped\\" one",fresh\r\n', 3),
    ],
    ids=["header", "end of file", "second field", "closed by a later text", "closed by a later field", "backslashes"],
)
def test_a_quote_that_does_not_close_its_text_is_reported_with_its_line(write: Write, rows: bytes, line: int) -> None:
    error = refused(check_file, write("reviews.csv", rows))
    assert (error.key, error.expected) == (f"line {line}", 'a quote inside a quoted text as ""')


def test_an_open_quote_does_not_take_a_large_file_into_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reprise.data.readers.MAX_FIELD", 1000)
    error = refused(check_file, write("reviews.csv", b'text,verdict\n"dull,rotten\n' + b"warm,fresh\n" * 1000))
    assert error.key == "line 2"
    assert "open quote" in error.problem


@pytest.mark.parametrize(
    ("name", "rows", "line"),
    [
        ("a.csv", b"text,verdict\nwarm\n", 2),
        ("a.csv", b"text,verdict\nwarm,fresh\ndull,flat,rotten\n", 3),
        ("a.csv", b"text,verdict\nwarm,fresh,\ndull,rotten,\n", 2),
        ("a.tsv", b"text\tverdict\nwarm\tfunny\tfresh\n", 2),
        ("a.tsv", b'text\tverdict\nwarm\tfresh\n"two\nlines"\trotten\n', 3),
    ],
    ids=["too few", "too many", "comma at the end", "a tab in a text", "a line break in a text"],
)
def test_a_row_with_another_number_of_fields_than_the_header_is_reported(
    write: Write, name: str, rows: bytes, line: int
) -> None:
    error = refused(check_file, write(name, rows))
    assert error.key == f"line {line}"
    assert error.expected.startswith("2, as in the header")


def test_quotes_in_a_tsv_are_part_of_the_text_and_swallow_no_line(write: Write, tmp_path: Path) -> None:
    rows = ['"open quote one\ta', "next line\tb", 'the closing" one\ta', '"say ""hi"""\tb']
    table = read_table([write("a.tsv", "\n".join(["text\tlabel", *rows]).encode())], tmp_path / "cache")
    assert list(zip(table["text"], table["label"], strict=True)) == [tuple(row.split("\t")) for row in rows]


@pytest.mark.parametrize("header", [",text", ",Unnamed: 0,text"], ids=["index", "index of an index"])
def test_columns_without_a_name_are_named_as_pandas_names_them(write: Write, tmp_path: Path, header: str) -> None:
    file = write("a.csv", f"{header}\n{'7,' * header.count(',')}warm\n".encode())
    table = read_table([file], tmp_path / "cache")
    assert table.column_names == list(pd.read_csv(file).columns)
    assert table["text"][:] == ["warm"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_random_table_is_refused_or_read_without_a_lost_row(write: Write, tmp_path: Path, suffix: str) -> None:
    draw, outcomes = random.Random(0), set()
    separator = csv_format(Path(f"a{suffix}"))["delimiter"]
    for number in range(60):
        body = "".join(
            "".join(draw.choices('ab"\n\r \xa0', [6, 6, 1, 0.2, 0.1, 1, 1], k=5)) + separator + "x\n"
            for _ in range(draw.randint(1, 4))
        )
        file = write(f"{number}{suffix}", f"text{separator}label\n{body}".encode())
        try:
            table = read_table([file], tmp_path / "cache")
        except UserError:
            outcomes.add("refused")
            continue
        rows = csv.reader(io.StringIO(body, newline=""), **csv_format(file))
        assert [[row["text"], row["label"]] for row in table] == [row for row in rows if "".join(row).strip()]
        outcomes.add("read")
    assert outcomes == {"refused", "read"}


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
    file = write(f"reviews.csv.{compression}", content)
    assert "column names in the first line" in refused(read_header, file).problem
    refused(check_file, file)


def zeros(opened: IO[bytes], size: int, line: bytes) -> None:
    with opened as file:
        for _ in range(size // len(line)):
            file.write(line)


@pytest.mark.parametrize("line", [b"0" * 2**20, b"warm,fresh\n" * 2**16], ids=["one line", "many rows"])
@pytest.mark.parametrize("opener", [gzip.open, bz2.open])
def test_a_compressed_table_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opener: Callable[..., IO[bytes]], line: bytes
) -> None:
    monkeypatch.setattr("reprise.core.config.MAX_UNPACKED", 2**20)
    file = tmp_path / f"a.csv.{'gz' if opener is gzip.open else 'bz2'}"
    zeros(opener(file, "wb"), 2**24, line)
    error = refused(check_file, file)
    assert "unpacks to more than" in error.problem or error.key == "line 1"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_row_of_a_text_file_beyond_the_limit_is_refused(write: Write, name: str) -> None:
    text = b"x" * (MAX_LINE + 1)
    error = refused(check_file, write(name, b'{"text": "' + text + b'"}\n' if name == "a.jsonl" else b"text\n" + text))
    assert error.key in ("line 1", "line 2")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_text_beyond_the_limit_of_a_field_is_refused(write: Write, name: str) -> None:
    text = b"x" * (MAX_FIELD + 1)
    error = refused(check_file, write(name, b'{"text": "' + text + b'"}\n' if name == "a.jsonl" else b"text\n" + text))
    assert f"{MAX_FIELD:,}" in str(error)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "b.jsonl", "a.parquet"])
def test_a_table_of_100_000_columns_is_refused_at_once(write: Write, tmp_path: Path, name: str) -> None:
    names = [f"c{n}" for n in range(100_000 if name != "a.parquet" else MAX_COLUMNS + 1)]
    start = time.process_time()
    if name == "a.parquet":
        pd.DataFrame({column: [1] for column in names}).to_parquet(tmp_path / name)
    else:
        contents = {
            "a.csv": ",".join(names),
            "a.tsv": "\t".join(names),
            "a.jsonl": json.dumps(dict.fromkeys(names, 1)),
            "b.jsonl": "\n".join(json.dumps({column: 1}) for column in names),
        }
        write(name, contents[name].encode())
    assert f"at most {MAX_COLUMNS:,}" in refused(check_file, tmp_path / name).expected
    assert time.process_time() - start < 10


def test_a_parquet_file_of_more_rows_than_bytes_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"text": pd.Categorical.from_codes(np.zeros(10**7, np.int8), ["x"])}).to_parquet(
        tmp_path / "a.parquet"
    )
    assert "10,000,000 rows" in refused(check_file, tmp_path / "a.parquet").problem


@pytest.mark.parametrize("row", ["[" * 100_000, '{"a": ' + "[" * 100 + "]" * 100 + "}", '{"a": ' + "9" * 5000 + "}"])
def test_json_that_is_deep_or_has_numbers_of_thousands_of_digits_is_refused(write: Write, row: str) -> None:
    assert refused(check_file, write("a.jsonl", row.encode())).key == "line 1"


def test_an_integer_beyond_64_bits_is_refused_and_not_rounded(write: Write, tmp_path: Path) -> None:
    file = write("a.jsonl", b'{"text": "warm", "id": 9223372036854775808}\n')
    assert refused(check_file, file).key == "line 1"
    file = write("a.jsonl", b'{"text": "warm", "id": 9223372036854775807}\n')
    assert read_table([file], tmp_path / "cache")["id"][:] == [2**63 - 1]


@pytest.mark.parametrize(
    "name", ["q[1].csv", "q*.csv", "?1.csv", "$HOME.csv", "a::b.csv", "{q1,q2}.csv", "http:x.csv", "~.csv", "!q.csv"]
)
def test_signs_of_patterns_in_a_name_read_that_file_alone(write: Write, tmp_path: Path, name: str) -> None:
    write("q1.csv", b"text\nanother file\n")
    table = read_table([write(name, b"text\nthis file\n"), tmp_path / "q1.csv"], tmp_path / "cache")
    assert table["text"][:] == ["this file", "another file"]
    assert read_table([tmp_path / name], tmp_path / "cache")["text"][:] == ["this file"]
