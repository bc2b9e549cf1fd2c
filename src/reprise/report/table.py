"""The table of runs: differing parameters, metrics and cost."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reprise.report.run import MetricValue, ReportRun
from reprise.tasks.metrics.registry import METRICS

# If a name differs, the keys with this prefix are redundant: they describe the same source in detail.
NAMES = {"task.source.": "task.name", "model.source.": "model.name"}
SECONDS = "training seconds"
# Beside metrics of the registry.
LOWER_IS_BETTER = {"training loss", "calibration error", "uncalibrated error", SECONDS, "peak MiB"}


@dataclass(frozen=True)
class Column:
    """A column: its heading, whether it holds numbers, and whether low ones are better."""

    heading: str
    numeric: bool = False
    lower_is_better: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: main text.
        small: smaller text below it.
        key: sort key, None for an empty cell.
    """

    text: str = "–"
    small: str = ""
    key: float | str | None = None


def table(runs: Sequence[ReportRun]) -> tuple[list[Column], list[list[Cell]]]:
    """Build the columns after the run's name, and one row of cells per run."""
    params, metrics = varying_keys(runs), metric_names(runs)
    columns = [Column("created")]
    columns += [Column(key, all(is_number(run.recipe.get(key)) for run in runs)) for key in params]
    columns += [
        Column("training time" if name == SECONDS else name, numeric=True, lower_is_better=is_lower_better(name))
        for name in metrics
    ]
    columns += [Column("hardware")]
    return columns, [
        [
            created(run.created),
            *(param_cell(run.recipe, key) for key in params),
            *(metric_cell(name, run.metrics.get(name)) for name in metrics),
            Cell(*hardware(run), key=hardware(run)[0]),
        ]
        for run in runs
    ]


def varying_keys(runs: Sequence[ReportRun]) -> list[str]:
    """List the dotted keys of the recipe that differ between runs, without details of sources whose names differ."""
    recipes = [run.recipe for run in runs]
    keys = {key: None for recipe in recipes for key in recipe}
    varying = [key for key in keys if len({json.dumps(recipe.get(key)) for recipe in recipes}) > 1]
    return [
        key for key in varying if not any(key.startswith(source) and name in varying for source, name in NAMES.items())
    ]


def metric_names(runs: Sequence[ReportRun]) -> list[str]:
    """List the metrics of all runs, in order of first appearance."""
    return list({name: None for run in runs for name in run.metrics})


def is_lower_better(name: str) -> bool:
    """Return the direction of one of `ReportRun.metrics`."""
    metric = METRICS.get(name.removeprefix("validation "))
    return not metric.greater_is_better if metric else name in LOWER_IS_BETTER


def created(time: str) -> Cell:
    """Format the time of a commit, in UTC."""
    return Cell(time[:10], f"{time[11:16]} UTC", time) if time else Cell()


def param_cell(recipe: dict[str, Any], key: str) -> Cell:
    """Format a value of the recipe as in params.yaml."""
    if key not in recipe:
        return Cell()
    value = recipe[key]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Cell(text, key=value if is_number(value) else text)


def metric_cell(name: str, metric: MetricValue | None) -> Cell:
    """Format a metric with its interval below."""
    if metric is None:
        return Cell()
    if name == SECONDS:
        return Cell(format_duration(metric.value), key=metric.value)
    interval = (
        "" if metric.low is None or metric.high is None else f"{format_short(metric.low)} – {format_short(metric.high)}"
    )
    return Cell(format_value(metric.value), interval, metric.value)


def format_value(value: float) -> str:
    """Format a metric: four decimals below ten, at most one above, two digits of a very small one."""
    if 0 < abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}".removesuffix(".0")


def format_short(value: float) -> str:
    """Format a metric or a bound of its interval with three decimals, or as `format_value`."""
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 10 else format_value(value)


def format_duration(seconds: float) -> str:
    """Format a duration in its two largest units: 42 s, 2 min 46 s, 3 h 05 min."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    minutes, hours = divmod(total, 60), divmod(total // 60, 60)
    return f"{minutes[0]} min {minutes[1]:02} s" if total < 3600 else f"{hours[0]} h {hours[1]:02} min"


def hardware(run: ReportRun) -> tuple[str, str]:
    """Return the devices that a run was trained on, and the numbers of processes and threads."""
    provenance = run.result.provenance
    devices: list[str] = provenance.get("devices") or [provenance.get("environment.hardware") or "–"]
    counts = {name: devices.count(name) for name in devices}
    return (
        ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items()),
        ", ".join(
            f"{provenance[plural]} {plural if provenance[plural] > 1 else singular}"
            for plural, singular in (("processes", "process"), ("threads", "thread"))
            if provenance.get(plural)
        ),
    )


def is_number(value: Any) -> bool:
    """Return whether a value of the recipe is a number and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)
