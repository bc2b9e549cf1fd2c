"""Which examples are copies of others, or nearly: within a split, and across splits."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reprise.check_data.examples import Examples
from reprise.check_data.near_duplicates import Indices, candidates, find_pairs

MAX_TOKENS = 2**28  # of the compared texts: 1 GiB
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NearDuplicate:
    """An example, and the most similar one of an earlier split, or of the training split itself.

    The similarity is 1 where the words are the same.
    """

    split: str
    row: int
    other: str
    other_row: int
    similarity: float


@dataclass(frozen=True)
class NearDuplicates:
    """Which examples of each split have a near duplicate, shape [examples] each.

    Attributes:
        across: by split but the first, with one in an earlier split.
        train: with one in the training split itself.
        pairs: the most similar first.
        compared: how many distinct texts were compared, of how many.
        complete: whether all their candidates were.
    """

    across: dict[str, Flags]
    train: Flags
    pairs: list[NearDuplicate]
    compared: tuple[int, int]
    complete: bool


def repeated(texts: npt.NDArray[np.uint64]) -> int:
    """Count the texts that repeat another one, by their hashes."""
    return len(texts) - len(np.unique(texts))


def shared_with_earlier(examples: Mapping[str, Examples]) -> dict[str, Flags]:
    """Return for each split but the first which examples have a text that is also in an earlier split."""
    found: dict[str, Flags] = {}
    seen = np.empty(0, dtype=np.uint64)
    for split, each in examples.items():
        if found or len(seen):
            found[split] = np.isin(each.texts, seen)
        seen = np.union1d(seen, each.texts)
    return found


def near_duplicates(examples: Mapping[str, Examples], max_pairs: int) -> NearDuplicates:
    """Find the examples whose tokens are nearly those of another one, or whose words are the same.

    Texts that are equal but for case and white space do not count: `repeated` and `shared_with_earlier` find those.

    Args:
        examples: by split, training first.
        max_pairs: how many pairs to list.
    """
    splits = list(examples)
    texts = np.concatenate([each.texts for each in examples.values()])
    lengths = np.concatenate([each.lengths for each in examples.values()])
    tokens = np.concatenate([each.tokens for each in examples.values()])
    starts = np.cumsum(lengths) - lengths
    # Equal tokens of equal texts are compared once. The order of the keys is that of no row, but of the content.
    _, index, unit = np.unique(texts ^ _hash_sequences(tokens, starts, lengths), return_index=True, return_inverse=True)
    units = len(index)
    most = min(units, int(np.searchsorted(np.cumsum(lengths[index]), MAX_TOKENS, side="right")))
    kept = index[:most]
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths[kept])
    pairs = find_pairs(tokens[np.repeat(starts[kept], lengths[kept]) + within], offsets)
    # Short texts that differ only in punctuation share few of their pairs of tokens.
    same_words = candidates(np.concatenate([each.words for each in examples.values()])[kept])
    first = np.concatenate([same_words[0], pairs.first])
    second = np.concatenate([same_words[1], pairs.second])
    similarity = np.concatenate([np.ones(len(same_words[0])), pairs.similarity])
    different = texts[index[first]] != texts[index[second]]
    first, second, similarity = first[different], second[different], similarity[different]

    of_split = np.split(unit, np.cumsum([len(each) for each in examples.values()])[:-1])
    first_row = np.full((len(splits), units), -1, dtype=np.int64)
    for number, each in enumerate(of_split):
        first_row[number, each[::-1]] = np.arange(len(each))[::-1]
    copies = shared_with_earlier(examples)
    flagged = np.zeros((len(splits), units), dtype=bool)
    listed: list[NearDuplicate] = []
    for number, split in enumerate(splits):
        for other in range(number + (number == 0)):
            one, two, same = _directed(first, second, similarity, mirrored=number > 0)
            present = (first_row[number, one] >= 0) & (first_row[other, two] >= 0)
            one, two, same = one[present], two[present], same[present]
            flagged[number, one] = True
            if number == other:
                flagged[number, two] = True
            order = np.lexsort((two, one, -same))[: max_pairs * 2]
            listed += [
                NearDuplicate(split, int(first_row[number, a]), splits[other], int(first_row[other, b]), float(s))
                for a, b, s in zip(one[order], two[order], same[order], strict=True)
                if number == other or not copies[split][first_row[number, a]]
            ]
    across = {
        split: flagged[number][of_split[number]] & ~copies[split] for number, split in enumerate(splits) if number
    }
    listed.sort(key=lambda each: (each.split == each.other, -each.similarity))  # stable: then as found
    best: dict[tuple[str, int], NearDuplicate] = {}
    for pair in listed:
        best.setdefault((pair.split, pair.row), pair)
    return NearDuplicates(
        across,
        flagged[0][of_split[0]],
        list(best.values())[:max_pairs],
        (most, units),
        pairs.complete and same_words[2],
    )


def _directed(
    first: Indices, second: Indices, similarity: npt.NDArray[np.float64], *, mirrored: bool
) -> tuple[Indices, Indices, npt.NDArray[np.float64]]:
    """Return the pairs, with each pair in both directions if `mirrored`."""
    if not mirrored:
        return first, second, similarity
    return np.concatenate([first, second]), np.concatenate([second, first]), np.concatenate([similarity, similarity])


def _hash_sequences(tokens: npt.NDArray[np.int32], starts: Indices, lengths: Indices) -> npt.NDArray[np.uint64]:
    """Hash each sequence of tokens, shape [sequences]."""
    position = (np.arange(len(tokens)) - np.repeat(starts, lengths)).astype(np.uint64)
    values = (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + position
    values = (values ^ (values >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(29)
    hashes = np.zeros(len(starts), dtype=np.uint64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        hashes[filled] = np.add.reduceat(values, starts[filled])
    return hashes
