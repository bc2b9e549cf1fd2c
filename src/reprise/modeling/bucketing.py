"""Choose the few lengths that batches are padded to on XLA, which compiles a program for each batch shape."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reprise.core.config import PARAMS
from reprise.core.errors import UserError

MAX_BUCKETS = 4  # for `auto`

Buckets = tuple[int, ...]  # padded lengths in tokens, ascending
Shapes = set[tuple[str, int, int]]  # batch shapes: phase, rows, tokens per row


def resolve_buckets(buckets: Sequence[int] | str, *lengths: npt.NDArray[np.int64]) -> Buckets:
    """Resolve `train.bucket_lengths` to the lengths that batches are padded to.

    Args:
        buckets: Lengths in tokens, or "auto" for lengths that fit the data.
        lengths: One array per split with the tokens of each text, shape [texts]. "auto" minimises the padding of the
            first split; its last bucket covers all splits.

    Returns:
        The distinct lengths, ascending.

    Raises:
        UserError: If a text is longer than every bucket.
    """
    longest = max(int(split.max()) for split in lengths)
    if isinstance(buckets, str):
        *shorter, last = optimal_buckets(lengths[0])
        return (*shorter, max(last, longest))
    if max(buckets) < longest:
        raise UserError(
            f"the longest text has {longest} tokens",
            file=PARAMS,
            key="train.bucket_lengths",
            expected="a bucket that fits it",
        )
    return tuple(sorted(set(buckets)))


def padded_length(longest: int, buckets: Buckets | None) -> int:
    """Return the length that a batch is padded to: the smallest bucket that fits.

    Args:
        longest: Tokens of the longest row of the batch.
        buckets: The allowed lengths; None to pad to `longest`.
    """
    return next(bucket for bucket in buckets if bucket >= longest) if buckets else longest


def optimal_buckets(lengths: npt.NDArray[np.int64], max_buckets: int = MAX_BUCKETS) -> Buckets:
    """Choose at most `max_buckets` lengths that minimise the padded tokens.

    Exact, by dynamic programming over the distinct lengths: the best choice with the j-th length as its largest extends
    the best choice with one bucket less and the i-th length as its largest; the texts in between are padded to the
    j-th.

    Args:
        lengths: Tokens of each text, shape [texts].
        max_buckets: Maximum number of lengths.

    Returns:
        The chosen lengths, ascending; the last is the length of the longest text.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    shorter = np.concatenate([[0], np.cumsum(counts)])  # shorter[j]: texts shorter than the j-th length
    # cost[i, j]: padded tokens of the texts with the i-th to the j-th length, all padded to the j-th.
    cost = np.where(
        np.tri(len(distinct), dtype=bool).T, (shorter[None, 1:] - shorter[:-1, None]) * distinct[None, :], np.inf
    )
    best, chosen = cost[0], [[int(length)] for length in distinct]
    for _ in range(min(max_buckets, len(distinct)) - 1):
        extended = best[:-1, None] + cost[1:]
        previous = extended.argmin(axis=0)
        better = extended.min(axis=0) < best
        chosen = [[*chosen[previous[j]], int(distinct[j])] if better[j] else chosen[j] for j in range(len(distinct))]
        best = np.minimum(best, extended.min(axis=0))
    return tuple(chosen[-1])
