"""Read files as people have them: each becomes tables of strings, with a note of how it was read.

The content decides, not the name: a `.json` file may have lines of JSON, a `.txt` file a table. What is guessed is in
the notes, and each guess has an option. No row is lost without an error: every row of a text table must have the same
number of fields.
"""

import bz2
import csv
import errno
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from reprise.core.config import DAMAGED_ARCHIVE, MAX_COLUMNS, MAX_FIELD, MAX_ROWS, may_unpack
from reprise.core.errors import UserError
from reprise.own_data.conll import is_conll, is_entity_tagging, is_words, read_conll

COMPRESSIONS: dict[bytes, tuple[str, Callable[..., Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\0": ("xz", lzma.open),
}
BOMS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xef\xbb\xbf": "utf-8-sig",
        b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # fmt: skip
DELIMITERS = {"\t": "tab", ";": "semicolon", "|": "bar", ",": "comma"}
SUFFIX_DELIMITERS = {".tsv": "\t", ".tab": "\t", ".csv": ",;"}
TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather",
                  ".xlsx", ".data", ".dat", ".train", ".valid", ".test", ".testa", ".testb", ".conll", ".iob", ".iob2",
                  ".bio", ".bioes", ".ner")  # fmt: skip
NO_TABLES = re.compile(
    r"(readme|license|licence|changelog|citation|dataset_infos?)\b.*|.*\.(md|pdf|html?|py|sh|ya?ml)", re.I
)
UNLABELED_FOLDERS = {"unsup", "unlabeled", "unlabelled"}
SPLIT_WORDS = {
    "train": "train", "training": "train", "dev": "validation", "develop": "validation", "val": "validation",
    "valid": "validation", "trial": "validation", "validation": "validation", "test": "test", "testing": "test",
    "testa": "validation", "testb": "test",  # as CoNLL-2003 names them
}  # fmt: skip
SAMPLE_CHARS = 2**20  # from which the format of a text table is guessed
CHUNK_ROWS = 50_000


@dataclass(frozen=True)
class Options:
    """How to read a file, where the user says so; None is guessed from the content."""

    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    sheet: str | None = None


@dataclass(frozen=True)
class SourceTable:
    """A table as it was found.

    Attributes:
        name: the file, as messages name it.
        split: train, validation or test, if a name says so.
        table: columns of strings.
        notes: how it was read, and what was left out.
    """

    name: str
    split: str | None
    table: pa.Table
    notes: list[str] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """Return the split that a name says, such as `validation` of `reviews-dev.tsv`; None if none or several."""
    words = re.findall(r"[a-z]+", name.lower())
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def read_sources(paths: Sequence[Path], options: Options, scratch: Path) -> list[SourceTable]:
    """Read files and folders.

    Args:
        paths: tables, archives of tables, folders of tables, of texts by class, or that `datasets` saved.
        options: what the user says about them.
        scratch: receives the content of archives.

    Raises:
        UserError: one cannot be read.
    """
    tables = [table for path in paths for table in _read_path(path, options, scratch, str(path))]
    return [_tidy(table) for table in tables]


def _read_path(path: Path, options: Options, scratch: Path, name: str) -> Iterator[SourceTable]:
    if path.is_dir():
        yield from _read_folder(path, options, scratch, name)
        return
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except FileNotFoundError:
        raise UserError("not found", file=name, expected="a file or a folder of data") from None
    except OSError as error:
        raise UserError(str(error.strerror), file=name, expected="a file that can be read") from None
    if not head:
        raise UserError("empty", file=name)
    split = split_of(path.name)
    if head.startswith(b"PK\x03\x04"):
        yield from _read_zip(path, options, scratch, name)
    elif head.startswith(b"PAR1"):
        yield SourceTable(name, split, _read_arrow(lambda: pq.read_table(path), name), ["Parquet"])
    elif head.startswith(b"ARROW1") or head[:4] == b"\xff\xff\xff\xff":
        yield SourceTable(name, split, _read_arrow(lambda: _open_arrow(path), name), ["Arrow"])
    elif head.startswith(b"\xd0\xcf\x11\xe0"):
        raise UserError("an old Excel file", file=name, expected="saved as .xlsx or .csv")
    else:
        packed = next((entry for magic, entry in COMPRESSIONS.items() if head.startswith(magic)), None)
        notes = [packed[0]] if packed else []
        content = _unpack(path, packed[1], name) if packed else path.read_bytes()
        table, found = _read_text(content, options, name, Path(path.stem if packed else path.name).suffix)
        yield SourceTable(name, split, table, [*notes, *found])


def _unpack(path: Path, opener: Callable[..., Any], name: str) -> bytes:
    packed, parts, total = path.stat().st_size, [], 0
    try:
        with opener(path, "rb") as stream:
            while part := stream.read(2**20):
                parts.append(part)
                total += len(part)
                if not may_unpack(total, packed):
                    raise UserError(f"unpacks to more than {total:,} bytes", file=name, expected="a table")
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"cannot be unpacked: {' '.join(str(error).split())}", file=name) from None
    return b"".join(parts)


