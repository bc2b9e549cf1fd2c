"""Guess what a table is for: pure functions from columns of strings to roles, the kind of task, and its settings."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from reprise.core.config import MAX_LABELS
from reprise.core.errors import UserError
from reprise.own_data.formats import SPLIT_WORDS
from reprise.tasks.metrics.registry import metrics_of

# Names of columns without case, spaces and signs, the commonest first.
TEXT_NAMES = (
    "text", "sentence", "review", "reviewtext", "tweet", "message", "content", "comment", "commenttext", "body",
    "document", "utterance", "query", "question", "sms", "post", "description", "abstract", "headline", "title",
    "summary", "quote",
)  # fmt: skip
LABEL_NAMES = (
    "goldlabel", "labeltext", "labelname", "label", "labels", "class", "classindex", "target", "category", "sentiment",
    "airlinesentiment", "intent", "emotion", "stars", "star", "rating", "similarity", "similarityscore", "score",
    "relatednessscore", "polarity", "isduplicate", "quality", "stance", "topic", "tag", "toxic", "spam", "verdict", "y",
    "v1", "genre",
)  # fmt: skip
NUMBERED = r"(sentence|sent|s|text|question|q|string)"
PAIR_NAMES = (
    (rf"{NUMBERED}(1|a)|1string", rf"{NUMBERED}(2|b)|2string"),
    ("premise", "hypothesis"),
    ("question|query", "sentence|passage|answer|context|paragraph|document|doc"),
    ("claim", "evidence"),
    (
        "title|headline|reviewtitle|subject|reviewheadline",
        "description|abstract|body|text|content|reviewbody|reviewtext|review",
    ),
)
ID_WORDS = {"id", "idx", "index", "guid", "uid", "uuid", "key", "pairid", "ticket", "file", "number"}
GROUP_WORDS = {
    "user", "userid", "username", "author", "speaker", "customer", "patient", "thread", "conversation", "dialogue",
    "session", "movie", "film", "product", "asin", "business", "reviewer", "writer", "annotator",
}  # fmt: skip
SPLIT_NAMES = {"split", "set", "fold", "partition", "subset", "datasetsplit", "datasplit", "usage"}
NO_TEXT_WORDS = {
    "id", "date", "time", "timestamp", "url", "link", "user", "parse", "lang", "name", "created", "location", "source",
}  # fmt: skip
POSITIVE = (
    "positive", "pos", "yes", "true", "1", "4", "spam", "toxic", "hate", "offensive", "entailment", "duplicate",
    "fresh",
)  # fmt: skip
NO_LABEL = {"", "-", "nan", "NaN"}  # values of rows that have no label
MANY_NUMBERS = 20  # distinct whole numbers above which a column of numbers is not a set of classes
BALANCED = (0.5, 1.5)  # shares of the labels, as multiples of equal shares
FEW_EXPECTED = 25  # rows of a label in a split; of fewer, chance alone gives a random split 40 % more or less


def plain(name: str) -> str:
    """Return a name without case, spaces and signs."""
    return re.sub(r"[^0-9a-z]", "", name.lower())


def words(name: str) -> set[str]:
    """Return the words of a name such as `userId` or `user_id`, and the whole of it."""
    parts = re.findall(r"[a-z]+|[0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return {*parts, plain(name)}


@dataclass(frozen=True)
class Column:
    """What a column of strings looks like."""

    name: str
    position: int
    values: pa.ChunkedArray = field(repr=False)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each value occurs, without empty ones."""
        found = pc.value_counts(self.values.combine_chunks())
        pairs = zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
        return Counter({value: times for value, times in pairs if value and not value.isspace()})

    @cached_property
    def filled(self) -> int:
        """The number of cells with a value."""
        return self.counts.total()

    @cached_property
    def sample(self) -> list[str]:
        """Some values, evenly spaced over the distinct ones."""
        values = list(self.counts)
        return values[:: max(1, len(values) // 1000)][:1000]

    @cached_property
    def mean_words(self) -> float:
        """The mean number of words of the sampled values."""
        return sum(len(value.split()) for value in self.sample) / max(len(self.sample), 1)

    @cached_property
    def mean_chars(self) -> float:
        """The mean number of characters of the sampled values."""
        return sum(map(len, self.sample)) / max(len(self.sample), 1)

    @cached_property
    def is_numeric(self) -> bool:
        """Whether every value is a number."""
        return self.filled > 0 and all(to_number(value) is not None for value in self.counts)

    @cached_property
    def is_whole(self) -> bool:
        """Whether every value is a whole number."""
        return self.is_numeric and all(float(to_number(value) or 0).is_integer() for value in self.counts)

    @cached_property
    def is_list(self) -> bool:
        """Whether the values are lists, as JSON writes them."""
        return bool(self.sample) and all(value[:1] + value[-1:] == "[]" for value in self.sample)

    @property
    def is_unique(self) -> bool:
        """Whether each row has a value of its own."""
        return len(self.counts) == self.filled == len(self.values)


def to_number(value: str) -> float | None:
    """Return a number with a decimal point or comma; None for any other text."""
    if re.fullmatch(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*", value):
        return float(value.strip().replace(",", "."))
    return None


def profile(table: pa.Table) -> dict[str, Column]:
    """Describe the columns of a table of strings."""
    return {
        name: Column(name, position, pc.fill_null(column, ""))
        for position, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True))
    }


def describe_columns(columns: Mapping[str, Column]) -> str:
    """List the columns with an example of each."""
    return ", ".join(f"{name} ({(column.sample or [''])[0][:30]!r})" for name, column in columns.items())


def split_candidates(columns: Mapping[str, Column]) -> list[Column]:
    """Return the columns whose name is one for the split of each row."""
    return [column for name, column in columns.items() if words(name) & SPLIT_NAMES]


def find_split(candidates: Sequence[Column]) -> tuple[str, dict[str, str]] | None:
    """Return the column that divides a table into splits, and the split that each of its values names."""
    for column in candidates:
        if len(column.counts) <= 10:
            meaning = {value: SPLIT_WORDS.get(value.strip().lower(), "") for value in column.counts}
            if "train" in meaning.values() and all(meaning.values()) and column.filled == len(column.values):
                return column.name, meaning
    return None


def find_texts(columns: Mapping[str, Column], taken: set[str]) -> tuple[list[str], list[str]]:
    """Return the one or two columns to read, and the other candidates, the best first."""
    candidates = {name: _text_score(column) for name, column in columns.items() if name not in taken}
    ranked = sorted((name for name, score in candidates.items() if score > 0), key=lambda name: -candidates[name])
    likely = [name for name in ranked if candidates[name] > candidates[ranked[0]] / 2]
    for first, second in PAIR_NAMES:
        pair = [
            next((name for name in ranked if re.fullmatch(pattern, plain(name))), None) for pattern in (first, second)
        ]
        if pair[0] and pair[1] and pair[0] != pair[1]:
            return [pair[0], pair[1]], [name for name in likely if name not in pair]
    return likely[:1], likely[1:]


def _text_score(column: Column) -> float:
    few = len(column.counts) < max(2, 0.02 * column.filled) and len(column.counts) <= 50
    if column.is_numeric or few or not column.counts:
        return 0
    name = plain(column.name)
    hint = 1 - 0.02 * TEXT_NAMES.index(name) if name in TEXT_NAMES else 0.4 if words(column.name) & {*TEXT_NAMES} else 0
    if words(column.name) & NO_TEXT_WORDS and name not in TEXT_NAMES:
        hint -= 1
    if plain(column.name) in LABEL_NAMES:
        hint -= 0.5
    length = min(column.mean_words, 30) / 30 + (min(column.mean_chars, 20) / 100)
    distinct = len(column.counts) / column.filled
    return (
        hint + length if column.mean_words >= 2 or hint > 0 or column.mean_chars > 25 else 0.1 * distinct * (hint >= 0)
    )


def find_label(columns: Mapping[str, Column], taken: set[str]) -> tuple[str | None, list[str]]:
    """Return the column to predict, and the other candidates, the best first."""
    scores = {name: _label_score(column) for name, column in columns.items() if name not in taken}
    ranked = sorted((name for name, score in scores.items() if score > 0), key=lambda name: -scores[name])
    if not ranked:  # a column of numbers without a name of its own, if there is one only
        others = NO_TEXT_WORDS | ID_WORDS | GROUP_WORDS
        ranked = [name for name in scores if columns[name].is_numeric and not words(name) & others]
        ranked = ranked if len(ranked) == 1 else []
    return (ranked[0] if ranked else None), ranked[1:]


def name_hint(name: str) -> float:
    """Return how much a name sounds like one of labels, also in the plural: 1 or more if it does, else 0."""
    each = plain(name)
    singular = re.sub("ies$", "y", each) if each.endswith("ies") else each.removesuffix("s")
    known = next((word for word in (each, singular) if word in LABEL_NAMES), None)
    if known:
        return 2 - 0.02 * LABEL_NAMES.index(known)
    return 1 if words(name) & {*LABEL_NAMES} else 0


def _label_score(column: Column) -> float:
    distinct = len(column.counts)
    if distinct < 2 or (not column.is_numeric and distinct > max(20, column.filled / 2)) or column.mean_words > 12:
        return 0
    hint = name_hint(column.name)
    if column.is_numeric and not hint and distinct > MANY_NUMBERS:
        return 0
    if words(column.name) & (ID_WORDS | GROUP_WORDS | NO_TEXT_WORDS) and plain(column.name) not in LABEL_NAMES:
        hint -= 0.6
    return max(0, hint + 0.5 / (1 + max(0, distinct - 20)) + 0.1 * (distinct <= 20) - 0.01 * column.position)


def find_id(columns: Mapping[str, Column], taken: set[str]) -> str | None:
    """Return a column named as an identifier with another value in each row."""
    named = (name for name in columns if words(name) & ID_WORDS and not re.search("[0-9]", name))
    return next((name for name in named if name not in taken and columns[name].is_unique), None)


def find_group(columns: Mapping[str, Column], taken: set[str]) -> str | None:
    """Return a column that says what rows have in common, such as their author."""
    for name, column in columns.items():
        if name in taken or not words(name) & GROUP_WORDS or len(column.counts) < 10:
            continue
        largest = column.counts.most_common(1)[0][1]
        if len(column.counts) < 0.95 * column.filled and largest <= 0.1 * column.filled:
            return name
    return None


def kind_of(label: Column) -> str:
    """Return classification or regression."""
    if not label.is_numeric:
        return "classification"
    if not label.is_whole:
        return "regression"
    numbers = sorted(int(to_number(value) or 0) for value in label.counts)
    ids = numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    named = plain(label.name) in ("label", "labels", "class", "classindex", "category", "intent", "target", "topic")
    few = len(numbers) <= MANY_NUMBERS or (ids and named and label.filled >= 2 * len(numbers))
    return "classification" if few else "regression"


def sorted_labels(counts: Mapping[str, int], *, fewest: int = 2) -> list[str]:
    """Sort labels, numbers by value.

    Raises:
        UserError: there are too many, or only one.
    """
    if not fewest <= len(counts) <= MAX_LABELS:
        expected = f"{fewest} to {MAX_LABELS:,} different labels, or --task regression for numbers"
        raise UserError(f"{len(counts):,} labels", key="--label", expected=expected)
    numbers = {label: to_number(label) for label in counts}
    return sorted(counts, key=lambda label: (numbers[label] is None, numbers[label] or 0, label))


def is_balanced(counts: Mapping[str, int]) -> bool:
    """Return whether no label is much commoner or rarer than the others."""
    mean = sum(counts.values()) / len(counts)
    return BALANCED[0] <= min(counts.values()) / mean and max(counts.values()) / mean <= BALANCED[1]


def find_rarest(counts: Mapping[str, int], fraction: float) -> tuple[str, float] | None:
    """Return the rarest label and its expected rows in a random split of that fraction, if these are few."""
    rarest = min(counts, key=lambda label: counts[label])
    expected = counts[rarest] * fraction
    return (rarest, expected) if expected < FEW_EXPECTED else None


def guess_positive(labels: Sequence[str], counts: Mapping[str, int]) -> tuple[str, str]:
    """Return the positive one of two labels, and why."""
    named = [label for label in labels if label.strip().lower() in POSITIVE]
    if len(named) == 1:
        return named[0], "by its name"
    if not is_balanced(counts):
        return min(labels, key=lambda label: counts[label]), "the rarer one"
    return labels[-1], "the last one"


def propose_metrics(kind: str, labels: Sequence[str], *, balanced: bool) -> list[str]:
    """Return metrics of the registry; the first selects the epoch."""
    if kind == "multi-label":
        wanted = ["f1_macro", "f1_micro", "f1_samples", "subset_accuracy", "average_precision"]
        kind = "multi-label classification"
    elif kind == "entities":
        wanted, kind = ["entity_f1", "entity_precision", "entity_recall"], "token classification"
    elif kind == "regression":
        wanted = ["pearson", "spearman", "rmse"]
    elif balanced:
        wanted = ["accuracy", "f1"]
    else:
        wanted = ["matthews", "f1", "accuracy"] if len(labels) == 2 else ["f1", "matthews", "accuracy"]
    return [metric for metric in wanted if metric in metrics_of(kind)]
