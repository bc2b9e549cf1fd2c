"""CoNLL files: a word and its tags per line, with a blank line after each sentence."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from reprise.core.errors import UserError
from reprise.tasks.token_classification import OUTSIDE, TAG

TAG_OR_SIGN = r"[BIESLUM]-\S+|[A-Z][A-Z0-9$-]*|[^\w\s]+|_"  # B-PER, O, NN, PRP$, punctuation, nothing
UNTYPED_TAGS = {*"BIESLUM"}  # that name no type
DOCUMENT = "-DOCSTART-"
CONLLU_COLUMNS = 10
WORD_NUMBER = re.compile(r"\d+([-.]\d+)?")
HEADERS = {"tag", "tags", "ner", "ner_tag", "ner_tags", "label", "labels", "entity"}  # in place of the first tag
SAMPLE_CHARS, SAMPLE_LINES = 2**20, 5000  # from which the format is guessed
REGULAR = 0.95  # share of the lines with the same number of columns; the others are errors


def is_entity_tagging(tags: Mapping[str, int]) -> bool:
    """Return whether counted values are tags of entities: with prefixes such as B-, or mostly outside of entities."""
    others = tags.keys() - {OUTSIDE}
    if not others:
        return False
    prefixed = all(TAG.fullmatch(tag) or tag in UNTYPED_TAGS for tag in others)
    return prefixed or max(tags, key=lambda tag: tags[tag]) == OUTSIDE


class Line(NamedTuple):
    """A line with a word: its number in the file, its columns, and the sentence and document that it is in."""

    number: int
    cells: list[str]
    sentence: int
    document: int


class Layout(NamedTuple):
    """The number of columns of most lines, and whether tabs alone separate them, so that a word may have spaces."""

    width: int
    tabs: bool

    def divide(self, line: str) -> list[str]:
        """Divide a line, only at the signs of ASCII: a word may be a space of another kind."""
        if self.tabs:
            return [cell.strip(" \r") for cell in line.rstrip(" \t\r").split("\t")]
        return re.split(r"[ \t]+", line.strip(" \t\r"))


def is_conll(text: str) -> bool:
    """Guess whether each line has a word and its tags, with a blank line after each sentence."""
    lines = text[:SAMPLE_CHARS].split("\n")[: SAMPLE_LINES + 1][:-1]
    layout = _find_layout(lines)
    words = list(_read_lines(lines, layout))
    rows = [line.cells for line in words]
    regular = [row for row in rows if len(row) == layout.width]
    tags = {row[-1] for row in regular}
    return (
        layout.width >= 2
        and any(not line.strip() for line in lines)
        and len(words) >= 2 * words[-1].sentence
        and len(regular) >= REGULAR * len(rows)
        and sum(" " not in row[0] for row in regular) >= REGULAR * len(regular)
        and (_is_conllu(regular) or OUTSIDE in tags or all(re.fullmatch(TAG_OR_SIGN, tag) for tag in tags))
    )


def is_words(text: str) -> bool:
    """Guess whether each line has one word, with a blank line after each sentence: CoNLL without tags."""
    lines = text[:SAMPLE_CHARS].split("\n")[:SAMPLE_LINES]
    words = list(_read_lines(lines, Layout(1, tabs=False)))
    sentences = words[-1].sentence if words else 0
    return sentences > 1 and len(words) >= 2 * sentences and all(len(line.cells) == 1 for line in words)


def read_conll(text: str, name: str) -> tuple[pa.Table, list[str]]:
    """Read sentences as rows of lists, written as JSON.

    Returns:
        Columns words (the first one), column2 and so on, tags (the last one, if there are several), and document where
        `-DOCSTART-` lines divide the sentences; and how it was read.

    Raises:
        UserError: it is CoNLL-U, or a line has another number of columns.
    """
    content = text.split("\n")
    layout = _find_layout(content)
    lines = list(_read_lines(content, layout))
    rows = [line.cells for line in lines[:SAMPLE_LINES] if len(line.cells) == layout.width]
    if _is_conllu(rows):
        raise UserError("CoNLL-U, which has no entity tags", file=name, expected="a tag in the last column")
    notes = [f"CoNLL, {layout.width} columns: the first has the words, the last the tags"]
    first = int(layout.width > 2 and all(row[0].isdigit() for row in rows))
    if first:
        notes = [f"CoNLL, {layout.width} columns: the first numbers the words in the second, the last has the tags"]
    if layout.width == 1:
        notes = ["words without tags, one per line"]
    elif lines[0].cells[-1].lower() in HEADERS:
        notes.append(f"line {lines[0].number} names the columns")
        del lines[0]
    wrong = next((line for line in lines if len(line.cells) != layout.width), None)
    if wrong:
        expected = f"{layout.width}, as in the other lines, and a blank line after each sentence"
        raise UserError(f"got {len(wrong.cells)} columns", file=name, key=f"line {wrong.number}", expected=expected)
    filled = [line for line in lines if line.cells[first]]
    if len(filled) < len(lines):
        notes.append(f"{len(lines) - len(filled):,} lines without a word are left out")
    sentences = [[*of_sentence] for _, of_sentence in groupby(filled, key=lambda line: line.sentence)]
    names = ["words", *(f"column{n}" for n in range(first + 2, layout.width)), *(["tags"] if layout.width > 1 else [])]
    columns = {
        column: [json.dumps([line.cells[n] for line in each], ensure_ascii=False) for each in sentences]
        for n, column in enumerate(names, start=first)
    }
    if lines[-1].document > 1:
        columns["document"] = [f"{Path(name).stem}-{each[0].document}" for each in sentences]
        notes.append(f"{len({*columns['document']}):,} documents between {DOCUMENT} lines")
    return pa.table({column: pa.array(values, pa.string()) for column, values in columns.items()}), notes


def _find_layout(lines: Sequence[str]) -> Layout:
    words = [line for line in lines[:SAMPLE_LINES] if line.strip() and not line.startswith(("#", DOCUMENT))]
    tabs = all("\t" in line.rstrip(" \t\r") for line in words)
    widths = Counter(len(Layout(0, tabs).divide(line)) for line in words)
    return Layout(max(widths, key=lambda width: widths[width], default=0), tabs)


def _read_lines(lines: Iterable[str], layout: Layout) -> Iterator[Line]:
    """Yield the lines with words.

    A line that begins with # is a comment where a sentence begins, unless it ends with a tag: the sign may be a word.
    """
    sentence = document = 0
    begins, tags = True, {OUTSIDE}
    for number, line in enumerate(lines, start=1):
        cells = layout.divide(line)
        if not line.strip() or cells[0] == DOCUMENT:
            begins, document = True, document + bool(line.strip())
            continue
        is_tagged = len(cells) == layout.width and (cells[-1] in tags or TAG.fullmatch(cells[-1]))
        if begins and line.startswith("#") and not is_tagged:
            continue
        sentence += begins
        begins = False
        tags.add(cells[-1])
        yield Line(number, cells, sentence, document)


def _is_conllu(rows: Sequence[Sequence[str]]) -> bool:
    return all(len(row) == CONLLU_COLUMNS and WORD_NUMBER.fullmatch(row[0]) for row in rows)
