"""Texts that are nearly the same: MinHash and banding find candidates, their exact similarity decides.

The similarity is Jaccard's of the pairs of neighbouring tokens. MinHash (Broder 1997) estimates it, and banding
(Indyk & Motwani 1998) finds candidates without comparing all texts. All constants are fixed, and texts are compared in
the order of their hashes: the result depends neither on a seed nor on the order of the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

# Two texts of 27 tokens that differ in one token have 0.87, in two 0.75.
SIMILARITY = 0.8
# Candidates share a band of ROWS minima: 99.8 % of the pairs of similarity 0.8, 28 % of 0.5, and 0.1 % of 0.2.
BANDS, ROWS = 20, 6
CHUNK = 2**16  # shingles hashed at a time: they stay in the processor's cache
VERIFIED = 2**21  # shingles of candidates in memory at a time
# Candidates of a band: a table of a million texts made from one template would have 10^11 pairs.
MAX_CANDIDATES = 2**21

Hashes = npt.NDArray[np.uint32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Pairs of nearly equal texts.

    Attributes:
        first: index of a text, shape [pairs].
        second: index of the other one, shape [pairs].
        similarity: Jaccard's, at least SIMILARITY, shape [pairs].
        complete: whether all candidates were compared.
    """

    first: Indices
    second: Indices
    similarity: npt.NDArray[np.float64]
    complete: bool


def find_pairs(tokens: npt.NDArray[np.int32], offsets: Indices) -> Pairs:
    """Find the pairs of texts whose similarity is at least SIMILARITY.

    Args:
        tokens: of all texts, one after the other.
        offsets: text i has the tokens from offsets[i] to offsets[i + 1]; shape [texts + 1]. The order of the texts
            must follow from their content, so that the same texts give the same pairs.
    """
    hashes, starts = shingles(tokens, offsets)
    texts, complete = len(starts) - 1, True
    known = np.empty(0, dtype=np.int64)
    found: list[tuple[Indices, Indices, npt.NDArray[np.float64]]] = []
    for keys in band_keys(hashes, starts):
        first, second, all_compared = candidates(keys)
        complete = complete and all_compared
        codes = np.unique(first * texts + second)
        new = codes[~_contained(codes, known)]
        known = np.union1d(known, new)
        first, second = np.divmod(new, max(texts, 1))
        similarity = jaccard(hashes, starts, first, second)
        near = similarity >= SIMILARITY
        found.append((first[near], second[near], similarity[near]))
    first, second, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], similarity[order], complete)


def shingles(tokens: npt.NDArray[np.int32], offsets: Indices) -> tuple[Hashes, Indices]:
    """Hash the pairs of neighbouring tokens of each text; a text of one token has that one.

    Returns:
        The hashes of all texts, and the offsets of each text in them, shape [texts + 1].
    """
    lengths = np.diff(offsets)
    # Each token begins a pair except the last one of a longer text.
    begins = np.ones(len(tokens), dtype=bool)
    begins[offsets[1:][lengths > 1] - 1] = False
    following = np.zeros(len(tokens), dtype=np.uint32)
    following[:-1] = tokens[1:].astype(np.uint32) + np.uint32(1)
    following[offsets[1:][lengths == 1] - 1] = 0
    hashes = mix(mix(tokens.astype(np.uint32)) + np.uint32(0x9E3779B9) * following)[begins]
    counts = np.where(lengths > 1, lengths - 1, lengths)
    return hashes, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def mix(values: Hashes) -> Hashes:
    """Mix the bits of 32-bit numbers, as MurmurHash3 does at its end."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def band_keys(hashes: Hashes, starts: Indices) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield for each band a hash of its minima, [texts]; texts without shingles have keys of their own."""
    texts = len(starts) - 1
    numbers = np.arange(BANDS * ROWS, dtype=np.uint32)
    masks, factors = mix(numbers + np.uint32(1)), mix(numbers + np.uint32(1001)) | np.uint32(1)
    filled = np.flatnonzero(np.diff(starts))
    at = starts[filled]
    # Chunks of whole texts, of about CHUNK shingles.
    borders = np.unique(np.concatenate([np.searchsorted(at, np.arange(0, len(hashes), CHUNK)), [len(filled)]]))
    ends = np.append(at, len(hashes))
    for band in range(BANDS):
        keys = np.arange(texts, dtype=np.uint64)
        for low, high in pairwise(borders):
            part, places = hashes[ends[low] : ends[high]], at[low:high] - ends[low]
            key = np.full(high - low, band, dtype=np.uint64)
            for row in range(band * ROWS, (band + 1) * ROWS):
                # Multiplication mixes upwards only, so the high bits decide the order.
                minima = np.minimum.reduceat((part ^ masks[row]) * factors[row], places)
                key = (key ^ minima) * np.uint64(0x9E3779B97F4A7C15)
                key ^= key >> np.uint64(29)
            keys[filled[low:high]] = key | np.uint64(2**63)
        yield keys


def candidates(keys: npt.NDArray[np.uint64]) -> tuple[Indices, Indices, bool]:
    """Pair the texts of equal keys, each with the next ones of its key, the nearest first.

    Returns:
        The smaller and the larger index of each pair, and whether these are all pairs.
    """
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    places, first, second, count = np.arange(len(keys)), [], [], 0
    for distance in range(1, len(keys)):
        places = places[places + distance < len(keys)]
        places = places[sorted_keys[places] == sorted_keys[places + distance]]
        if not len(places) or (count and count + len(places) > MAX_CANDIDATES):
            break
        first.append(order[places])
        second.append(order[places + distance])
        count += len(places)
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *first]), np.concatenate([empty, *second]), not len(places)


def jaccard(hashes: Hashes, starts: Indices, first: Indices, second: Indices) -> npt.NDArray[np.float64]:
    """Return the similarity of each pair of texts: the shingles that both have, divided by those that one has."""
    sizes = (np.diff(starts)[first] + np.diff(starts)[second]).astype(np.int64)
    borders = np.unique(
        np.concatenate(
            [[0], np.searchsorted(np.cumsum(sizes), np.arange(VERIFIED, sizes.sum(), VERIFIED)), [len(sizes)]]
        )
    )
    similarity = np.zeros(len(first))
    for low, high in pairwise(borders):
        ours, theirs = (_numbered(hashes, starts, side[low:high]) for side in (first, second))
        both = np.intersect1d(ours, theirs, assume_unique=True)
        counts = [
            np.bincount((each >> np.uint64(32)).astype(np.int64), minlength=high - low) for each in (ours, theirs, both)
        ]
        similarity[low:high] = counts[2] / np.maximum(counts[0] + counts[1] - counts[2], 1)
    return similarity


def _numbered(hashes: Hashes, starts: Indices, texts: Indices) -> npt.NDArray[np.uint64]:
    """Return the distinct shingles of texts, each with the number of its text in the high bits, in ascending order."""
    lengths = np.diff(starts)[texts]
    number = np.repeat(np.arange(len(texts)), lengths)
    within = np.arange(len(number)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    values = hashes[starts[texts][number] + within]
    return np.unique(number.astype(np.uint64) << np.uint64(32) | values)


def _contained(values: Indices, ascending: Indices) -> npt.NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[places] == values)