def _read_zip(path: Path, options: Options, scratch: Path, name: str) -> Iterator[SourceTable]:
    """Read an Excel file, or the tables in a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if not may_unpack(sum(entry.file_size for entry in entries), path.stat().st_size):
                raise UserError("unpacks to far more than its size", file=name, expected="tables")
            if "xl/workbook.xml" in archive.namelist():
                yield from _read_excel(path, options, name)
                return
            if any(entry.flag_bits & 1 for entry in entries):
                raise UserError("encrypted", file=name, expected="an archive without a password")
            folder = scratch / f"zip-{len(list(scratch.iterdir()))}"
            for entry in entries:
                if "__MACOSX" not in entry.filename:
                    archive.extract(entry, folder)  # which removes .. and links
    except (*DAMAGED_ARCHIVE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a wrong offset gives
            raise
        raise UserError(f"damaged: {' '.join(str(error).split())}", file=name, expected="a zip archive") from None
    while folder.is_dir() and len(inside := [each for each in folder.iterdir() if each.name[0] != "."]) == 1:
        (folder,) = inside
    for table in _read_path(folder, options, scratch, name):
        yield replace(table, notes=["zip", *table.notes])


def _read_folder(folder: Path, options: Options, scratch: Path, name: str) -> Iterator[SourceTable]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        yield from _read_saved_dataset(folder, name)
        return
    subfolders = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] not in "._")
    splits = {sub: split_of(sub.name) for sub in subfolders}
    if any(splits.values()):
        for sub in (sub for sub in subfolders if splits[sub]):
            for table in _read_folder(sub, options, scratch, f"{name}/{sub.name}"):
                yield replace(table, split=splits[sub])
        return
    classes = [sub for sub in subfolders if any(sub.glob("*.txt"))]
    if classes:
        yield _read_classes(classes, options, name)
        return
    files = sorted(each for each in folder.iterdir() if each.is_file() and each.name[0] != ".")
    files = [file for file in files if not NO_TABLES.fullmatch(file.name)]
    known = [file for file in files if {*file.suffixes} & {*TABLE_SUFFIXES}] or files
    if not known:
        raise UserError("no table", file=name, expected="tables, or a folder of .txt files for each label")
    for file in known:
        yield from _read_path(file, options, scratch, f"{name}/{file.name}" if len(known) > 1 else name)


def _read_saved_dataset(folder: Path, name: str) -> Iterator[SourceTable]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(folder))
        for rows in saved.values() if isinstance(saved, DatasetDict) else [saved]:
            rows.data.table.validate(full=True)
    except Exception as error:  # of any of the libraries that read it
        problem = f"cannot be read: {' '.join(str(error).split())[:200]}"
        raise UserError(problem, file=name, expected="a folder of save_to_disk") from None
    for split, rows in saved.items() if isinstance(saved, DatasetDict) else [(None, saved)]:
        table = _read_arrow(partial(_rows_of, rows), name)
        found = split_of(split) if split else None
        yield SourceTable(f"{name}/{split}" if split else name, found, table, ["saved by datasets"])


def _rows_of(saved: Any) -> pa.Table:
    """Return the rows of a dataset, with the names of its classes in the schema."""
    return saved.with_format("arrow")[:].replace_schema_metadata(saved.features.arrow_schema.metadata)


def _read_classes(classes: list[Path], options: Options, name: str) -> SourceTable:
    """Read a folder of text files for each label."""
    notes = ["a folder of .txt files for each label"]
    left_out = [sub.name for sub in classes if sub.name.lower() in UNLABELED_FOLDERS]
    notes += [f"the folder {each} without labels is left out" for each in left_out]
    files = [
        (sub, file)
        for sub in classes
        if sub.name.lower() not in UNLABELED_FOLDERS
        for file in sorted(sub.glob("*.txt"))
    ]
    contents = [file.read_bytes() for _, file in files]
    odd = b"\n".join([content for content in contents if not _is_utf8(content)][:100])
    encoding = options.encoding or "utf-8"
    if odd and not options.encoding:
        _, encoding, found = _decode(odd, None, name)
        notes += found
    texts = [
        (
            content.decode("utf-8-sig")
            if _is_utf8(content) and not options.encoding
            else content.decode(encoding, "replace")
        )
        for content in contents
    ]
    columns = {
        "file": [f"{sub.name}/{file.name}" for sub, file in files],
        "text": [text.strip() for text in texts],
        "label": [sub.name for sub, _ in files],
    }
    return SourceTable(
        name, None, pa.table({key: pa.array(values, pa.string()) for key, values in columns.items()}), notes
    )


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decode(content: bytes, encoding: str | None, name: str) -> tuple[str, str, list[str]]:
    """Return the text, its encoding, and a note unless that is UTF-8."""
    wanted = encoding or next((each for bom, each in BOMS.items() if content.startswith(bom)), None)
    if not wanted and _is_utf8(content):
        wanted = "utf-8"
    if not wanted and b"\0" in content[:4096]:
        odd, even = content[1:4096:2].count(0), content[:4096:2].count(0)
        wanted = "utf-16-le" if odd > 3 * even else "utf-16-be" if even > 3 * odd else None
        if not wanted:
            raise UserError("no text and no known format", file=name, expected="a table")
    guessed = not wanted
    wanted = wanted or _guess_encoding(content)
    try:
        text = content.decode(wanted)
    except (UnicodeDecodeError, LookupError) as error:
        place = f" at byte {error.start:,}" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"not {wanted}{place}", file=name, key="--encoding", expected="its encoding") from None
    if "\0" in text:
        raise UserError("contains a null byte", file=name, expected="a text file")
    shown = re.search(r"[^\x00-\x7f]", text)
    word = re.search(r"\w*[^\x00-\x7f]\w*", text[max(0, shown.start() - 15) : shown.start() + 15]) if shown else None
    example = f', such as "{word[0]}"' if word else ""
    return text, wanted, [f"{wanted} (guessed{example}: --encoding)"] if guessed else [wanted] * (wanted != "utf-8")


def _guess_encoding(content: bytes) -> str:
    """Guess the encoding of text that is not UTF-8.

    The encodings of the Latin alphabet differ in few letters, and no statistics tell them apart in a short text, so any
    of them counts as Windows-1252, by far the commonest.
    """
    import charset_normalizer

    lines = b"\n".join([line for line in content[: 2**22].splitlines() if not line.isascii()][:2000])
    best = charset_normalizer.from_bytes(lines).best()
    encoding = best.encoding if best else "cp1252"
    if re.fullmatch(
        r"cp125[027]|latin_1|iso8859_\d+|mac_(roman|iceland|latin2|turkish)|cp(437|850|852|858)|hp_roman8", encoding
    ):
        encoding = "cp1252"
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return "latin-1"
    return encoding


def _read_text(content: bytes, options: Options, name: str, suffix: str) -> tuple[pa.Table, list[str]]:
    """Read lines of CoNLL or fastText, JSON, or a table with a delimiter."""
    text, _, notes = _decode(content, options.encoding, name)
    start = text[:4096].lstrip()
    if not start:
        raise UserError("no rows", file=name, expected="a table")
    if options.delimiter is None and is_conll(text):
        table, found = read_conll(text, name)
        return table, [*found, *notes]
    if start.startswith("__label__"):
        return _read_fasttext(text, name), ["lines of fastText", *notes]
    if start[0] in "[{" and suffix not in (".csv", ".tsv"):
        table, found = _read_json(text, name)
    else:
        table, found = _read_delimited(text, options, name, suffix)
    return table, [*found, *notes]


def _read_fasttext(text: str, name: str) -> pa.Table:
    labels, texts = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        found = re.match(r"((?:__label__\S+[ \t]+)+)(.*)", line.strip() + " ")
        given = found[1].split() if found else []
        if len(given) != 1:
            raise UserError(f"got {len(given)} labels", file=name, key=f"line {number}", expected="one per line")
        labels.append(given[0].removeprefix("__label__"))
        texts.append(found[2].strip() if found else "")
    return pa.table({"label": pa.array(labels, pa.string()), "text": pa.array(texts, pa.string())})


def _read_json(text: str, name: str) -> tuple[pa.Table, list[str]]:
    lines = text.split("\n")
    first = next(line for line in lines if line.strip())
    try:
        if isinstance(json.loads(first), dict) and sum(bool(line.strip()) for line in lines[:20000]) > 1:
            return _records_table(_json_lines(lines, name), name), ["JSON lines"]
    except (ValueError, RecursionError):
        pass  # JSON over several lines
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"not JSON: {getattr(error, 'msg', error)}", file=name, key=where, expected="JSON") from None
    path, records = _find_records(content)
    if not records:
        raise UserError("no list of objects", file=name, expected="[{…}, {…}], or lines of JSON objects")
    return _records_table(records, name), [f"JSON, the list {path}" if path else "JSON"]


def _json_lines(lines: Iterable[str], name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = f"not JSON: {getattr(error, 'msg', error)}"
            raise UserError(problem, file=name, key=f"line {number}", expected="one object per line") from None
        if not isinstance(row, dict):
            raise UserError(f"got {line.strip()[:40]!r}", file=name, key=f"line {number}", expected="a JSON object")
        yield row


def _find_records(content: Any, path: str = "", levels: int = 4) -> tuple[str, list[dict[str, Any]]]:
    """Return the longest list of objects in a JSON value and its path; columns of equal length are rows too."""
    if isinstance(content, list):
        return path, content if content and all(isinstance(row, dict) for row in content) else []
    if not isinstance(content, dict) or not levels:
        return path, []
    values = list(content.values())
    if (
        len(values) > 1
        and all(isinstance(value, list) for value in values)
        and len({len(value) for value in values}) == 1
        and not any(isinstance(cell, dict | list) for value in values for cell in value)
    ):
        return path, [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
    if len(values) > 1 and all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        if len(values) < len(values[0]):  # pandas writes columns of cells by index, others rows by id
            return path, [{name: content[name][key] for name in content} for key in values[0]]
        return path, [{"key": key, **value} for key, value in content.items()]
    found = [_find_records(value, f"{path}.{key}".lstrip("."), levels - 1) for key, value in content.items()]
    return max(found, key=lambda each: len(each[1]), default=(path, []))


def _records_table(records: Iterable[dict[str, Any]], name: str) -> pa.Table:
    """Turn objects into columns; `a.b` names the field b of an object a."""
    columns: dict[str, list[str | None]] = {}
    rows = 0
    for rows, record in enumerate(records, start=1):
        try:
            cells = dict(_flatten(record))
        except RecursionError:
            raise UserError("nested too deeply", file=name, key=f"row {rows}", expected="texts and numbers") from None
        for key in [key for key in cells if key not in columns]:  # in the order of the file
            columns[key] = [None] * (rows - 1)
        for key, values in columns.items():
            values.append(cells.get(key))
        _check_width(len(columns), name)
    try:
        return pa.table({key: pa.array(values, pa.string()) for key, values in columns.items()})
    except UnicodeEncodeError:
        raise UserError(r"half of a character, such as \ud83d alone", file=name, expected="texts in Unicode") from None


def _flatten(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _cell(value)


def _cell(value: Any) -> str | None:
    """Spell a value as a string: true, 1 for 1.0, an ISO date, JSON for lists."""
    match value:
        case None:
            return None
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case int() | float():
            return str(value)
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _read_excel(path: Path, options: Options, name: str) -> Iterator[SourceTable]:
    try:
        import openpyxl
    except ModuleNotFoundError:
        expected = "`docker/make-venv --add .venv docker/cpu/excel.txt`, or the table as CSV"
        raise UserError("Excel needs the package openpyxl", file=name, expected=expected) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
    except Exception as error:  # of a damaged file
        problem = f"cannot be read: {' '.join(str(error).split())[:200]}"
        raise UserError(problem, file=name, expected="an Excel file") from None
    filled = [title for title, cells in rows.items() if any(any(row) for row in cells)]
    if options.sheet is not None and options.sheet not in rows:
        expected = f"one of {', '.join(rows)}"
        raise UserError(f"no sheet {options.sheet!r}", file=name, key="--sheet", expected=expected)
    if not filled:
        raise UserError("no rows", file=name, expected="a table")
    splits = {title: split for title in filled if (split := split_of(title))}
    chosen = (
        [options.sheet] if options.sheet is not None else list(splits) if "train" in splits.values() else filled[:1]
    )
    for title in chosen:
        cells = [[_cell(value) for value in row] for row in rows[title] if any(cell is not None for cell in row)]
        width = max(len(row) for row in cells)
        table, notes = _rows_table([row + [None] * (width - len(row)) for row in cells], options, name)
        more = f" of {len(rows)}: --sheet" if len(rows) > 1 and len(chosen) == 1 else ""
        yield SourceTable(
            name, splits.get(title) if len(chosen) > 1 else None, table, [f"Excel, sheet {title!r}{more}", *notes]
        )


@dataclass(frozen=True)
class Dialect:
    """The format of a text table, as Python's csv module takes it."""

    delimiter: str
    quoting: int
    doublequote: bool = True
    escapechar: str | None = None

    def reader(self, text: str) -> Any:
        """Return the rows of a text as lists."""
        csv.field_size_limit(MAX_FIELD)
        options = {key: getattr(self, key) for key in ("delimiter", "quoting", "doublequote", "escapechar")}
        return csv.reader(io.StringIO(text, newline=""), strict=True, **options)

    def describe(self) -> str:
        """Return a note such as `comma-separated, no quoting`."""
        quoting = "" if self.quoting == csv.QUOTE_MINIMAL else ", no quoting"
        escapes = r", quotes as \"" if self.escapechar else ""
        return f"{DELIMITERS.get(self.delimiter, repr(self.delimiter))}-separated{quoting}{escapes}"


