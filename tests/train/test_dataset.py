"""Training examples in several files: access by index, with few files mapped at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from kinds_of_tasks import prepare_windows, prepare_words
from reprise.core.validation import check_recipe
from reprise.data.format import input_shards, split_shards
from reprise.modeling.splits import SplitPart, split_parts
from reprise.train import dataset
from reprise.train.dataset import ShardedDataset
from reprise.train.sampler import SHUFFLE_SHARDS, plan_epoch
from tiny import tiny_recipe

COLUMNS = {"input_ids", "token_type_ids", "label", "length"}


def test_examples_are_found_by_index_across_files(workdir: Path, shard_rows: int) -> None:
    files = split_shards("train")
    assert [file.name for file in files] == [f"train-{number:05d}-of-00009.arrow" for number in range(9)]
    together = concatenate_datasets([Dataset.from_file(str(file)) for file in files])
    rows = ShardedDataset(split_parts("train"))
    assert len(rows) == len(together) == 144
    numbers = [143, 0, 16, 15, 17, 0, 100]
    found = rows.__getitems__(numbers)
    assert [set(row) for row in found] == [COLUMNS] * len(numbers)
    assert found == [{name: together[number][name] for name in COLUMNS} for number in numbers]
    assert rows.lengths.tolist() == together["length"][:]


def test_single_file_gives_its_examples(workdir: Path) -> None:
    rows, expected = ShardedDataset(split_parts("train")), Dataset.from_file("data/prepared/train.arrow")
    assert rows.__getitems__([5, 3]) == [{name: expected[number][name] for name in COLUMNS} for number in (5, 3)]


def test_files_are_reopened_only_at_the_start_of_a_chunk(
    workdir: Path, shard_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def recording_open(part: SplitPart, **options: bool) -> Any:
        opened.append(part.file)
        return map_shard(part, **options)

    map_shard = dataset._map_shard
    monkeypatch.setattr(dataset, "_map_shard", recording_open)
    rows = ShardedDataset(split_parts("train"))
    steps = plan_epoch(rows.lengths, seed=0, epoch=0, batch_size=3, micro_batch_size=3, shard=shard_rows)
    for step in steps:
        rows.__getitems__(step.micro_batches[0])
    chunks = -(-len(steps) // steps.steps_per_chunk)
    assert chunks == 3
    assert set(opened) == {part.file for part in rows.parts}
    assert len(opened) <= len(rows.parts) + (chunks - 1)
    assert rows._open_shard.cache_info().currsize == SHUFFLE_SHARDS + 2
    assert np.array_equal(np.sort([row for step in steps for row in step.micro_batches[0]]), np.arange(144))


@pytest.mark.parametrize("prepare_kind", [prepare_windows, prepare_words])
def test_windows_are_found_by_index_across_files_of_any_length(
    workdir: Path, shard_rows: int, prepare_kind: Callable[[Path], dict[str, Any]]
) -> None:
    recipe = check_recipe(tiny_recipe(**prepare_kind(workdir)), "recipe")
    files = input_shards("train")
    assert {file.parent.name for file in files} == {"windows"}
    examples = sum(len(Dataset.from_file(str(file))) for file in split_shards("train"))
    sizes = [len(Dataset.from_file(str(file))) for file in files]
    assert len(set(sizes)) > 1  # each of 16 texts
    together = concatenate_datasets([Dataset.from_file(str(file)) for file in files])
    rows = ShardedDataset(split_parts("train", inputs=True), recipe.task.kind)
    numbers = [sum(sizes) - 1, 0, sizes[0], sizes[0] - 1, sizes[0] + sizes[1]]
    found = [row["input_ids"] for row in rows.__getitems__(numbers)]
    assert found == [together[number]["input_ids"] for number in numbers]
    assert together["example"][:] == sorted(together["example"][:])
    assert set(together["example"][:]) == set(range(examples))
    assert rows.loss_weights is not None
    if recipe.task.kind.per_token:
        assert rows.loss_weights.sum() == sum(len(tokens) for tokens in together["word_tokens"][:])
    else:
        assert rows.loss_weights.sum() == pytest.approx(examples)
