"""Build the content of the page as plain data, a pure function of the runs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reprise.data.warnings import describe_warnings
from reprise.report import charts
from reprise.report.commands import Command, run_commands
from reprise.report.confusion import FEW_LABELS, confusion_matrix
from reprise.report.downsample import bin_means, evenly_spaced
from reprise.report.errors import Misprediction
from reprise.report.provenance import provenance_rows
from reprise.report.run import ReportRun
from reprise.report.seeds import SeedGroup, seed_groups
from reprise.report.sweeps import SweepSection, sweep_section
from reprise.report.table import Cell, Column, is_number, metric_names, table, varying_keys
from reprise.results.reference import Reference
from reprise.sweep.record import Record
from reprise.tasks.curves import per_class_table, worst_classes, worst_confusions
from reprise.tasks.kind import TaskKind
from reprise.tasks.metrics.registry import display_name
from reprise.tasks.registry import task_kind
from reprise.tasks.token_classification import NO_ENTITY

MAX_INITIAL_RUNS = 4  # runs that are selected when the page opens
CURVE_POINTS = 200  # of the precision-recall curves of a run, over all labels
MAX_CONFUSIONS = 30  # kinds of errors in the table
RESIDUAL_POINTS = 400  # examples of a run in the charts of a regression
DIGITS = 4  # significant digits in charts: a thousandth of a chart's height is less than a pixel
# Quantiles of the length chart, and their keys in stats.json.
QUANTILES = {"min": "0.0", "q25": "0.25", "q50": "0.5", "q75": "0.75", "q95": "0.95", "q99": "0.99", "max": "1.0"}


@dataclass(frozen=True)
class Row:
    """A run in the table and in the list of commands and provenance."""

    name: str
    kind: str
    constant_prediction: bool
    cells: list[Cell]
    commands: list[Command]
    provenance: list[tuple[str, str]]


@dataclass(frozen=True)
class Headline:
    """A metric of the first run: name, value, bounds of the 95 % interval (None if undetermined), baseline."""

    name: str
    value: float
    low: float | None
    high: float | None
    baseline: float


@dataclass(frozen=True)
class ReportContext:
    """Everything that the template needs.

    Attributes:
        title: model and task of the first run.
        headlines: metrics of the first run.
        evaluated_on: number of examples and split that these metrics were computed on.
        columns: columns of the table, after the name.
        rows: one row per run.
        kind: of the first run's task.
        labels: longest list of labels of any run; empty if all runs are regressions.
        many_labels: whether there are too many for a confusion matrix beside another, and for a column each.
        has_residuals: whether a run is a regression with residuals.
        classes: scores of each label that has examples, of the first run, the lowest F1 first.
        confusions: its most frequent kinds of errors.
        other_confusions: how many kinds of errors are left out.
        sweeps: numeric parameters that differ between runs.
        searches: a section for each sweep of `reprise sweep`.
        groups: runs that differ only in the seed.
        errors_run: name of the run whose errors are shown; empty if no predictions are on this machine.
        errors: its most confident errors.
        stats: statistics of the prepared data, None if it is not on this machine.
        data_warnings: what prepare warned about.
        checks: what was found in the prepared data; None if it was not checked, or is not on this machine.
        label_stats: what a table shows of the labels of each split, by heading; empty for many labels.
        label_counts: examples in each split by label, for many labels.
        charts: Vega-Lite specifications by name.
        data: data of the charts and of the controls.
    """

    title: str
    headlines: list[Headline]
    evaluated_on: str
    columns: list[Column]
    rows: list[Row]
    kind: TaskKind
    labels: list[str]
    many_labels: bool
    has_residuals: bool
    classes: list[dict[str, Any]]
    confusions: list[dict[str, Any]]
    other_confusions: int
    sweeps: list[str]
    searches: list[SweepSection]
    groups: list[SeedGroup]
    errors_run: str
    errors: list[Misprediction]
    stats: dict[str, Any] | None
    data_warnings: list[str]
    checks: dict[str, Any] | None
    label_stats: dict[str, dict[str, float]]
    label_counts: dict[str, list[int]]
    charts: dict[str, charts.Spec]
    data: dict[str, Any]


def build_context(
    runs: Sequence[ReportRun],
    *,
    references: Sequence[tuple[str, Reference]] = (),
    searches: Mapping[str, Record] | None = None,
    stats: dict[str, Any] | None = None,
    checks: dict[str, Any] | None = None,
    errors_run: str = "",
    errors: Sequence[Misprediction] = (),
) -> ReportContext:
    """Build the content of the page.

    Args:
        runs: at least one run; the first is the subject of the page.
        references: measured seed noise, each with its hardware.
        searches: record of each sweep, by name.
        stats: content of data/prepared/stats.json, None if missing.
        checks: content of data/checks/checks.json, None if missing.
        errors_run: name of the run whose errors are shown, empty for none.
        errors: its most confident errors.
    """
    first, keys = runs[0], varying_keys(runs)
    kind = first.result.task_kind
    columns, cells = table(runs)
    sweeps = {key: values for key in keys if key != "seed" and len(values := numeric_values(runs, key)) > 1}
    groups = seed_groups(runs, references, keys)
    labels = max(map(label_names, runs), key=len)
    by_commit = {run.commit: run for run in runs if run.commit}
    pairs = table_of(first, "confusion")
    confusions = worst_confusions(pairs) if len(pairs) else pairs
    matrices = [confusion_matrix(table_of(run, "confusion"), confusion_names(run)) for run in runs]
    places = {run.commit: index for index, run in enumerate(runs) if run.commit}
    sections = [
        sweep_section(name, record, place, places) for place, (name, record) in enumerate((searches or {}).items())
    ]
    drawn = [chart for section in sections for chart in (*section.charts, *section.slices)]
    many_in_data = bool(stats and len(stats["labels"]) > FEW_LABELS)
    return ReportContext(
        title=f"{first.model} on {first.result.recipe['task.name']}",
        headlines=[
            Headline(
                name=display_name(name, kind.positive_label, len(kind.labels)),
                value=first.evaluated[name],
                low=ci["low"],
                high=ci["high"],
                baseline=first.evaluated["baseline"][name],
            )
            for name, ci in first.evaluated["ci95"].items()
        ],
        evaluated_on=f"{first.evaluated['num_examples']:,} examples of the {first.evaluated['split']} split",
        columns=columns,
        rows=[
            Row(
                run.name,
                run.kind,
                run.constant_prediction,
                row,
                run_commands(run, by_commit),
                provenance_rows(run),
            )
            for run, row in zip(runs, cells, strict=True)
        ],
        kind=kind,
        labels=labels,
        many_labels=len(labels) > FEW_LABELS,
        has_residuals=any(len(table_of(run, "residuals")) for run in runs),
        classes=class_scores(table_of(first, "per_class"), pairs, label_names(first)),
        confusions=records(confusions.head(MAX_CONFUSIONS)),
        other_confusions=max(0, len(confusions) - MAX_CONFUSIONS),
        sweeps=list(sweeps),
        searches=sections,
        groups=groups,
        errors_run=errors_run,
        errors=list(errors),
        stats=stats,
        data_warnings=describe_warnings(stats or {}),
        checks=checks,
        label_stats={
            split: task_kind(
                stats["labels"],
                multi_label=stats.get("multi_label"),
                token_classification=stats.get("token_classification"),
            ).stats_table(content)
            for split, content in stats["splits"].items()
        }
        if stats and not many_in_data
        else {},
        label_counts={
            str(label): [content["label_counts"][label] for content in stats["splits"].values()]
            for label in stats["labels"]
        }
        if stats and many_in_data
        else {},
        charts={
            "loss": charts.curve("loss", "mean loss of a step", axis_format=".2~f"),
            "learning_rate": charts.curve("learning_rate", "learning rate", axis_format=".1~e"),
            "grad_norm": charts.curve("grad_norm", "largest gradient norm", axis_format=".3~g"),
            "epochs": charts.epochs(),
            "confusion": charts.confusion(labels, max(len(matrix.labels) for matrix in matrices)),
            "pr": charts.precision_recall(),
            "calibration": charts.calibration(),
            "predicted": charts.predicted(),
            "residuals": charts.residuals(),
            "seeds": charts.seeds(len(groups)),
            "lengths": charts.lengths(len(stats["splits"]) if stats else 0),
            "balance": charts.balance(stats["labels"] if stats else [], len(stats["splits"]) if stats else 0),
            **{f"sweep {index}": charts.sweep(key, values) for index, (key, values) in enumerate(sweeps.items())},
            **{chart.id: chart.spec for chart in drawn},
        },
        data={
            "metrics": metric_names(runs),
            "sweeps": list(sweeps),
            "runs": [
                chart_data(run, list(sweeps))
                | {"labels": matrix.labels, "confusion": matrix.cells, "confusion_note": matrix.note}
                for run, matrix in zip(runs, matrices, strict=True)
            ],
            "chosen": list(range(min(MAX_INITIAL_RUNS, len(runs)))),
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
                for group in groups
            ],
            "searches": {chart.id: {"rows": chart.rows, "columns": chart.columns} for chart in drawn},
            **dataset_stats(stats),
        },
    )


def label_names(run: ReportRun) -> list[str]:
    """Return the label names in the order of their ids."""
    return [str(label) for label in run.result.recipe.get("task.labels") or []]


def confusion_names(run: ReportRun) -> list[str]:
    """Return the names of rows and columns of a confusion matrix: the labels, and that of words without one."""
    return [*label_names(run), *([NO_ENTITY] if run.result.task_kind.per_token else [])]


def numeric_values(runs: Sequence[ReportRun], key: str) -> set[float]:
    """Return the numeric values of a parameter over all runs."""
    return {run.recipe[key] for run in runs if is_number(run.recipe.get(key))}


def chart_data(run: ReportRun, params: Sequence[str]) -> dict[str, Any]:
    """Return a run's data for the charts, in columns and rounded, so that a page of hundreds of runs stays small."""
    curve, residuals = bin_means(table_of(run, "train"), peaks=("grad_norm",)), table_of(run, "residuals")
    return {
        "name": run.name,
        "params": {key: value for key in params if is_number(value := run.recipe.get(key))},
        "metrics": {
            name: rounded([each for each in (metric.value, metric.low, metric.high) if each is not None], 5)
            for name, metric in run.metrics.items()
        },
        "curve": columns_of(curve, ["step", "loss", "learning_rate", "grad_norm"]),
        "epochs": columns_of(table_of(run, "validation")),
        "pr": precision_recall(table_of(run, "precision_recall")),
        "calibration": columns_of(table_of(run, "calibration")),
        "residuals": columns_of(
            residuals.iloc[evenly_spaced(len(residuals), RESIDUAL_POINTS)] if len(residuals) else residuals
        ),
    }


