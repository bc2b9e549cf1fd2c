"""`reprise init`: from a file as it is to a recipe that runs."""

import hashlib
import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from reprise.commands.compose import RECIPES_DIR, check_edits, compose_recipe, write_recipe
from reprise.core.config import LOCAL_DATA, PARAMS
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, atomic_file, read_json, scratch_dir, sha256, write_json
from reprise.core.lock import write_lock
from reprise.core.paths import PRETRAINED, WORKSPACE_LOCK
from reprise.core.validation import load_params
from reprise.data.readers import check_file, read_header
from reprise.own_data.arrange import Arranged, Choices, arrange, compare_rows
from reprise.own_data.formats import Options, SourceTable, read_sources
from reprise.own_data.guess import find_rarest, guess_positive, is_balanced, propose_metrics
from reprise.own_data.recipe import Proposal, render_recipe
from reprise.results.run import flatten

RECORD = "source.json"  # beside the tables: what they were converted from
LENGTHS = (32, 64, 128, 256, 512)  # proposed for train.max_length
MAX_STRIDE = 32  # proposed for data.windows.stride: a quarter of the length, or this
SAMPLE_ROWS = 5000  # whose lengths are measured
MIN_ROWS = 10  # where a split is cut
FEW_ROWS = 1000  # below: larger fractions for evaluation, more epochs, smaller batches
MAX_PRINTED_LABELS = 12
MAX_PRINTED_CHANGES = 20
LAST_LATIN = "\u024f"
FOREIGN_SHARE = 0.05  # above which a multilingual model is proposed
GIT_BYTES = 10**7  # larger tables are for DVC


@dataclass(frozen=True)
class Lengths:
    """How many tokens the texts have, and how they were counted."""

    max_length: int
    reason: str
    unknown_share: float = 0.0
    foreign_share: float = 0.0  # of the letters that are not Latin


def init(
    paths: Sequence[Path],
    choices: Choices,
    options: Options,
    *,
    name: str | None = None,
    positive: str | None = None,
    overrides: Sequence[str] = (),
    force: bool = False,
    confirm: Callable[[str], bool] = lambda _: True,
    ask: Callable[[str, str], str] = lambda _, default: default,
    catalog: Path = RECIPES_DIR,
) -> str | None:
    """Convert files to tables in data/own/, write a recipe for them, and compose it.

    Args:
        paths: files and folders.
        choices: what the user says about columns and task.
        options: what the user says about the format.
        name: of the recipe; None takes the name of the first file.
        positive: of two labels, the positive one; None guesses and asks.
        overrides: further values of the recipe, as for `reprise compose`.
        force: replace a recipe that was edited since, and discard edits of params.yaml.
        confirm: asks a yes-no question before anything is written.
        ask: asks a question that has a default answer.
        catalog: folder of the config groups.

    Returns:
        The name of the recipe; None if the user did not confirm.

    Raises:
        UserError: a file cannot be read, a role cannot be guessed, or something would be lost; nothing is written.
    """
    if not (catalog / "config.yaml").is_file():
        raise UserError(
            "not found", file=catalog / "config.yaml", expected="the repository's root as the current folder"
        )
    name = _free_name(paths[0], name, catalog)
    folder, file = Path(LOCAL_DATA) / name, catalog / "task" / f"{name}.yaml"
    with scratch_dir("init") as scratch:
        found = read_sources(paths, options, scratch)
        arranged = arrange(found, choices)
        lengths = measure_lengths(arranged)
        if any(override.startswith("model=") for override in overrides):  # the user has chosen
            lengths = replace(lengths, unknown_share=0.0, foreign_share=0.0)
        if len(arranged.labels) == 2 and arranged.kind == "classification":
            positive = _positive_label(arranged, positive, ask)
        elif positive is not None:
            raise UserError(f"got {positive!r}", key="--positive", expected="it only with two labels")
        proposal = propose(name, folder, arranged, lengths, positive, _title(found, arranged))
        text = render_recipe(proposal)
        trial = scratch / "recipes"
        shutil.copytree(catalog, trial)
        (trial / "task" / file.name).write_text(text, encoding="utf-8")
        chosen = [f"task={name}", *overrides]
        recipe = compose_recipe(chosen, trial)
        for line in describe(found, arranged, proposal, lengths):
            echo(f"init: {line}")
        record = _record(paths, found, arranged, text)
        if (folder / RECORD).is_file():
            _print_changes([
                *_changed_data(folder, record, arranged),
                *(_changed_recipe(file, trial / "task" / file.name) if file.is_file() else ()),
            ])  # fmt: skip
        _check_replaced(folder, file, force=force)
        if not force:
            check_edits(recipe, chosen, PARAMS, catalog)
        if not confirm(f"Write {folder}/, {file} and {PARAMS}?"):
            echo("init: nothing was written")
            return None
        with write_lock(WORKSPACE_LOCK, "init"):
            size = _write_tables(folder, arranged, record)
            with atomic_file(file) as partial:
                partial.write_text(text, encoding="utf-8")
            write_recipe(recipe, chosen, PARAMS)
    echo(f"init: wrote {', '.join(map(str, proposal.files.values()))}, {file} and {PARAMS}")
    tracked = f"git add {folder}" if size < GIT_BYTES else f"dvc add {folder} && git add {folder}.dvc"
    echo(f"init: next: make train; keep them: {tracked} {file} {PARAMS}")
    return name


