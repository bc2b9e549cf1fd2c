"""Entities as spans of tagged words, and how many of them are predicted correctly.

Tags are ids of IOB2: 0 is outside, 2·type + 1 begins an entity of a type, 2·type + 2 continues it. As in conlleval
(Tjong Kim Sang & Buchholz 2000) and seqeval, a tag that continues nothing begins an entity, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Tags = Sequence[npt.NDArray[Any]] | npt.NDArray[Any]  # ids of each example's words, [examples] of [words]


@dataclass(frozen=True)
class Entities:
    """Entities in the order of the words, each array of [entities].

    Attributes:
        example: index of the example.
        start: index of the first word, counted over all examples.
        end: index after the last word.
        type: id of the type.
    """

    example: Ids
    start: Ids
    end: Ids
    type: Ids


def flatten(tags: Tags) -> tuple[Ids, Ids]:
    """Return the tags of all words, and the index of each word's example, both of [words]."""
    sizes = np.array([len(each) for each in tags], dtype=np.int64)
    flat = np.concatenate([np.empty(0, np.int64), *(np.asarray(each, np.int64) for each in tags)])
    return flat, np.repeat(np.arange(len(sizes)), sizes)


def find_entities(tags: Tags) -> Entities:
    """Find the entities in the tags of each example."""
    flat, example = flatten(tags)
    starts = _starts(flat, example)
    boundaries = np.append(np.flatnonzero(starts | (flat == 0) | _first(example)), len(flat))
    start = np.flatnonzero(starts)
    end = boundaries[np.searchsorted(boundaries, start, side="right")]
    return Entities(example[start], start, end, (flat[start] - 1) // 2)


def repair(tags: Tags) -> list[npt.NDArray[np.int64]]:
    """Return tags with the same entities, all of them with a tag that begins one."""
    flat, example = flatten(tags)
    flat = np.where(_starts(flat, example) & (flat % 2 == 0), flat - 1, flat)
    return np.split(flat, np.cumsum([len(each) for each in tags])[:-1])


def _first(example: Ids) -> npt.NDArray[np.bool_]:
    return np.diff(example, prepend=-1) > 0


def _starts(flat: Ids, example: Ids) -> npt.NDArray[np.bool_]:
    before = np.concatenate([[0], flat[:-1]])[: len(flat)]
    continues = (flat % 2 == 0) & ((flat - 1) // 2 == (before - 1) // 2) & ~_first(example)
    return np.asarray((flat > 0) & ~continues)


@dataclass(frozen=True)
class Counts:
    """Numbers of entities by example and type, each array of [examples, types].

    Attributes:
        correct: predicted with the same words and the same type.
        predicted: predicted in all.
        actual: in the references.
    """

    correct: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    actual: npt.NDArray[np.int64]


def count_entities(predictions: Tags, references: Tags, types: int | None = None) -> Counts:
    """Count the entities of each example.

    Args:
        predictions: tags of each example.
        references: the true ones, of the same lengths.
        types: number of types; None for a single column with the sum over all.
    """
    predicted, actual = find_entities(predictions), find_entities(references)
    columns, examples = types or 1, len(references)

    def counted(entities: Entities, chosen: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        cells = entities.example * columns + (entities.type if types else 0)
        kept = cells if chosen is None else cells[chosen]
        return np.bincount(kept, minlength=examples * columns).reshape(examples, columns)

    matching = match(predicted, actual)
    same_type = predicted.type[matching >= 0] == actual.type[matching[matching >= 0]]
    correct = matching >= 0
    correct[correct] = same_type
    return Counts(counted(predicted, correct), counted(predicted), counted(actual))


def match(predicted: Entities, actual: Entities) -> Ids:
    """Return for each predicted entity the index of the actual one with the same words, -1 without one."""
    if not len(actual.start):
        return np.full(len(predicted.start), -1)
    place = np.minimum(np.searchsorted(actual.start, predicted.start), len(actual.start) - 1)
    same = (actual.start[place] == predicted.start) & (actual.end[place] == predicted.end)
    return np.where(same, place, -1)
