"""Training rows in several files: found by their numbers, and few of the files mapped at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from reprise.data.format import split_shards
from reprise.train import dataset as shards
from reprise.train.dataset import ShardedDataset
from reprise.train.sampler import SHUFFLE_SHARDS, plan_epoch

COLUMNS = {"input_ids", "token_type_ids", "label", "length"}


def test_rows_are_found_by_their_numbers_across_the_files(at: Path, in_shards: int) -> None:
    files = split_shards("train")
    assert [file.name for file in files] == [f"train-{number:05d}-of-00009.arrow" for number in range(9)]
    together = concatenate_datasets([Dataset.from_file(str(file)) for file in files])
    rows = ShardedDataset(files)
    assert len(rows) == len(together) == 144
    numbers = [143, 0, 16, 15, 17, 0, 100]
    found = rows.__getitems__(numbers)
    assert [set(row) for row in found] == [COLUMNS] * len(numbers)
    assert found == [{name: together[number][name] for name in COLUMNS} for number in numbers]
    assert rows.lengths.tolist() == together["length"][:]


def test_one_file_gives_the_rows_that_it_holds(at: Path) -> None:
    rows, whole = ShardedDataset(split_shards("train")), Dataset.from_file("data/prepared/train.arrow")
    assert rows.__getitems__([5, 3]) == [{name: whole[number][name] for name in COLUMNS} for number in (5, 3)]


def test_in_an_epoch_files_are_opened_again_only_where_a_part_begins(
    at: Path, in_shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def noting(file: Path) -> Any:
        opened.append(file)
        return mapped(file)

    mapped = shards._map_shard
    monkeypatch.setattr(shards, "_map_shard", noting)
    rows = ShardedDataset(split_shards("train"))
    assert sorted(opened) == rows.files  # for the lengths
    opened.clear()
    steps = plan_epoch(rows.lengths, seed=0, epoch=0, batch_size=3, micro_batch_size=3, shard=in_shards)
    for step in steps:
        rows.__getitems__(step.micro_batches[0])
    parts = -(-len(steps) // steps.steps_per_chunk)
    assert parts == 3
    assert set(opened) == set(rows.files)
    assert len(opened) <= len(rows.files) + (parts - 1)
    assert rows._open_shard.cache_info().currsize == SHUFFLE_SHARDS + 2
    assert np.array_equal(np.sort([row for step in steps for row in step.micro_batches[0]]), np.arange(144))
