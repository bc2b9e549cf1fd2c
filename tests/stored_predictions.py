"""Small tables of predictions/ of each kind of task, and the runs that they are of."""

from typing import Any

import numpy as np
import pandas as pd

from reprise.core.validation import check_recipe
from reprise.results.run import read_result
from reprise.results.runs import Run
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.registry import task_kind
from synthetic_runs import files
from tiny import tiny_recipe

ROWS = 60
KINDS: dict[str, TaskKind] = {
    "two labels": task_kind(["rotten", "fresh"], "fresh"),
    "three labels": task_kind(["bad", "fair", "good"]),
    "any number of labels": task_kind(["a", "b", "c"], None, {"separator": "|", "thresholds": 0.5}),
    "numbers": task_kind([]),
}
METRICS = {
    "two labels": ["accuracy", "f1", "matthews"],
    "three labels": ["accuracy", "f1_weighted"],
    "any number of labels": ["f1_micro", "average_precision"],
    "numbers": ["rmse", "pearson"],
}


def references(name: str) -> np.ndarray[Any, Any]:
    """Return the labels of ROWS examples, as prepared."""
    draw, kind = np.random.default_rng(0), KINDS[name]
    if name == "any number of labels":
        return draw.integers(0, 2, (ROWS, 3)).astype(np.int8)
    return draw.integers(0, len(kind.labels), ROWS) if kind.labels else draw.normal(3, 2, ROWS)


def logits(name: str, seed: int) -> Logits:
    """Return the logits of a model that has learned something."""
    truth, draw, outputs = references(name), np.random.default_rng(seed), max(1, len(KINDS[name].labels))
    noise = draw.normal(0, 1.5, (ROWS, outputs))
    if name == "any number of labels":
        noise += 2 * truth - 1
    elif KINDS[name].labels:
        noise[np.arange(ROWS), truth] += 1
    else:
        noise += truth[:, None]
    return noise.astype(np.float32)


def table(name: str, seed: int) -> pd.DataFrame:
    """Return the predictions of a model, as pandas reads them from predictions/."""
    import pyarrow as pa

    columns = KINDS[name].prediction_columns(logits(name, seed), references(name))
    texts = {"id": [str(row) for row in range(ROWS)], "text": [f"text {row}" for row in range(ROWS)]}
    return pa.table({**texts, **columns}).to_pandas()


def synthetic_run(name: str, **changes: Any) -> Run:
    """Return a synthetic run with changes of the tiny recipe, by dotted key; `models/final` depends on the seed."""
    recipe = tiny_recipe(**changes)
    check_recipe(recipe, "test")
    content = files(recipe, steps=10, rows=20)
    return Run(name, "experiment", "c" * 40, None, read_result(content.get, name), content.get)
