"""Windows: the parts of long texts, of at most `train.max_length` tokens each, that the model reads."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.labels import ragged
from reprise.tasks.token_classification import IGNORED, TokenClassification, Words

Ids = npt.NDArray[np.int64]


def tokenize_windows(
    tokenizer: Callable[..., Mapping[str, Any]],
    texts: list[str],
    *,
    max_length: int,
    stride: int,
    kind: TaskKind,
    labels: Sequence[Any] | npt.NDArray[Any],
    words: Sequence[Words] | None = None,
) -> tuple[dict[str, list[Any]], list[npt.NDArray[np.bool_]]]:
    """Tokenize texts in windows, in the order of the texts.

    Args:
        tokenizer: a fast one of transformers, or a `FileTokenizer`.
        texts: the texts.
        max_length: tokens of a window, with special tokens.
        stride: tokens that a window shares with the next one, less than half of `max_length`.
        kind: of the task.
        labels: prepared, of each text.
        words: of each text, if labels are of words.

    Returns:
        Columns with a row for each window, and for each text which of its words have a token, [words]. The columns:
        input_ids, token_type_ids (if the model uses them), length; `example`, the index of the text; `label` of the
        text, or of each token; `weight`, so that those of a text have the sum 1, or `word_tokens`, the positions of
        the first tokens of the words that the window decides.
    """
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        stride=stride,
        padding=False,
        return_attention_mask=False,
        return_overflowing_tokens=True,
        return_offsets_mapping=words is not None,
        return_special_tokens_mask=words is not None,
    )
    example = np.asarray(encoded["overflow_to_sample_mapping"], np.int64)
    columns: dict[str, list[Any]] = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    columns["length"] = [len(ids) for ids in columns["input_ids"]]
    columns["example"] = example.tolist()
    if words is None:
        columns["label"] = [labels[index] for index in example]
        columns["weight"] = (1 / np.bincount(example, minlength=len(texts))[example]).tolist()
        return columns, []
    assert isinstance(kind, TokenClassification)
    columns |= {"label": [], "word_tokens": []}
    kept = []
    for index, (first, last) in enumerate(pairwise(np.searchsorted(example, np.arange(len(texts) + 1)))):
        spans = [
            np.where(np.array(encoded["special_tokens_mask"][row])[:, None] == 0, encoded["offset_mapping"][row], -1)
            for row in range(first, last)
        ]
        labels_of_tokens, word_tokens, found = tag_windows(kind, words[index], labels[index], spans, stride)
        columns["label"] += labels_of_tokens
        columns["word_tokens"] += word_tokens
        kept.append(found)
    return columns, kept


def tag_windows(
    kind: TokenClassification, words: Words, tags: Sequence[int], spans: Sequence[Ids], stride: int
) -> tuple[list[list[int]], list[list[int]], npt.NDArray[np.bool_]]:
    """Give the tokens of a text the tags of its words, each word in one window.

    Args:
        kind: says which tokens of a word are trained.
        words: of the text.
        tags: of each word.
        spans: first character of each token of each window and the one after its last, [tokens, 2]; -1 of special ones.
        stride: tokens that neighbouring windows share.

    Returns:
        For each window the label of each token and the positions of the first tokens of its words; and which words have
        a token, [words].
    """
    places = [np.flatnonzero(window[:, 0] >= 0) for window in spans]
    # The tokens of the text, each once.
    fresh = [place[stride if number else 0 :] for number, place in enumerate(places)]
    text = np.concatenate([window[place] for window, place in zip(spans, fresh, strict=True)])
    first_token, word_of_token = locate_words(words, text)
    found = first_token >= 0
    if not found.all():  # number the words anew
        number = np.append(np.cumsum(found) - 1, -1)
        word_of_token = np.where(found[np.maximum(word_of_token, 0)], number[word_of_token], -1)
    first_token = first_token[found]
    labels = kind.token_labels(first_token, word_of_token, np.asarray(tags, np.int64)[found])
    labels_of_tokens, word_tokens = [], []
    starts = window_starts([len(place) for place in places], stride)
    begin = 0  # of the window, among the tokens of the text
    for window, place, start, end in zip(spans, places, starts, [*starts[1:], len(text)], strict=True):
        row = np.full(len(window), IGNORED)
        row[place[start - begin : end - begin]] = labels[start:end]
        labels_of_tokens.append(row.tolist())
        own = first_token[(first_token >= start) & (first_token < end)]
        word_tokens.append(place[own - begin].tolist())
        begin += len(place) - stride
    return labels_of_tokens, word_tokens, found


def window_starts(sizes: Sequence[int], stride: int) -> Ids:
    """Return the first token of a text that each of its windows decides.

    Two windows share `stride` tokens: each decides the half in which it knows more of the text on both sides.

    Args:
        sizes: tokens of each window, without special ones.
        stride: tokens that neighbours share.
    """
    begins = np.cumsum([0, *(size - stride for size in sizes[:-1])])
    begins[1:] += stride // 2
    return begins


def locate_words(words: Words, spans: Ids) -> tuple[Ids, Ids]:
    """Find the tokens of words.

    Args:
        words: of a text.
        spans: first character of each token and the one after its last, [tokens, 2].

    Returns:
        The index of each word's first token, -1 without one, [words]; and of each token's word, -1 without one,
        [tokens].
    """
    if not len(words.starts) or not len(spans):
        return np.full(len(words.starts), -1), np.full(len(spans), -1)
    first = np.searchsorted(np.maximum.accumulate(spans[:, 1]), words.starts, side="right")
    exists = first < len(spans)
    exists &= spans[np.minimum(first, len(spans) - 1), 0] < words.ends
    word = np.searchsorted(words.starts, spans[:, 1] - 1, side="right") - 1
    inside = (word >= 0) & (spans[:, 1] > spans[:, 0]) & (spans[:, 1] - 1 < words.ends[np.maximum(word, 0)])
    return np.where(exists, first, -1), np.where(inside, word, -1)


def join_windows(example: Sequence[int] | None, logits: Logits, pooling: str | None) -> Logits:
    """Make the logits of texts from those of their windows; without windows, they are returned unchanged.

    Args:
        example: the index of each window's text, [rows], those of a text one after the other; None without windows.
        logits: [rows, outputs]; of words objects, [rows] of [words, outputs].
        pooling: as `data.windows.pooling`; None joins the words.

    Returns:
        fp32, [examples, outputs]; of words objects, [examples] of [words, outputs].
    """
    if example is None:
        return logits
    starts = np.flatnonzero(np.diff(np.asarray(example), prepend=-1))
    if pooling is None:
        return ragged([np.concatenate(part) for part in np.split(logits, starts[1:])])
    if pooling == "first":
        return np.asarray(logits[starts])
    if pooling == "max":
        return np.asarray(np.maximum.reduceat(logits, starts, axis=0))
    sums = np.add.reduceat(logits.astype(np.float64), starts, axis=0)
    return np.asarray(sums / np.diff(np.append(starts, len(logits)))[:, None], np.float32)