def _free_name(path: Path, given: str | None, catalog: Path) -> str:
    """Return the name of the recipe: the given one, or the file's in plain letters; never one of the catalog."""
    if given is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{,99}", given):
            raise UserError(f"got {given!r}", key="--name", expected="letters, digits, dashes and underscores")
        name = given
    else:
        stem = re.split(r"\.(?=[A-Za-z])", path.resolve().name)[0]
        ascii_only = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
        name = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:80] or "own"
        if re.fullmatch("train|training|data|dataset", name):  # it says nothing, the folder's name may
            parent = re.sub(r"[^a-z0-9]+", "-", path.resolve().parent.name.lower()).strip("-")
            name = f"{parent}-{name}"[:80].strip("-")
    taken = (catalog / "task" / f"{name}.yaml").is_file() and not (Path(LOCAL_DATA) / name / RECORD).is_file()
    if taken and given is not None:
        raise UserError(
            "in the catalog already", file=catalog / "task" / f"{name}.yaml", key="--name", expected="another"
        )
    return f"own-{name}" if taken else name


def _check_replaced(folder: Path, file: Path, *, force: bool) -> None:
    """Check that nothing is lost that `reprise init` has not written itself."""
    if folder.exists() and not (folder / RECORD).is_file():
        raise UserError("exists and is not from `reprise init`", file=folder, key="--name", expected="another name")
    if file.is_file() and not force and sha256(file) != read_json(folder / RECORD).get("recipe_sha256"):
        expected = "--force to replace it, or --name for another recipe"
        raise UserError("edited since `reprise init` wrote it", file=file, expected=expected)


def _positive_label(arranged: Arranged, given: str | None, ask: Callable[[str, str], str]) -> str:
    guess, reason = guess_positive(arranged.labels, _total(arranged))
    answer = given or ask(f"Which label is the positive one, for F1 ({reason})?", guess)
    if answer not in arranged.labels:
        expected = f"one of {', '.join(arranged.labels)}"
        raise UserError(f"got {answer!r}", key="--positive", expected=expected)
    return answer


def _total(arranged: Arranged) -> dict[str, int]:
    return {label: sum(counts[label] for counts in arranged.counts.values()) for label in arranged.labels}


