"""From the tables that were found to one of each split, with the same columns, and labels in every row."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from reprise.core.config import SPLITS
from reprise.core.errors import UserError
from reprise.own_data.entities import FORM, EntityColumns, find_documents, find_entities, join_sentences, to_entities
from reprise.own_data.formats import SourceTable
from reprise.own_data.guess import (
    NO_LABEL,
    Column,
    describe_columns,
    find_group,
    find_id,
    find_label,
    find_split,
    find_texts,
    kind_of,
    name_hint,
    plain,
    profile,
    sorted_labels,
    split_candidates,
    to_number,
)
from reprise.own_data.label_lists import (
    SEVERAL,
    LabelLists,
    choose_separator,
    count_labels,
    find_flags,
    find_label_lists,
    free_name,
    is_flag,
    join_labels,
    likely_separator,
    to_lists,
)

Task = Literal["classification", "regression", "multi-label", "entities"]
NAMED_FLAGS = {"toxic", "spam"}  # names of labels among LABEL_NAMES: beside other columns of 0 and 1, one of several


@dataclass(frozen=True)
class Choices:
    """What the user says about the table; None and empty are guessed. Several labels are columns of 0 and 1."""

    text: Sequence[str] = ()
    label: Sequence[str] = ()
    task: Task | None = None
    split: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Arranged:
    """The tables of a task and what their columns are.

    Attributes:
        tables: by split, columns of strings; the others have those of train.
        text: one or two columns.
        label: the column to predict.
        kind: classification, regression, multi-label or entities.
        labels: sorted; empty for regression.
        lists: where the labels were, of multi-label.
        entities: where they were, of entities.
        separator: between the labels of a row, of multi-label.
        counts: of each label by split.
        id: a column that identifies each row; None if there is none.
        group: a column that says which rows belong together; None likewise.
        other_texts: further candidates.
        other_labels: further candidates.
        notes: what was done to the rows.
    """

    tables: dict[str, pa.Table]
    text: list[str]
    label: str
    kind: Task
    labels: list[str]
    lists: LabelLists | None
    entities: EntityColumns | None
    separator: str | None
    counts: dict[str, Counter[str]]
    id: str | None
    group: str | None
    other_texts: list[str]
    other_labels: list[str]
    notes: list[str]


def arrange(found: Sequence[SourceTable], choices: Choices) -> Arranged:
    """Assign tables to splits, find the roles of their columns, and leave out rows without a label.

    Raises:
        UserError: a role cannot be guessed, or a choice does not fit the columns.
    """
    notes: list[str] = []
    may_be_entities = choices.task in (None, "entities")
    tables, names = _by_split([join_sentences(table, notes) for table in found] if may_be_entities else found)
    if set(tables) == {"train"}:
        tables = _divide(tables["train"], choices, names["train"], notes)
    train = profile(tables["train"])
    _check_choices(train, choices, names["train"])
    entities = (
        find_entities(train, choices.text, choices.label, has_names=bool(choices.names)) if may_be_entities else None
    )
    lists: LabelLists | None = None
    other_texts: list[str] = []
    if entities:
        text, label, other_labels = [entities.text], entities.label, [*entities.others]
    else:
        text, label, lists, other_texts, other_labels = _find_roles(train, choices, names["train"])
    if lists:
        tables = {split: to_lists(table, lists, label, split, notes) for split, table in tables.items()}
        train = profile(tables["train"])
        if choices.task is None and all(len(json.loads(value)) == 1 for value in train[label].counts):
            lists, tables = None, {split: _unpack_single(table, label) for split, table in tables.items()}
            notes.append(f"each row has one label in {label!r}")
            train = profile(tables["train"])
    for split in [split for split in tables if split != "train"]:
        aligned = _align(tables[split], train, text, label, names.get(split, split), notes)
        if aligned is None:
            del tables[split]
        else:
            tables[split] = aligned
    counts: dict[str, Counter[str]] = {}
    if entities:
        tables = {split: _accepted(table, label, split, notes) for split, table in tables.items()}
        tables = _without_other_lists(tables, text[0], label, notes)
        tables, counts, entities = to_entities(tables, entities, choices.names, names, notes)
    tables = {split: _labelled(table, label, split, notes) for split, table in tables.items()}
    kind: Task = "multi-label"
    separator = None
    if entities:
        kind = "entities"
    elif lists:
        tables, counts, separator = _join_labels(tables, label, choices.names, names["train"])
    else:
        kind = choices.task or ("regression" if kind_of(train[label]) == "regression" else "classification")
        tables = {
            split: _spell_labels(table, label, kind, choices.names, names["train"]) for split, table in tables.items()
        }
        counts = {split: profile(table.select([label]))[label].counts for split, table in tables.items()}
    columns = profile(tables["train"])
    spelled: dict[str, list[str]] = {}
    for each in sum(counts.values(), Counter()) if kind != "regression" else ():
        spelled.setdefault(" ".join(each.casefold().split()), []).append(each)
    notes += [
        f"labels that differ in case or spaces only: {spellings}" for spellings in spelled.values() if spellings[1:]
    ]
    notes += [
        f"{split}: {empty:,} rows have no text in {column!r}; prepare leaves them out"
        for split, table in tables.items()
        for column in text
        if (empty := table.num_rows - profile(table.select([column]))[column].filled)
    ]
    taken = {*text, label}
    id_column = find_id(columns, taken)
    if id_column and not all(profile(table.select([id_column]))[id_column].is_unique for table in tables.values()):
        id_column = None
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if first in tables and second in tables and tables[first].equals(tables[second]):
            raise UserError(f"the same rows as {first}", file=names.get(second, second), expected="different files")
    return Arranged(
        tables={split: tables[split] for split in SPLITS if split in tables},
        text=text,
        label=label,
        kind=kind,
        labels=_sorted_labels(kind, sum(counts.values(), Counter())),
        lists=lists,
        entities=entities,
        separator=separator,
        counts=counts,
        id=id_column,
        group=(find_documents(columns) if entities else None)
        or find_group(columns, {*taken, *([id_column] if id_column else [])}),
        other_texts=other_texts,
        other_labels=other_labels,
        notes=notes,
    )


def compare_rows(before: pa.Table, now: pa.Table, text: Sequence[str], label: str) -> dict[str, int]:
    """Count the rows that differ between two tables, whatever their order.

    Args:
        before: columns of strings.
        now: likewise.
        text: the columns of texts.
        label: the column of labels.

    Returns:
        The numbers of rows by what happened to them: new, gone, with another label.
    """
    counts = [
        Counter(zip(*(table[column].to_pylist() for column in (*text, label)), strict=True)) for table in (before, now)
    ]
    gone, new = counts[0] - counts[1], counts[1] - counts[0]
    texts: list[Counter[tuple[str, ...]]] = [Counter(), Counter()]
    for of_text, rows in zip(texts, (gone, new), strict=True):
        for row, times in rows.items():
            of_text[row[:-1]] += times
    relabelled = (texts[0] & texts[1]).total()
    return {"new": new.total() - relabelled, "gone": gone.total() - relabelled, "with another label": relabelled}


def _by_split(found: Sequence[SourceTable]) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """Put the tables of a split under each other; a table whose name says no split is for training."""
    parts: dict[str, list[SourceTable]] = {}
    named = {table.split for table in found if table.split}
    for table in found:
        split = table.split if "train" in named or (table.split and len(found) > 1) else None
        parts.setdefault(split or "train", []).append(table)
    if "train" not in parts:
        raise UserError("no table to train on", file=found[0].name, expected="train in the name of one of the tables")
    if "train" in named and (unnamed := [table.name for table in found if not table.split]):
        expected = "train, dev or test in the name of each table"
        raise UserError("which split is it?", file=unnamed[0], expected=expected)
    return {split: _stack(tables) for split, tables in parts.items()}, {
        split: tables[0].name for split, tables in parts.items()
    }


def _stack(tables: Sequence[SourceTable]) -> pa.Table:
    first = tables[0].table
    for other in tables[1:]:
        if set(other.table.column_names) != set(first.column_names):
            expected = f"the columns of {tables[0].name}: {', '.join(first.column_names)}"
            raise UserError(
                f"got the columns {', '.join(other.table.column_names)}", file=other.name, expected=expected
            )
    return pa.concat_tables([each.table.select(first.column_names) for each in tables])


def _divide(table: pa.Table, choices: Choices, name: str, notes: list[str]) -> dict[str, pa.Table]:
    """Divide one table by its column of splits, if it has one."""
    columns = profile(table)
    if choices.split is not None and choices.split not in columns:
        raise UserError(f"no column {choices.split!r}", file=name, key="--split", expected=describe_columns(columns))
    found = find_split([columns[choices.split]] if choices.split else split_candidates(columns))
    if choices.split and not found:
        got = ", ".join(list(columns[choices.split].counts)[:5])
        raise UserError(f"got {got}", file=name, key="--split", expected="a column of train, dev and test")
    if not found:
        return {"train": table}
    column, meaning = found
    tables = {}
    for split in SPLITS:
        values = [value for value, means in meaning.items() if means == split]
        if values:
            rows = table.filter(pc.is_in(table[column], pa.array(values)))
            tables[split] = rows.drop_columns([column])
    notes.append(f"the column {column} says the split of each row")
    return tables


def _check_choices(columns: Mapping[str, Column], choices: Choices, name: str) -> None:
    for key, given in (("--label", choices.label), ("--text", choices.text)):
        for column in given:
            if column not in columns:
                raise UserError(f"no column {column!r}", file=name, key=key, expected=describe_columns(columns))
    if both := [column for column in choices.label if column in choices.text]:
        raise UserError(f"{both[0]!r} is a text too", file=name, key="--label", expected="another column")


def _find_roles(
    columns: Mapping[str, Column], choices: Choices, name: str
) -> tuple[list[str], str, LabelLists | None, list[str], list[str]]:
    """Return texts, label, where several labels are, and further candidates for texts and label."""
    if choices.task == "entities":
        raise UserError("no entities", file=name, key="--task", expected=f"columns of {FORM}")
    lists = [column.name for column in columns.values() if column.is_list]
    several = find_label_lists(columns, {*choices.text}) if choices.task in (None, "multi-label") else []
    no_texts = {*lists, *choices.label}
    text, other_texts = find_texts(columns, no_texts | {each.columns[0] for each in several})
    if not text:
        text, other_texts = find_texts(columns, no_texts)
    text = list(choices.text) or text
    if lists and not text:
        expected = f"one text per row, or {FORM}"
        raise UserError("lists and no texts", file=name, key=", ".join(lists), expected=expected)
    if not text:
        raise UserError("no column of texts", file=name, key="--text", expected=f"one of {describe_columns(columns)}")
    guessed, other_labels = find_label(columns, {*text, *lists})
    found = _find_label_lists(columns, choices, guessed, text, several, name)
    label = next(iter(choices.label), None) or (found.columns[0] if found else guessed or next(iter(lists), None))
    if not label:
        expected = f"one of {describe_columns(columns)}"
        raise UserError("no column of labels", file=name, key="--label", expected=expected)
    if not found and label in lists:
        expected = "one label per row, or lists of a few labels, none of them twice in a row"
        raise UserError(f"lists such as {columns[label].sample[0][:60]}", file=name, key=label, expected=expected)
    taken = {*text, *(found.columns if found else [label])}
    others = dict.fromkeys((*other_labels, *(each.columns[0] for each in several)))
    return (
        text,
        free_name([*columns]) if found and found.has_flags else label,
        found,
        [] if choices.text else [each for each in other_texts if each != label][:3],
        [] if choices.label else [each for each in others if each not in taken][:3],
    )


def _find_label_lists(
    columns: Mapping[str, Column],
    choices: Choices,
    guessed: str | None,
    text: Sequence[str],
    several: Sequence[LabelLists],
    name: str,
) -> LabelLists | None:
    """Return where the labels are if a row may have several; None if it has one."""
    if choices.task not in (None, "multi-label"):
        return None
    if choices.label:
        return _chosen_label_lists([columns[label] for label in choices.label], choices, several, name)
    several = [each for each in several if each.columns[0] not in text]
    flags = find_flags(columns, {*text})
    if flags and guessed is not None and guessed not in flags.columns:
        flags = None
    named = guessed is not None and name_hint(guessed) >= 1 and plain(guessed) not in NAMED_FLAGS
    if choices.task is None and named:
        return next((each for each in several if each.columns == [guessed]), None)
    by_name = [each for each in several if name_hint(each.columns[0]) >= 1]
    found = next(iter([*by_name, *([flags] if flags else []), *several]), None)
    if choices.task and not found:
        raise UserError("no column of several labels", file=name, key="--label", expected=f"a column of {SEVERAL}")
    return found


def _chosen_label_lists(
    labels: Sequence[Column], choices: Choices, several: Sequence[LabelLists], name: str
) -> LabelLists | None:
    if len(labels) > 1:
        if wrong := [column for column in labels if not is_flag(column)]:
            problem = f"{wrong[0].name!r} has values such as {(wrong[0].sample or [''])[0][:30]!r}"
            raise UserError(problem, file=name, key="--label", expected="one column, or several of 0 and 1")
        return LabelLists([column.name for column in labels])
    (label,) = labels
    if label.is_list:
        return LabelLists([label.name])
    if choices.task is None:
        return next((each for each in several if each.columns == [label.name]), None)
    if separator := likely_separator(label):
        return LabelLists([label.name], separator)
    raise UserError(f"one label per row in {label.name!r}", file=name, key="--label", expected=f"a column of {SEVERAL}")


def _align(
    table: pa.Table,
    train: Mapping[str, Column],
    text: list[str],
    label: str,
    name: str,
    notes: list[str],
) -> pa.Table | None:
    """Give a split the columns of train, in their order; None if it has no labels."""
    renamed: dict[str, str] = {}
    for column in train:
        if column not in table.column_names:
            same = [each for each in table.column_names if plain(each) == plain(column) and each not in train]
            renamed |= {same[0]: column} if same else {}
    if missing := [column for column in text if column not in table.column_names and column not in renamed.values()]:
        others = {each: column for each, column in profile(table).items() if each not in train and each not in renamed}
        guessed, _ = find_texts(others, set())
        if len(guessed) != len(missing):
            expected = f"the columns of train: {describe_columns(train)}"
            raise UserError(f"no column {missing[0]!r}", file=name, key="--text", expected=expected)
        renamed |= dict(zip(guessed, missing, strict=True))
    if label not in table.column_names and label not in renamed.values():
        others = {each: column for each, column in profile(table).items() if each not in train and each not in renamed}
        guess, _ = find_label(others, set())
        if guess and {*others[guess].counts} <= {*train[label].counts}:
            renamed[guess] = label
        else:
            notes.append(f"{name} has no labels and is left out; predict it with `reprise predict --file`")
            return None
    if renamed:
        notes.append(f"{name}: " + ", ".join(f"{old} is read as {new}" for old, new in renamed.items()))
    table = table.rename_columns([renamed.get(column, column) for column in table.column_names])
    values = profile(table.select([label]))[label].counts
    if not values or ({*values} <= {"-1", "[]"} and {*values}.isdisjoint(train[label].counts.keys() - {"[]"})):
        notes.append(f"{name} has hidden labels and is left out; predict it with `reprise predict --file`")
        return None
    empty = pa.array([""] * table.num_rows, pa.string())
    return pa.table({column: table[column] if column in table.column_names else empty for column in train})


def _accepted(table: pa.Table, label: str, split: str, notes: list[str]) -> pa.Table:
    """Replace the labels of the rows that Prodigy's annotators rejected or ignored by null."""
    answers = table["answer"].to_pylist() if "answer" in table.column_names else []
    if not answers or not {*answers} <= {"accept", "reject", "ignore"}:
        return table
    if rejected := len(answers) - answers.count("accept"):
        notes.append(f"{split}: {rejected:,} rows have another 'answer' than accept, so no label")
    labels = pc.if_else(pc.equal(table["answer"], "accept"), table[label], pa.scalar(None, pa.string()))
    return table.set_column(table.column_names.index(label), label, labels)


