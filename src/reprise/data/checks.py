"""What the stage check-data found: how it is read, and its words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprise.core.files import read_json
from reprise.core.paths import DATA_CHECKS
from reprise.tasks.metrics.registry import display_name

CHECKS_FILE = "checks.json"
NEAR_DUPLICATES = "near_duplicates.csv"
LABEL_ERRORS = "label_errors.csv"
# What the share of each check in the recipe is of.
MEANINGS = {
    "empty_texts": "rows without text",
    "truncated": "texts longer than train.max_length",
    "unknown_tokens": "tokens unknown to the model",
    "other_scripts": "texts with letters of another script",
    "label_imbalance": "examples with the commonest label",
    "duplicates": "texts that repeat another of their split",
    "shared_texts": "texts that are also in an earlier split",
    "shared_groups": "examples of a group of an earlier split",
    "near_duplicates": "texts nearly equal to an earlier split's",
    "train_near_duplicates": "training texts nearly equal to another",
    "contradictory_labels": "examples whose text has two labels",
    "give_away": "baseline's error that one column removes",
    "label_errors": "labels that the linear model doubts",
}


def read_checks(stats: Mapping[str, Any], folder: Path = DATA_CHECKS) -> dict[str, Any] | None:
    """Read checks.json.

    Args:
        stats: content of stats.json of the prepared data that the checks must be of; empty for none.
        folder: with the file.

    Returns:
        Its content; None if there is none, or if it is of other data.
    """
    file = folder / CHECKS_FILE
    if not stats.get("splits") or not file.is_file():
        return None
    checks = read_json(file)
    return checks if checks["data"] == data_digests(stats) else None


def data_digests(stats: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each prepared split, by which checks.json names its data."""
    return {split: content["sha256"] for split, content in stats["splits"].items()}


def describe_check(name: str, check: Mapping[str, Any]) -> str:
    """Return what a check found in one clause, such as `4 of 1,280 texts …`."""
    if "column" in check:
        return f"{check['share']:.1%} of the {MEANINGS[name]}: {check['column']}"
    if check["of"] == 0:
        return f"no {MEANINGS[name]}"
    return f"{check['split']}: {check['count']:,} of {check['of']:,} ({check['share']:.2%}) {MEANINGS[name]}"


def describe_baseline(checks: Mapping[str, Any], split: str) -> str:
    """Return the baseline's name and metrics on a split as a sentence; empty if it was not judged there."""
    baseline = checks["baseline"]
    if not baseline or split not in baseline["metrics"]:
        return ""
    metrics = ", ".join(
        f"{display_name(name, checks['positive_label'], len(checks['labels']))} {value:.4f}"
        for name, value in baseline["metrics"][split].items()
    )
    return f"{baseline['name']} reach {metrics} on the same examples."