def table_of(run: ReportRun, name: str) -> pd.DataFrame:
    """Return a table of a run, empty if it is missing."""
    return run.tables.get(name, pd.DataFrame())


def columns_of(rows: pd.DataFrame, names: Sequence[str] | None = None) -> dict[str, list[float | None]]:
    """Return columns as rounded numbers, without missing columns."""
    wanted = rows.columns if names is None else [name for name in names if name in rows.columns]
    return {str(name): rounded(rows[name]) for name in wanted}


def rounded(values: Iterable[float], digits: int = DIGITS) -> list[float | None]:
    """Round numbers to significant digits; integers stay exact, and values that are not finite become None."""
    return [
        None if not math.isfinite(value) else int(value) if value == int(value) else float(f"{value:.{digits}g}")
        for value in values
    ]


def class_scores(per_class: pd.DataFrame, pairs: pd.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    """Return the rows of `per_class_table` of labels with examples, the lowest F1 first, with None for NaN.

    Runs of earlier versions have no per_class.csv; then they are computed from the examples in confusion.csv.
    """
    if len(per_class):
        return records(worst_classes(per_class))
    if pairs.empty:
        return []
    ids = pd.Index(labels)
    predicted, actual = (ids.get_indexer(pd.Index(pairs[name])) for name in ("predicted", "actual"))
    return records(worst_classes(per_class_table(predicted, actual, labels)))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, with None for NaN."""
    rows = table.to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def precision_recall(rows: pd.DataFrame) -> dict[str, dict[str, list[float | None]]]:
    """Return precision and recall by label, downsampled to CURVE_POINTS over all labels, at least ten each."""
    if rows.empty:
        return {}
    points = max(CURVE_POINTS // rows["label"].nunique(), 10)
    return {
        str(label): columns_of(curve.iloc[evenly_spaced(len(curve), points)], ["recall", "precision"])
        for label, curve in rows.groupby("label", sort=False)
    }


def dataset_stats(stats: dict[str, Any] | None) -> dict[str, Any]:
    """Return the data of the dataset charts: quantiles of text lengths, and examples per label."""
    if stats is None:
        return {"lengths": [], "balance": []}
    lengths = [
        {"split": split, **{name: content["length_quantiles"][key] for name, key in QUANTILES.items()}}
        for split, content in stats["splits"].items()
    ]
    balance = [
        {"split": split, "label": str(label), "count": count, "fraction": count / max(total, 1), "order": order}
        for split, content in stats["splits"].items()
        for total in [sum(content.get("label_counts", {}).values())]
        for order, (label, count) in enumerate(content.get("label_counts", {}).items())
    ]
    return {"lengths": lengths, "balance": balance}
