"""What the page says: plain data, made of the runs and of nothing else."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reprise.report import charts
from reprise.report.commands import Command, run_commands
from reprise.report.downsample import bin_means, evenly_spaced
from reprise.report.errors import Misprediction
from reprise.report.provenance import provenance_rows
from reprise.report.run import ReportRun
from reprise.report.seeds import SeedGroup, seed_groups
from reprise.report.table import Cell, Column, is_number, metric_names, table, varying_keys
from reprise.results.reference import Reference

MAX_INITIAL_RUNS = 4  # runs whose curves are drawn when the page opens
CURVE_POINTS = 200  # of precision against recall, over all labels of a run
DIGITS = 4  # of what is drawn: a thousandth of a chart's height is less than a pixel
# How stats.json calls the quantiles that the chart of lengths has.
QUANTILES = {"min": "0.0", "q25": "0.25", "q50": "0.5", "q75": "0.75", "q95": "0.95", "q99": "0.99", "max": "1.0"}


@dataclass(frozen=True)
class Row:
    """A run in the table and in the list of where they come from."""

    name: str
    kind: str
    constant_prediction: bool
    cells: list[Cell]
    commands: list[Command]
    provenance: list[tuple[str, str]]


@dataclass(frozen=True)
class Headline:
    """The first run's metrics: name, value, interval, baseline."""

    name: str
    value: float
    low: float
    high: float
    baseline: float


@dataclass(frozen=True)
class ReportContext:
    """All that the template fills in.

    Attributes:
        title: model and task of the first run.
        headlines: its metrics.
        judged: on what they were measured.
        columns: of the table, after the name.
        rows: a run each.
        regression: whether the first run's task is one.
        labels: the longest list of labels that a run has; empty where all are regressions.
        sweeps: the numbers of the recipe that differ.
        groups: runs that differ in the seed alone.
        judged_run: the name of the run whose mistakes are shown, empty where its predictions are not here.
        mistakes: the most confident ones.
        card: of the prepared data, None where it is not here.
        charts: Vega-Lite, by name.
        data: what the charts draw and the page chooses from.
    """

    title: str
    headlines: list[Headline]
    judged: str
    columns: list[Column]
    rows: list[Row]
    regression: bool
    labels: list[str]
    sweeps: list[str]
    groups: list[SeedGroup]
    judged_run: str
    mistakes: list[Misprediction]
    card: dict[str, Any] | None
    charts: dict[str, charts.Spec]
    data: dict[str, Any]


def build_context(
    entries: Sequence[ReportRun],
    *,
    references: Sequence[tuple[str, Reference]] = (),
    card: dict[str, Any] | None = None,
    judged_run: str = "",
    mistaken: Sequence[Misprediction] = (),
) -> ReportContext:
    """What the page says.

    Args:
        entries: the runs, at least one; the first is the one that the page is about.
        references: figures of seeds that were measured, each with the kind of hardware.
        card: data/prepared/stats.json.
        judged_run: the name of the run whose predictions are here, empty where none are.
        mistaken: its most confident mistakes.
    """
    first, keys = entries[0], varying_keys(entries)
    columns, cells = table(entries)
    sweeps = {key: values for key in keys if key != "seed" and len(values := numeric_values(entries, key)) > 1}
    alike = seed_groups(entries, references, keys)
    labels = max(map(label_names, entries), key=len)
    by_commit = {entry.commit: entry for entry in entries if entry.commit}
    return ReportContext(
        title=f"{first.model} on {first.result.recipe['task.name']}",
        headlines=[
            Headline(name, first.evaluated[name], ends["low"], ends["high"], first.evaluated["baseline"][name])
            for name, ends in first.evaluated["ci95"].items()
        ],
        judged=f"{first.evaluated['num_examples']:,} rows of the {first.evaluated['split']} split",
        columns=columns,
        rows=[
            Row(
                entry.name,
                entry.kind,
                entry.constant_prediction,
                row,
                run_commands(entry, by_commit),
                provenance_rows(entry),
            )
            for entry, row in zip(entries, cells, strict=True)
        ],
        regression=not label_names(first),
        labels=labels,
        sweeps=list(sweeps),
        groups=alike,
        judged_run=judged_run,
        mistakes=list(mistaken),
        card=card,
        charts={
            "loss": charts.curve("loss", "mean loss of a step", axis_format=".2~f"),
            "learning_rate": charts.curve("learning_rate", "learning rate", axis_format=".1~e"),
            "grad_norm": charts.curve("grad_norm", "largest gradient norm", axis_format=".3~g"),
            "epochs": charts.epochs(),
            "confusion": charts.confusion(labels),
            "pr": charts.precision_recall(),
            "calibration": charts.calibration(),
            "seeds": charts.seeds(len(alike)),
            "lengths": charts.lengths(len(card["splits"]) if card else 0),
            "balance": charts.balance(card["labels"] if card else [], len(card["splits"]) if card else 0),
            **{f"sweep {number}": charts.sweep(key, values) for number, (key, values) in enumerate(sweeps.items())},
        },
        data={
            "metrics": metric_names(entries),
            "sweeps": list(sweeps),
            "runs": [chart_data(entry, list(sweeps)) for entry in entries],
            "chosen": list(range(min(MAX_INITIAL_RUNS, len(entries)))),
            "groups": [
                {
                    "label": group.label,
                    "spread": {
                        name: rounded(group.spread(name), 5)
                        for name in {name: None for each in group.seeds for name in each.metrics}
                    },
                    "seeds": [
                        {
                            "seed": each.seed,
                            "run": each.run,
                            "metrics": {name: rounded([metric.value], 5)[0] for name, metric in each.metrics.items()},
                        }
                        for each in group.seeds
                    ],
                }
                for group in alike
            ],
            **dataset_stats(card),
        },
    )


