"""`reprise predict`: predict labels of texts. predict_table.py does so for tables, submission.py for benchmarks."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TextIO, TypeVar

import numpy as np

from reprise.core.display import echo, to_json
from reprise.core.errors import UserError
from reprise.data.text import decode_lines
from reprise.modeling.inputs import TextModel, Texts
from reprise.modeling.recipe import ModelRecipe
from reprise.tasks.kind import Logits
from reprise.tasks.token_classification import Words

CHUNK_ROWS = 10_000  # examples in memory at a time; batches of similar lengths are formed within a chunk
PART_CHARS = 2**22  # of them, characters in windows at a time

T = TypeVar("T")


def predict_texts(
    recipe: ModelRecipe, model: TextModel, texts: Iterable[Texts], out: TextIO, top_k: int | None = None
) -> None:
    """Write one JSON line per example: its texts, the predicted label, and the probability of each label.

    In regression the label is the predicted value, and there are no probabilities.

    Args:
        recipe: what the model was trained for.
        model: computes the logits.
        texts: one or two texts per example, one per column of `task.text_columns`.
        out: stream for the JSON lines, in the order of the examples.
        top_k: how many labels to list, best first, instead of the probability of each; None for all.

    Raises:
        UserError: the model has no labels to list.
    """
    remaining = iter(texts)
    chunks = iter(lambda: list(islice(remaining, CHUNK_ROWS)), [])
    for chunk, predictions in predict_chunks(recipe, model, ((chunk, chunk) for chunk in chunks), top_k):
        for row, prediction in zip(chunk, predictions, strict=True):
            inputs = dict(zip(recipe.task.text_columns, row, strict=True))
            out.write(f"{to_json(inputs | prediction)}\n")
        out.flush()


def predict_chunks(
    recipe: ModelRecipe, model: TextModel, chunks: Iterable[tuple[T, Sequence[Texts]]], top_k: int | None
) -> Iterator[tuple[T, Iterator[dict[str, Any]]]]:
    """Predict chunk by chunk, so that few examples are in memory.

    Args:
        recipe: what the model was trained for.
        model: computes the logits.
        chunks: anything, and the texts of its examples.
        top_k: as for `predict_texts`.

    Yields:
        The same thing, and the predictions of its examples.

    Raises:
        UserError: the model has no labels to list.
    """
    kind, done = recipe.kind, 0
    if top_k and not kind.labels:
        raise UserError("the model predicts a number", key="predict --top-k", expected="a model with labels")
    if top_k and kind.per_token:
        raise UserError("the model finds entities", key="predict --top-k", expected="a model of texts")
    for chunk, texts in chunks:
        if done:
            echo(f"predict: {done} examples", err=True)
        logits: list[Logits] = []
        words: list[Words] = []
        for part in parts_of(texts) if recipe.data.windows else [texts]:
            part_logits, found = model(part)
            logits.append(part_logits)
            words += found
        yield chunk, kind.predictions(np.concatenate(logits), top_k, words)
        done += len(texts)


def parts_of(texts: Sequence[Texts]) -> Iterator[Sequence[Texts]]:
    """Divide texts of any length into parts of at most PART_CHARS characters, or one text."""
    start = chars = 0
    for index, row in enumerate(texts):
        size = sum(map(len, row[0])) if isinstance(row[0], list) else len(row[0])
        if index > start and chars + size > PART_CHARS:
            yield texts[start:index]
            start, chars = index, 0
        chars += size
    yield texts[start:]


def parse_row(texts: list[str], columns: list[str]) -> Texts:
    """Check the texts of one example.

    Raises:
        UserError: their number differs from the recipe's text columns.
    """
    if len(texts) != len(columns):
        expected = "one text" if len(columns) == 1 else "two texts, separated by a tab on standard input"
        raise UserError(f"predict: got {len(texts)}: {texts}", expected=f"{expected} ({', '.join(columns)})")
    return tuple(texts)


def read_lines(lines: Iterable[str], columns: list[str]) -> Iterator[Texts]:
    """Parse one example per line; a tab separates the two texts of a pair."""
    for line in lines:
        text = line.rstrip("\n")
        yield parse_row(text.split("\t") if len(columns) == 2 else [text], columns)


def predict_lines(recipe: ModelRecipe, model: TextModel, lines: TextIO, top_k: int | None = None) -> None:
    """Predict each line of a stream and write JSON lines to standard output."""
    if lines.isatty():
        echo("predict: reading one example per line; end with Ctrl-D", err=True)
    decoded = decode_lines(lines.buffer, "standard input")
    predict_texts(recipe, model, read_lines(decoded, recipe.task.text_columns), sys.stdout, top_k)