def measure_lengths(arranged: Arranged) -> Lengths:
    """Propose the length that 99 % of the training texts do not exceed, of those in LENGTHS."""
    table = arranged.tables["train"].select(arranged.text)
    rows = table.take(np.arange(0, table.num_rows, max(1, table.num_rows // SAMPLE_ROWS)))
    words = arranged.entities is not None and not arranged.entities.spans
    texts = [[_text(value or "", is_list=words) for value in column.to_pylist()] for column in rows.columns]
    limit, unknown = LENGTHS[-1], 0.0
    if (PRETRAINED / "tokenizer").is_dir():
        from reprise.data.tokenization import load_tokenizer, tokenize  # slow to import

        tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
        limit = min(limit, tokenizer.model_max_length)
        encoded = tokenize(tokenizer, texts, 2**20)
        lengths, counted = encoded["length"], f"by the tokenizer in {PRETRAINED}"
        if tokenizer.unk_token_id is not None:
            unknown = sum(ids.count(tokenizer.unk_token_id) for ids in encoded["input_ids"]) / max(sum(lengths), 1)
    else:
        lengths = [3 + round(1.3 * sum(map(_count_words, row))) for row in zip(*texts, strict=True)]
        counted = "estimated from words, as no tokenizer is here yet"
    quantile = int(np.quantile(lengths, 0.99, method="higher"))
    chosen = next((length for length in LENGTHS if length >= quantile and length <= limit), limit)
    letters = [char for column in texts for text in column[:500] for char in text if char.isalpha()]
    foreign = sum(char > LAST_LATIN for char in letters) / max(len(letters), 1)
    return Lengths(chosen, f"99 % of the texts have at most {quantile:,} tokens, {counted}", unknown, foreign)


def _text(value: str, *, is_list: bool) -> str:
    return " ".join(json.loads(value)) if is_list and value else value


def _count_words(text: str) -> int:
    """Count words and signs; each sign of Chinese and Japanese is one."""
    return len(
        re.findall(
            r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]", text
        )
    )


def propose(
    name: str, folder: Path, arranged: Arranged, lengths: Lengths, positive: str | None, title: str
) -> Proposal:
    """Choose splits, metrics and training settings."""
    rows = arranged.tables["train"].num_rows
    fraction = 0.2 if rows < FEW_ROWS else 0.1
    has = set(arranged.tables)
    split: dict[str, Any] | None = None
    if "validation" not in has:
        if rows < MIN_ROWS:
            raise UserError(
                f"{rows} rows to train on", file=name, expected=f"at least {MIN_ROWS}; some are cut for evaluation"
            )
        cut_test = None if "test" in has else fraction
        few = arranged.kind != "regression" and find_rarest(arranged.counts["train"], fraction)
        split = {
            "validation": fraction, "test": cut_test, "group_by": arranged.group, "group_texts": True,
            "stratify": bool(few), "order_by": None, "folds": None, "seed": 0,
        }  # fmt: skip
    evaluated = "validation" if has == {"train", "validation"} else "test"
    train: dict[str, Any] = {"max_length": lengths.max_length}
    if evaluated == "validation":
        train["keep_epoch"] = "last"  # the best epoch on the split that is reported would bias the result
    if rows < FEW_ROWS:
        train |= {"epochs": 10 if arranged.entities else 5, "batch_size": 8}
    balanced = arranged.kind != "regression" and is_balanced(_total(arranged))
    return Proposal(
        name=name,
        files={split: str(folder / f"{split}{_suffix(arranged)}") for split in arranged.tables},
        text_columns=arranged.text,
        label_column=arranged.label,
        labels=arranged.labels,
        positive_label=positive,
        metrics=propose_metrics(arranged.kind, arranged.labels, balanced=balanced),
        id_column=arranged.id,
        split=split,
        train=train,
        evaluate_split=evaluated,
        comments=[
            title, "", f"  reprise compose task={name}", "",
            f"Written by `reprise init`; {folder}/{RECORD} says from which files. Edit it as you like.",
            "Reference: not measured here.",
        ],
        separator=arranged.separator,
        stride=min(MAX_STRIDE, lengths.max_length // 4) if arranged.entities else None,
    )  # fmt: skip


def _title(found: Sequence[SourceTable], arranged: Arranged) -> str:
    rows = sum(table.num_rows for table in arranged.tables.values())
    what = f"{len(arranged.labels)} labels" if arranged.labels else "a number"
    return f"Your own data: {Path(found[0].name).name}, {rows:,} rows, {what} in {arranged.label}".replace("\n", " ")


def describe(found: Sequence[SourceTable], arranged: Arranged, proposal: Proposal, lengths: Lengths) -> list[str]:
    """Say what was read and decided, and why, in one screen."""
    lines = [f"{table.name}: {'; '.join([*table.notes, f'{table.table.num_rows:,} rows'])}" for table in found[:6]]
    lines += [f"and {len(found) - 6} more"] * (len(found) > 6)
    lines += [f"note: {note}" for note in arranged.notes]
    distinct = len({label for counts in arranged.counts.values() for label in counts})
    other = "regression" if arranged.kind == "classification" else "classification"
    switch = f" (--task {other})" if arranged.kind == "regression" or _all_numbers(arranged.labels) else ""
    several = arranged.lists or arranged.entities
    why = several.describe() if several else f"{arranged.label!r} has {distinct:,} different values{switch}"
    columns = {
        "task": f"{arranged.kind}, since {why}",
        "text": " and ".join(map(repr, arranged.text)) + _others(arranged.other_texts, "--text"),
        "label": repr(arranged.label) + _others(arranged.other_labels, "--label"),
    }
    if arranged.labels:
        counts, balanced = _total(arranged), is_balanced(_total(arranged))
        shown = [f'"{label}" {counts[label]:,}' for label in arranged.labels[:MAX_PRINTED_LABELS]]
        more = len(arranged.labels) - len(shown)
        columns["labels"] = ", ".join(shown) + (f" and {more} more, all in the recipe" if more else "")
        reason = "balanced" if balanced else "imbalanced"
        reason = "a row may have several" if arranged.lists else f"the labels are {reason}"
        if arranged.entities:
            columns["words"] = f"{arranged.entities.words:,}, {sum(counts.values()):,} entities"
            reason = "an entity is correct if its words and its label are"
        columns["metrics"] = f"{', '.join(proposal.metrics)}: {reason}"
        absent = [label for label in arranged.labels if not arranged.counts["train"][label]]
        if absent:
            columns["warning"] = f"train has no example of {', '.join(absent[:5])}"
    else:
        columns["metrics"] = f"{', '.join(proposal.metrics)}: the labels are numbers"
    if proposal.positive_label is not None:
        columns["positive"] = f'"{proposal.positive_label}": F1 is of that label (--positive)'
    columns["id"] = repr(arranged.id) if arranged.id else "the row number, as no column named so differs in each row"
    columns["splits"] = _describe_splits(arranged, proposal)
    columns["max_length"] = f"{lengths.max_length}: {lengths.reason}"
    if proposal.stride is not None:
        columns["stride"] = f"{proposal.stride}: longer texts are read in windows that share that number of tokens"
    if max(lengths.foreign_share, lengths.unknown_share) > FOREIGN_SHARE:
        columns["language"] = (
            f"{lengths.foreign_share:.0%} of the letters are not Latin, {lengths.unknown_share:.0%} of the tokens are "
            "unknown; is the model for that language? (-S model=distil-mbert)"
        )
    for key in ("epochs", "batch_size"):
        if key in proposal.train:
            columns[key] = f"{proposal.train[key]}, as there are few rows"
    if "keep_epoch" in proposal.train:
        columns["keep_epoch"] = "last, as the results are reported on the validation split"
    return lines + [f"{key:11} {value}" for key, value in columns.items()]


def _all_numbers(labels: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?\d+(\.\d+)?", label) for label in labels)


def _others(candidates: Sequence[str], option: str) -> str:
    return f" (or {', '.join(map(repr, candidates))}: {option})" if candidates else ""


def _describe_splits(arranged: Arranged, proposal: Proposal) -> str:
    rows = [f"{split} {table.num_rows:,} rows" for split, table in arranged.tables.items()]
    if proposal.split:
        cut = [
            f"{name} {value:.0%}" for name, value in proposal.split.items() if name in ("validation", "test") and value
        ]
        rows.append(f"{' and '.join(cut)} cut from train")
        together = "equal texts" + (f" and rows of one {arranged.group!r}" if arranged.group else "")
        rows.append(f"{together} stay together")
        share, counted = proposal.split["validation"], "entities" if arranged.entities else "rows"
        if few := find_rarest(arranged.counts["train"], share) if arranged.labels else None:
            rows.append(f"stratified, as {share:.0%} of {few[0]!r} are {few[1]:.0f} {counted}")
    return ", ".join(rows)


def _record(paths: Sequence[Path], found: Sequence[SourceTable], arranged: Arranged, recipe: str) -> dict[str, Any]:
    """Return the content of source.json."""
    return {
        "sources": {path.resolve().name: _digest(path) for path in paths},
        "read": {
            table.name if not Path(table.name).is_absolute() else Path(table.name).name: table.notes for table in found
        },
        "notes": arranged.notes,
        "columns": arranged.tables["train"].column_names,
        "rows": {split: table.num_rows for split, table in arranged.tables.items()},
        "labels": {
            label: {split: arranged.counts[split][label] for split in arranged.tables} for label in arranged.labels
        },
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
    }


def _digest(path: Path) -> str:
    if path.is_file():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = "".join(f"{sha256(file)}  {file.relative_to(path)}\n" for file in files)
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


def _print_changes(lines: Sequence[str]) -> None:
    """Print what differs from the last `reprise init` of that name."""
    more = [f"and {len(lines) - MAX_PRINTED_CHANGES} more"] if len(lines) > MAX_PRINTED_CHANGES else []
    for line in [*lines[:MAX_PRINTED_CHANGES], *more] or ["nothing"]:
        echo(f"init: changed since the last time: {line}")


def _changed_data(folder: Path, record: Mapping[str, Any], arranged: Arranged) -> Iterator[str]:
    """Yield the differences between the tables in `folder` and the new ones: columns, rows, labels."""
    before = read_json(folder / RECORD)
    if before.get("sources") != record["sources"]:
        yield "another content of the files"
    columns = before.get("columns", [])
    yield from (f"column {name!r} is new" for name in record["columns"] if name not in columns)
    yield from (f"column {name!r} is gone" for name in columns if name not in record["columns"])
    rows = before.get("rows", {})
    for split in {**rows, **record["rows"]}:
        details, file = "", folder / f"{split}{_suffix(arranged)}"
        if split in arranged.tables and file.is_file() and {*arranged.text, arranged.label} <= {*columns}:
            changed = compare_rows(_read_table(file), arranged.tables[split], arranged.text, arranged.label)
            details = ", ".join(f"{count:,} {what}" for what, count in changed.items() if count)
        if details or rows.get(split) != record["rows"].get(split):
            numbers = f"{rows.get(split, 0):,} → {record['rows'].get(split, 0):,}"
            yield f"rows {split!r}: {numbers}" + (f" ({details})" if details else "")
    old, new = (
        {label: sum(counts.values()) for label, counts in each.get("labels", {}).items()} for each in (before, record)
    )
    labels = [label for label in {**old, **new} if old.get(label) != new.get(label)]
    for label in sorted(labels, key=lambda label: label in old and label in new):  # new ones and missing ones first
        yield f"label {label!r}: {old.get(label, 0):,} → {new.get(label, 0):,}"


def _changed_recipe(before: Path, now: Path) -> Iterator[str]:
    """Yield the differences between two files of the catalog, except the labels."""
    old, new = (flatten(load_params(file), keep_empty=True) for file in (before, now))
    for key in {**old, **new}:
        if old.get(key) != new.get(key) and key != "task.labels":
            values = (json.dumps(each.get(key), ensure_ascii=False, default=str) for each in (old, new))
            yield f"recipe {key}: {' → '.join(values)}"


def _read_table(file: Path) -> pa.Table:
    """Read a table that `_write_tables` wrote: every column is a string, lists as JSON writes them."""
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        cells = ({key: v if isinstance(v, str) else _dump(v) for key, v in row.items()} for row in rows)
        return pa.Table.from_pylist([*cells])
    names = read_header(file)
    return pa.csv.read_csv(
        file,
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )


def _suffix(arranged: Arranged) -> str:
    """Return the extension of the tables: entities are lists, which CSV does not have."""
    return ".jsonl" if arranged.entities else ".csv"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_tables(folder: Path, arranged: Arranged, record: dict[str, Any]) -> int:
    """Write CSV with every field in quotes, or JSON lines of entities, in UTF-8; return the size in bytes."""
    with atomic_dir(folder) as partial:
        for split, table in arranged.tables.items():
            file = partial / f"{split}{_suffix(arranged)}"
            if arranged.entities:
                lists = {arranged.label, *([] if arranged.entities.spans else arranged.text)}
                rows = table.to_pylist()
                cells = ({key: json.loads(v) if key in lists else v or "" for key, v in row.items()} for row in rows)
                file.write_text("".join(f"{_dump(each)}\n" for each in cells), encoding="utf-8")
            else:
                pa.csv.write_csv(table, file, pa.csv.WriteOptions(quoting_style="all_valid"))
            if check_file(file) != table.num_rows:
                raise RuntimeError(f"{file}: not all rows were written")
        size = sum(file.stat().st_size for file in partial.iterdir())
        write_json(partial / RECORD, record)
    return size


def parse_names(text: str) -> dict[str, str]:
    """Read `0=hate,1=offensive` as names of labels.

    Raises:
        UserError: it is not of that form.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    names = {label.strip(): name.strip() for label, equals, name in pairs if equals}
    if len(names) != len(pairs) or not all(names.values()) or len({*names.values()}) != len(names):
        raise UserError(f"got {text!r}", key="--names", expected="LABEL=NAME,LABEL=NAME,…")
    return names