def find_dialect(text: str, delimiter: str | None, suffix: str) -> Dialect | None:
    """Guess the format of a text table: the one in which most rows have the same number of fields, of two or more."""
    sample = text if len(text) <= SAMPLE_CHARS else text[: text.rfind("\n", 0, SAMPLE_CHARS) + 1]
    best: tuple[tuple[float, ...], Dialect] | None = None
    for each in [delimiter] if delimiter else DELIMITERS:
        found = {}
        for dialect in (
            Dialect(each, csv.QUOTE_MINIMAL),
            Dialect(each, csv.QUOTE_NONE),
            *([Dialect(each, csv.QUOTE_MINIMAL, False, "\\")] if '\\"' in sample else []),
        ):
            if rows := _sample_rows(dialect, sample):
                width, times = Counter(map(len, rows)).most_common(1)[0]
                found[dialect] = (times / len(rows), width)
        if not found:
            continue
        quotes = '"' in sample
        chosen = max(found, key=lambda d: (found[d][0] == 1, quotes and d.quoting == csv.QUOTE_MINIMAL, found[d][0]))
        share, width = found[chosen]
        if width > 1:
            rank = (share, each in SUFFIX_DELIMITERS.get(suffix, DELIMITERS), width)
            if best is None or rank > best[0]:
                best = rank, chosen
    return best[1] if best else None


