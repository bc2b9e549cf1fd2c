"""Read and check params.yaml: a valid recipe, or one line that names the key and what was expected."""

import difflib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from reprise.core.config import (
    MAX_RECIPE_BYTES,
    MAX_RECIPE_DEPTH,
    PARAMS,
    RENAMED_KEYS,
    RENAMED_SOURCE_KINDS,
    Checks,
    Data,
    Distill,
    Evaluate,
    HubDataset,
    HubModel,
    LocalDataset,
    LocalModel,
    Lora,
    Model,
    Recipe,
    Run,
    Split,
    Submission,
    Task,
    Threshold,
    Train,
    WheelSource,
)
from reprise.core.errors import UserError
from reprise.tasks.metrics.registry import metrics_of

MAX_LISTED = 50  # names that a message lists


def read_recipe(path: Path = PARAMS) -> Recipe:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or is no valid recipe.
    """
    return check_recipe(load_params(path), str(path))


def check_sections(path: Path = PARAMS) -> None:
    """Check that params.yaml has the section that recipes of earlier versions lack: DVC knows no default of a key.

    Raises:
        UserError: it lacks it.
    """
    if not (load_params(path).get("data") or {}).get("checks"):
        expected = "the section in recipes/config.yaml; `reprise compose` with the arguments in the first line adds it"
        raise UserError("missing, so DVC cannot run check-data", file=path, key="data.checks", expected=expected)


def load_params(path: Path) -> Any:
    """Load params.yaml without checking it.

    Raises:
        UserError: the file is missing, or is not YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RECIPE_BYTES + 1)
    except FileNotFoundError:
        expected = "the repository's root as the current folder, or a recipe written by `reprise compose`"
        raise UserError("not found", file=path, expected=expected) from None
    if len(content) > MAX_RECIPE_BYTES:
        raise UserError("too long for a recipe", file=path, expected=f"at most {MAX_RECIPE_BYTES:,} bytes")
    yaml, node = YAML(typ="safe", pure=True), None  # the C parser names no aliases
    try:
        with warnings.catch_warnings(action="error"):  # an anchor that is set twice
            node = yaml.compose(content.decode("utf-8"))
        check_nodes(node)
        return node and yaml.constructor.construct_document(node)
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", file=path) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())[:200]
        raise UserError(f"{where}not valid YAML: {problem}", file=path) from None
    except YAMLError as error:
        raise UserError(f"not valid YAML: {shorten(error)}", file=path) from None
    except RecursionError:
        expected = f"at most {MAX_RECIPE_DEPTH} sections and lists inside each other"
        raise UserError("nested too deeply", file=path, expected=expected) from None
    except Exception as error:  # of what turns a scalar into a date or a number
        raise UserError(f"{_unreadable_scalar(node)}not valid YAML: {shorten(error)}", file=path) from None


def check_nodes(node: Any) -> None:
    """Check that the nodes of a YAML document stay small when each alias is replaced by what it names.

    Args:
        node: the root as ruamel.yaml or PyYAML composes it; None for an empty document.

    Raises:
        YAMLError: the document is deeper or longer than a recipe may be.
    """
    measured: dict[int, tuple[int, int]] = {}  # characters and levels by node; an alias is the node that it names

    def measure(node: Any) -> tuple[int, int]:
        if id(node) in measured:
            return measured[id(node)]
        measured[id(node)] = 0, MAX_RECIPE_DEPTH  # until it is known: a node inside itself is too deep
        if isinstance(node.value, str):
            size, level = len(node.value), 0
        else:
            inner = [measure(part) for entry in node.value for part in (entry if isinstance(entry, tuple) else [entry])]
            size, level = sum(size for size, _ in inner), max((level for _, level in inner), default=0)
        measured[id(node)] = size + 1, level + 1
        if level > MAX_RECIPE_DEPTH:
            raise RecursionError
        if size > MAX_RECIPE_BYTES:
            raise YAMLError(f"its aliases expand to more than {MAX_RECIPE_BYTES:,} characters")
        return measured[id(node)]

    if node is not None:
        measure(node)


def _unreadable_scalar(node: Any) -> str:
    """Return the place of the first scalar that cannot be read, such as the date 2020-13-45; "" if there is none."""
    if node is None:
        return ""
    if isinstance(node.value, str):
        try:
            YAML(typ="safe", pure=True).constructor.construct_object(node)
        except Exception:
            return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}: "
        return ""
    parts = (part for entry in node.value for part in (entry if isinstance(entry, tuple) else [entry]))
    return next(filter(None, map(_unreadable_scalar, parts)), "")


