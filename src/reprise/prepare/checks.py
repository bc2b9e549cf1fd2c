"""What is odd about prepared data: pure functions from hashes, labels and statistics to warnings of stats.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reprise.core.config import SPLITS
from reprise.tasks.kind import TaskKind

# Below it, truncation cuts only the tail that a maximum length is chosen to cut, usually beyond the 99 % quantile.
TRUNCATED_SHARE = 0.01
# Below 0.1 % where vocabulary and texts fit; another language, script or case is well above.
UNKNOWN_SHARE = 0.01
# Relative. Groups stay whole, so shares are seldom exact; beyond it, a group is large compared with a split.
SHARE_TOLERANCE = 0.25
# Of the rows; more in one group leave no choice of splits.
LARGE_SHARE = 0.5


def shared_texts(
    exact: Mapping[str, npt.NDArray[np.uint64]], normalized: Mapping[str, npt.NDArray[np.uint64]]
) -> list[dict[str, Any]]:
    """Count the examples of each split whose texts are also in an earlier one, training first.

    Args:
        exact: by split, a hash of each example's texts as written.
        normalized: by split, a hash of each example's texts without differences of case and white space.

    Returns:
        For each pair of splits: split, other, and the numbers exact, normalized (which includes the exact ones) and
        examples (of `split`).
    """
    order = [split for split in SPLITS if split in exact] + [split for split in exact if split not in SPLITS]
    return [
        {
            "split": split,
            "other": other,
            "exact": _count_known(exact[split], exact[other]),
            "normalized": _count_known(normalized[split], normalized[other]),
            "examples": len(exact[split]),
        }
        for number, split in enumerate(order)
        for other in order[:number]
    ]


def _count_known(values: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> int:
    """Count the values that occur in `known`, with less memory than `numpy.isin`."""
    ascending = np.sort(known)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return int((ascending[places] == values).sum())


def conflicting_labels(texts: npt.NDArray[np.uint64], labels: npt.NDArray[Any]) -> dict[str, int]:
    """Count the texts that occur with different labels.

    Args:
        texts: a hash of each example's texts, shape [examples].
        labels: the prepared labels, shape [examples].

    Returns:
        The numbers of such texts, and of the examples with them.
    """
    order = np.argsort(texts, kind="stable")
    texts, labels = texts[order], labels[order]
    starts = np.flatnonzero(np.concatenate([[True], texts[1:] != texts[:-1]]))[: len(texts)]
    if not len(starts):
        return {"texts": 0, "examples": 0}
    differs = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
    sizes = np.diff(np.append(starts, len(texts)))
    return {"texts": int(differs.sum()), "examples": int(sizes[differs].sum())}


def find_warnings(
    stats: Mapping[str, Any],
    kind: TaskKind,
    *,
    shares: Mapping[str, Mapping[str, Any]],
    largest_group: Mapping[str, Any],
    unknown_token: str,
) -> list[dict[str, Any]]:
    """Return the warnings that follow from the statistics.

    Args:
        stats: content of stats.json.
        kind: the kind of task, which judges the labels.
        shares: `asked` and `obtained` of each split that was cut, `of` all their rows.
        largest_group: the warning about the largest group of rows that stay together; read only if a split was cut.
        unknown_token: the token of unknown words; empty if the tokenizer has none.
    """
    warnings: list[dict[str, Any]] = [
        {"id": "shared_texts"} | pair for pair in stats["shared_texts"] if pair["normalized"]
    ]
    if stats["conflicting_labels"]["texts"]:
        warnings.append({"id": "conflicting_labels"} | stats["conflicting_labels"])
    warnings += kind.label_warnings(stats["splits"])
    missed = [
        {"id": "split_share", "split": name, "asked": share["asked"], "obtained": share["obtained"]}
        for name, share in shares.items()
        if abs(share["rows"] - share["asked"] * share["of"]) > max(SHARE_TOLERANCE * share["asked"] * share["of"], 1)
    ]
    warnings += missed
    if shares:
        smallest = min(share["asked"] for share in shares.values())
        if largest_group["rows"] > (smallest if missed else LARGE_SHARE) * largest_group["of"]:
            warnings.append(dict(largest_group))
    for name, content in stats["splits"].items():
        truncated, examples = content["truncated_rows"], content["num_examples"]
        if truncated > TRUNCATED_SHARE * examples:
            quantiles = content["length_quantiles"]
            numbers = {"share": truncated / examples, "median": quantiles["0.5"], "longest": quantiles["1.0"]}
            warnings.append({"id": "truncated", "split": name, "examples": truncated} | numbers)
        if content.get("lost_words"):
            warnings.append({"id": "words_without_tokens", "split": name, "words": content["lost_words"]})
        if unknown_token and content["unknown_tokens"] > UNKNOWN_SHARE * content["tokens"]:
            share = content["unknown_tokens"] / content["tokens"]
            warnings.append({"id": "unknown_tokens", "split": name, "share": share, "token": unknown_token})
    return warnings
