"""The prepared splits as training and evaluation read them, whole or as a fold of a cross-validation divides them.

Data are prepared once for all folds: the validation split is fold 0, and each row of the training split has its fold.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset, concatenate_datasets

from reprise.core.config import PARAMS
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import TEACHER
from reprise.data.format import input_shards, split_shards, stats_path
from reprise.data.labels import column_array, label_array
from reprise.tasks.kind import TaskKind

FOLD = "fold"  # the column of prepared rows


@dataclass(frozen=True)
class SplitPart:
    """Rows of an Arrow file of a prepared split.

    Attributes:
        file: of examples, or of windows.
        rows: indices of the rows, in order; None for all.
    """

    file: Path
    rows: npt.NDArray[np.int64] | None = None

    def load(self, *, teacher: bool = False) -> Dataset:
        """Map the rows, with the teacher's logits in a column of their own if asked."""
        mapped = Dataset.from_file(str(self.file))
        if teacher:
            mapped = concatenate_datasets([mapped, Dataset.from_file(str(TEACHER / self.file.name))], axis=1)
        return mapped if self.rows is None else mapped.select(self.rows)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Read a column; not by `datasets`, whose Python integers take a minute for ten million rows."""
        values = label_array(Dataset.from_file(str(self.file)).data.column(name).combine_chunks())
        return values if self.rows is None else np.asarray(values[self.rows])


def split_parts(split: str, fold: int | None = None, *, inputs: bool = False) -> list[SplitPart]:
    """Return where the rows of a split are.

    For a fold k above 0, the validation split is fold k, and the training split is all rows but those of the folds k
    and test. Other splits are the same for every fold.

    Args:
        split: name of the split.
        fold: `train.fold`; None for the first one.
        inputs: return what the model reads, which are windows if there are any, instead of the examples.

    Raises:
        UserError: the data was prepared without folds, or without an example in this one.
    """
    shards = input_shards if inputs else split_shards
    if not fold or split not in ("train", "validation"):
        return [SplitPart(file) for file in shards(split)]
    chosen = [SplitPart(file, np.flatnonzero((folds == fold) == (split == "validation")))
              for file, folds in zip(shards("train"), _row_folds(inputs=inputs), strict=True)]  # fmt: skip
    parts = [part for part in chosen if part.rows is not None and len(part.rows)]
    if split == "train":
        return [*parts, *(SplitPart(file) for file in shards("validation"))]
    if not parts:
        problem = f"no example of fold {fold} was prepared"
        raise UserError(problem, file=PARAMS, key="train.fold", expected="a fold with examples")
    return parts


def _row_folds(*, inputs: bool) -> Iterator[npt.NDArray[np.int8]]:
    """Yield the fold of each row, file by file, of the training split; a window has that of its text."""
    start = 0
    for file, read in zip(split_shards("train"), input_shards("train"), strict=True):
        if FOLD not in Dataset.from_file(str(file)).column_names:
            raise UserError("prepared without folds", file=file, expected="the data of this recipe: run `dvc repro`")
        folds = SplitPart(file).column(FOLD)
        yield folds[SplitPart(read).column("example") - start] if inputs and read != file else folds
        start += len(folds)


def load_inputs(split: str, fold: int | None = None) -> Dataset:
    """Map what the model reads of a split: its inputs, label and length; a row for each example, or for each window."""
    return drop_text_columns(concatenate_datasets([part.load() for part in split_parts(split, fold, inputs=True)]))


def load_split(split: str, fold: int | None = None) -> Dataset:
    """Map the prepared examples of a split from its files."""
    return concatenate_datasets([part.load() for part in split_parts(split, fold)])


def load_labels(split: str, fold: int | None = None) -> npt.NDArray[Any]:
    """Return the prepared labels of a split, as `label_array` does."""
    return column_array(load_split(split, fold))


def train_stats(kind: TaskKind, fold: int | None = None) -> dict[str, Any]:
    """Return what `TaskKind` takes of the training labels: the split's entry in stats.json, or the same of a fold."""
    if not fold:
        stats: dict[str, Any] = read_json(stats_path())["splits"]["train"]
        return stats
    labels = load_labels("train", fold)
    return {"num_examples": len(labels), **kind.label_stats(labels)}


def drop_text_columns(rows: Dataset) -> Dataset:
    """Keep the model's inputs, label and length of prepared rows."""
    return rows.remove_columns([name for name in ("id", "text", "text_pair", FOLD) if name in rows.column_names])