def shorten(value: object) -> str:
    """Return an error or a value of a recipe in at most 200 characters on one line."""
    try:
        text = " ".join(str(value).split()) if isinstance(value, Exception) else repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


class KeyProblem(NamedTuple):
    """What is wrong with a key of the recipe; the parts of a UserError."""

    key: str
    problem: str
    expected: str = ""

    def to_error(self, source: str) -> UserError:
        """Return the error that names the file too."""
        return UserError(self.problem, file=source, key=self.key, expected=self.expected)


def check_recipe(content: Any, source: str) -> Recipe:
    """Turn the content of params.yaml into a recipe.

    Args:
        content: dictionaries, lists and numbers.
        source: the file that the error names.

    Raises:
        UserError: the first problem; unknown keys come before others.
    """
    if not isinstance(content, dict):
        raise UserError(file=source, expected="the sections seed, task, model, train, evaluate, run and data")
    for found in _renamed_keys(content):
        raise found.to_error(source)
    try:
        recipe = TypeAdapter(Recipe).validate_python(content)
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "unexpected_keyword_argument")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        first = _key_problem(problems[0])
        raise first._replace(problem=first.problem + more).to_error(source) from None
    for found in _cross_field_problems(recipe):
        raise found.to_error(source)
    return recipe


def _renamed_keys(content: dict[str, Any]) -> Iterator[KeyProblem]:
    """Yield each key that has been renamed."""
    for old, new in RENAMED_KEYS.items():
        section, _, key = old.partition(".")
        if isinstance(keys := content.get(section), dict) and key in keys:
            yield KeyProblem("", f"{old} was renamed to {new}")
    for section in ("task", "model"):
        source = keys.get("source") if isinstance(keys := content.get(section), dict) else None
        kind = source.get("kind") if isinstance(source, dict) else None
        if isinstance(kind, str) and kind in RENAMED_SOURCE_KINDS:
            yield KeyProblem(f"{section}.source.kind", f"{kind!r} was renamed to {RENAMED_SOURCE_KINDS[kind]!r}")


def _cross_field_problems(recipe: Recipe) -> Iterator[KeyProblem]:
    """Yield each combination of valid keys that is not valid."""
    task, train, split = recipe.task, recipe.train, recipe.evaluate.split
    if len(set(task.text_columns)) != len(task.text_columns):
        yield KeyProblem("task.text_columns", f"got {task.text_columns[0]!r} twice", "two different columns")
    if (len(task.labels) == 1 and not task.token_classification) or len(set(task.labels)) != len(task.labels):
        expected = "at least two different labels, or [] for regression"
        yield KeyProblem("task.labels", f"got {shorten(task.labels)}", expected)
    given = "null" if task.positive_label is None else repr(task.positive_label)
    several = task.multi_label or task.token_classification
    if several and not task.labels:
        section = "multi_label" if task.multi_label else "token_classification"
        yield KeyProblem("task.labels", "got []", f"the labels of task.{section}")
    if task.label_column is None and (task.multi_label is None or task.multi_label.separator is not None):
        yield KeyProblem("task.label_column", "got null", "a name; null is for task.multi_label, a column each")
    if task.token_classification and task.multi_label:
        yield KeyProblem("task.multi_label", "got a section", "null, beside task.token_classification")
    yield from _window_problems(recipe)
    if several and task.positive_label is not None:
        yield KeyProblem("task.positive_label", f"got {given}", "null, as each label is one of its own")
    if len(task.labels) == 2 and not several and task.positive_label not in task.labels:
        expected = f"one of task.labels: {_join(task.labels)}; F1 is of that label"
        yield KeyProblem("task.positive_label", f"got {given}", expected)
    if len(task.labels) != 2 and not several and task.positive_label is not None:
        yield KeyProblem("task.positive_label", f"got {given}", "null, as there are not two labels")
    allowed = metrics_of(task.kind.name)
    for metric in task.metrics:
        if metric not in allowed:
            reason = "" if task.labels else " (task.labels is empty)"
            yield KeyProblem(
                "task.metrics", f"{metric!r} does not fit {task.kind.name}{reason}", f"one of {_join(allowed)}"
            )
    yield from _split_problems(task)
    if split not in task.splits:
        yield KeyProblem("evaluate.split", f"got {split!r}", f"one of {_join(task.splits)}")
    if task.submission:
        yield from _submission_problems(task.submission, task)
    if train.fold is not None:
        folds = task.split.folds if task.split else None
        if folds is None or train.fold >= folds:
            expected = f"below task.split.folds ({folds})" if folds else "null, since task.split.folds is null"
            yield KeyProblem("train.fold", f"got {train.fold}", expected)
    if train.precision == "fp32-portable" and train.threads is None:
        yield KeyProblem("train.threads", "got null", "a number, since it divides sums, such as 2")
    if train.freeze is not None and train.lora:
        yield KeyProblem("train.freeze", f"got {train.freeze}", "null, since train.lora freezes the encoder")
    if train.loss and (found := task.kind.loss_problem(train.loss)):
        key, problem, expected = found
        yield KeyProblem(".".join(filter(None, ("train.loss", key))), problem, expected)
    if train.distill:
        yield from _distill_problems(train.distill, recipe)
    if train.calibration and not task.labels:
        expected = "null, since task.labels is empty (regression)"
        yield KeyProblem("train.calibration", f"got {train.calibration}", expected)
    if train.micro_batch_size and train.micro_batch_size > train.batch_size:
        expected = f"at most train.batch_size ({train.batch_size})"
        yield KeyProblem("train.micro_batch_size", f"got {train.micro_batch_size}", expected)
    if isinstance(train.bucket_lengths, list) and max(train.bucket_lengths) != train.max_length:
        expected = f"train.max_length ({train.max_length}) as the largest"
        yield KeyProblem("train.bucket_lengths", f"the largest is {max(train.bucket_lengths)}", expected)


