"""Read and check params.yaml: a valid recipe, or one line that names the key and what was expected."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from reprise.core.config import (
    PARAMS,
    RENAMED_KEYS,
    RENAMED_SOURCE_KINDS,
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
    Train,
    WheelSource,
)
from reprise.core.errors import UserError
from reprise.tasks.metrics.registry import metrics_of


def read_recipe(path: Path = PARAMS) -> Recipe:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or is no valid recipe.
    """
    return check_recipe(load_params(path), str(path))


def load_params(path: Path) -> Any:
    """Load params.yaml without checking it.

    Raises:
        UserError: the file is missing, or is not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))  # the C parser names no aliases
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; run from the repository's root, or write it with `reprise compose`"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise UserError(f"{path}: {where}not valid YAML: {problem}") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def check_recipe(content: Any, source: str) -> Recipe:
    """Turn the content of params.yaml into a recipe.

    Args:
        content: dictionaries, lists and numbers.
        source: the file that the error names.

    Raises:
        UserError: the first problem; unknown keys come before others.
    """
    if not isinstance(content, dict):
        raise UserError(f"{source}: expected the sections seed, task, model, train, evaluate and run")
    for problem in _renamed_keys(content):
        raise UserError(f"{source}: {problem}")
    try:
        recipe = TypeAdapter(Recipe).validate_python(content)
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "unexpected_keyword_argument")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{source}: {_format_error(problems[0])}{more}") from None
    for problem in _cross_field_errors(recipe):
        raise UserError(f"{source}: {problem}")
    return recipe


def _renamed_keys(content: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each key that has been renamed."""
    for old, new in RENAMED_KEYS.items():
        section, _, key = old.partition(".")
        if isinstance(keys := content.get(section), dict) and key in keys:
            yield f"{old} was renamed to {new}"
    for section in ("task", "model"):
        source = keys.get("source") if isinstance(keys := content.get(section), dict) else None
        kind = source.get("kind") if isinstance(source, dict) else None
        if isinstance(kind, str) and kind in RENAMED_SOURCE_KINDS:
            yield f"{section}.source.kind: {kind!r} was renamed to {RENAMED_SOURCE_KINDS[kind]!r}"


def _cross_field_errors(recipe: Recipe) -> Iterator[str]:
    """Yield a message for each combination of valid keys that is not valid."""
    task, train, split = recipe.task, recipe.train, recipe.evaluate.split
    if len(set(task.text_columns)) != len(task.text_columns):
        yield f"task.text_columns: expected two different columns, got {task.text_columns[0]!r} twice"
    if len(task.labels) == 1 or len(set(task.labels)) != len(task.labels):
        yield f"task.labels: expected at least two different labels, or [] for regression, got {task.labels}"
    allowed = metrics_of(task.kind.name)
    for metric in task.metrics:
        if metric not in allowed:
            reason = "" if task.labels else " (task.labels is empty)"
            yield f"task.metrics: {metric!r} does not fit {task.kind.name}{reason}; expected {_join(allowed)}"
    if task.split and task.split.validation + task.split.test >= 1:
        yield "task.split: expected validation + test below 1, so that rows remain to train on"
    if not {"train", "validation"} <= set(task.splits):
        yield f"task.source.splits: expected train and validation among its keys, got {_join(task.splits) or 'none'}"
    if split not in task.splits:
        yield f"evaluate.split: expected one of {_join(task.splits)}, got {split!r}"
    if task.submission:
        yield from _submission_errors(task.submission, task)
    if train.micro_batch_size and train.micro_batch_size > train.batch_size:
        yield (
            f"train.micro_batch_size: expected at most train.batch_size ({train.batch_size}), "
            f"got {train.micro_batch_size}"
        )
    if isinstance(train.bucket_lengths, list) and max(train.bucket_lengths) != train.max_length:
        yield (
            f"train.bucket_lengths: expected the largest to be train.max_length ({train.max_length}), "
            f"got {max(train.bucket_lengths)}"
        )


def _submission_errors(submission: Submission, task: Task) -> Iterator[str]:
    files = list(submission.files.values())
    if not files:
        yield "task.submission.files: expected a file for at least one split, got {}"
    for name in submission.files:
        if name not in task.splits:
            yield f"task.submission.files: expected splits among {_join(task.splits)}, got {name!r}"
    if len(set(files)) != len(files):
        yield f"task.submission.files: expected a file of its own for each split, got {_join(files)}"
    if not task.kind.named_labels and submission.labels == "names":
        yield "task.submission.labels: expected numbers, since task.labels is empty (regression), got 'names'"


def _format_error(problem: Any) -> str:
    """Format a pydantic error as `KEY: expected …, got …`."""
    # The third part of a source's location is the tag of the union, which is no key of the file.
    location = [part for index, part in enumerate(problem["loc"]) if index != 2 or problem["loc"][1] != "source"]
    if location[-1] == "[key]":  # the key itself is wrong
        location.pop()
    key = ".".join(str(part) for part in location)
    given = problem["input"]
    match problem["type"]:
        case "unexpected_keyword_argument":
            known = sorted({f.name for section in _sections_at(problem["loc"][:-1]) for f in fields(section)})
            near = difflib.get_close_matches(str(location[-1]), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected {_join(known)}"
            return f"{key}: unknown key; {hint}"
        case "missing":
            return f"{key}: missing; expected every key of the recipe"
        case "union_tag_invalid":
            return f"{key}.kind: expected {problem['ctx']['expected_tags']}, got {problem['ctx']['tag']!r}"
        case "union_tag_not_found":
            return f"{key}.kind: missing; expected 'pypi', 'hub' or 'local'"
        case "dataclass_type" | "model_attributes_type":
            return f"{key}: expected a section with keys of its own, got {given!r}"
        case "string_pattern_mismatch":
            digits = 64 if "{64}" in problem["ctx"]["pattern"] else 40
            return f"{key}: expected {digits} hexadecimal digits (a pinned hash, no branch or tag), got {given!r}"
        case "too_short" | "too_long":
            bound = f"least {problem['ctx']['min_length']}" if "min_length" in problem["ctx"] else ""
            bound = bound or f"most {problem['ctx']['max_length']}"
            return f"{key}: expected a list of at {bound}, got {given!r}"
        case "string_too_short":
            return f"{key}: expected a text of at least 1 character, got {given!r}"
    expected = re.sub(r"^(Input should be|Value error,) ", "", problem["msg"])
    return f"{key}: expected {expected}, got {given!r}"


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
        case [name]:
            return [{"task": Task, "model": Model, "train": Train, "evaluate": Evaluate, "run": Run}[name]]
        case _:
            return [Recipe]


def _join(names: Any) -> str:
    return ", ".join(str(name) for name in names)