def _without_other_lists(
    tables: Mapping[str, pa.Table], text: str, label: str, notes: list[str]
) -> dict[str, pa.Table]:
    """Leave out lists beside the entities, such as other tags, which JSON lines might not be read with."""
    lists = [name for name, column in profile(tables["train"]).items() if column.is_list and name not in (text, label)]
    if lists:
        notes.append(f"{', '.join(map(repr, lists))} with lists {'is' if len(lists) == 1 else 'are'} left out")
    return {split: table.drop_columns(lists) for split, table in tables.items()}


def _sorted_labels(kind: Task, counts: Mapping[str, int]) -> list[str]:
    if kind == "regression":
        return []
    return sorted_labels(counts, fewest=1 if kind == "entities" else 2)


def _labelled(table: pa.Table, label: str, split: str, notes: list[str]) -> pa.Table:
    """Leave out the rows without a label."""
    values = pc.utf8_trim_whitespace(pc.fill_null(table[label], ""))
    missing = pc.is_in(values, pa.array(sorted(NO_LABEL)))
    rows = table.filter(pc.invert(missing))
    if left_out := table.num_rows - rows.num_rows:
        notes.append(f"{split}: {left_out:,} rows without a label are left out")
    if not rows.num_rows:
        raise UserError("no row has a label", file=split, key="--label", expected="a column with values")
    return rows


