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
from reprise.sweep.record import Record, RecordedDimension, RecordedFinal, RecordedRun, RecordedTrial
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


def make_record(**changes: Any) -> Record:
    """Build the record of a finished sweep of twelve trials: the sixth was stopped early, the seventh failed.

    Args:
        changes: of the fields of the record.
    """
    draw = np.random.default_rng(0)
    trials = []
    for number in range(1, 13):
        rate, size = float(f"{10 ** draw.uniform(-5, -3.5):.3g}"), draw.choice(["16", "32"])
        failed = number == 7
        trials.append(
            RecordedTrial(
                number,
                (str(size), repr(rate)),
                None if failed else 0.8 + draw.normal(0, 0.01),
                None if failed else RecordedRun(f"sweep-{number:03}", f"{number:040x}"),
                None if failed else draw.uniform(60, 600),
                {6: "stopped after epoch 2 of 4: early stopping", 7: "failed"}.get(number, "finished"),
            )
        )
    names = {number: f"sweep-{'committed' if number is None else f'{number:03}'}" for number in (None, 3)}
    runs = {number: tuple(RecordedRun(f"{name}-seed-{s}", None) for s in (43, 44)) for number, name in names.items()}
    fields: dict[str, Any] = {
        "metric": "accuracy",
        "greater_is_better": True,
        "number": 12,
        "fixed": ("train.warmup_ratio=0.1",),
        "dimensions": (
            RecordedDimension("train.batch_size", "choice", ("16", "32")),
            RecordedDimension("train.learning_rate", "log", ("1e-05", "0.0004")),
        ),
        "trials": tuple(trials),
        "importance": {"train.learning_rate": 0.75, "train.batch_size": 0.25},
        "finals": (
            RecordedFinal(None, runs[None], (0.81, 0.83)),
            RecordedFinal(3, runs[3], (0.82, 0.83), 0.005, 0.02),
        ),
        "answer": "No candidate is distinguishable from the committed recipe after 2 seeds.",
    }
    return Record(**(fields | changes))


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
