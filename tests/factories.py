"""Synthetic runs for tests of the report, and examples for tests of the checks of the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reprise.check_data.examples import PUNCTUATION, Examples
from reprise.data.text import hash_texts, normalize
from reprise.report.run import ReportRun, read_run_files
from reprise.results.run import read_result
from reprise.results.runs import Kind
from synthetic_runs import files
from tiny import tiny_recipe

BASE = "b" * 40
STEPS = 30
STATS: dict[str, Any] = {
    "task": "reviews",
    "labels": ["rotten", "fresh"],
    "max_length": 16,
    "splits": {
        split: {
            "num_examples": rows,
            "tokens": 9 * rows,
            "length_quantiles": {
                "0.0": 3,
                "0.25": 6,
                "0.5": 9,
                "0.75": 11,
                "0.9": 13,
                "0.95": 14,
                "0.99": 15,
                "1.0": 16,
            },
            "rows_at_max_length": 1,
            "sha256": "0" * 64,
            "label_counts": {"rotten": rows // 4, "fresh": rows - rows // 4},
            "hidden_labels": 0,
        }
        for split, rows in (("train", 144), ("validation", 48), ("test", 48))
    },
}


def make_run(
    name: str = "main",
    kind: Kind = "commit",
    *,
    how: dict[str, Any] | None = None,
    change: Callable[[dict[Path, bytes]], None] = lambda _: None,
    **changes: Any,
) -> ReportRun:
    """Build a synthetic run of the tiny recipe; the parent of an experiment is the commit `main`.

    Args:
        name: name of the run.
        kind: workspace, commit or experiment.
        how: arguments of `synthetic_runs.files`.
        change: changes the files, given by path.
        changes: changes of the recipe, by dotted key.
    """
    content = files(tiny_recipe(**changes), **{"steps": STEPS, "rows": 200, **(how or {})})
    change(content)
    return ReportRun(
        name=name,
        kind=kind,
        commit={"commit": BASE, "workspace": ""}.get(kind, f"{abs(hash(name)):040x}"[-40:]),
        parent="a" * 40 if kind == "commit" else BASE,
        created="2026-11-25T17:00:28+00:00",
        result=read_result(content.get, name),
        **read_run_files(content.get),
    )


# What data/checks/checks.json has of STATS, with every kind of entry.
CHECKS: dict[str, Any] = {
    "task": "reviews",
    "labels": ["rotten", "fresh"],
    "positive_label": "fresh",
    "data": dict.fromkeys(STATS["splits"], "0" * 64),
    "checks": {
        "near_duplicates": {
            "status": "warn", "warn": 0.01, "fail": None, "split": "test", "count": 3, "of": 48, "share": 0.0625,
            "splits": {"test": {"count": 3, "of": 48, "share": 0.0625}},
        },
        "give_away": {
            "status": "ok", "warn": 0.5, "fail": None, "split": "train", "column": "film", "share": 0.25,
            "splits": {"train": {"column": "film", "share": 0.25}},
        },
    },
    "splits": {},
    "columns": [{"column": "film", "share": 0.25}],
    "position": 0.0,
    "baseline": {
        "name": "TF-IDF and logistic regression",
        "examples": 144,
        "words": 9,
        "metrics": {"test": {"accuracy": 0.7916, "f1": 0.8125}},
    },
    "notes": ["Label errors were looked for in 50 of 144 training examples."],
}  # fmt: skip


def examples(*texts: str, labels: list[Any] | None = None) -> Examples:
    """Return examples with a token per word."""
    tokens = [np.array([int(hash_texts([[word]])[0] % 2**20) for word in text.split()], np.int32) for text in texts]
    normalized = [normalize(text) for text in texts]
    zeros = np.zeros(len(texts), np.uint64)
    return Examples(
        ids=np.array([str(number) for number in range(len(texts))], object),
        labels=np.array(labels or [0] * len(texts)),
        texts=hash_texts([normalized]),
        words=hash_texts([[PUNCTUATION.sub(" ", text).strip() for text in normalized]]),
        empty=np.array([not text for text in normalized]),
        scripts=zeros,
        lengths=np.array([len(each) for each in tokens]),
        first_words=zeros,
        last_words=zeros,
        tokens=np.concatenate(tokens),
    )