def _unpack_single(table: pa.Table, label: str) -> pa.Table:
    """Replace lists of one label by that label."""
    if label not in table.column_names:
        return table
    values = [None if value is None else "".join(json.loads(value)[:1]) for value in table[label].to_pylist()]
    return table.set_column(table.column_names.index(label), label, pa.array(values, pa.string()))


def _join_labels(
    tables: Mapping[str, pa.Table], label: str, given: Mapping[str, str], name: str
) -> tuple[dict[str, pa.Table], dict[str, Counter[str]], str]:
    """Write the lists of labels as texts; return the tables, how often each label occurs, and the separator."""
    counts = {split: count_labels(table, label) for split, table in tables.items()}
    labels = sorted_labels(sum(counts.values(), Counter()))
    if given and (unknown := sorted({*labels} - given.keys())):
        raise UserError(f"no name for {unknown[0]!r}", file=name, key="--names", expected="a name for each label")
    spelled = {each: given.get(each, each) for each in labels}
    separator = choose_separator(list(spelled.values()), name)
    joined = {split: join_labels(table, label, spelled, separator) for split, table in tables.items()}
    named = {split: Counter({spelled[each]: count for each, count in found.items()}) for split, found in counts.items()}
    return joined, named, separator


def _spell_labels(table: pa.Table, label: str, kind: Task, names: Mapping[str, str], name: str) -> pa.Table:
    """Write numbers with a decimal point, and ids by their names."""
    if kind != "regression" and not names:
        return table
    values: list[str] = table[label].to_pylist()
    if kind == "regression":
        numbers = [to_number(value) for value in values]
        if None in numbers:
            wrong = values[numbers.index(None)]
            raise UserError(f"got {wrong!r} in {label!r}", file=name, key="--task", expected="numbers for regression")
        values = [value.strip().replace(",", ".") for value in values]
    else:
        if unknown := sorted({*values} - names.keys()):
            raise UserError(f"no name for {unknown[0]!r}", file=name, key="--names", expected="a name for each label")
        values = [names[value] for value in values]
    return table.set_column(table.column_names.index(label), label, pa.array(values, pa.string()))