def _sample_rows(dialect: Dialect, sample: str) -> list[list[str]]:
    """Return the rows up to a quote that does not close; none if the format does not fit."""
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in dialect.reader(sample) if any(cell.strip() for cell in row))
    except csv.Error as error:
        if "end of data" not in str(error):
            return []
    return rows


def _read_delimited(text: str, options: Options, name: str, suffix: str) -> tuple[pa.Table, list[str]]:
    dialect = find_dialect(text, options.delimiter, suffix)
    if dialect is None and is_words(text):
        return read_conll(text, name)
    if dialect is None:
        shown = text.lstrip().splitlines()[0][:60]
        expected = "columns that a comma, a tab, a semicolon or a bar separates, or --delimiter"
        raise UserError(f"no columns in {shown!r}", file=name, expected=expected)
    try:
        table, notes = _rows_table(_checked_rows(dialect, text, name), options, name)
    except UserError:
        # A quote that opens a text far down may have been no quoting.
        if dialect.quoting == csv.QUOTE_NONE:
            raise
        unquoted = Dialect(dialect.delimiter, csv.QUOTE_NONE)
        try:
            table, notes = _rows_table(_checked_rows(unquoted, text, name), options, name)
        except UserError:
            table = None
        if table is None:
            raise
        dialect = unquoted
    return table, [dialect.describe(), *notes]


