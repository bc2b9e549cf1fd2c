"""Entities: find words with tags, or texts with spans, and bring them to the form that the kind of task reads.

Words and tags are two columns of lists, or texts with spaces between them, or a table of one word per row. Spans are
lists of objects or of triples, as tools for annotation write them.
"""

import ast
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import pyarrow as pa

from reprise.core.errors import UserError
from reprise.own_data.conll import UNTYPED_TAGS, is_entity_tagging
from reprise.own_data.formats import SourceTable
from reprise.own_data.guess import Column, find_texts, name_hint, plain, profile, words
from reprise.tasks.token_classification import OUTSIDE, TAG, TokenClassification, find_words

SAMPLE_ROWS = 1000  # from which the columns are guessed
REGULAR = 0.9  # share of the rows with a tag for each word, or of valid spans; the others are errors
STARTS = ("start", "start_offset", "start_char", "begin", "from")  # keys of a span, by the tool that wrote it
ENDS = ("end", "end_offset", "end_char", "stop", "to")
NAMES = ("label", "labels", "entity", "entity_type", "entity_group", "type", "tag", "category", "class")
TAG_WORDS = {"ner", "entity", "entities", "iob", "iob2", "bio", "bioes", "bilou"}
WORD_NAMES = {"word", "words", "token", "tokens", "form", "forms"}
SENTENCE_WORDS = {"sentence", "sentences", "sent", "sentenceid", "sentid"}
DOCUMENT_NAMES = {"document", "documents", "doc", "docid", "documentid"}
MIN_DOCUMENTS = 10  # from which on splits keep them together
UNTYPED = "entity"  # the label of tags that name none
SPAN = "{start, end, label}"
FORM = f"words with a tag each, some of them O, or texts with lists of spans {SPAN}"


@dataclass(frozen=True)
class EntityColumns:
    """Where the entities are.

    Attributes:
        text: the column of words or texts.
        label: the column of tags or spans.
        spans: whether it has spans.
        others: further columns of tags.
        scheme: of the tags, such as IOB2; "" for spans.
        words: the number of words in all splits.
    """

    text: str
    label: str
    spans: bool
    others: Sequence[str] = field(default=())
    scheme: str = ""
    words: int = 0

    def describe(self) -> str:
        """Say what was found."""
        if self.spans:
            return f"{self.label!r} has spans of {self.text!r} (--task classification if not)"
        return f"{self.label!r} has a tag for each word of {self.text!r}: {self.scheme} (--task classification if not)"


