"""The rows that the model is trained on, which may exceed memory: a few of their files are mapped at a time.

A row is an example, or a window of one.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from torch.utils import data

from reprise.data.format import WINDOWS
from reprise.data.labels import label_array
from reprise.modeling.inference import drop_text_columns
from reprise.tasks.kind import TaskKind
from reprise.train.sampler import SHUFFLE_SHARDS


class ShardedDataset(data.Dataset[dict[str, Any]]):
    """A map-style dataset over the Arrow files of a split.

    Pages of a mapped file count as memory of this process until the file is closed. sampler.py reads few shards at a
    time, so only those of one chunk of an epoch stay open: SHUFFLE_SHARDS, one more if the chunk begins within a shard,
    and one more if it contains the smaller last shard. A shard of the order may lie in two files of windows.
    """

    def __init__(self, files: list[Path], kind: TaskKind | None = None) -> None:
        """Open the files of a split in order.

        Args:
            files: Arrow files of examples, or of windows.
            kind: fitted to the split, weighs the examples; without one, each weighs 1.
        """
        self.files, windows = files, files[0].parent.name == WINDOWS
        self._open_shard = lru_cache(maxsize=(2 if windows else 1) * SHUFFLE_SHARDS + 2)(_map_shard)
        lengths = self._parts("length")
        self.lengths, self.starts = np.concatenate(lengths), np.cumsum([0, *map(len, lengths)])  # starts of the files
        # The weight of each row's loss, shape [rows]; None if every row weighs 1.
        self.loss_weights = kind.loss_weights(lambda: np.concatenate(self._parts("label"))) if kind else None
        if kind and windows and not kind.per_token:
            of_windows = np.concatenate(self._parts("weight")).astype(np.float64)
            self.loss_weights = of_windows if self.loss_weights is None else of_windows * self.loss_weights

    def _parts(self, column: str) -> list[npt.NDArray[Any]]:
        """Return a column of each file; not by `datasets`, whose Python integers take a minute for ten million rows."""
        return [label_array(_map_shard(file).data.column(column).combine_chunks()) for file in self.files]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lengths)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Return rows in the order of their indices: the model's inputs, label and length."""
        shards = np.searchsorted(self.starts, indices, side="right") - 1
        offsets = np.asarray(indices) - self.starts[shards]
        examples: dict[int, dict[str, Any]] = {}
        for shard in np.unique(shards):
            positions = np.flatnonzero(shards == shard)
            found = self._open_shard(self.files[shard]).__getitems__(offsets[positions].tolist())
            examples.update(zip(positions.tolist(), found, strict=True))
        return [examples[position] for position in range(len(indices))]


def _map_shard(file: Path) -> Dataset:
    return drop_text_columns(Dataset.from_file(str(file)))