def _checked_rows(dialect: Dialect, text: str, name: str) -> Iterator[list[str | None]]:
    """Yield the rows, each with as many fields as the first."""
    reader, width, start = dialect.reader(text), 0, 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                width = width or len(row)
                if len(row) != width:
                    expected = f"{width}, as in the first row, {dialect.describe()}"
                    raise UserError(f"got {len(row)} fields", file=name, key=f"line {start}", expected=expected)
                yield row
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{error}", file=name, key=f"line {start}", expected=dialect.describe()) from None


def _rows_table(rows: Iterable[Sequence[str | None]], options: Options, name: str) -> tuple[pa.Table, list[str]]:
    """Turn rows of equal length into columns; the first row may hold their names."""
    iterator = iter(rows)
    head = [row for _, row in zip(range(2000), iterator, strict=False)]
    _check_width(len(head[0]), name)
    header = has_header(head) if options.header is None else options.header
    names = [cell or "" for cell in head[0]] if header else [f"column{n}" for n in range(1, len(head[0]) + 1)]
    chunks = list(_chunks(head[1:] if header else head, iterator, names))
    notes = [] if header else [f"no header, columns named {names[0]} to {names[-1]}"]
    if options.header is None:
        notes = notes or ["header"]
        notes[-1] += f" ({'--no-header' if header else '--header'} if not)"
    return pa.Table.from_batches(chunks), notes


