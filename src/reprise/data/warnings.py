"""The words of what prepare warns about; stats.json holds the warnings as names and numbers."""

from collections.abc import Mapping
from typing import Any

from reprise.tasks import classification, regression, token_classification

MAX_NAMES = 5  # labels named in a warning

# A sentence for each `id`; the other entries of a warning fill it in.
SENTENCES = {
    "empty_texts": "{table}: {examples:,} rows without text were left out, the first is row {first_row}",
    "quoted_texts": (
        "{table}: {examples:,} texts are in quotes as in a CSV file, the first in row {first_row}; a TSV file has no "
        "quoting, so these quotes are part of the texts"
    ),
    "row_in_text": (
        "{table}: {examples:,} texts contain a line that looks like a row of its own, the first is row {first_row}; "
        "is a quote open there?"
    ),
    "shared_texts": (
        "{split}: {normalized:,} of {examples:,} examples are also in {other}, {exact:,} of them literally, the others "
        "up to case and white space"
    ),
    "conflicting_labels": "{texts:,} texts occur with different labels, in {examples:,} examples",
    "split_share": "{split}: {obtained:.1%} of the examples, although task.split asks for {asked:.1%}",
    "large_group": (
        "{rows:,} of {of:,} rows stay together in one split, {sharing:,} of them through {value!r} in column "
        "{column!r} (task.split.{key})"
    ),
    "truncated": (
        "{split}: {examples:,} examples ({share:.1%}) are longer than train.max_length and were truncated; "
        "the median is {median:,} tokens, the longest {longest:,}"
    ),
    "unknown_tokens": (
        "{split}: {share:.1%} of the tokens are unknown to the model ({token}); does its vocabulary fit the texts?"
    ),
    **classification.WARNINGS,
    **regression.WARNINGS,
    **token_classification.WARNINGS,
}


def describe_warnings(stats: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the warnings in stats.json, without full stops; earlier versions wrote none."""
    return [
        SENTENCES[warning["id"]].format(
            **{key: _name(value) if isinstance(value, list) else value for key, value in warning.items()}
        )
        for warning in stats.get("warnings", [])
    ]


def _name(labels: list[str]) -> str:
    more = [f"and {len(labels) - MAX_NAMES} more"] if len(labels) > MAX_NAMES else []
    return ", ".join(labels[:MAX_NAMES] + more)
