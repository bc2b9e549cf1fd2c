"""Labels of any kind of task: arrays of them, and what is wrong with one that the recipe does not have."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def ragged(values: Sequence[npt.ArrayLike]) -> npt.NDArray[np.object_]:
    """Return arrays of any lengths as one array of objects, [values]; NumPy itself would stack equal lengths."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = np.asarray(value)
    return array


def equal_labels(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Number the labels of examples, so that equal ones have the same number; shape [examples]."""
    if labels.dtype == object:
        numbers: dict[bytes, int] = {}
        return np.array([numbers.setdefault(each.tobytes(), len(numbers)) for each in labels], dtype=np.int64)
    axis = 0 if labels.ndim > 1 else None
    return np.asarray(np.unique(labels, axis=axis, return_inverse=True)[1].reshape(len(labels)), np.int64)


def unknown_label(value: Any, labels: Sequence[str]) -> str:
    """Return the message, with the nearest label or the spelling of the same number."""
    near = difflib.get_close_matches(str(value), labels, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    # Such as 1.0 or 01 for 1; and YAML reads 010 as 8.
    if re.fullmatch("0[0-9]+", str(value)) or any(_is_same_number(value, label) for label in labels):
        hint = f"a number of another spelling in task.labels? Write it there in quotes, as {str(value)!r}; "
    return f"unknown label {value!r}; {hint}expected one of task.labels: {', '.join(labels)}"


def weights_problem(weights: str | Mapping[str, float] | None, labels: Sequence[str]) -> tuple[str, str, str] | None:
    """Return what does not fit the labels in `class_weights`: key, problem and what is expected."""
    if not isinstance(weights, Mapping) or set(weights) == set(labels):
        return None
    wrong = sorted(set(weights) ^ set(labels))[0]
    problem = f"{wrong!r} is no label of the task" if wrong in weights else f"no weight for {wrong!r}"
    return "class_weights", problem, f"balanced, or a weight for each of {', '.join(labels)}"


def _is_same_number(value: Any, label: str) -> bool:
    try:
        return float(value) == float(label)
    except (TypeError, ValueError):
        return False