def _chunks(
    head: list[Sequence[str | None]], rest: Iterable[Sequence[str | None]], names: list[str]
) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([(column, pa.string()) for column in names])

    def batch(rows: list[Sequence[str | None]]) -> pa.RecordBatch:
        columns = zip(*rows, strict=True) if rows else [[] for _ in names]
        return pa.RecordBatch.from_arrays([pa.array(values, pa.string()) for values in columns], schema=schema)

    pending = list(head)
    for row in rest:
        pending.append(row)
        if len(pending) >= CHUNK_ROWS:
            yield batch(pending)
            pending = []
    yield batch(pending)


def has_header(rows: Sequence[Sequence[str | None]]) -> bool:
    """Guess whether the first row holds the names of the columns."""
    first, rest = [cell or "" for cell in rows[0]], rows[1:1000]
    named = [cell for cell in first if cell.strip()]
    if not rest:
        return True
    if len(set(named)) != len(named) or any(_is_number(cell) for cell in named) or not named:
        return False
    if any(len(cell) > 60 or len(cell.split()) > 5 for cell in named):
        return False
    columns = [[row[n] or "" for row in rest] for n in range(len(first))]
    if any(cell and cell in column for cell, column in zip(first, columns, strict=True)):
        return False  # a value such as a label
    if any(column and all(_is_number(cell) for cell in column if cell) and any(column) for column in columns):
        return True
    if any(is_entity_tagging(Counter(column)) for column in columns):
        return True  # above tags of words, which are short themselves
    # Without numbers: names are short, and a text below them is longer.
    return any(len(cell) * 2 < sum(map(len, column)) / len(column) for cell, column in zip(first, columns, strict=True))


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", cell.strip()))