def _distill_problems(distill: Distill, recipe: Recipe) -> Iterator[KeyProblem]:
    """Yield what does not fit the task in `train.distill`."""
    if recipe.task.token_classification:
        yield KeyProblem("train.distill", "got a section", "null for token classification")
    elif recipe.data.windows:
        yield KeyProblem("train.distill", "got a section beside data.windows", "null, or texts without windows")
    key, given = "train.distill.temperature", distill.temperature
    if recipe.task.labels and given is None:
        yield KeyProblem(key, "got null", "a positive number, such as 2.0")
    if not recipe.task.labels and given is not None:
        yield KeyProblem(key, f"got {given}", "null, since task.labels is empty (regression)")


def _window_problems(recipe: Recipe) -> Iterator[KeyProblem]:
    """Yield what is wrong with `data.windows`."""
    task, windows = recipe.task, recipe.data.windows
    if windows is None:
        if task.token_classification:
            expected = "windows such as {stride: 32, pooling: null}, so that no word is lost"
            yield KeyProblem("data.windows", "got null", expected)
        return
    if len(task.text_columns) == 2:
        yield KeyProblem("data.windows", "got windows of text pairs", "null, or one column in task.text_columns")
    if 2 * windows.stride >= recipe.train.max_length:
        expected = f"less than half of train.max_length ({recipe.train.max_length})"
        yield KeyProblem("data.windows.stride", f"got {windows.stride}", expected)
    if (windows.pooling is None) != (task.token_classification is not None):
        expected = "null for token classification" if task.token_classification else "mean, max or first"
        yield KeyProblem("data.windows.pooling", f"got {windows.pooling or 'null'}", expected)


def _split_problems(task: Task) -> Iterator[KeyProblem]:
    """Yield what is wrong with the splits that the source has and those that `task.split` cuts."""
    fractions = task.split.fractions if task.split else {}
    if sum(fractions.values()) >= 1:
        yield KeyProblem("task.split", "no rows remain to train on", "validation + test below 1")
    if task.split:
        yield from _split_key_problems(task.split)
    if task.split and not fractions:
        yield KeyProblem("task.split", "no fraction", "one for validation or test, or null for the whole section")
    if "validation" not in task.source_splits:  # else prepare, which sees what the source has, reports it
        for name in sorted(fractions.keys() & set(task.source_splits)):
            yield KeyProblem(
                f"task.split.{name}", f"got {fractions[name]}", f"null, since task.source has a {name} split"
            )
    if {"train", "validation"} <= set(task.splits):
        return
    given = f"got {_join(task.splits) or 'none'}"
    if isinstance(task.source, HubDataset):
        yield KeyProblem("task.source.splits", given, "train and validation among its keys")
    else:
        expected = "a validation table, or task.split: {validation: 0.1, test: null}, which cuts it from train"
        yield KeyProblem("task.source", given, expected)


