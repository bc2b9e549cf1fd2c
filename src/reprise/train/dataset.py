"""The training rows, which may be more than memory holds: a few of their files are mapped at a time."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils import data

from reprise.data.format import SHARD_ROWS
from reprise.modeling.inference import drop_text_columns
from reprise.train.sampler import SHUFFLE_SHARDS


class ShardedDataset(data.Dataset[dict[str, Any]]):
    """Rows by their numbers, for a DataLoader.

    What was read of a mapped file counts as this process's memory until the file is let go. sampler.py asks for rows of
    few shards at a time, so no more stay open: those of one part of an epoch, whose borders may lie within a shard, and
    among which the last, smaller one may be.
    """

    def __init__(self, files: list[Path]) -> None:
        """`files` are the Arrow files of a split in their order, each but the last with SHARD_ROWS rows."""
        self.files = files
        self._open_shard = lru_cache(maxsize=SHUFFLE_SHARDS + 2)(_map_shard)
        # Through `datasets`, a column would become a list of Python's numbers first: a minute for ten million rows.
        self.lengths = np.concatenate([_map_shard(file).data.column("length").to_numpy() for file in files])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitems__(self, numbers: list[int]) -> list[dict[str, Any]]:
        """The rows of these numbers, in this order: the model's inputs, label and length."""
        shards, places = np.divmod(numbers, SHARD_ROWS)
        rows: dict[int, dict[str, Any]] = {}
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            found = self._open_shard(self.files[shard]).__getitems__(places[here].tolist())
            rows.update(zip(here.tolist(), found, strict=True))
        return [rows[place] for place in range(len(numbers))]


def _map_shard(file: Path) -> Dataset:
    return drop_text_columns(Dataset.from_file(str(file)))
