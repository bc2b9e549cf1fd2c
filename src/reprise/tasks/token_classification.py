"""Token classification: entities of the recipe's labels, each some words of a text (named-entity recognition)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reprise.tasks.classification import Classification
from reprise.tasks.formatting import shortest_float32
from reprise.tasks.labels import ragged, unknown_label
from reprise.tasks.metrics.entities import Tags, count_entities, find_entities, match, repair
from reprise.tasks.multi_label import MultiLabel

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from datasets import List

    from reprise.tasks.kind import LossOptions

IGNORED = -100  # in place of the tag of a token that has none
OUTSIDE, NO_ENTITY = "O", "no entity"
# What a warning of prepare says; data/warnings.py has the others.
WARNINGS = {
    "widened_spans": (
        "{table}: {examples:,} examples have spans that begin or end within a word, the first is row {first_row}; "
        "they were widened to whole words"
    ),
    "words_without_tokens": (
        "{split}: {words:,} words without any token of the model, such as control characters, were left out"
    ),
}
# Letters of scripts without spaces are words of their own, as for BERT's tokenizers.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+|[^\w\s]")
# IOB2 and IOBES (BILOU): what a prefix says about the tag before it and the tag after it.
BEGINS, ENDS = "BSU", "ESLU"
TAG = re.compile(r"([BIESLUM])[-_](.+)", re.DOTALL)


class Words(NamedTuple):
    """A text and where its words are: characters from `starts[i]` up to `ends[i]`, each array int32, [words]."""

    text: str
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]


def find_words(value: Any) -> Words:
    """Take a text, or a list of words, which are joined by spaces; words that were found before stay.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, Words):
        return value
    if isinstance(value, str):
        found = [word.span() for word in WORD.finditer(value)]
        spans = np.array(found, dtype=np.int32).reshape(-1, 2)
        return Words(value, spans[:, 0], spans[:, 1])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"got {value!r}; expected a text, or a list of words")
    sizes = np.array([len(word) for word in value], dtype=np.int32)
    starts = (np.cumsum(sizes + 1) - sizes - 1).astype(np.int32)
    return Words(" ".join(value), starts, starts + sizes)


class Segment(NamedTuple):
    """A part of a text whose words have the same actual and the same predicted entity; "" for none."""

    text: str
    actual: str
    predicted: str
    correct: bool


def mark_entities(row: Mapping[Any, Any]) -> list[Segment]:
    """Divide the text of a row of predictions/ at its entities.

    Args:
        row: text, word_starts, word_ends, label and prediction.
    """
    sides = [_numbered(row[side]) for side in ("label", "prediction")]
    actual, predicted = ({number: where for where, number in _extents(side)} for side in sides)
    segments: list[Segment] = []
    done, last = 0, (0, 0)
    for start, end, *entities in zip(row["word_starts"], row["word_ends"], *(side[0] for side in sides), strict=True):
        first, second = entities
        if (first, second) == last and segments:  # the same entities: with what stands between the words
            before = segments[-1]
            segments[-1] = before._replace(text=before.text + row["text"][done:end])
        else:
            if row["text"][done:start]:
                segments.append(Segment(row["text"][done:start], "", "", True))
            names = sides[0][1].get(first, ""), sides[1][1].get(second, "")
            same = names[0] == names[1] and actual.get(first) == predicted.get(second)
            segments.append(Segment(row["text"][start:end], names[0], names[1], same))
        done, last = end, (first, second)
    if row["text"][done:]:
        segments.append(Segment(row["text"][done:], "", "", True))
    return segments


def entity_texts(row: Mapping[Any, Any], side: str) -> str:
    """Spell the entities of a row of predictions/ as `Ada Lovelace (person), London (place)`; a dash if there are none.

    Args:
        row: text, word_starts, word_ends and `side`.
        side: label or prediction.
    """
    numbered = _numbered(row[side])
    found = [
        f"{row['text'][row['word_starts'][first] : row['word_ends'][last]]} ({numbered[1][number]})"
        for (first, last), number in _extents(numbered)
    ]
    return ", ".join(found) or "–"


def _numbered(tags: Sequence[str]) -> tuple[list[int], dict[int, str]]:
    """Number the entities of IOB2 tags from 1: of each word, 0 outside; and the label of each number."""
    numbers: list[int] = []
    labels: dict[int, str] = {}
    for tag in tags:
        if tag.startswith("B-"):
            labels[len(labels) + 1] = tag[2:]
        numbers.append(0 if tag == OUTSIDE else len(labels))
    return numbers, labels


