"""params.yaml is read key by key; an invalid one is refused in one line that names the key."""

import dataclasses
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml

from reprise.commands.compose import compose_recipe, write_recipe
from reprise.core.config import RENAMED_KEYS, HubModel, LocalDataset, Recipe, to_dict
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe, read_recipe
from reprise.tasks.metrics.registry import METRICS
from tiny import ROOT, committed, tiny_recipe, write_params

ABSENT = object()

WHEEL = {"kind": "pypi", "distribution": "d", "version": "1.0", "sha256": "0" * 64, "path": "p"}
HUB_TABLES = {"kind": "hub", "repo": "a/b", "config": "c", "revision": "0" * 40}
SPLITS = {"train": "train", "validation": "validation_matched", "test": "test_matched"}
HUB_MODEL = {"kind": "hub", "repo": "a/b", "revision": "0" * 40}
LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}
TEACHER = {"teacher": "data/own/teacher"}
FREEZE = "null, embeddings, or how many of the encoder's first layers are frozen with them"
# Changes of the recipe to labels of words.
WORDS = {"task.token_classification": {"subwords": "first"}, "task.metrics": ["entity_f1"], "task.positive_label": None}
WEIGHTS = "balanced, or a positive number for each label, such as {rotten: 1.0, fresh: 2.5}"