def _split_key_problems(split: Split) -> Iterator[KeyProblem]:
    """Yield the keys of `task.split` that contradict another, or have no effect beside it."""
    if split.folds and split.validation is not None:
        expected = "null, since the first of task.split.folds is the validation split"
        yield KeyProblem("task.split.validation", f"got {split.validation}", expected)
    if split.group_by is None and not split.group_texts:
        expected = "true, or a column in task.split.group_by: else copies of a text are in several splits"
        yield KeyProblem("task.split.group_texts", "got false", expected)
    if split.order_by is not None:
        reason = "since task.split.order_by cuts by time"
        if split.folds:
            yield KeyProblem("task.split.folds", f"got {split.folds}", f"null, {reason}")
        if split.stratify:
            yield KeyProblem("task.split.stratify", "got true", f"false, {reason}")
        if split.seed:
            yield KeyProblem("task.split.seed", f"got {split.seed}", f"0, {reason}")


def _submission_problems(submission: Submission, task: Task) -> Iterator[KeyProblem]:
    files, key = list(submission.files.values()), "task.submission.files"
    if not files:
        yield KeyProblem(key, "got {}", "a file for at least one split")
    for name in submission.files:
        if name not in task.splits:
            yield KeyProblem(key, f"got {name!r}", f"splits among {_join(task.splits)}")
    if len(set(files)) != len(files):
        yield KeyProblem(key, f"got {_join(files)}", "a file of its own for each split")
    if not task.kind.named_labels and submission.labels == "names":
        expected = "numbers, since task.labels is empty (regression)"
        yield KeyProblem("task.submission.labels", "got 'names'", expected)


def _key_problem(error: Any) -> KeyProblem:
    """Return the key of an error of pydantic, the given value, and what was expected."""
    # The third part of a source's location is the tag of the union, which is no key of the file.
    location = [part for index, part in enumerate(error["loc"]) if index != 2 or error["loc"][1] != "source"]
    if location[-1] == "[key]":  # the key itself is wrong
        location.pop()
    key, got, context = (
        ".".join(str(part)[:100] for part in location),
        f"got {shorten(error['input'])}",
        error.get("ctx", {}),
    )
    match error["type"]:
        case "unexpected_keyword_argument":
            known = sorted({f.name for section in _sections_at(error["loc"][:-1]) for f in fields(section)})
            if near := difflib.get_close_matches(str(location[-1]), known, n=1):
                return KeyProblem(key, f"unknown key; did you mean {near[0]}?")
            return KeyProblem(key, "unknown key", _join(known))
        case "missing":
            return KeyProblem(key, "missing", "every key of the recipe")
        case "union_tag_invalid":
            return KeyProblem(f"{key}.kind", f"got {context['tag']!r}", context["expected_tags"])
        case "union_tag_not_found":
            return KeyProblem(f"{key}.kind", "missing", "'pypi', 'hub' or 'local'")
        case "dataclass_type" | "model_attributes_type":
            if len(location) == 1 and isinstance(error["input"], str):  # as Hydra chooses from its groups
                expected = f"a section; `reprise compose {key}={error['input']}` chooses it from the catalog"
                return KeyProblem(key, got, expected)
            return KeyProblem(key, got, "a section with keys of its own")
        case "string_pattern_mismatch":
            digits = 64 if "{64}" in context["pattern"] else 40
            return KeyProblem(key, got, f"{digits} hexadecimal digits (a pinned hash, no branch or tag)")
        case "too_short":
            return KeyProblem(key, got, f"a list of at least {context['min_length']}")
        case "too_long":
            return KeyProblem(key, got, f"a list of at most {context['max_length']}")
        case "string_too_short":
            return KeyProblem(key, got, "a text of at least 1 character")
    return KeyProblem(key, got, re.sub(r"^(Input should be|Value error,) ", "", error["msg"]))


def _sections_at(location: Sequence[Any]) -> list[type]:
    """Return the possible dataclasses at a path such as ("task", "source", "hub")."""
    match list(location):
        case ["task", "source", kind]:
            return [{"pypi": WheelSource, "hub": HubDataset, "local": LocalDataset}[kind]]
        case ["model", "source", kind]:
            return [{"pypi": WheelSource, "hub": HubModel, "local": LocalModel}[kind]]
        case ["task", "split"]:
            return [Split]
        case ["task", "submission"]:
            return [Submission]
        case ["train", "lora"]:
            return [Lora]
        case ["train", "distill"]:
            return [Distill]
        case ["data", "checks"]:
            return [Checks]
        case ["data", "checks", _]:
            return [Threshold]
        case [name]:
            return [
                {"task": Task, "model": Model, "train": Train, "evaluate": Evaluate, "run": Run, "data": Data}[name]
            ]
        case _:
            return [Recipe]


def _join(names: Any) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:MAX_LISTED] + ["…"] * (len(listed) > MAX_LISTED))
