"""`reprise runs`: list the runs with what was changed and what came of it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from reprise.commands.terminal import Terminal
from reprise.core.config import PARAMS
from reprise.core.display import echo_lines, printable, to_json
from reprise.core.errors import UserError
from reprise.report.run import parse_params
from reprise.results.run import EVALUATION, parse_metrics
from reprise.results.runs import Run, all_runs
from reprise.results.statistics import is_greater_better
from reprise.results.workspace import model_name
from reprise.sweep.record import Record, read_record, sweep_names
from reprise.sweep.result import folder_of
from reprise.tasks.metrics.registry import display_name

SOURCES = ("task.source.", "model.source.")  # their keys change together: the name stands for them


class Row(NamedTuple):
    """A run, its recipe by dotted key, and the parameters that differ from the first run's."""

    run: Run
    recipe: Mapping[str, Any]
    changed: Mapping[str, Any]


def list_runs(sort: str | None = None, sweep: str | None = None, *, as_json: bool = False) -> None:
    """Print the workspace, HEAD and all experiments that have results, or only the runs of a sweep.

    Args:
        sort: a metric of the evaluation, best first, or a key such as `train.learning_rate` or `seed`, ascending; None
            keeps the order: the workspace and HEAD, then the latest experiment; of a sweep, the trials by number, then
            the runs with fresh seeds.
        sweep: name of a sweep.
        as_json: print JSON with every metric and interval instead of a table.

    Raises:
        UserError: there are no runs, none has the metric or key to sort by, or there is no such sweep.
    """
    record = None if sweep is None else read_sweep(sweep)
    runs = all_runs()
    if not runs:
        raise UserError("no runs yet", key="runs", expected="the results of `dvc repro`")
    first = runs[0]
    baseline = with_names(first)
    if record is not None:
        runs = runs_of(record, runs)
        if not runs:
            expected = "its experiments; `reprise report` shows the record of the sweep without them"
            raise UserError("no run of the sweep is here", key=f"--sweep {sweep}", expected=expected)
    rows = [Row(run, recipe, changes(baseline, recipe)) for run in runs for recipe in [with_names(run)]]
    if sort:
        rows = sorted_rows(rows, sort)
    if as_json:
        echo_lines(to_json([to_dict(row.run, row.changed) for row in rows], indent=2))
        return
    console = Terminal()
    console.print(to_table(rows))
    console.print(f"Changed: the parameters that differ from {first.name}.", soft_wrap=True)
    if any(intervals(run) for run in runs):
        console.print("Ranges: 95 % confidence intervals over the evaluated examples; seeds add noise.", soft_wrap=True)
    other = next((row.run for row in rows if row.run is not first), None)
    if other is not None:
        console.print(f"Test a difference: reprise compare {first.name} {other.name}", soft_wrap=True)


def read_sweep(name: str) -> Record:
    """Read the record of a sweep.

    Raises:
        UserError: there is no such sweep, or its record is damaged.
    """
    names = sweep_names()
    if name not in names:
        expected = f"one of {', '.join(names)}" if names else "a sweep: `reprise sweep` has not run yet"
        raise UserError(f"got {name!r}", key="--sweep", expected=expected)
    return read_record(folder_of(name))


def runs_of(record: Record, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a sweep that are still here: the trials by number, then those with fresh seeds."""
    by_commit = {run.commit: run for run in runs if run.commit}
    commits = dict.fromkeys(each.commit for each in record.runs)  # a trial may have been found to be another's run
    return [by_commit[commit] for commit in commits if commit in by_commit]


def with_names(run: Run) -> dict[str, Any]:
    """Return the recipe of a run by dotted key, with the model's name in place of the details of its source."""
    params = run.read(PARAMS)
    recipe = dict(run.result.recipe)
    named = {"model": model_name(recipe, parse_params(params) if params else {})}
    return named | {key: value for key, value in recipe.items() if not key.startswith(SOURCES[1])}


def changes(baseline: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a run that differ from the baseline's; None where one is absent."""
    keys = [key for key in {**baseline, **recipe} if baseline.get(key) != recipe.get(key)]
    if "task.name" in keys:  # another task: its name stands for columns, labels and source
        keys = [key for key in keys if key == "task.name" or not key.startswith("task.")]
    return {key: recipe.get(key) for key in keys}


def sorted_rows(rows: Sequence[Row], sort: str) -> list[Row]:
    """Sort by a metric, best first, or by a key of the recipe; runs that lack it come last."""
    metrics = [row.run.result.metrics["evaluate"] for row in rows]
    if any(sort in each for each in metrics):
        values: list[Any] = [each.get(sort) for each in metrics]
        best_first = is_greater_better(sort)
    elif any(sort in row.recipe for row in rows):
        values, best_first = [row.recipe.get(sort) for row in rows], False
        if not all(isinstance(value, int | float | None) for value in values):
            values = [value if value is None else str(value) for value in values]
    else:
        known = sorted({name for each in metrics for name in each})
        raise UserError(f"got {sort!r}", key="runs --sort", expected=f"{', '.join(known)}, or a key of params.yaml")
    having = [(value, row) for value, row in zip(values, rows, strict=True) if value is not None]
    having.sort(key=lambda each: each[0], reverse=best_first)
    return [row for _, row in having] + [row for value, row in zip(values, rows, strict=True) if value is None]


def intervals(run: Run) -> dict[str, dict[str, float | None]]:
    """Return the 95 % interval of each metric that has one."""
    content = run.read(EVALUATION)
    found: dict[str, Any] = parse_metrics(EVALUATION, content).get("ci95", {}) if content else {}
    return found


def to_table(rows: Sequence[Row]) -> Table:
    """Build the table: a column per metric of the evaluation."""
    names = {name: None for row in rows for name in row.run.result.metrics["evaluate"]}
    kinds = [row.run.result.task_kind for row in rows]
    table = Table()
    for heading in ("run", "changed"):
        table.add_column(heading, overflow="fold")
    for name in names:
        variants = {display_name(name, kind.positive_label, len(kind.labels)) for kind in kinds}
        table.add_column(variants.pop() if len(variants) == 1 else name, justify="right", no_wrap=True)
    for run, _, changed in rows:
        found = intervals(run)
        table.add_row(
            Text.assemble(
                (printable(run.name), "" if run.kind == "experiment" else "bold"),
                (f"\n{run.created:%Y-%m-%d %H:%M}" if run.created else "", "dim"),
            ),
            Text("\n".join(printable(f"{key}={format_value(value)}") for key, value in changed.items())),
            *(metric_cell(run.result.metrics["evaluate"].get(name), found.get(name)) for name in names),
        )
    return table


def metric_cell(value: float | None, interval: Mapping[str, float | None] | None) -> Text:
    """Format a metric, with its interval on a second line."""
    if value is None:
        return Text("–")
    low, high = (interval["low"], interval["high"]) if interval else (None, None)
    below = "" if low is None or high is None else f"\n{low:.3f}–{high:.3f}"
    return Text.assemble(f"{value:.4f}", (below, "dim"))


def format_value(value: Any) -> str:
    """Format a value of the recipe as in params.yaml."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def to_dict(run: Run, changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run as it is printed in JSON; times are in ISO 8601."""
    return {
        "name": run.name,
        "kind": run.kind,
        "commit": run.commit,
        "created": run.created.isoformat() if run.created else None,
        "seed": run.seed,
        "changed": dict(changed),
        "metrics": run.result.metrics,
        "ci95": intervals(run),
        "constant_prediction": run.constant_prediction,
    }