def recipe_with(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the tiny recipe with changes by dotted key; ABSENT removes the key."""
    recipe = tiny_recipe(**{key: value for key, value in changes.items() if value is not ABSENT})
    for key in (key for key, value in changes.items() if value is ABSENT):
        *sections, last = key.split(".")
        section = recipe
        for name in sections:
            section = section[name]
        del section[last]
    return recipe


def refusal(content: Any) -> UserError:
    """Return the error for `content` as params.yaml, which is one line."""
    with pytest.raises(UserError) as refused:
        check_recipe(content, "params.yaml")
    assert "\n" not in str(refused.value)
    return refused.value


def problem_of_text(folder: Path, text: str | bytes) -> str:
    """Return the problem with a params.yaml with this text."""
    file = folder / "params.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        read_recipe(file)
    assert refused.value.file == str(file)
    assert "\n" not in str(refused.value)
    return refused.value.problem


def head_overrides() -> list[str]:
    """Return the overrides in the head comment of the committed params.yaml."""
    head = committed("params.yaml").splitlines()[0]
    command = shlex.split(head.removeprefix("# Made by: "))
    assert command[:2] == ["reprise", "compose"]
    return command[2:]


@pytest.mark.parametrize("overrides", [[], head_overrides()], ids=["defaults", "head comment"])
def test_the_committed_recipe_equals_the_composed_one(overrides: list[str], tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(committed("params.yaml"), encoding="utf-8")
    assert to_dict(read_recipe(tmp_path / "params.yaml")) == compose_recipe(overrides, ROOT / "recipes")


def test_the_command_in_the_head_comment_writes_the_committed_bytes(tmp_path: Path) -> None:
    written = tmp_path / "params.yaml"
    write_recipe(compose_recipe(head_overrides(), ROOT / "recipes"), head_overrides(), written)
    assert written.read_text(encoding="utf-8") == committed("params.yaml")


@pytest.mark.parametrize(("spelled", "number"), [("5e-5", 5e-5), ("5E-5", 5e-5), ("5.0e-05", 5e-5), ("1", 1.0)])
def test_a_number_without_a_dot_is_a_number_for_dvc_too(tmp_path: Path, spelled: str, number: float) -> None:
    write_params(tmp_path)
    file = tmp_path / "params.yaml"
    text, count = re.subn("learning_rate: .*", f"learning_rate: {spelled}", file.read_text())
    assert count == 1
    file.write_text(text)
    assert read_recipe(file).train.learning_rate == number
    assert load_yaml(str(file))["train"]["learning_rate"] == number


def test_the_tiny_recipe_is_read_key_by_key(tmp_path: Path) -> None:
    write_params(tmp_path)
    recipe = read_recipe(tmp_path / "params.yaml")
    assert to_dict(recipe) == tiny_recipe()
    assert isinstance(recipe.task.source, LocalDataset)
    assert recipe.task.kind.name == "classification"


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        # An unknown key, unlike any known one
        ({"zzz": 1}, "zzz", "data, evaluate, model, run, seed, task, train"),
        ({"evaluate.files": 1}, "evaluate.files", "batch_size, bootstrap_resamples, split"),
        ({"files": 1}, "files", "data, evaluate, model, run, seed, task, train"),
        (
            {"model.source": {**HUB_MODEL, "config": "c"}},
            "model.source.config",
            "kind, repo, revision",
        ),
        # A missing key
        ({"seed": ABSENT}, "seed", "every key of the recipe"),
        ({"train": ABSENT}, "train", "every key of the recipe"),
        ({"train.epochs": ABSENT}, "train.epochs", "every key of the recipe"),
        ({"task.split.test": ABSENT}, "task.split.test", "every key of the recipe"),
        ({"model.source.path": ABSENT}, "model.source.path", "every key of the recipe"),
        ({"task.source": HUB_MODEL}, "task.source.config", "every key of the recipe"),
        ({"task.source.kind": ABSENT}, "task.source.kind", "'pypi', 'hub' or 'local'"),
        # A value of the wrong type
        ({"train.epochs": "2"}, "train.epochs", "a valid integer"),
        ({"train.epochs": 1.5}, "train.epochs", "a valid integer"),
        ({"train.epochs": True}, "train.epochs", "a valid integer"),
        ({"train.learning_rate": "5e-5x"}, "train.learning_rate", "a valid number"),
        ({"train.learning_rate": "1\n2"}, "train.learning_rate", "a valid number"),
        ({"task": None}, "task", "a section with keys of its own"),
        ({"task": "mrpc"}, "task", "a section; `reprise compose task=mrpc` chooses it from the catalog"),
        ({"task.split": 0.1}, "task.split", "a section with keys of its own"),
        ({"task.source": "data.csv"}, "task.source", "a section with keys of its own"),
        ({"task.name": 3}, "task.name", "a valid string"),
        ({"task.text_columns": "text"}, "task.text_columns", "a valid list"),
        ({"task.labels": None}, "task.labels", "a valid list"),
        (
            {"task.labels": [True, False]},
            "task.labels.0",
            'a text in quotes, "yes", "on" or "true": YAML reads it as a truth value without them',
        ),
        ({"task.labels": ["a", None]}, "task.labels.1", 'a text in quotes, such as "1.5", "null" or "a: b"'),
        ({"task.filter": {"verdict": "fresh"}}, "task.filter.verdict", "a valid list"),
        ({"task.source": {**WHEEL, "version": 1.0}}, "task.source.version", "a valid string"),
        # A value out of range
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"train.epochs": 0}, "train.epochs", "greater than 0"),
        ({"train.learning_rate": 0}, "train.learning_rate", "greater than 0"),
        ({"train.learning_rate": float("nan")}, "train.learning_rate", "a finite number"),
        ({"train.learning_rate": float("inf")}, "train.learning_rate", "a finite number"),
        ({"train.weight_decay": -0.1}, "train.weight_decay", "greater than or equal to 0"),
        ({"train.warmup_ratio": 1.0}, "train.warmup_ratio", "less than 1"),
        ({"train.max_length": 3}, "train.max_length", "greater than or equal to 4"),
        ({"train.max_steps": 0}, "train.max_steps", "greater than 0"),
        ({"train.lr_scheduler": "step"}, "train.lr_scheduler", "'linear', 'cosine' or 'constant'"),
        ({"train.precision": "fp16"}, "train.precision", "'bf16', 'fp32' or 'fp32-portable'"),
        ({"train.precision": "fp32-portable"}, "train.threads", "a number, since it divides sums, such as 2"),
        ({"train.threads": 0}, "train.threads", "greater than 0"),
        ({"train.keep_epoch": "first"}, "train.keep_epoch", "'best' or 'last'"),
        ({"train.loss": {"class_weights": "even"}}, "train.loss.class_weights", WEIGHTS),
        ({"train.loss": {"class_weights": {"rotten": 1.0, "fresh": 0.0}}}, "train.loss.class_weights", WEIGHTS),
        (
            {"train.loss": {"class_weights": {"rotten": 1.0}}},
            "train.loss.class_weights",
            "balanced, or a weight for each of rotten, fresh",
        ),
        (WORDS, "data.windows", "windows such as {stride: 32, pooling: null}, so that no word is lost"),
        (
            WORDS | {"task.labels": [], "data.windows": {"stride": 2, "pooling": None}},
            "task.labels",
            "the labels of task.token_classification",
        ),
        (
            WORDS | {"data.windows": {"stride": 2, "pooling": "mean"}},
            "data.windows.pooling",
            "null for token classification",
        ),
        ({"data.windows": {"stride": 2, "pooling": None}}, "data.windows.pooling", "mean, max or first"),
        (
            {"data.windows": {"stride": 8, "pooling": "mean"}},
            "data.windows.stride",
            "less than half of train.max_length (16)",
        ),
        (
            {"data.windows": {"stride": 2, "pooling": "mean"}, "task.text_columns": ["text", "film"]},
            "data.windows",
            "null, or one column in task.text_columns",
        ),
        (
            WORDS | {"task.multi_label": {"separator": None, "thresholds": "tuned"}},
            "task.multi_label",
            "null, beside task.token_classification",
        ),
        (
            WORDS | {"train.loss": {"class_weights": "balanced"}, "data.windows": {"stride": 2, "pooling": None}},
            "train.loss.class_weights",
            "null, since a word may have no label",
        ),
        ({"train.loss": {"label_smoothing": 1.0}}, "train.loss.label_smoothing", "less than 1"),
        ({"train.loss": {"label_smoothing": 0.1, "focal_gamma": 2.0}}, "train.loss.focal_gamma", "one of the two"),
        (
            {"train.loss": {"label_smoothing": 0.1}, "task.labels": [], "task.metrics": ["rmse"]},
            "train.loss",
            "null, since task.labels is empty (regression)",
        ),
        ({"train.calibration": "platt"}, "train.calibration", "'temperature'"),
        (
            {"train.calibration": "temperature", "task.labels": [], "task.metrics": ["rmse"]},
            "train.calibration",
            "null, since task.labels is empty (regression)",
        ),
        ({"train.freeze": "encoder"}, "train.freeze", FREEZE),
        ({"train.freeze": 0}, "train.freeze", FREEZE),
        ({"train.freeze": True}, "train.freeze", FREEZE),
        ({"train.freeze": 2, "train.lora": LORA}, "train.freeze", "null, since train.lora freezes the encoder"),
        ({"train.layer_decay": 0.0}, "train.layer_decay", "greater than 0"),
        ({"train.layer_decay": 1.1}, "train.layer_decay", "less than or equal to 1"),
        ({"train.dropout": 1.0}, "train.dropout", "less than 1"),
        ({"train.dropout": -0.1}, "train.dropout", "greater than or equal to 0"),
        ({"train.num_hidden_layers": 0}, "train.num_hidden_layers", "greater than 0"),
        ({"train.num_hidden_layers": 2.0}, "train.num_hidden_layers", "a valid integer"),
        (
            {"train.distill": {"teacher": "models/final"}},
            "train.distill.teacher",
            "a path under data/own/, the folder that DVC watches for changes",
        ),
        ({"train.distill": {"alpha": 0.5}}, "train.distill.teacher", "every key of the recipe"),
        ({"train.distill": TEACHER | {"alpha": 1.1}}, "train.distill.alpha", "less than or equal to 1"),
        ({"train.distill": TEACHER | {"temperature": 0.0}}, "train.distill.temperature", "greater than 0"),
        (
            {"train.distill": TEACHER | {"temperature": None}},
            "train.distill.temperature",
            "a positive number, such as 2.0",
        ),
        (
            {"train.distill": TEACHER, "task.labels": [], "task.metrics": ["rmse"]},
            "train.distill.temperature",
            "null, since task.labels is empty (regression)",
        ),
        (
            {"train.distill": TEACHER, "data.windows": {"stride": 2, "pooling": "mean"}},
            "train.distill",
            "null, or texts without windows",
        ),
        ({"train.early_stopping": {"patience": 0}}, "train.early_stopping.patience", "greater than 0"),
        ({"train.early_stopping": {"min_delta": 0.1}}, "train.early_stopping.patience", "every key of the recipe"),
        ({"evaluate.split": "dev"}, "evaluate.split", "one of train, validation, test"),
        ({"evaluate.split": 1}, "evaluate.split", "a valid string"),
        (
            {"evaluate.bootstrap_resamples": 10},
            "evaluate.bootstrap_resamples",
            "greater than or equal to 100",
        ),
        ({"task.max_examples": 0}, "task.max_examples", "greater than 0"),
        ({"task.split.validation": 0}, "task.split.validation", "greater than 0"),
        ({"task.text_columns": []}, "task.text_columns", "a list of at least 1"),
        (
            {"task.text_columns": ["a", "b", "c"]},
            "task.text_columns",
            "a list of at most 2",
        ),
        ({"task.metrics": []}, "task.metrics", "a list of at least 1"),
        (
            {"task.metrics": ["acc"]},
            "task.metrics.0",
            f"one of {', '.join(METRICS)}",
        ),
        (
            {"run.trackers": ["tensorbord"]},
            "run.trackers.0",
            "'tensorboard', 'mlflow', 'wandb' or 'trackio'",
        ),
        ({"run.trackers": "mlflow"}, "run.trackers", "a valid list"),
        (
            {"run.trackers": ["wandb", "wandb"]},
            "run.trackers",
            "each name once",
        ),
        # An unknown source, or one that is not pinned
        ({"task.source.kind": "git"}, "task.source.kind", "'pypi', 'hub', 'local'"),
        (
            {"model.source": {**HUB_MODEL, "revision": "main"}},
            "model.source.revision",
            "40 hexadecimal digits (a pinned hash, no branch or tag)",
        ),
        (
            {"task.source": {**HUB_TABLES, "revision": "v1.0"}},
            "task.source.revision",
            "40 hexadecimal digits (a pinned hash, no branch or tag)",
        ),
        (
            {"task.source": {**WHEEL, "sha256": "ABC"}},
            "task.source.sha256",
            "64 hexadecimal digits (a pinned hash, no branch or tag)",
        ),
        (
            {"task.source.train": "reviews.csv"},
            "task.source.train",
            "a path under data/own/, the folder that DVC watches for changes",
        ),
        (
            {"model.source.path": "data/own/../../elsewhere"},
            "model.source.path",
            "a path under data/own/, the folder that DVC watches for changes",
        ),
        # Splits with other names than on the Hub
        (
            {"task.source": {**HUB_TABLES, "splits": ["train", "validation"]}},
            "task.source.splits",
            "a valid dictionary",
        ),
        (
            {"task.source": {**HUB_TABLES, "splits": {"train": "train", "../validation": "dev"}}},
            "task.source.splits.../validation",
            "a split's name of letters, digits and underscores",
        ),
        (
            {"task.source": {**HUB_TABLES, "splits": {"train": "train", "validation": "*"}}},
            "task.source.splits.validation",
            "a split's name of letters, digits and underscores",
        ),
        (
            {"task.source": {**HUB_TABLES, "splits": {"train": "train", "test": "test"}}, "task.split": None},
            "task.source.splits",
            "train and validation among its keys",
        ),
        (
            {"task.source": {**HUB_TABLES, "splits": {}}},
            "task.source.splits",
            "train and validation among its keys",
        ),
        (
            {"task.source": {**HUB_TABLES, "splits": SPLITS}, "evaluate.split": "test_matched"},
            "evaluate.split",
            "one of train, validation, test",
        ),
        (
            {"task.source": {**HUB_TABLES, "splits": {**SPLITS, "other": "x"}}, "evaluate.split": "toast"},
            "evaluate.split",
            "one of train, validation, test, other",
        ),
        # A submission to a benchmark
        ({"task.submission": "names"}, "task.submission", "a section with keys of its own"),
        (
            {"task.submission": {"files": {"test": "A.tsv"}}},
            "task.submission.labels",
            "every key of the recipe",
        ),
        (
            {"task.submission": {"files": {"test": "A.tsv"}, "labels": "ids"}},
            "task.submission.labels",
            "'names' or 'numbers'",
        ),
        (
            {"task.submission": {"files": {}, "labels": "names"}},
            "task.submission.files",
            "a file for at least one split",
        ),
        (
            {"task.submission": {"files": {"test": "../A.tsv"}, "labels": "names"}},
            "task.submission.files.test",
            "the name of a file without a folder, such as MRPC.tsv",
        ),
        (
            {"task.submission": {"files": {"test_mismatched": "A.tsv"}, "labels": "names"}},
            "task.submission.files",
            "splits among train, validation, test",
        ),
        (
            {"task.submission": {"files": {"validation": "A.tsv", "test": "A.tsv"}, "labels": "names"}},
            "task.submission.files",
            "a file of its own for each split",
        ),
        (
            {
                "task.submission": {"files": {"test": "A.tsv"}, "labels": "names"},
                "task.labels": [],
                "task.metrics": ["pearson"],
            },
            "task.submission.labels",
            "numbers, since task.labels is empty (regression)",
        ),
        # Contradicting values
        (
            {"task.metrics": ["accuracy", "pearson"]},
            "task.metrics",
            "one of accuracy, f1, f1_weighted, precision, recall, balanced_accuracy, matthews",
        ),
        (
            {"task.labels": []},
            "task.metrics",
            "one of pearson, spearman, rmse, mae, r2",
        ),
        ({"task.text_columns": ["a", "a"]}, "task.text_columns", "two different columns"),
        (
            {"task.positive_label": None},
            "task.positive_label",
            "one of task.labels: rotten, fresh; F1 is of that label",
        ),
        (
            {"task.labels": ["no", "yes"], "task.positive_label": "fresh"},
            "task.positive_label",
            "one of task.labels: no, yes; F1 is of that label",
        ),
        (
            {"task.labels": ["a", "b", "c"], "task.positive_label": "a"},
            "task.positive_label",
            "null, as there are not two labels",
        ),
        (
            {"task.labels": ["fresh"]},
            "task.labels",
            "at least two different labels, or [] for regression",
        ),
        (
            {"task.labels": [0, "0"]},
            "task.labels",
            "at least two different labels, or [] for regression",
        ),
        (
            {"task.split.validation": 0.5, "task.split.test": 0.5},
            "task.split",
            "validation + test below 1",
        ),
        (
            {"task.split.validation": 0.1, "task.split.folds": 5},
            "task.split.validation",
            "null, since the first of task.split.folds is the validation split",
        ),
        ({"train.fold": 0}, "train.fold", "null, since task.split.folds is null"),
        (
            {"task.split.validation": None, "task.split.folds": 5, "train.fold": 5},
            "train.fold",
            "below task.split.folds (5)",
        ),
        ({"train.fold": -1}, "train.fold", "greater than or equal to 0"),
        ({"task.split.folds": 1}, "task.split.folds", "greater than or equal to 2"),
        ({"task.split.folds": 2.5}, "task.split.folds", "a valid integer"),
        ({"task.split.stratify": "yes"}, "task.split.stratify", "a valid boolean"),
        (
            {"task.split.group_by": None, "task.split.group_texts": False},
            "task.split.group_texts",
            "true, or a column in task.split.group_by: else copies of a text are in several splits",
        ),
        (
            {"task.split.order_by": "day", "task.split.validation": None, "task.split.folds": 5},
            "task.split.folds",
            "null, since task.split.order_by cuts by time",
        ),
        (
            {"task.split.order_by": "day", "task.split.stratify": True},
            "task.split.stratify",
            "false, since task.split.order_by cuts by time",
        ),
        (
            {"task.split.order_by": "day", "task.split.seed": 3},
            "task.split.seed",
            "0, since task.split.order_by cuts by time",
        ),
        (
            {"task.split.validation": None, "task.split.test": None},
            "task.split",
            "one for validation or test, or null for the whole section",
        ),
        (
            {"task.split.test": None},
            "evaluate.split",
            "one of train, validation",
        ),
        (
            {"train.micro_batch_size": 17},
            "train.micro_batch_size",
            "at most train.batch_size (16)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_invalid_recipe_is_refused_by_its_key(changes: dict[str, Any], key: str, expected: str) -> None:
    error = refusal(recipe_with(changes))
    assert (error.file, error.key, error.expected) == ("params.yaml", key, expected)


@pytest.mark.parametrize(
    ("changes", "key", "near"),
    [
        ({"train.lerning_rate": 1e-4}, "train.lerning_rate", "learning_rate"),
        ({"train.epoch": 3, "train.epochs": ABSENT}, "train.epoch", "epochs"),
        ({"sed": 1}, "sed", "seed"),
        ({"task.split.validatio": 0.1}, "task.split.validatio", "validation"),
        ({"task.source.valid": "x"}, "task.source.valid", "validation"),
        ({"task.source": {**HUB_TABLES, "split": SPLITS}}, "task.source.split", "splits"),
        (
            {"task.submission": {"file": {"test": "A.tsv"}, "labels": "names", "files": {"test": "A.tsv"}}},
            "task.submission.file",
            "files",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_most_similar_known_one(
    changes: dict[str, Any], key: str, near: str
) -> None:
    error = refusal(recipe_with(changes))
    assert (error.file, error.key) == ("params.yaml", key)
    assert error.problem.removesuffix(" (and 1 more)").endswith(f"did you mean {near}?")


@pytest.mark.parametrize(
    ("key", "value"), [("train.epochs", "2"), ("train.learning_rate", "1\n2"), ("task", None), ("task.metrics", [])]
)
def test_the_given_value_is_quoted_on_one_line(key: str, value: object) -> None:
    assert refusal(recipe_with({key: value})).problem == f"got {value!r}"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"task.metrics": ["accuracy", "pearson"]}, "'pearson' does not fit classification"),
        ({"task.labels": []}, "'accuracy' does not fit regression (task.labels is empty)"),
        ({"task.text_columns": ["a", "a"]}, "'a' twice"),
        ({"task.labels": [0, "0"]}, "['0', '0']"),
        (
            {"task.source": {**HUB_TABLES, "splits": {"train": "train", "test": "test"}}, "task.split": None},
            "train, test",
        ),
        ({"task.source": {**HUB_TABLES, "splits": {}}, "task.split": None}, "none"),
        ({"evaluate.split": "dev"}, "'dev'"),
        ({"task.submission": {"files": {"other": "A.tsv"}, "labels": "names"}}, "'other'"),
        ({"train.micro_batch_size": 17}, "17"),
        ({"train.bucket_lengths": [8]}, "8"),
    ],
)
def test_a_contradiction_quotes_the_values_that_do_not_fit(changes: dict[str, Any], part: str) -> None:
    assert refusal(recipe_with(changes)).problem.endswith(part)


def test_the_number_of_further_problems_is_given() -> None:
    assert refusal(recipe_with({"train.epoch": 3, "train.epochs": ABSENT})).problem.endswith("? (and 1 more)")


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_a_renamed_key_names_the_new_one(old: str, new: str) -> None:
    assert str(refusal(tiny_recipe(**{old: 1}))) == f"params.yaml: {old} was renamed to {new}"


@pytest.mark.parametrize("section", ["task", "model"])
def test_a_renamed_kind_of_source_names_the_new_one(section: str) -> None:
    error = refusal(tiny_recipe(**{f"{section}.source.kind": "files"}))
    assert (error.file, error.key) == ("params.yaml", f"{section}.source.kind")
    assert error.problem == "'files' was renamed to 'local'"


def test_an_empty_string_is_refused_with_the_minimum_length() -> None:
    error = refusal(recipe_with({"task.name": ""}))
    assert (error.key, error.problem) == ("task.name", "got ''")
    assert error.expected.endswith("at least 1 character")


@pytest.mark.parametrize("content", [None, [], "seed: 42", 42], ids=repr)
def test_a_file_without_sections_is_refused_with_the_expected_ones(content: object) -> None:
    error = refusal(content)
    assert (error.file, error.key) == ("params.yaml", "")
    assert error.expected == "the sections seed, task, model, train, evaluate, run and data"


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"task.source": WHEEL}, "task.source.kind", "pypi"),
        ({"task.source": HUB_TABLES}, "task.source.config", "c"),
        ({"model.source": HUB_MODEL}, "model.source.revision", "0" * 40),
        ({"task.split": None}, "task.split", None),
        ({"task.split.test": None, "evaluate.split": "validation"}, "task.splits", ("train", "validation")),
        (
            {"task.source": {**HUB_TABLES, "splits": {"train": "train", "test": "test"}}, "task.split.test": None},
            "task.splits",
            ("train", "test", "validation"),
        ),
        ({"task.source": HUB_TABLES}, "task.source.splits", None),
        ({"task.source": {**HUB_TABLES, "splits": SPLITS}}, "task.splits", ("train", "validation", "test")),
        (
            {"task.source": {**HUB_TABLES, "splits": {**SPLITS, "other": "x"}}, "evaluate.split": "other"},
            "evaluate.split",
            "other",
        ),
        ({"task.submission": {"files": {"test": "A.tsv"}, "labels": "names"}}, "task.submission.labels", "names"),
        ({"task.labels": [], "task.metrics": ["pearson", "spearman"]}, "task.kind.name", "regression"),
        ({"train.micro_batch_size": 16}, "train.micro_batch_size", 16),
        ({"train.warmup_ratio": 0}, "train.warmup_ratio", 0.0),
        ({"train.weight_decay": 0}, "train.weight_decay", 0.0),
    ],
)
def test_values_at_the_edge_of_their_range_are_accepted(changes: dict[str, Any], field: str, value: object) -> None:
    found: Any = check_recipe(recipe_with(changes), "params.yaml")
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value


def test_integer_labels_are_read_as_text() -> None:
    recipe = check_recipe(tiny_recipe(**{"task.labels": [0, 1], "task.filter": {"verdict": [0, "1"]}}), "params.yaml")
    assert recipe.task.labels == ["0", "1"]
    assert recipe.task.filter == {"verdict": ["0", "1"]}


def test_yes_and_no_are_read_as_labels_and_not_as_booleans(tmp_path: Path) -> None:
    write_params(tmp_path, **{"task.filter": None})
    file = tmp_path / "params.yaml"
    text, count = re.subn(
        r"labels:\n *- rotten\n *- fresh\n *positive_label: fresh",
        "labels: [no, yes]\n  positive_label: yes",
        file.read_text(),
    )
    assert count == 1
    file.write_text(text)
    assert read_recipe(file).task.labels == ["no", "yes"]
    assert read_recipe(file).task.positive_label == "yes"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: 42\ntask: [text\n", "line 3, column 1: not valid YAML: "),
        ("seed: 42\n\ttask: 1\n", "line 2, column 1: not valid YAML: "),
        ("seed: *nothing\n", "line 1, column 7: not valid YAML: found undefined alias 'nothing'"),
        ("seed: 1\n---\nseed: 2\n", "line 2, column 1: not valid YAML: "),
        ("seed: !!python/object:os.system x\n", "line 1, column 7: not valid YAML: "),
        ("seed: \x01\n", "not valid YAML: unacceptable character #x0001"),
    ],
)
def test_malformed_yaml_is_reported_with_line_and_column(tmp_path: Path, text: str, problem: str) -> None:
    assert problem_of_text(tmp_path, text).startswith(problem)


def test_a_duplicate_key_is_reported_with_its_second_line(tmp_path: Path) -> None:
    problem = problem_of_text(tmp_path, "seed: 1\nseed: 2\n")
    assert problem.startswith('line 2, column 1: not valid YAML: found duplicate key "seed"')


def test_a_file_that_is_not_utf8_is_reported_with_the_position_of_the_byte(tmp_path: Path) -> None:
    assert problem_of_text(tmp_path, "name: café\n".encode("latin-1")) == "not UTF-8 at byte 9"


LIMITS = {
    "train.epochs": 10_000,
    "train.batch_size": 2**20,
    "train.micro_batch_size": 2**20,
    "train.max_length": 2**20,
    "train.max_steps": 10**9,
    "evaluate.batch_size": 2**20,
    "evaluate.bootstrap_resamples": 100_000,
    "run.save_steps": 10**9,
    "task.max_examples": 10**9,
    "seed": 2**63 - 1,
    "task.split.seed": 2**63 - 1,
}


@pytest.mark.parametrize(("key", "limit"), LIMITS.items(), ids=LIMITS)
def test_every_number_of_a_recipe_has_a_limit(key: str, limit: int) -> None:
    fitting = {"train.micro_batch_size": {"train.batch_size": limit}}.get(key, {})
    check_recipe(tiny_recipe(**{key: limit}, **fitting), "params.yaml")
    for value in (limit + 1, 2**70, 10**5000):
        assert refusal(tiny_recipe(**{key: value})).key == key


def test_a_rank_a_label_and_the_number_of_labels_have_limits() -> None:
    lora = {"rank": 2**70, "alpha": 16.0, "targets": "all-linear"}
    assert refusal(tiny_recipe(**{"train.lora": lora})).key == "train.lora.rank"
    assert refusal(tiny_recipe(**{"task.labels": ["a", "b" * 1001]})).key == "task.labels.1"
    assert refusal(tiny_recipe(**{"task.labels": [str(n) for n in range(10_001)]})).key == "task.labels"


ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
MERGES = ALIASES.replace("[x, x]", "{k: v}").replace(" [", " {<<: [").replace("]", "]}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ALIASES, "not valid YAML: its aliases expand"),
        (MERGES, "not valid YAML: its aliases expand"),
        ("seed: &seed [*seed]", "nested too deeply"),
        ("seed: " + "[" * 100_000, "nested too deeply"),
        ("seed: " + "[" * 30 + "]" * 30, "nested too deeply"),
        ("".join(f"a{n}: &a{n} [*a{n - 1}]\n" if n else "a0: &a0 [x]\n" for n in range(50)), "nested too deeply"),
        ("seed: " + "x" * 10_000_000, "too long for a recipe"),
        ("task:\n  name: 2020-13-45\n", "line 2, column 9: not valid YAML: month"),
        ("seed: " + "9" * 5000, "line 1, column 7: not valid YAML: Exceeds the limit"),
        ("seed: !!int x", "line 1, column 7: not valid YAML: "),
        ("seed: [&a 1, &a 2]", "not valid YAML: found duplicate anchor"),
    ],
    ids=[
        "aliases", "merges", "inside itself", "open lists", "deep lists", "chain", "long", "date", "digits", "tag",
        "anchor",
    ],
)  # fmt: skip
def test_yaml_that_expands_or_cannot_be_read_is_refused_in_a_short_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    start = time.process_time()
    message = problem_of_text(tmp_path, text)
    assert message.startswith(problem)
    assert len(message) < 500
    assert time.process_time() - start < 10


def test_a_long_value_is_shortened_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"seed: 0x{'f' * 9000}\n")
    with pytest.raises(UserError) as refused:
        read_recipe(tmp_path / "params.yaml")
    assert (refused.value.key, len(str(refused.value)) < 500) == ("seed", True)
    assert len(str(refusal(tiny_recipe(**{"task.labels": ["x"] * 9000})))) < 500


def test_aliases_that_stay_small_are_read(tmp_path: Path) -> None:
    write_params(tmp_path)
    file = tmp_path / "params.yaml"
    text = file.read_text().replace("labels:\n", "labels: &labels\n", 1)
    text, count = re.subn(r"verdict:\n *- rotten\n *- fresh", "verdict: *labels", text)
    assert count == 1
    file.write_text(text)
    assert read_recipe(file).task.filter == {"verdict": ["rotten", "fresh"]}


def test_a_missing_file_is_reported_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found") as refused:
        read_recipe(tmp_path / "params.yaml")
    assert refused.value.file == str(tmp_path / "params.yaml")
    assert "`reprise compose`" in refused.value.expected


@pytest.mark.parametrize(
    "section", ["", "task", "task.source", "task.split", "task.submission", "model", "train", "evaluate"]
)
def test_a_recipe_is_immutable(section: str) -> None:
    submission = {"files": {"test": "A.tsv"}, "labels": "names"}
    part: Any = check_recipe(tiny_recipe(**{"task.submission": submission}), "params.yaml")
    for name in filter(None, section.split(".")):
        part = getattr(part, name)
    field = dataclasses.fields(part)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, field, getattr(part, field))


def test_equal_files_give_equal_recipes() -> None:
    first, second, other = (check_recipe(tiny_recipe(seed=seed), "params.yaml") for seed in (1, 1, 2))
    assert isinstance(first, Recipe)
    assert first == second != other


def test_the_order_of_the_keys_in_the_file_does_not_matter() -> None:
    backwards = dict(reversed(tiny_recipe(**{"model.source": HUB_MODEL}).items()))
    recipe = check_recipe(backwards, "params.yaml")
    assert list(to_dict(recipe)) == ["seed", "task", "model", "train", "evaluate", "run", "data"]
    assert isinstance(recipe.model.source, HubModel)


# A recipe is data: it can neither run code nor name what is outside.
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task.source.distribution", "corpus @ file:///x/corpus-1.0.tar.gz#"),
        ("task.source.distribution", "corpus\n--no-binary :all:"),
        ("task.source.distribution", "-r/etc/passwd"),
        ("task.source.distribution", "corpus[extra]"),
        ("task.source.version", "1.0 --no-binary corpus"),
        ("task.source.version", "1.0\n--index-url http://elsewhere"),
        ("task.source.version", "*"),
        ("task.source.path", "/etc/passwd"),
        ("task.source.path", "corpus/../../secret"),
        ("task.source.path", "corpus\\..\\secret"),
        ("task.source.path", "corpus/*"),
        ("task.name", "../../x"),
        ("task.name", "a/b"),
        ("task.name", ".hidden"),
        ("task.name", "a\nb"),
        ("model.name", "acme/tiny"),
        ("model.name", "x" * 101),
    ],
)
def test_a_recipe_cannot_name_code_or_places_outside(key: str, value: str) -> None:
    section, *rest = key.split(".")
    changes = {f"{section}.source": {**WHEEL, rest[-1]: value}} if rest[0] == "source" else {key: value}
    with pytest.raises(UserError) as caught:
        check_recipe(tiny_recipe(**changes), "params.yaml")
    assert (caught.value.file, caught.value.key) == ("params.yaml", key)


@pytest.mark.parametrize("config", ["/etc", "../data", "a/../../b", "*"])
def test_a_hub_configuration_is_a_folder_of_its_repository(config: str) -> None:
    source = {"kind": "hub", "repo": "nyu-mll/glue", "config": config, "revision": "0" * 40, "splits": None}
    with pytest.raises(UserError) as caught:
        check_recipe(tiny_recipe(**{"task.source": source}), "params.yaml")
    assert caught.value.key == "task.source.config"
