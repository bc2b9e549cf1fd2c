"""The rows that the model is trained on, which may exceed memory: a few of their files are mapped at a time.

A row is an example, or a window of one.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset
from torch.utils import data

from reprise.data.format import WINDOWS
from reprise.modeling.splits import SplitPart, drop_text_columns
from reprise.tasks.kind import TaskKind
from reprise.train.sampler import SHUFFLE_SHARDS


class ShardedDataset(data.Dataset[dict[str, Any]]):
    """A map-style dataset over the Arrow files of a split.

    Pages of a mapped file count as memory of this process until the file is closed. sampler.py reads few shards at a
    time, so only those of one chunk of an epoch stay open: SHUFFLE_SHARDS, one more if the chunk begins within a shard,
    and one more if it contains the smaller last shard. A shard of the order may be in two files of windows or of
    a fold.
    """

    def __init__(self, parts: list[SplitPart], kind: TaskKind | None = None, *, teacher: bool = False) -> None:
        """Open the files of a split in order.

        Args:
            parts: rows of Arrow files, of examples or of windows.
            kind: fitted to the split, weighs the examples; without one, each weighs 1.
            teacher: whether each row has the teacher's logits, too.
        """
        self.parts, windows = parts, parts[0].file.parent.name == WINDOWS
        shared = windows or any(part.rows is not None for part in parts)
        self._open_shard = lru_cache(maxsize=(2 if shared else 1) * SHUFFLE_SHARDS + 2)(
            lambda shard: _map_shard(self.parts[shard], teacher=teacher)
        )
        lengths = self._columns("length")
        self.lengths, self.starts = np.concatenate(lengths), np.cumsum([0, *map(len, lengths)])  # starts of the files
        # The weight of each row's loss, shape [rows]; None if every row weighs 1.
        self.loss_weights = kind.loss_weights(lambda: np.concatenate(self._columns("label"))) if kind else None
        if kind and windows and not kind.per_token:
            of_windows = np.concatenate(self._columns("weight")).astype(np.float64)
            self.loss_weights = of_windows if self.loss_weights is None else of_windows * self.loss_weights

    def _columns(self, name: str) -> list[npt.NDArray[Any]]:
        """Return a column of each file."""
        return [part.column(name) for part in self.parts]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lengths)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Return rows in the order of their indices: the model's inputs, label, length and teacher's logits."""
        shards = np.searchsorted(self.starts, indices, side="right") - 1
        offsets = np.asarray(indices) - self.starts[shards]
        examples: dict[int, dict[str, Any]] = {}
        for shard in np.unique(shards):
            positions = np.flatnonzero(shards == shard)
            found = self._open_shard(shard).__getitems__(offsets[positions].tolist())
            examples.update(zip(positions.tolist(), found, strict=True))
        return [examples[position] for position in range(len(indices))]


def _map_shard(part: SplitPart, *, teacher: bool) -> Dataset:
    return drop_text_columns(part.load(teacher=teacher))