def _extents(numbered: tuple[list[int], dict[int, str]]) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield first and last word of each entity, and its number."""
    numbers = numbered[0]
    for number in numbered[1]:
        first = numbers.index(number)
        yield (first, first + numbers.count(number) - 1), number


@dataclass(frozen=True)
class TokenClassification:
    """A tag of IOB2 for each word, trained with cross-entropy. For what each member is, see `TaskKind`.

    A prepared label is the ids of the tags of an example's words: 0 outside of entities, 2·label + 1 for the first word
    of an entity, 2·label + 2 for the others. The first token of a word decides its tag.

    Attributes:
        subwords: the tokens of a word that are trained: `first` or `all`.
    """

    labels: tuple[str, ...]
    subwords: str = "first"
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    per_token: bool = True
    positive_label: None = None
    positive: None = None
    name: str = "token classification"
    named_labels: bool = True
    thresholds: None = None
    label_scale: None = None
    baseline: str = "no entity, the commonest tag"
    pipeline: str = "token-classification"
    pipeline_arguments: str = 'aggregation_strategy="first"'
    errors_title: str = "Texts with the most wrong entities"
    constant_meaning: str = "every word got the same tag"
    limits: str = "It finds entities of these types only, each of whole words, and none inside another."

    @cached_property
    def label2id(self) -> dict[str, int]:
        """The id of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    @cached_property
    def tags(self) -> list[str]:
        """The name of each tag, by id."""
        return [OUTSIDE, *(f"{prefix}-{label}" for label in self.labels for prefix in "BI")]

    @property
    def label_feature(self) -> List:
        from datasets import List, Value

        return List(Value("int32"))

    @property
    def placeholder_label(self) -> list[int]:
        return []

    @property
    def ignored_label(self) -> list[int]:
        return []  # the collator fills up with IGNORED

    def describe(self, label_column: str) -> str:
        return f"find {', '.join(self.labels)} in texts"

    def label_columns(self, label_column: str | None) -> list[str]:
        return [str(label_column)]

    def find_words(self, value: Any) -> Words:
        return find_words(value)

    def parse_label(self, value: Any, split: str) -> list[int]:
        """Take the words of an example and its raw label: a list of tags, or one of spans `{start, end, label}`.

        A text of tags between spaces is a list of tags. Spans count characters, from `start` up to `end`.
        """
        words, label = value
        if isinstance(label, str):
            label = label.split()
        if not isinstance(label, list):
            raise ValueError(f"got {label!r}; expected a list of tags, or of spans {{start, end, label}}")
        if all(isinstance(each, str) for each in label) and (label or not len(words.starts)):
            if len(label) != len(words.starts):
                raise ValueError(
                    f"{len(label)} tags and {len(words.starts)} words; expected a tag for each word of a list of words"
                )
            return self._parse_tags(label)
        return self._parse_spans(label, words)

    def _parse_tags(self, names: Sequence[str]) -> list[int]:
        tags, before, open_ = [], -1, False  # whether the entity of the word before may continue
        for name in names:
            prefixed = TAG.fullmatch(name)
            if name == OUTSIDE:
                tags.append(0)
                before, open_ = -1, False
                continue
            if name in self.label2id:
                prefix, label = "I", name
            elif prefixed and prefixed[2] in self.label2id:
                prefix, label = prefixed[1], prefixed[2]
            else:
                raise ValueError(unknown_label(prefixed[2] if prefixed else name, self.labels))
            number = self.label2id[label]
            continues = open_ and number == before and prefix not in BEGINS
            tags.append(2 * number + (2 if continues else 1))
            before, open_ = number, prefix not in ENDS
        return tags

    def _parse_spans(self, spans: Sequence[Any], words: Words) -> list[int]:
        tags = [0] * len(words.starts)
        for span in spans:
            try:
                start, end, label = int(span["start"]), int(span["end"]), str(span["label"])
            except (TypeError, KeyError, ValueError):
                raise ValueError(f"got the span {span!r}; expected {{start, end, label}}") from None
            if label not in self.label2id:
                raise ValueError(unknown_label(label, self.labels))
            if not 0 <= start < end <= len(words.text):
                raise ValueError(
                    f"got a span from {start} to {end}; expected one within the {len(words.text)} characters"
                )
            inside = np.flatnonzero((words.starts < end) & (words.ends > start))
            if any(tags[word] for word in inside):
                raise ValueError(f"the span from {start} to {end} shares a word with another; expected none that do")
            for word in inside:
                tags[word] = 2 * self.label2id[label] + (1 if word == inside[0] else 2)
        return tags

    def widened(self, spans: Any, words: Words) -> bool:
        """Return whether a span in a raw label begins or ends within a word."""
        if not isinstance(spans, list) or not all(isinstance(span, Mapping) for span in spans):
            return False
        ends = ((int(span["start"]), int(span["end"])) for span in spans)
        return any(((words.starts < edge) & (words.ends > edge)).any() for span in ends for edge in span)

    def token_labels(
        self, first: npt.NDArray[np.int64], words: npt.NDArray[np.int64], tags: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return the tag of each token of a text, IGNORED where it is not trained.

        Args:
            first: index of each word's first token, [words].
            words: index of each token's word, -1 without one, [tokens].
            tags: of each word, [words].
        """
        labels = np.full(len(words), IGNORED)
        if self.subwords == "all":
            of_word = np.where(words >= 0, tags[np.maximum(words, 0)] if len(tags) else 0, IGNORED)
            labels = np.where((of_word > 0) & (of_word % 2 == 1), of_word + 1, of_word)
        labels[first[::-1]] = tags[::-1]  # of a token that begins two words, the first word counts
        return labels

    def is_unlabeled(self, labels: npt.NDArray[Any]) -> bool:
        return False

    def strata(
        self, labels: npt.NDArray[Any], groups: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], Sequence[str]]:
        return MultiLabel(self.labels).strata(self._present(labels), groups)

    def _present(self, labels: Tags) -> npt.NDArray[np.int8]:
        """Return which labels each example has, [examples, labels]."""
        return (count_entities(labels, labels, len(self.labels)).actual > 0).astype(np.int8)

    def label_stats(self, labels: npt.NDArray[Any]) -> dict[str, Any]:
        counts = count_entities(labels, labels, len(self.labels)).actual
        return {
            "label_counts": {label: int(count) for label, count in zip(self.labels, counts.sum(axis=0), strict=True)},
            "hidden_labels": 0,
            "words": sum(map(len, labels)),
            "without_label": int((counts.sum(axis=1) == 0).sum()),
        }

    def label_warnings(self, splits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        return MultiLabel(self.labels).label_warnings(splits)

    def stats_table(self, stats: Mapping[str, Any]) -> dict[str, float]:
        return {label: stats["label_counts"][label] for label in self.labels} | {"words": stats["words"]}

    def fit(self, train_stats: Mapping[str, Any], loss: LossOptions | None = None) -> TokenClassification:
        if loss is None:
            return self
        return replace(self, label_smoothing=loss.label_smoothing, focal_gamma=loss.focal_gamma)

    def loss_problem(self, loss: LossOptions) -> tuple[str, str, str] | None:
        if loss.class_weights is not None:
            return "class_weights", "got weights of labels", "null, since a word may have no label"
        return Classification(tuple(self.tags)).loss_problem(loss)

    def loss_weights(self, read_labels: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        return np.array([np.count_nonzero(each != IGNORED) for each in read_labels()], dtype=np.float64)

    def head_config(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.tags),
            "id2label": dict(enumerate(self.tags)),
            "label2id": {tag: number for number, tag in enumerate(self.tags)},
        }

    def summed_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        words = Classification(tuple(self.tags), label_smoothing=self.label_smoothing, focal_gamma=self.focal_gamma)
        return words.summed_loss(logits.flatten(0, 1), labels.flatten())

    def teacher_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, temperature: float | None
    ) -> torch.Tensor:
        raise NotImplementedError  # the recipe's check refuses a teacher: its tokens may be others than the student's

    def temperatures(self, logits: npt.NDArray[Any], references: npt.NDArray[Any]) -> list[float]:
        words = np.concatenate([*logits]), np.concatenate([*references])
        return Classification(tuple(self.tags)).temperatures(*words)

    def tune(self, logits: npt.NDArray[Any], references: npt.NDArray[Any]) -> TokenClassification:
        return self

    def probabilities(self, logits: npt.NDArray[Any]) -> None:
        return None

    def _scores(self, logits: npt.NDArray[Any]) -> list[npt.NDArray[np.float64]]:
        """Return the probability of each tag of each word: of each example [words, tags]."""
        words = Classification(tuple(self.tags))
        return [words.probabilities(each.reshape(-1, len(self.tags))) for each in logits]

    def decode(self, logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the most probable tags of each example's words; one that continues nothing begins an entity."""
        return ragged(repair([each.reshape(-1, len(self.tags)).argmax(axis=1) for each in logits]))

    def predictions(
        self, logits: npt.NDArray[Any], top_k: int | None = None, words: Sequence[Words] = ()
    ) -> Iterator[dict[str, Any]]:
        for each, tags, scores in zip(words, self.decode(logits), self._scores(logits), strict=True):
            found = find_entities([tags])
            yield {
                "entities": [
                    {
                        "start": int(each.starts[start]),
                        "end": int(each.ends[end - 1]),
                        "label": self.labels[label],
                        "text": each.text[each.starts[start] : each.ends[end - 1]],
                        "score": shortest_float32(scores[start:end].max(axis=1).mean()),
                    }
                    for start, end, label in zip(found.start, found.end, found.type, strict=True)
                ]
            }

    def constant_predictions(self, train_stats: Mapping[str, Any], references: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return ragged([np.zeros(len(each), np.int64) for each in references])

    def is_constant(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> bool:
        return len({int(tag) for each in predictions for tag in each}) <= 1

    def label_names(self, values: npt.NDArray[Any]) -> list[list[str]]:
        return [[self.tags[tag] for tag in each] for each in values]

    def label_values(self, names: Sequence[Any]) -> npt.NDArray[Any]:
        ids = {tag: number for number, tag in enumerate(self.tags)}
        if unknown := {str(name) for row in names for name in row} - ids.keys():
            raise ValueError(f"unknown tags: {', '.join(sorted(unknown))}")
        return ragged([np.array([ids[name] for name in row], np.int64) for row in names])

    def prediction_columns(self, logits: npt.NDArray[Any], references: npt.NDArray[Any]) -> dict[str, Any]:
        import pyarrow as pa

        names = pa.list_(pa.string())
        scores = [each.max(axis=1).astype(np.float32).tolist() for each in self._scores(logits)]
        return {
            "label": pa.array(self.label_names(references), names),
            "prediction": pa.array(self.label_names(self.decode(logits)), names),
            "scores": pa.array(scores, pa.list_(pa.float32())),
        }

    def plots(self, logits: npt.NDArray[Any], references: npt.NDArray[Any]) -> dict[str, pd.DataFrame]:
        import pandas as pd

        from reprise.tasks.curves import calibration_table, empty_plots

        predictions, scores = self.decode(logits), self._scores(logits)
        counts = count_entities(predictions, references, len(self.labels))
        correct, predicted, actual = (
            part.sum(axis=0).astype(np.float64) for part in (counts.correct, counts.predicted, counts.actual)
        )
        with np.errstate(invalid="ignore"):  # of a label without entities, not a number
            shares = {"precision": correct / predicted, "recall": correct / actual}
            f1 = 2 * correct / (predicted + actual)
        plots = {
            "per_class.csv": pd.DataFrame(
                {"label": self.labels, **shares, "f1": f1, "support": actual.astype(np.int64)}
            ),
            "confusion.csv": self._confusion(predictions, references),
        }
        if flat := [each for each in scores if len(each)]:
            plots["calibration.csv"] = calibration_table(
                np.concatenate(flat), np.concatenate([each for each in references if len(each)])
            )
        return empty_plots() | plots

    def _confusion(self, predictions: Tags, references: Tags) -> pd.DataFrame:
        """Return a row per entity: its label and that of the prediction for the same words; and the spurious ones."""
        import pandas as pd

        predicted, actual = find_entities(predictions), find_entities(references)
        names, found = np.array([*self.labels, NO_ENTITY]), match(predicted, actual)
        types = np.full(len(actual.type), len(self.labels))
        types[found[found >= 0]] = predicted.type[found >= 0]
        spurious = predicted.type[found < 0]
        outside = np.full(len(spurious), len(self.labels))
        return pd.DataFrame(
            {
                "actual": names[np.concatenate([actual.type, outside])],
                "predicted": names[np.concatenate([types, spurious])],
            }
        )

    def extra_metrics(self, plots: Mapping[str, pd.DataFrame]) -> dict[str, float]:
        from reprise.tasks.curves import expected_calibration_error

        return {"ece": expected_calibration_error(plots["calibration.csv"])} if len(plots["calibration.csv"]) else {}

    def rank_errors(self, predictions: pd.DataFrame) -> pd.Series[float]:
        import pandas as pd

        found, actual = (self.label_values(predictions[side].tolist()) for side in ("prediction", "label"))
        counts = count_entities(found, actual)
        wrong = (counts.predicted + counts.actual - 2 * counts.correct)[:, 0]
        scores = pd.Series(wrong.astype(np.float64), predictions.index)
        return scores[scores > 0]

    def describe_error(self, score: float) -> str:
        return f"{score:.0f} missed or wrong"

    def is_correct(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return np.array([np.array_equal(*pair) for pair in zip(predictions, references, strict=True)], dtype=bool)

    def explained_share(self, groups: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
        return 0.0  # a column may tell which entities a text has, not where they are

    def disagreement(self, before: pd.DataFrame, after: pd.DataFrame) -> npt.NDArray[np.float64]:
        pairs = zip(before["prediction"], after["prediction"], strict=True)
        return np.array([float(np.sum(np.asarray(first) != np.asarray(second))) for first, second in pairs])