def _check_width(columns: int, name: str) -> None:
    if columns > MAX_COLUMNS:
        raise UserError(f"{columns:,} columns", file=name, expected=f"at most {MAX_COLUMNS:,}")


def _read_arrow(read: Callable[[], pa.Table], name: str) -> pa.Table:
    from datasets import Features

    try:
        table = read()
        table.validate(full=True)  # texts that are not UTF-8, among others
        return _as_strings(table, Features.from_arrow_schema(table.schema))
    except Exception as error:  # of a damaged file
        raise UserError(f"cannot be read: {' '.join(str(error).split())[:200]}", file=name) from None


def _open_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_stream(source).read_all()


def _as_strings(table: pa.Table, features: Any) -> pa.Table:
    """Spell every column as strings: class ids by their names, fields of objects as columns `a.b`."""
    from datasets import ClassLabel, LargeList, List

    names = {name: feature.names for name, feature in features.items() if isinstance(feature, ClassLabel)}
    lists = {
        name: feature.feature
        for name, feature in features.items()
        if isinstance(feature, List | LargeList) and isinstance(feature.feature, ClassLabel)
    }
    while any(pa.types.is_struct(column.type) for column in table.schema):
        table = table.flatten()
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if name in names:
            spelled = [
                (names[name][v] if 0 <= v < len(names[name]) else str(v)) if v is not None else None
                for v in column.to_pylist()
            ]
            columns[name] = pa.array(spelled, pa.string())
        elif name in lists:
            spelled = [None if ids is None else _cell(lists[name].int2str(ids)) for ids in column.to_pylist()]
            columns[name] = pa.array(spelled, pa.string())
        elif (
            pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_integer(column.type)
        ):
            columns[name] = column.cast(pa.string())
        else:
            values = (
                value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in column.to_pylist()
            )
            columns[name] = pa.array([_cell(value) for value in values], pa.string())
    return pa.table(columns)


def _tidy(found: SourceTable) -> SourceTable:
    """Name every column, and leave out indexes and empty columns."""
    table, notes = found.table, list(found.notes)
    names: list[str] = []
    for number, name in enumerate(table.column_names, start=1):
        plain = " ".join(name.replace("\ufeff", "").split()) or f"column{number}"
        names.append(plain if plain not in names else f"{plain}_{number}")
        if names[-1] != plain:
            notes.append(f"a second column {plain!r} is named {names[-1]!r}")
    original, table = table.column_names, table.rename_columns(names)
    if table.num_rows == 0:
        raise UserError("no rows", file=found.name, expected="at least one")
    if table.num_rows > MAX_ROWS:
        raise UserError(f"{table.num_rows:,} rows", file=found.name, expected=f"at most {MAX_ROWS:,}")
    for raw, name in zip(original, names, strict=True):
        column = table[name]
        if pc.sum(pc.greater(pc.utf8_length(pc.fill_null(column, "")), 0)).as_py() == 0:
            table, left_out = table.drop_columns([name]), "is empty"
        elif (not raw.strip() or raw.startswith("Unnamed: ")) and _is_index(column):
            table, left_out = table.drop_columns([name]), "numbers the rows"
        else:
            continue
        notes.append(f"column {raw or name!r} {left_out} and is left out")
    return replace(found, table=table, notes=notes)


def _is_index(column: pa.ChunkedArray) -> bool:
    values = column.to_pylist()
    start = {"0": 0, "1": 1}.get(values[0] or "")
    return start is not None and all(value == str(start + n) for n, value in enumerate(values))
