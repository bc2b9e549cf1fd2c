"""Which split each row belongs to: a pure function of what the rows say, not of their order."""

import hashlib

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

TRAIN, VALIDATION, TEST = 0, 1, 2


def stable_hash64(*parts: object) -> int:
    """A 64-bit number from the parts, the same in every process (Python's own hash is salted)."""
    joined = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big")


def group_rows(*keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Number the groups of rows that belong together: rows that share a value of any key, directly or through others.

    Args:
        keys: one array a key (such as the film, the texts), each of shape [rows, columns]; the columns of one key draw
            on the same values, so that a text may stand first in one row and second in another.

    Returns:
        A group number for each row, shape [rows]: the connected components of the graph of the values, in which a row
        joins its first value with each of its others.
    """
    columns: list[npt.NDArray[np.int32]] = []  # which SciPy counts with, too
    nodes = 0
    for key in keys:
        there, value = np.unique(key.ravel(), return_inverse=True)
        columns += [column.astype(np.int32) + nodes for column in value.reshape(key.shape).T]
        nodes += len(there)
        del there, value
    first, *others = columns
    row = np.tile(first, len(others))
    graph = coo_array((np.ones(len(row), dtype=bool), (row, np.concatenate([first[:0], *others]))), (nodes, nodes))
    _, component = connected_components(graph, directed=False)
    groups: npt.NDArray[np.int64] = pd.factorize(component[first])[0]  # numbered in the order of the rows
    return groups


def assign_splits(
    groups: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64], *, validation: float, test: float, seed: int
) -> npt.NDArray[np.int8]:
    """Give whole groups to the splits so that each gets its share of the rows as nearly as whole groups allow.

    The groups are put in an order that depends on `seed` and on the smallest key in each, so rows in another order give
    the same splits. The first of them make the test split, the next the validation split, the rest is for training.

    Args:
        groups: group number of each row, shape [rows].
        keys: a digest of each row's content, shape [rows].
        validation: share of the rows, between 0 and 1.
        test: share of the rows, between 0 and 1.
        seed: another seed gives another split.

    Returns:
        TRAIN, VALIDATION or TEST for each row, shape [rows].
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    smallest = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, groups, keys)
    digests = np.fromiter((stable_hash64(seed, key) for key in smallest), dtype=np.uint64, count=count)
    order = np.argsort(digests, kind="stable")
    sizes = np.bincount(groups, minlength=count)[order]
    # A group falls where its middle falls, so each border lies at the group end nearest to the wished share.
    middle = (np.cumsum(sizes) - sizes / 2) / max(len(groups), 1)
    split_of_group = np.empty(count, dtype=np.int8)
    split_of_group[order] = np.select([middle < test, middle < test + validation], [TEST, VALIDATION], TRAIN)
    return split_of_group[groups]


def subsample(keys: npt.NDArray[np.uint64], limit: int) -> npt.NDArray[np.int64]:
    """Choose `limit` rows by the order of their digests; return their numbers, ascending, shape [min(limit, rows)]."""
    return np.sort(np.argsort(keys, kind="stable")[:limit])
