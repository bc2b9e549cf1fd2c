"""Read and check params.yaml: a valid recipe, or one line that names the key and what was expected."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

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
        expected = "the repository's root as the current folder, or a recipe written by `reprise compose`"
        raise UserError("not found", file=path, expected=expected) from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", file=path) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise UserError(f"{where}not valid YAML: {problem}", file=path) from None
    except YAMLError as error:
        raise UserError(f"not valid YAML: {' '.join(str(error).split())}", file=path) from None


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
        raise UserError(file=source, expected="the sections seed, task, model, train, evaluate and run")
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
    if len(task.labels) == 1 or len(set(task.labels)) != len(task.labels):
        expected = "at least two different labels, or [] for regression"
        yield KeyProblem("task.labels", f"got {task.labels}", expected)
    given = "null" if task.positive_label is None else repr(task.positive_label)
    if len(task.labels) == 2 and task.positive_label not in task.labels:
        expected = f"one of task.labels: {_join(task.labels)}; F1 is of that label"
        yield KeyProblem("task.positive_label", f"got {given}", expected)
    if len(task.labels) != 2 and task.positive_label is not None:
        yield KeyProblem("task.positive_label", f"got {given}", "null, as there are not two labels")
    allowed = metrics_of(task.kind.name)
    for metric in task.metrics:
        if metric not in allowed:
            reason = "" if task.labels else " (task.labels is empty)"
            yield KeyProblem(
                "task.metrics", f"{metric!r} does not fit {task.kind.name}{reason}", f"one of {_join(allowed)}"
            )
    if task.split and task.split.validation + task.split.test >= 1:
        yield KeyProblem("task.split", "no rows remain to train on", "validation + test below 1")
    if not {"train", "validation"} <= set(task.splits):
        key = "task.source.splits" if isinstance(task.source, HubDataset) else "task.source"
        given = _join(task.splits) or "none"
        yield KeyProblem(key, f"got {given}", "train and validation among its keys")
    if split not in task.splits:
        yield KeyProblem("evaluate.split", f"got {split!r}", f"one of {_join(task.splits)}")
    if task.submission:
        yield from _submission_problems(task.submission, task)
    if train.micro_batch_size and train.micro_batch_size > train.batch_size:
        expected = f"at most train.batch_size ({train.batch_size})"
        yield KeyProblem("train.micro_batch_size", f"got {train.micro_batch_size}", expected)
    if isinstance(train.bucket_lengths, list) and max(train.bucket_lengths) != train.max_length:
        expected = f"train.max_length ({train.max_length}) as the largest"
        yield KeyProblem("train.bucket_lengths", f"the largest is {max(train.bucket_lengths)}", expected)


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
    key, got, context = ".".join(str(part) for part in location), f"got {error['input']!r}", error.get("ctx", {})
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
        case [name]:
            return [{"task": Task, "model": Model, "train": Train, "evaluate": Evaluate, "run": Run}[name]]
        case _:
            return [Recipe]


def _join(names: Any) -> str:
    return ", ".join(str(name) for name in names)
