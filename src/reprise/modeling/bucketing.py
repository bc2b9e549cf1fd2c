"""The few shapes of batches on XLA, which compiles a program for each: pure functions of the lengths of the texts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reprise.core.errors import UserError

MAX_BUCKETS = 4  # buckets that `auto` chooses at most

Buckets = tuple[int, ...]  # lengths in tokens, ascending
Shapes = set[tuple[str, int, int]]  # of batches: what for, rows and tokens


def resolve_buckets(buckets: Sequence[int] | str, *lengths: npt.NDArray[np.int64]) -> Buckets:
    """The lengths that batches are padded to, as `train.bucket_lengths` says: `auto`, or the lengths themselves.

    Args:
        buckets: from the recipe.
        lengths: tokens of each text of a split, shape [texts]; `auto` fits the first split and holds them all.

    Raises:
        UserError: a text is longer than all of the buckets.
    """
    longest = max(int(split.max()) for split in lengths)
    if isinstance(buckets, str):
        *shorter, last = optimal_buckets(lengths[0])
        return (*shorter, max(last, longest))
    if max(buckets) < longest:
        raise UserError(
            f"params.yaml: train.bucket_lengths: the longest text has {longest} tokens; expected a bucket that holds it"
        )
    return tuple(sorted(set(buckets)))


def padded_length(longest: int, buckets: Buckets | None) -> int:
    """The tokens that each row of a batch is padded to: the next bucket, or without buckets its longest row's."""
    return next(bucket for bucket in buckets if bucket >= longest) if buckets else longest


def optimal_buckets(lengths: npt.NDArray[np.int64], most: int = MAX_BUCKETS) -> Buckets:
    """At most so many lengths, such that texts padded to the next of them make the fewest tokens in all.

    Exact, by dynamic programming over the distinct lengths: the best choice whose longest is the j-th extends the best
    with one fewer whose longest is the i-th by the texts between them, which are padded to the j-th.

    Args:
        lengths: tokens of each text, shape [texts].
        most: how many lengths may be chosen.

    Returns:
        The lengths, ascending; the last is the longest text's.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    texts = np.concatenate([[0], np.cumsum(counts)])  # shorter than the j-th
    # cost[i, j]: tokens of the texts from the i-th length on, padded to the j-th, which is the last of them.
    cost = np.where(
        np.tri(len(distinct), dtype=bool).T, (texts[None, 1:] - texts[:-1, None]) * distinct[None, :], np.inf
    )
    best, chosen = cost[0], [[int(length)] for length in distinct]
    for _ in range(min(most, len(distinct)) - 1):
        extended = best[:-1, None] + cost[1:]
        before = extended.argmin(axis=0)
        better = extended.min(axis=0) < best
        chosen = [[*chosen[before[j]], int(distinct[j])] if better[j] else chosen[j] for j in range(len(distinct))]
        best = np.minimum(best, extended.min(axis=0))
    return tuple(chosen[-1])
