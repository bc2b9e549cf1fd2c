"""The splits of each fold: no example is in two, none is lost, and the data are prepared once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinds_of_tasks import prepare_again, prepare_topics, prepare_windows, prepare_words
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.data.format import SHARD_ROWS, input_shards, split_shards, stats_path
from reprise.data.windows import join_windows
from reprise.modeling.splits import load_inputs, load_labels, load_split, split_parts, train_stats
from reprise.prepare import stage as prepare_stage
from tiny import tiny_recipe

FOLDS = 4
DIVIDED = {"task.split.validation": None, "task.split.folds": FOLDS}


def prepare_plain(_: Path) -> dict[str, Any]:
    return {}


def prepare_folds(changes: dict[str, Any]) -> dict[str, Any]:
    """Prepare what `prepare_kind` has written again, in folds."""
    return prepare_again(changes | DIVIDED)


def in_fold(fold: int | None) -> dict[str, list[str]]:
    return {split: load_split(split, fold)["text"][:] for split in ("train", "validation", "test")}


@pytest.mark.parametrize(
    ("prepare_kind", "shard_rows"),
    [
        (prepare_plain, 16),
        (prepare_windows, 16),
        (prepare_words, SHARD_ROWS),
        pytest.param(prepare_plain, SHARD_ROWS, marks=pytest.mark.full),
        pytest.param(prepare_windows, SHARD_ROWS, marks=pytest.mark.full),
        pytest.param(prepare_words, 16, marks=pytest.mark.full),
        pytest.param(prepare_topics, 16, marks=pytest.mark.full),
        pytest.param(prepare_topics, SHARD_ROWS, marks=pytest.mark.full),
    ],
)
def test_each_example_validates_once_and_trains_in_the_other_folds(
    workdir: Path, prepare_kind: Callable[[Path], dict[str, Any]], shard_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_stage, "SHARD_ROWS", shard_rows)
    recipe = check_recipe(tiny_recipe(**prepare_folds(prepare_kind(workdir))), "recipe")
    kind = recipe.task.kind
    whole = in_fold(None)
    assert in_fold(0) == whole
    together = sorted(whole["train"] + whole["validation"])
    validated = []
    for fold in range(FOLDS):
        splits = in_fold(fold)
        assert splits["test"] == whole["test"]
        assert not set(splits["train"]) & set(splits["validation"])
        assert sorted(splits["train"] + splits["validation"]) == together
        validated += splits["validation"]
        for split in ("train", "validation"):
            labels, inputs = load_labels(split, fold), load_inputs(split, fold)
            assert len(labels) == len(splits[split])
            assert set(inputs.column_names) & {"text", "id", "fold"} == set()
            examples = inputs["example"][:] if recipe.data.windows else None
            joined = join_windows(examples, np.zeros((len(inputs), 1), np.float32), "mean")
            assert len(joined) == len(labels)
        stats = train_stats(kind, fold)
        assert stats.items() >= kind.label_stats(load_labels("train", fold)).items()
        assert stats["num_examples"] == len(splits["train"])
    assert sorted(validated) == together
    assert len(set(validated)) == len(validated)


@pytest.mark.parametrize("prepare_kind", [prepare_words, prepare_windows])
def test_windows_are_in_the_fold_of_their_text(
    workdir: Path, prepare_kind: Callable[[Path], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_stage, "SHARD_ROWS", 16)
    prepare_folds(prepare_kind(workdir))
    folds = np.asarray(load_split("train")["fold"][:])
    assert input_shards("train") != split_shards("train")
    for fold in range(1, FOLDS):
        example = np.asarray(load_inputs("validation", fold)["example"][:])
        assert set(example) == set(np.flatnonzero(folds == fold))
        assert np.all(np.diff(example) >= 0)


def test_the_fold_of_the_recipe_changes_no_byte_of_the_prepared_data(workdir: Path) -> None:
    found = []
    for fold in (None, 0, 3):
        prepare_again(DIVIDED | {"train.fold": fold})
        found.append({file.name: file.read_bytes() for file in sorted(Path("data/prepared").glob("*"))})
    assert found[0] == found[1] == found[2]


def test_data_without_folds_is_refused(workdir: Path) -> None:
    assert split_parts("train", 0) == split_parts("train")
    with pytest.raises(UserError, match="prepared without folds") as refused:
        load_split("validation", 1)
    assert refused.value.file == "data/prepared/train.arrow"


def test_a_fold_without_a_prepared_example_is_refused(workdir: Path) -> None:
    prepare_again(DIVIDED)
    with pytest.raises(UserError, match="no example of fold 4") as refused:
        load_split("validation", FOLDS)
    assert refused.value.key == "train.fold"


def test_without_a_fold_the_statistics_are_those_of_the_file(workdir: Path) -> None:
    stats = json.loads(stats_path().read_text())["splits"]["train"]
    assert train_stats(check_recipe(tiny_recipe(), "recipe").task.kind) == stats
