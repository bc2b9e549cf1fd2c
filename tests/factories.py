"""Synthetic runs for tests of the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
