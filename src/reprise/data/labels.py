"""Columns of prepared data as arrays, above all `label`."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets import Dataset

from reprise.tasks.labels import ragged


def column_array(rows: Dataset, name: str = "label") -> npt.NDArray[Any]:
    """Return a column of prepared rows as `label_array` does; NumPy's format of `datasets` has 32 bits for floats."""
    return label_array(rows.select_columns([name]).with_format("arrow")[:][name].combine_chunks())


def label_array(column: pa.Array) -> npt.NDArray[Any]:
    """Return prepared labels, shape [rows]; of any number of labels 0 or 1 for each, shape [rows, labels].

    Tags of words are an array of objects, [rows] of [words].
    """
    if pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.flatten().to_numpy().reshape(len(column), -1))
    if pa.types.is_list(column.type):
        offsets = column.offsets.to_numpy()
        return ragged(np.split(column.flatten().to_numpy(), offsets[1:-1] - offsets[0]) if len(column) else [])
    return np.asarray(column.to_numpy())
