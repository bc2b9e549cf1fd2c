"""Assign rows to splits as a pure function of their content, independent of their order."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


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


def order_by_content(groups: npt.NDArray[np.int64], keys: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.int64]:
    """Order groups by a hash of `seed` and their smallest key, so that the order of the rows does not matter.

    Args:
        groups: Group index of each row, shape [rows].
        keys: Content hash of each row, shape [rows].
        seed: Selects the order.

    Returns:
        Group indices, shape [groups].
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    smallest = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, groups, keys)
    hashes = np.fromiter((stable_hash64(seed, key) for key in smallest), dtype=np.uint64, count=count)
    return np.argsort(hashes, kind="stable")


def order_by_time(
    groups: npt.NDArray[np.int64], times: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Order groups by their latest row, the newest first; groups of equal time become one.

    Args:
        groups: Group index of each row, shape [rows].
        times: Time of each row, shape [rows].

    Returns:
        The group index of each row after that, shape [rows], and group indices in order, shape [groups].
    """
    latest = np.full(int(groups.max()) + 1 if len(groups) else 0, -np.inf)
    np.maximum.at(latest, groups, times)
    unique, rank = np.unique(latest, return_inverse=True)
    return rank[groups], np.arange(len(unique))[::-1]


@dataclass(frozen=True)
class Strata:
    """A division of the groups; each stratum is cut at the requested fractions.

    Attributes:
        of_group: Stratum of each group, shape [groups].
        points: Point of a group that decides its split, for each stratum: 0 is its end, 1 its start.
    """

    of_group: npt.NDArray[np.int64]
    points: npt.NDArray[np.float64]


def stratify(of_group: npt.NDArray[np.int64], names: Sequence[str], seed: int) -> Strata:
    """Draw the point of each stratum from its name.

    With the middle for all, many small strata would round alike: of 100 labels of 3 rows each, a tenth would be none.

    Args:
        of_group: Stratum of each group, shape [groups].
        names: Name of each stratum, the same in every version of a table.
        seed: Selects the points.
    """
    return Strata(of_group, np.array([stable_hash64(seed, name) / 2**64 for name in names]))


def assign_parts(
    groups: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    fractions: Sequence[float],
    strata: Strata | None = None,
) -> npt.NDArray[np.int8]:
    """Assign groups to parts without dividing any: the first in order to part 0, and so on.

    A boundary between parts is the group end closest to the fraction. With strata, each is cut on its own, at one of
    the two group ends next to the fraction, and its last group is never cut off. So in each stratum every boundary
    is within one group of the fraction, and an added row moves at most one other group over each boundary of its
    stratum and none of other strata. No rule meets the fractions and moves nothing.

    Args:
        groups: Group index of each row, shape [rows].
        order: Group indices in order, shape [groups].
        fractions: Fraction of the rows of each part except the last, which gets the rest.
        strata: Divides the groups; None cuts all as one.

    Returns:
        The part of each row, shape [rows].
    """
    if strata is not None:
        order = order[np.argsort(strata.of_group[order], kind="stable")]
    stratum = np.zeros(len(order), np.int64) if strata is None else strata.of_group[order]
    points = np.full(len(order), 0.5) if strata is None else strata.points[stratum]
    sizes = np.bincount(groups, minlength=len(order))[order]
    rows = np.bincount(stratum, weights=sizes)
    places = (np.cumsum(sizes) - (np.cumsum(rows) - rows)[stratum] - points * sizes) / rows[stratum]
    part = np.searchsorted(np.cumsum(fractions), places, side="right")
    if strata is not None:
        part[np.flatnonzero(np.diff(stratum, append=-1))] = len(fractions)
    part_of_group = np.empty(len(order), dtype=np.int8)
    part_of_group[order] = part
    return part_of_group[groups]


@dataclass(frozen=True)
class LargestGroup:
    """The largest group, and the value that most of its rows share.

    Attributes:
        rows: Rows of the group.
        sharing: Of these, the rows that have the value.
        key: Index of the value's key among those of `group_rows`.
        column: Column of that key in which the value occurs most.
        row: A row that has the value in that column.
    """

    rows: int
    sharing: int
    key: int
    column: int
    row: int


def find_largest_group(groups: npt.NDArray[np.int64], *keys: npt.NDArray[np.uint64]) -> LargestGroup:
    """Find the largest group of `group_rows`, and what holds it together.

    Args:
        groups: Group index of each row, shape [rows].
        keys: The arguments of `group_rows`.
    """
    members = np.flatnonzero(groups == np.bincount(groups).argmax())
    found = []
    for number, key in enumerate(keys):
        values = np.sort(key[members], axis=1)
        again = np.zeros(values.shape, dtype=bool)  # the same value in two columns of a row counts once
        again[:, 1:] = values[:, 1:] == values[:, :-1]
        unique, counts = np.unique(values[~again], return_counts=True)
        has_value = key[members] == unique[counts.argmax()]
        column = int(has_value.sum(axis=0).argmax())
        row = int(members[has_value[:, column].argmax()])
        found.append(LargestGroup(len(members), int(counts.max()), number, column, row))
    return max(found, key=lambda each: each.sharing)


def subsample(keys: npt.NDArray[np.uint64], size: int) -> npt.NDArray[np.int64]:
    """Select the rows with the smallest keys.

    Args:
        keys: Content hash of each row, shape [rows].
        size: Maximum number of rows to select.

    Returns:
        Row indices in ascending order, shape [min(size, rows)].
    """
    return np.sort(np.argsort(keys, kind="stable")[:size])
