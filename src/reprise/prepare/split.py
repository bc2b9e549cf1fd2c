"""Assign rows to splits as a pure function of their content, independent of their order."""

import hashlib

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

TRAIN, VALIDATION, TEST = 0, 1, 2


def stable_hash64(*parts: object) -> int:
    """Hash the parts to an unsigned 64-bit integer, stable across processes (Python's hash is salted)."""
    joined = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big")


def group_rows(*keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Group rows that share a value of any key, directly or through other rows.

    Groups are the connected components of a graph whose nodes are the values; each row links its first value to its
    other values.

    Args:
        keys: One array per key (such as the film, or the texts), each of shape [rows, columns]. The columns of one key
            share their values, so a text may be the first of one row's pair and the second of another's.

    Returns:
        The group index of each row, shape [rows], numbered in order of appearance.
    """
    columns: list[npt.NDArray[np.int32]] = []  # int32, SciPy's index type, to avoid a copy
    nodes = 0
    for key in keys:
        unique, value = np.unique(key.ravel(), return_inverse=True)
        columns += [column.astype(np.int32) + nodes for column in value.reshape(key.shape).T]
        nodes += len(unique)
        del unique, value
    first, *others = columns
    row = np.tile(first, len(others))
    graph = coo_array((np.ones(len(row), dtype=bool), (row, np.concatenate([first[:0], *others]))), (nodes, nodes))
    _, component = connected_components(graph, directed=False)
    groups: npt.NDArray[np.int64] = pd.factorize(component[first])[0]  # in order of appearance
    return groups


def assign_splits(
    groups: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64], *, validation: float, test: float, seed: int
) -> npt.NDArray[np.int8]:
    """Assign groups to splits without dividing any, as close to the requested fractions as possible.

    Groups are ordered by a hash of `seed` and their smallest key, so the order of the rows does not matter. The first
    groups form the test split, the next the validation split, the rest the training split.

    Args:
        groups: Group index of each row, shape [rows].
        keys: Content hash of each row, shape [rows].
        validation: Fraction of the rows, between 0 and 1.
        test: Fraction of the rows, between 0 and 1.
        seed: Selects the order of the groups.

    Returns:
        TRAIN, VALIDATION or TEST for each row, shape [rows].
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    smallest = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, groups, keys)
    hashes = np.fromiter((stable_hash64(seed, key) for key in smallest), dtype=np.uint64, count=count)
    order = np.argsort(hashes, kind="stable")
    sizes = np.bincount(groups, minlength=count)[order]
    # A group belongs where its middle is, so each boundary is the group end closest to the requested fraction.
    middle = (np.cumsum(sizes) - sizes / 2) / max(len(groups), 1)
    split_of_group = np.empty(count, dtype=np.int8)
    split_of_group[order] = np.select([middle < test, middle < test + validation], [TEST, VALIDATION], TRAIN)
    return split_of_group[groups]


def subsample(keys: npt.NDArray[np.uint64], size: int) -> npt.NDArray[np.int64]:
    """Select the rows with the smallest keys.

    Args:
        keys: Content hash of each row, shape [rows].
        size: Maximum number of rows to select.

    Returns:
        Row indices in ascending order, shape [min(size, rows)].
    """
    return np.sort(np.argsort(keys, kind="stable")[:size])
