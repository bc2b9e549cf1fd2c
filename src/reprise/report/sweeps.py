"""The section of a sweep: tables and charts, as a pure function of its record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reprise.report import charts
from reprise.report.table import format_duration, format_value
from reprise.sweep.record import FAILED, Record, RecordedDimension, RecordedRun, RecordedTrial

MINUTES_FROM = 300  # seconds of the slowest trial from which the axis of training time is in minutes


@dataclass(frozen=True)
class LinkedRun:
    """The name of a run, and its index in the report; None if the report does not have it."""

    name: str
    index: int | None


@dataclass(frozen=True)
class TrialRow:
    """A trial in the table."""

    number: int
    run: LinkedRun | None
    metric: str
    texts: list[str]
    time: str
    ended: str
    is_best: bool


@dataclass(frozen=True)
class FinalRow:
    """The committed recipe or a finalist in the table."""

    recipe: str
    runs: list[LinkedRun]
    mean: str
    difference: str
    interval: str


@dataclass(frozen=True)
class Chart:
    """A chart of a sweep.

    Attributes:
        id: its name among the charts of the page; "" until it has one.
        title: of the figure.
        caption: what it shows.
        spec: Vega-Lite specification.
        rows: its data.
        columns: headings of its table by field.
    """

    id: str
    title: str
    caption: str
    spec: charts.Spec
    rows: list[dict[str, Any]]
    columns: dict[str, str]


@dataclass(frozen=True)
class SweepSection:
    """A sweep on the page.

    Attributes:
        name: of the sweep.
        metric: its name.
        is_finished: whether `answer` is its answer.
        answer: the answer, or how far the sweep is.
        fixed: overrides of all trials.
        parameters: dotted keys of what is searched.
        numeric: whether each of them is a number.
        trials: best first, failed ones last.
        finals: the committed recipe first; empty until the trials have ended.
        charts: those for which there is data.
        slices: a chart for each searched parameter.
    """

    name: str
    metric: str
    is_finished: bool
    answer: str
    fixed: list[str]
    parameters: list[str]
    numeric: list[bool]
    trials: list[TrialRow]
    finals: list[FinalRow]
    charts: list[Chart]
    slices: list[Chart]


def sweep_section(name: str, record: Record, place: int, runs: Mapping[str, int]) -> SweepSection:
    """Build the section of a sweep.

    Args:
        name: of the sweep.
        record: of the sweep.
        place: of the section on the page, which makes the names of its charts unique.
        runs: index of each run of the report that has a commit, by its commit.
    """
    trials = best_first(record)
    measured = [trial for trial in trials if trial.metric is not None]
    drawn: list[Chart | None] = []
    if measured:
        drawn = [history_chart(record), front_chart(record, measured)]
        if len(record.dimensions) > 1:
            drawn += [parallel_chart(record, measured)]
        if record.importance:
            drawn += [importance_chart(record, len(measured))]
    return SweepSection(
        name=name,
        metric=record.metric,
        is_finished=record.answer is not None,
        answer=record.answer or progress(record),
        fixed=list(record.fixed),
        parameters=[each.key for each in record.dimensions],
        numeric=[each.scale != "choice" for each in record.dimensions],
        trials=[
            TrialRow(
                number=trial.number,
                run=None if trial.run is None else link(trial.run, runs),
                metric=FAILED if trial.metric is None else format_value(trial.metric),
                texts=list(trial.values),
                time="–" if trial.seconds is None else format_duration(trial.seconds),
                ended=trial.ended,
                is_best=trial.metric is not None and trial is trials[0],
            )
            for trial in trials
        ],
        finals=final_rows(record, runs),
        charts=[replace(chart, id=f"searched {place} {at}") for at, chart in enumerate(drawn) if chart],
        slices=[
            replace(slice_chart(record, at, measured), id=f"searched {place} slice {at}")
            for at in range(len(record.dimensions) if measured else 0)
        ],
    )


def progress(record: Record) -> str:
    """Describe how far a sweep is that has no answer yet."""
    line = f"Not finished: {len(record.trials)} of {record.number} trials"
    finals = sum(len(final.runs) for final in record.finals)
    return f"{line}, and {finals} run{'s' * (finals > 1)} with fresh seeds." if finals else f"{line}."


def link(run: RecordedRun, runs: Mapping[str, int]) -> LinkedRun:
    """Find a run in the report by its commit; the results of the workspace may be others by now."""
    return LinkedRun(run.name, runs.get(run.commit) if run.commit else None)


def best_first(record: Record) -> list[RecordedTrial]:
    """Sort trials by metric, best first; those that failed are last."""

    def rank(trial: RecordedTrial) -> tuple[bool, float]:
        metric = trial.metric or 0.0
        return trial.metric is None, -metric if record.greater_is_better else metric

    return sorted(record.trials, key=rank)


def best_so_far(values: Sequence[float], *, greater_is_better: bool) -> list[float]:
    """Return the best of the values up to each one."""
    best = max if greater_is_better else min
    return [best(values[: at + 1]) for at in range(len(values))]


def pareto_front(points: Sequence[tuple[float, float]], *, greater_is_better: bool) -> list[int]:
    """Return the indices of the points that no other point dominates, from the cheapest to the most expensive.

    A point dominates another if it costs no more and its metric is no worse, and one of the two is better.

    Args:
        points: cost and metric of each.
        greater_is_better: direction of the metric.
    """
    sign = 1 if greater_is_better else -1
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda at: (points[at][0], -sign * points[at][1])):
        last = points[front[-1]] if front else None
        if last is None or sign * points[index][1] > sign * last[1] or points[index] == last:
            front.append(index)
    return front


def final_rows(record: Record, runs: Mapping[str, int]) -> list[FinalRow]:
    """Format the means of the committed recipe and of the finalists over the fresh seeds."""
    trials = {trial.number: trial for trial in record.trials}
    rows = []
    for final in record.finals:
        values = trials[final.trial].values if final.trial is not None else ()
        recipe = " ".join(f"{each.key}={value}" for each, value in zip(record.dimensions, values, strict=False))
        rows.append(
            FinalRow(
                recipe="committed" if final.trial is None else f"trial {final.trial}: {recipe}",
                runs=[link(run, runs) for run in final.runs],
                mean=format_value(final.mean) + ("" if final.sd is None else f" ± {format_value(final.sd)}"),
                difference="–" if final.difference is None else f"{final.difference:+.4f}",
                interval="–" if final.half_width is None else f"± {final.half_width:.4f}",
            )
        )
    return rows


def history_chart(record: Record) -> Chart:
    """Build the chart of the trials in the order in which they ran."""
    trials = [trial for trial in record.trials if trial.metric is not None]
    best = best_so_far([trial.metric or 0.0 for trial in trials], greater_is_better=record.greater_is_better)
    failed = len(record.trials) - len(trials)
    left_out = f" {failed} failed trial{'s are' if failed > 1 else ' is'} left out." if failed else ""
    return Chart(
        "",
        "History",
        f"Dots: {record.metric} of each trial on the validation split. Line: the best so far.{left_out}",
        charts.sweep_history(record.metric),
        [
            {"trial": trial.number, "value": trial.metric, "best": value}
            for trial, value in zip(trials, best, strict=True)
        ],
        {"trial": "trial", "value": record.metric, "best": "best so far"},
    )


def slice_chart(record: Record, at: int, trials: Sequence[RecordedTrial]) -> Chart:
    """Build the chart of the metric against a parameter.

    Args:
        record: of the sweep.
        at: index of the parameter.
        trials: those with a metric, best first.
    """
    dimension = record.dimensions[at]
    return Chart(
        "",
        dimension.key,
        f"A dot for each trial, a diamond for the best{', on a logarithmic axis' if dimension.scale == 'log' else ''}. "
        "The other parameters differ between the dots, too.",
        charts.sweep_slice(record.metric, dimension.key, dimension.scale, dimension.values),
        [
            {
                "trial": trial.number,
                "param": trial.values[at] if dimension.scale == "choice" else float(trial.values[at]),
                "value": trial.metric,
                "best": trial is trials[0],
            }
            for trial in reversed(trials)
        ],
        {"trial": "trial", "param": dimension.key, "value": record.metric},
    )


def position(dimension: RecordedDimension, value: str) -> float:
    """Return where a value is on the axis of its dimension, from 0 at the lower end to 1."""
    if dimension.scale == "choice":
        return dimension.values.index(value) / max(len(dimension.values) - 1, 1)
    return relative(dimension.values, value, log=dimension.scale == "log")


def relative(ends: Sequence[str], value: str, *, log: bool) -> float:
    """Return where a number is between two ends: 0 at the first, 1 at the second."""
    low, high, number = (math.log(float(each)) if log else float(each) for each in (*ends[:2], value))
    return (number - low) / (high - low)


def front_chart(record: Record, trials: Sequence[RecordedTrial]) -> Chart | None:
    """Build the chart of the metric against training time; None if no time was recorded."""
    timed = [trial for trial in trials if trial.seconds is not None]
    if not timed:
        return None
    front = set(
        pareto_front(
            [(trial.seconds or 0.0, trial.metric or 0.0) for trial in timed], greater_is_better=record.greater_is_better
        )
    )
    in_minutes = max(trial.seconds or 0.0 for trial in timed) >= MINUTES_FROM
    unit = "min" if in_minutes else "s"
    return Chart(
        "",
        "Metric and training time",
        "A dot for each trial. Diamonds and the line are the Pareto front: no other trial is faster without being "
        "worse, or better without being slower. Each time is of one run.",
        charts.sweep_front(record.metric, unit),
        [
            {
                "trial": trial.number,
                "time": (trial.seconds or 0.0) / (60 if in_minutes else 1),
                "value": trial.metric,
                "front": at in front,
            }
            for at, trial in enumerate(timed)
        ],
        {"trial": "trial", "time": f"training time ({unit})", "value": record.metric, "front": "on the front"},
    )


def parallel_chart(record: Record, trials: Sequence[RecordedTrial]) -> Chart:
    """Build the chart of all parameters of each trial, with the metric as the last axis."""
    metrics = [trial.metric or 0.0 for trial in trials]
    low, high = min(metrics), max(metrics)
    rows = []
    for trial in reversed(trials):  # the best line is on top
        value = trial.metric or 0.0
        place = (value - low) / (high - low) if high > low else 1.0
        quality = place if record.greater_is_better or high == low else 1 - place
        shown = [
            (each.key, text, position(each, text)) for each, text in zip(record.dimensions, trial.values, strict=True)
        ]
        color = f"color-mix(in oklab, var(--accent) {round(100 * quality)}%, var(--other))"
        for axis, text, at in [*shown, (record.metric, format_value(value), place)]:
            line = {"trial": trial.number, "value": value, "quality": quality, "color": color}
            rows.append({**line, "axis": axis, "text": text, "at": at})
    ends = [
        {"axis": each.key, "text": text, "at": position(each, text)}
        for each in record.dimensions
        for text in each.values
    ]
    metric_ends = [
        {"axis": record.metric, "text": format_value(value), "at": at} for value, at in ((low, 0), (high, 1))
    ]
    return Chart(
        "",
        "Parallel coordinates",
        f"A line for each trial through its values of the searched parameters and its {record.metric}, which also "
        "colours the line: the bluer and wider, the better.",
        charts.sweep_parallel([*(each.key for each in record.dimensions), record.metric], [*ends, *metric_ends]),
        rows,
        {"trial": "trial", "axis": "parameter", "text": "value"},
    )


def importance_chart(record: Record, trials: int) -> Chart:
    """Build the chart of the importance of the parameters.

    Args:
        record: of the sweep.
        trials: number of those with a metric.
    """
    found = record.importance or {}
    return Chart(
        "",
        "Importance of the parameters",
        f"Fraction of the variance of {record.metric} over the space that each parameter explains, by fANOVA: a random "
        f"forest, fitted to {trials} trials, whose variance is divided among the parameters and scaled to a sum of 1. "
        "From a few dozen trials it is a hint, not a result.",
        charts.sweep_importance(len(found)),
        [{"key": key, "value": value} for key, value in found.items()],
        {"key": "parameter", "value": "importance"},
    )