def find_entities(
    columns: Mapping[str, Column], text: Sequence[str], label: Sequence[str], *, has_names: bool
) -> EntityColumns | None:
    """Return the columns of words and tags, or of texts and spans; None if there are none.

    Args:
        columns: of the training rows.
        text: the columns that the user names; empty to guess.
        label: likewise.
        has_names: whether the user names the labels, which may be ids then.
    """
    if len(text) > 1 or len(label) > 1 or not columns:
        return None
    rows = len(next(iter(columns.values())).values)
    chosen = pa.array(range(0, rows, max(1, rows // SAMPLE_ROWS)))
    samples = {name: column.values.take(chosen).to_pylist() for name, column in columns.items()}
    labels = [name for name in label or columns if name not in text]
    lists = {name: [parse_words(value) for value in values] for name, values in samples.items()}
    tagged = {name: lists[name] for name in labels if _are_tags(lists[name], has_names=has_names)}
    tagged = {name: tagged[name] for name in sorted(tagged, key=lambda name: _tag_rank(columns[name]))}
    texts = [
        name
        for name in text or _word_columns(columns)
        if name not in tagged and any(not word.isdigit() for row in lists[name] for word in row or ())
    ]
    for name, tags in tagged.items():
        for word_column in texts:
            if _fit(lists[word_column], tags):
                others = [each for each in tagged if each != name and _fit(lists[word_column], tagged[each])]
                return EntityColumns(word_column, name, False, [] if label else others[:3])
    spans = [name for name in labels if columns[name].is_list and _are_spans(samples[name])]
    spans.sort(key=lambda name: (-name_hint(name), columns[name].position))
    best, further = find_texts(columns, {name for name, column in columns.items() if column.is_list})
    for name in spans:
        for text_column in text or [*best, *further]:
            if _within(samples[text_column], samples[name]):
                return EntityColumns(text_column, name, True, [] if label else [each for each in spans if each != name])
    return None


def _word_columns(columns: Mapping[str, Column]) -> list[str]:
    """Return the columns that may have words: lists, then texts."""
    lists = sorted(
        (name for name, column in columns.items() if column.is_list), key=lambda name: plain(name) not in WORD_NAMES
    )
    best, further = find_texts(columns, {*lists})
    return [*lists, *best, *further]


def _tag_rank(column: Column) -> tuple[int, int]:
    known = 0 if words(column.name) & TAG_WORDS else 1 if name_hint(column.name) else 2
    return known, column.position


def _parse(value: str | None) -> Any:
    """Read a value as JSON or Python writes it; None for anything else."""
    if not value or not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def parse_words(value: str | None) -> list[str] | None:
    """Read a list of texts or numbers, or the parts between spaces of a text; None without a value."""
    if value is None or not value.strip():
        return None
    found = _parse(value) if value.strip()[0] == "[" else None
    if not isinstance(found, list):
        return value.split()
    if not all(isinstance(each, str | int) for each in found):
        return None
    return [str(each) for each in found]


def _are_tags(rows: Sequence[list[str] | None], *, has_names: bool) -> bool:
    filled = [row for row in rows if row is not None]
    tags = Counter(tag for row in filled for tag in row)
    if not any(len(row) > 1 for row in filled):
        return False
    ids = all(tag.isdigit() for tag in tags) and any(len({*row}) < len(row) for row in filled)
    return is_entity_tagging(tags) or (ids and (has_names or "0" in tags))


def _fit(texts: Sequence[list[str] | None], tags: Sequence[list[str] | None]) -> bool:
    pairs = [(text, row) for text, row in zip(texts, tags, strict=True) if row is not None]
    same = sum(text is not None and len(text) == len(row) for text, row in pairs)
    return bool(pairs) and same >= REGULAR * len(pairs)


def _are_spans(values: Sequence[str]) -> bool:
    found = [span for value in values for span in _parse(value) or []]
    return bool(found) and sum(to_span(span) is not None for span in found) >= REGULAR * len(found)


def _within(texts: Sequence[str], values: Sequence[str]) -> bool:
    """Return whether the spans of most rows end within the texts."""
    fits = [
        all(span is not None and span["end"] <= len(text) for span in map(to_span, _parse(value) or []))
        for text, value in zip(texts, values, strict=True)
    ]
    return sum(fits) >= REGULAR * len(fits)


def to_span(value: Any) -> dict[str, Any] | None:
    """Bring a span to {start, end, label}; None for anything else.

    Args:
        value: an object as one of several tools for annotation writes it, or a triple of start, end and label.
    """
    if isinstance(value, Mapping):
        start, end, label = (
            next((value[key] for key in keys if value.get(key) is not None), None) for keys in (STARTS, ENDS, NAMES)
        )
    elif isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        start, end, label = value
    else:
        return None
    if isinstance(label, list) and len(label) == 1:
        (label,) = label
    if not isinstance(start, int) or not isinstance(end, int) or not isinstance(label, str | int) or label == "":
        return None
    return {"start": start, "end": end, "label": str(label)}


Label = list[str] | list[dict[str, Any]]


def to_entities(
    tables: Mapping[str, pa.Table],
    found: EntityColumns,
    given: Mapping[str, str],
    names: Mapping[str, str],
    notes: list[str],
) -> tuple[dict[str, pa.Table], dict[str, Counter[str]], EntityColumns]:
    """Write words and tags as lists of texts, spans as lists of {start, end, label}; null where they are not known.

    Args:
        tables: of the splits.
        found: the columns.
        given: names of the labels or tags, by what the tables have.
        names: of the files, by split.
        notes: receives what was done to the rows.

    Returns:
        The tables, how often each label occurs in each split, and the columns with scheme and number of words.

    Raises:
        UserError: a row has another number of tags than words, spans that share a word, or no spans at all.
    """
    labels = {
        split: [
            _parse_label(value, found, names[split], row)
            for row, value in enumerate(table[found.label].to_pylist(), start=1)
        ]
        for split, table in tables.items()
    }
    spoken = {_name(each) for rows in labels.values() for row in rows for each in row or ()}
    spelled = _spell(spoken, found, given, names)
    types = {*spelled.values()} if found.spans else {_type_of(tag) for tag in spelled.values()} - {OUTSIDE}
    kind = TokenClassification(tuple(sorted(types)))
    if not given and any(old != new for old, new in spelled.items()):
        notes.append(f"the tags name no type, which is called {UNTYPED!r}: --names O=O,B=B-TYPE,I=I-TYPE")
    if found.spans:
        for split, table in tables.items():
            notes += _check_spans(table[found.text].to_pylist(), table[found.label].to_pylist(), split)
    written, counts, total, tags = {}, {}, 0, []
    for split, table in tables.items():
        cells: dict[str, list[str | None]] = {found.text: [], found.label: []}
        counts[split] = Counter[str]()
        for row, (value, label) in enumerate(zip(table[found.text].to_pylist(), labels[split], strict=True), start=1):
            text = (value or "") if found.spans else parse_words(value) or []
            renamed = None if label is None else [_rename(each, spelled) for each in label]
            cells[found.text].append(text if isinstance(text, str) else _dump(text))
            cells[found.label].append(None if renamed is None else _dump(renamed))
            if renamed is None:
                continue
            try:
                ids = kind.parse_label((find_words(text), renamed), split)
                _dump([text, renamed]).encode()  # refuses half of a character
            except ValueError as error:
                raise UserError(str(error), file=names[split], key=f"row {row}, {found.label}") from None
            counts[split].update(kind.labels[each // 2] for each in ids if each % 2)
            total += len(ids)
            tags.append(renamed)
        for column, values in cells.items():
            table = table.set_column(table.column_names.index(column), column, pa.array(values, pa.string()))
        written[split] = table
    return written, counts, replace(found, scheme="" if found.spans else name_scheme(tags), words=total)


def _parse_label(value: str | None, found: EntityColumns, name: str, row: int) -> list[Any] | None:
    if not found.spans:
        return parse_words(value)
    spans = _parse(value)
    if spans is None and (value is None or not value.strip() or value.strip() == "null"):
        return None
    converted = [to_span(span) for span in spans] if isinstance(spans, list) else [None]
    if None in converted:
        problem, key = f"got {str(value)[:60]}", f"row {row}, {found.label}"
        raise UserError(problem, file=name, key=key, expected=f"a list of {SPAN}")
    return converted


def _check_spans(texts: Sequence[str | None], values: Sequence[str | None], split: str) -> list[str]:
    """Return notes of spans in another form, and of those whose own text is not at their characters."""
    spans = [(row, span) for row, value in enumerate(values) for span in _parse(value) or ()]
    notes = []
    if spans and spans[0][1] != to_span(spans[0][1]):
        notes.append(f"{split}: the spans, such as {_dump(spans[0][1])[:100]}, are written as {SPAN}")
    elsewhere = []
    for row, span in spans:
        at, text = to_span(span), span.get("text") if isinstance(span, Mapping) else None
        if at and isinstance(text, str) and text.strip() != (texts[row] or "")[at["start"] : at["end"]].strip():
            elsewhere.append(row + 1)
    if elsewhere:
        number = f"{len(elsewhere):,} spans have another text than their characters"
        notes.append(f"{split}: {number}, the first in row {elsewhere[0]}; do they count from 0, up to the end?")
    return notes


def _name(each: Any) -> str:
    """Return a tag, or the label of a span."""
    return str(each["label"]) if isinstance(each, Mapping) else str(each)


def _rename(each: Any, spelled: Mapping[str, str]) -> Any:
    return {**each, "label": spelled[each["label"]]} if isinstance(each, Mapping) else spelled[each]


def _type_of(tag: str) -> str:
    prefixed = TAG.fullmatch(tag)
    return prefixed[2] if prefixed else tag


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _spell(
    spoken: set[str], found: EntityColumns, given: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, str]:
    """Return what each tag, or each label of a span, is written as."""
    if given:
        if unknown := sorted(spoken - given.keys()):
            expected = f"a name for each {'label' if found.spans else 'tag'}"
            raise UserError(f"no name for {unknown[0]!r}", file=names["train"], key="--names", expected=expected)
        return {name: given[name] for name in spoken}
    if not found.spans and spoken and all(name.isdigit() for name in spoken):
        expected = "their names, as in --names 0=O,1=B-PER,2=I-PER"
        raise UserError("tags that are numbers", file=names["train"], key=found.label, expected=expected)
    if not found.spans and spoken - {OUTSIDE} <= UNTYPED_TAGS:
        return {name: name if name == OUTSIDE else f"{name}-{UNTYPED}" for name in spoken}
    return {name: name for name in spoken}


def name_scheme(rows: Sequence[Sequence[str]]) -> str:
    """Name the scheme of tags: IOB1 is one where B- only divides neighbours of one type."""
    prefixes, divided, begun = set(), 0, 0
    for tags in rows:
        before = ""
        for tag in tags:
            prefixed = TAG.fullmatch(tag)
            label = prefixed[2] if prefixed else ""
            if prefixed:
                prefixes.add(prefixed[1])
                begun += prefixed[1] == "B"
                divided += prefixed[1] == "B" and label == before
            before = label
    if not prefixes:
        return "types without a prefix"
    if prefixes & {*"ESLUM"}:
        return "BILOU" if prefixes & {*"LU"} else "IOBES"
    return "IOB2" if begun > divided else "IOB1"


def find_documents(columns: Mapping[str, Column]) -> str | None:
    """Return the column that names the document of each row, if there are enough to cut splits of."""
    named = (name for name in columns if plain(name) in DOCUMENT_NAMES)
    return next((name for name in named if MIN_DOCUMENTS <= len(columns[name].counts) < columns[name].filled), None)


def join_sentences(source: SourceTable, notes: list[str]) -> SourceTable:
    """Make a row of each sentence of a table of one word per row; any other table is returned unchanged.

    Args:
        source: the table.
        notes: receives what was done to it.

    Raises:
        UserError: no column numbers the sentences, or the rows of one are not next to each other.
    """
    columns = profile(source.table)
    tags = [name for name, column in columns.items() if not column.is_list and is_entity_tagging(column.counts)]
    tags.sort(key=lambda name: _tag_rank(columns[name]))
    of_words = [name for name in columns if plain(name) in WORD_NAMES and not columns[name].is_list]
    if not tags or OUTSIDE not in columns[tags[0]].counts or not of_words:
        return source
    numbers = [name for name in columns if words(name) & SENTENCE_WORDS and name not in (*of_words, *tags)]
    if not numbers:
        expected = "a column such as sentence_id, or a blank line after each sentence"
        raise UserError("a word per row, and nothing says where a sentence ends", file=source.name, expected=expected)
    ids: list[str] = []
    for value in source.table[numbers[0]].to_pylist():
        ids.append((value or "").strip() or (ids[-1] if ids else ""))  # empty after the first row of a sentence
    tokens = source.table[of_words[0]].to_pylist()
    filled = [row for row, token in enumerate(tokens) if token and token.strip()]
    sentences = [[*rows] for _, rows in groupby(filled, key=ids.__getitem__)]
    if len(sentences) > len({*ids}):
        expected = "the rows of a sentence next to each other, and another number for each"
        raise UserError("a sentence in several places", file=source.name, key=numbers[0], expected=expected)
    joined: dict[str, list[str | None]] = {}
    notes.append(f"{source.name}: one word per row, {len(sentences):,} sentences by {numbers[0]!r}")
    for name in columns:
        values: list[str | None] = [*ids] if name == numbers[0] else source.table[name].to_pylist()
        if name in (of_words[0], *tags):
            joined[name] = [_dump([values[row] or "" for row in rows]) for rows in sentences]
        elif all(len({values[row] for row in rows}) == 1 for rows in sentences):
            joined[name] = [values[rows[0]] for rows in sentences]
        else:
            notes.append(f"column {name!r} has other values within a sentence and is left out")
    if left_out := len(tokens) - len(filled):
        notes.append(f"{left_out:,} rows without a word are left out")
    table = pa.table({name: pa.array(values, pa.string()) for name, values in joined.items()})
    return replace(source, table=table)