def label_names(entry: ReportRun) -> list[str]:
    """The names of the labels in the order of their ids."""
    return [str(label) for label in entry.result.recipe.get("task.labels") or []]


def numeric_values(entries: Sequence[ReportRun], key: str) -> set[float]:
    """The numbers that a key of the recipe has."""
    return {entry.recipe[key] for entry in entries if is_number(entry.recipe.get(key))}


def chart_data(entry: ReportRun, params: Sequence[str]) -> dict[str, Any]:
    """What the charts draw of a run, column by column and rounded, so that hundreds of runs stay a small page."""
    curve = bin_means(table_of(entry, "train"), peaks=("grad_norm",))
    return {
        "name": entry.name,
        "labels": label_names(entry),
        "params": {key: value for key in params if is_number(value := entry.recipe.get(key))},
        "metrics": {
            name: rounded([each for each in (metric.value, metric.low, metric.high) if each is not None], 5)
            for name, metric in entry.metrics.items()
        },
        "curve": columns_of(curve, ["step", "loss", "learning_rate", "grad_norm"]),
        "epochs": columns_of(table_of(entry, "validation")),
        "confusion": confusion_counts(table_of(entry, "confusion"), label_names(entry)),
        "pr": precision_recall(table_of(entry, "precision_recall")),
        "calibration": columns_of(table_of(entry, "calibration")),
    }


def table_of(entry: ReportRun, name: str) -> pd.DataFrame:
    """A table of the run, empty where it has none."""
    return entry.tables.get(name, pd.DataFrame())


def columns_of(rows: pd.DataFrame, names: Sequence[str] | None = None) -> dict[str, list[float | None]]:
    """Columns as rounded numbers; those that are not there are left out."""
    wanted = rows.columns if names is None else [name for name in names if name in rows.columns]
    return {str(name): rounded(rows[name]) for name in wanted}


def rounded(values: Iterable[float], digits: int = DIGITS) -> list[float | None]:
    """Numbers of so many significant digits, whole ones as such; None for what JSON has no word for."""
    return [
        None if not math.isfinite(value) else int(value) if value == int(value) else float(f"{value:.{digits}g}")
        for value in values
    ]


def confusion_counts(rows: pd.DataFrame, labels: Sequence[str]) -> list[list[int]]:
    """How often which label was told as which: triples of actual and predicted (numbers of labels) and the count."""
    if rows.empty:
        return []
    number = {label: place for place, label in enumerate(labels)}
    counted = Counter(zip(rows["actual"].tolist(), rows["predicted"].tolist(), strict=True))
    return sorted([number[actual], number[predicted], count] for (actual, predicted), count in counted.items())


def precision_recall(rows: pd.DataFrame) -> dict[str, dict[str, list[float | None]]]:
    """Precision and recall by label, thinned to CURVE_POINTS over all labels, at least ten each."""
    if rows.empty:
        return {}
    points = max(CURVE_POINTS // rows["label"].nunique(), 10)
    return {
        str(label): columns_of(part.iloc[evenly_spaced(len(part), points)], ["recall", "precision"])
        for label, part in rows.groupby("label", sort=False)
    }


def dataset_stats(card: dict[str, Any] | None) -> dict[str, Any]:
    """What the charts of the data draw: lengths of the texts, and how many rows each label has."""
    if card is None:
        return {"lengths": [], "balance": []}
    lengths = [
        {"split": split, **{name: about["length_quantiles"][key] for name, key in QUANTILES.items()}}
        for split, about in card["splits"].items()
    ]
    balance = [
        {"split": split, "label": str(label), "count": count, "share": count / max(rows, 1), "order": place}
        for split, about in card["splits"].items()
        for rows in [sum(about.get("label_counts", {}).values())]
        for place, (label, count) in enumerate(about.get("label_counts", {}).items())
    ]
    return {"lengths": lengths, "balance": balance}
