"""The table of the runs: what differs in their recipes, how they went, what they took."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reprise.report.run import MetricValue, ReportRun

# Between these and the right they say which sources are meant, once more and with digests.
NAMES = {"task.source.": "task.name", "model.source.": "model.name"}
SECONDS = "training seconds"


@dataclass(frozen=True)
class Column:
    """A column: its heading, and whether its cells are sorted as numbers and stand to the right."""

    heading: str
    numeric: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a smaller text under it, and what it is sorted by; None where there is nothing."""

    text: str = "–"
    small: str = ""
    key: float | str | None = None


def table(entries: Sequence[ReportRun]) -> tuple[list[Column], list[list[Cell]]]:
    """The columns after the run's name, and a row of cells for each run."""
    params, metrics = varying_keys(entries), metric_names(entries)
    columns = [Column("created")]
    columns += [Column(key, all(is_number(entry.recipe.get(key)) for entry in entries)) for key in params]
    columns += [Column("training time" if name == SECONDS else name, numeric=True) for name in metrics]
    columns += [Column("hardware")]
    return columns, [
        [
            created(entry.created),
            *(param_cell(entry.recipe, key) for key in params),
            *(metric_cell(name, entry.metrics.get(name)) for name in metrics),
            Cell(*hardware(entry), key=hardware(entry)[0]),
        ]
        for entry in entries
    ]


def varying_keys(entries: Sequence[ReportRun]) -> list[str]:
    """The keys of the recipe, dotted, that do not say the same everywhere. Of sources, the names are enough."""
    recipes = [entry.recipe for entry in entries]
    keys = {key: None for recipe in recipes for key in recipe}
    found = [key for key in keys if len({json.dumps(recipe.get(key)) for recipe in recipes}) > 1]
    return [key for key in found if not any(key.startswith(source) and name in found for source, name in NAMES.items())]


def metric_names(entries: Sequence[ReportRun]) -> list[str]:
    """The names of all figures that any run has, as they come."""
    return list({name: None for entry in entries for name in entry.metrics})


def created(moment: str) -> Cell:
    """When a run was committed, in UTC."""
    return Cell(moment[:10], f"{moment[11:16]} UTC", moment) if moment else Cell()


def param_cell(recipe: dict[str, Any], key: str) -> Cell:
    """A value of the recipe as the file says it."""
    if key not in recipe:
        return Cell()
    value = recipe[key]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Cell(text, key=value if is_number(value) else text)


def metric_cell(name: str, metric: MetricValue | None) -> Cell:
    """A figure, and its interval under it."""
    if metric is None:
        return Cell()
    if name == SECONDS:
        return Cell(format_duration(metric.value), key=metric.value)
    between = "" if metric.low is None or metric.high is None else f"{metric.low:.3f} – {metric.high:.3f}"
    return Cell(format_value(metric.value), between, metric.value)


def format_value(value: float) -> str:
    """A figure: four places of what is below ten, since metrics are compared there, and one of what is larger."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}".removesuffix(".0")


def format_duration(seconds: float) -> str:
    """A time in its two largest units: 42 s, 2 min 46 s, 3 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = divmod(whole, 60), divmod(whole // 60, 60)
    return f"{minutes[0]} min {minutes[1]:02} s" if whole < 3600 else f"{hours[0]} h {hours[1]:02} min"


def hardware(entry: ReportRun) -> tuple[str, str]:
    """What it was trained on: the devices, and how many processes and threads."""
    told = entry.result.provenance
    devices: list[str] = told.get("devices") or [told.get("environment.hardware") or "–"]
    counted = {name: devices.count(name) for name in devices}
    return (
        ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counted.items()),
        ", ".join(
            f"{told[many]} {many if told[many] > 1 else one}"
            for many, one in (("processes", "process"), ("threads", "thread"))
            if told.get(many)
        ),
    )


def is_number(value: Any) -> bool:
    """Whether a value of the recipe can be an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)
