"""Files are read by their content: formats, encodings, separators; a damaged one is one line."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from own_files import KINDS, binary, delimited, lines
from reprise.core.errors import UserError
from reprise.own_data.arrange import Choices, arrange
from reprise.own_data.formats import Options, SourceTable, find_dialect, has_header, read_sources, split_of

Read = Callable[..., SourceTable]
PIECES = [
    b'"',
    b"\0",
    b"\n",
    b"\r",
    b",",
    b"\t",
    b"\xff",
    b"{",
    b"[",
    b"]",
    b"\\",
    b"__label__",
    b"\\ud800",
    b"[" * 3000,
]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read one file with that content."""

    def read(content: str | bytes, name: str = "table.csv", **options: str | bool) -> SourceTable:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        (found,) = read_sources([tmp_path / name], Options(**options), tmp_path)  # type: ignore[arg-type]
        return found

    return read


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("reviews-dev.tsv", "validation"),
        ("test-00000-of-00001.parquet", "test"),
        ("valid", "validation"),
        ("train_test.csv", None),
        ("contest.csv", None),
    ],
)
def test_the_words_of_a_name_say_its_split(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("text", "delimiter", "quoted"),
    [
        ('a,b\n"x, y",1\n', ",", True),
        ("a;b\nx,y;1,5\nz,z;2,5\n", ";", True),
        ('ham\t"no" quoting, here\nspam\t"more\n', "\t", False),
        ("a|b\nx|1\n", "|", True),
    ],
)
def test_the_separator_is_that_with_equally_many_fields_in_each_row(text: str, delimiter: str, quoted: bool) -> None:
    dialect = find_dialect(text, None, ".txt")
    assert dialect is not None
    assert (dialect.delimiter, "no quoting" not in dialect.describe()) == (delimiter, quoted)


@pytest.mark.parametrize(
    ("first", "header"),
    [
        (["text", "label"], True),
        (["a bright film with a moving end", "good"], False),
        (["the end", "bad"], False),
        (["1", "2"], False),
        (["name", "name"], False),
    ],
)
def test_a_header_has_names_and_no_values(first: list[str], header: bool) -> None:
    rows = [[f"a film that is {n} times as long", "bad" if n % 2 else "good"] for n in range(20)]
    assert has_header([first, *rows]) == header


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "cp1251", "shift_jis"]
)
def test_the_encoding_is_found_in_the_bytes(read: Read, encoding: str) -> None:
    word = {"cp1251": "замечательный фильм о дружбе", "shift_jis": "この映画はとても面白かったです"}.get(
        encoding, "été à l’hôtel"
    )
    rows = [["text", "label"], *([f"{word} {n}", "a" if n % 2 else "b"] for n in range(50))]
    assert read(delimited(rows).encode(encoding)).table["text"][0].as_py() == f"{word} 0"


def test_an_option_wins_over_the_guess(read: Read) -> None:
    content = lines([["ünï", "x"], ["töxt", "y"]], ";").encode("cp1252")
    found = read(content, encoding="latin-1", header=False, delimiter=";")
    assert found.table.to_pydict() == {"column1": ["ünï", "töxt"], "column2": ["x", "y"]}


def test_every_cell_is_kept_as_it_is_written(read: Read) -> None:
    rows = [["text", "label"], ["NA", "007"], [" two  spaces ", "1.0"], ['a "quote",\r\nand a line', "true"]]
    assert read(delimited(rows)).table.to_pydict() == {
        "text": ["NA", " two  spaces ", 'a "quote",\r\nand a line'],
        "label": ["007", "1.0", "true"],
    }


def test_the_columns_of_json_keep_their_order(read: Read) -> None:
    names = [f"column{number}" for number in range(20)]
    row = json.dumps(dict.fromkeys(names, "x"))
    assert read(f"{row}\n{row}\n", "table.jsonl").table.column_names == names


def test_half_a_character_in_json_is_refused(read: Read) -> None:
    with pytest.raises(UserError):
        read('{"text": "\\ud83d", "label": "a"}\n{"text": "b", "label": "a"}\n', "half.jsonl")


def test_a_second_column_of_a_name_is_numbered(read: Read) -> None:
    found = read(delimited([["text", "label", "label"], *([*row, "x"] for row in binary())]), header=True)
    assert found.table.column_names == ["text", "label", "label_3"]
    assert any("label_3" in note for note in found.notes)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    for number, name in enumerate(name for name, kind in KINDS.items() if not kind.needs):
        given, scratch = tmp_path / str(number), tmp_path / f"{number}-scratch"
        given.mkdir()
        scratch.mkdir()
        paths = KINDS[name].write(given)
        file = draw.choice(sorted(file for file in given.rglob("*") if file.is_file()))
        content = bytearray(file.read_bytes())
        place = draw.randrange(len(content))
        if draw.random() < 0.5:
            content[place:place] = draw.choice(PIECES)
        else:
            del content[place : place + draw.randrange(1, 50)]
        file.write_bytes(bytes(content))
        error = ""
        try:
            arrange(read_sources(paths, Options(), scratch), Choices())
        except UserError as refused:
            error = str(refused)
        assert "\n" not in error, name
        shutil.rmtree(given)
