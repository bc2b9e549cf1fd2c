"""The training examples, which may exceed memory: a few of their files are mapped at a time."""

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
    """A map-style dataset over the Arrow files of a split.

    Pages of a mapped file count as memory of this process until the file is closed. sampler.py reads few shards at a
    time, so only those of one chunk of an epoch stay open: SHUFFLE_SHARDS, one more if the chunk begins within a shard,
    and one more if it contains the smaller last shard.
    """

    def __init__(self, files: list[Path]) -> None:
        """Open the files of a split in order; each except the last has SHARD_ROWS rows."""
        self.files = files
        self._open_shard = lru_cache(maxsize=SHUFFLE_SHARDS + 2)(_map_shard)
        # Not through `datasets`, which would create a list of Python integers: a minute for ten million rows.
        self.lengths = np.concatenate([_map_shard(file).data.column("length").to_numpy() for file in files])

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.lengths)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Return examples in the order of their indices: the model's inputs, label and length."""
        shards, offsets = np.divmod(indices, SHARD_ROWS)
        examples: dict[int, dict[str, Any]] = {}
        for shard in np.unique(shards):
            positions = np.flatnonzero(shards == shard)
            found = self._open_shard(self.files[shard]).__getitems__(offsets[positions].tolist())
            examples.update(zip(positions.tolist(), found, strict=True))
        return [examples[position] for position in range(len(indices))]


def _map_shard(file: Path) -> Dataset:
    return drop_text_columns(Dataset.from_file(str(file)))
