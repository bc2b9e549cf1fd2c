"""`reprise compare`: what sets two runs, or two groups of seeds, apart, and whether it is more than chance."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.table import Table

from reprise.core.paths import PREPARED
from reprise.results.diff import Difference, diff_runs, format_differences
from reprise.results.reference import Reference, read_references
from reprise.results.run import RunResult
from reprise.results.runs import Run, resolve_runs
from reprise.results.statistics import (
    McNemarResult,
    TTestResult,
    format_p,
    mcnemar,
    paired_bootstrap_ci,
    summarize,
    t_test,
    verdict,
)

OutputFormat = Literal["text", "json", "markdown"]
HEADINGS = ("stage", "figure", "first", "second", "difference", "95 % interval", "verdict")
ROW_COLUMNS = ("id", "text", "text_pair", "label")  # what says which row it is
MAX_TEXT_CHARS = 200  # of a text in a table


@dataclass(frozen=True)
class RunGroup:
    """What one side of a comparison is: the word for it, its runs and their seeds, in the same order."""

    word: str
    runs: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class MetricComparison:
    """A figure of both sides, by the stage that gave it; no contrast where a side lacks it."""

    stage: str
    name: str
    contrast: TTestResult | None
    verdict: str


@dataclass(frozen=True)
class PairedComparison:
    """Two runs on the same rows.

    Attributes:
        rows: how many they judged.
        discordance: McNemar's counts and p; None in a regression.
        intervals: by metric, the 95 % interval of the second's score less the first's over other rows; None where it
            cannot be told.
        changed: how many rows they do not agree on.
        examples: the first of these: id, texts, label, both predictions. First come those on which both models were
            surest, by the sum of the probabilities that they gave to their answers; in a regression those that are
            furthest apart.
    """

    rows: int
    discordance: McNemarResult | None
    intervals: dict[str, tuple[float, float] | None]
    changed: int
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Two sides, and what there is to say of them."""

    first: RunGroup
    second: RunGroup
    metrics: list[MetricComparison]
    pairing: PairedComparison | None
    differences: list[Difference]
    warnings: list[str]


def compare(before: str, after: str, rows: int, form: OutputFormat) -> None:
    """Compare what two words name and print it.

    Raises:
        UserError: a word names no run.
    """
    first, second = resolve_runs(before), resolve_runs(after)
    told = comparison((before, first), (after, second), read_references(), rows)
    if form == "json":
        print(json.dumps(to_jsonable(asdict(told)), indent=2, ensure_ascii=False, allow_nan=False))
    elif form == "markdown":
        print(to_markdown(told))
    else:
        print_comparison(told)


def comparison(
    before: tuple[str, Sequence[Run]],
    after: tuple[str, Sequence[Run]],
    measured: Sequence[tuple[str, Reference]],
    rows: int,
) -> Comparison:
    """Compare two sides.

    Args:
        before: the word for the first side, and its runs.
        after: the second's.
        measured: references, each with the kind of hardware.
        rows: how many of the rows that changed to name.
    """
    sides = [RunGroup(word, [run.name for run in runs], [run.seed for run in runs]) for word, runs in (before, after)]
    results = [[run.result for run in runs] for _, runs in (before, after)]
    warnings = [
        f"{run.name} is a constant prediction: one label for every example"
        for run in (*before[1], *after[1])
        if run.constant_prediction
    ]
    if len({evaluated_on(result) for side in results for result in side}) > 1:
        warnings.append("not all runs were judged on the same rows: a difference may come from the rows")
    if {run.commit or run.name for run in before[1]} & {run.commit or run.name for run in after[1]}:
        warnings.append("a run stands on both sides")
    pairing = None
    if len(before[1]) == len(after[1]) == 1:
        predicted = [runs[0].predictions() for _, runs in (before, after)]
        if predicted[0] is None or predicted[1] is None:
            missing = [
                runs[0].name for (_, runs), there in zip((before, after), predicted, strict=True) if there is None
            ]
            warnings.append(
                f"the predictions of {' and '.join(missing)} are not here: rows are not compared (dvc pull)"
            )
        else:
            pairing = compare_predictions(predicted[0], predicted[1], results[0][0], rows)
            if pairing is None:
                warnings.append("the predictions are of other rows or labels: rows are not compared")
    return Comparison(
        sides[0], sides[1], compare_metrics(results[0], results[1], known_sd(results, measured)), pairing,
        diff_runs(results[0], results[1]), warnings,
    )  # fmt: skip


def evaluated_on(result: RunResult) -> tuple[str, str]:
    """What says which rows a result was judged on: the digest of the prepared data, and the split."""
    prepared = result.outputs.get(str(PREPARED))
    return prepared.md5 if prepared else "", str(result.recipe.get("evaluate.split"))


def known_sd(results: Sequence[Sequence[RunResult]], measured: Sequence[tuple[str, Reference]]) -> dict[Any, float]:
    """The standard deviation over seeds of each figure, by stage and name, as it was measured before.

    A reference of a side's very recipe goes before one of the same task and pretrained model; either must be of the
    same hardware.
    """
    flat = [result for side in results for result in side]
    known = [(result.provenance.get("environment.hardware"), task_and_model(result.recipe)) for result in flat]
    fitting = [each for kind, each in measured if (kind, task_and_model(each.recipe)) in known]
    fitting.sort(key=lambda each: not any(each.matches(result) for result in flat))
    if not fitting:
        return {}
    return {(stage, name): spread.sd for stage, names in fitting[0].metrics.items() for name, spread in names.items()}


def task_and_model(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Which task and pretrained model a recipe is about, by dotted key."""
    return {key: value for key, value in recipe.items() if key == "task.name" or key.startswith("model.")}


def compare_metrics(
    before: Sequence[RunResult], after: Sequence[RunResult], spreads: dict[Any, float]
) -> list[MetricComparison]:
    """Every figure of either side, evaluation first, compared."""
    keys = {
        (stage, name): None
        for stage in ("evaluate", "train")
        for result in (*before, *after)
        for name in result.metrics[stage]
    }
    values = {key: [metric_values(side, *key) for side in (before, after)] for key in keys}
    compared = sum(all(both) for both in values.values())
    found = []
    for (stage, name), (old, new) in values.items():
        if old and new:
            told = t_test(old, new, compared)
            found.append(MetricComparison(stage, name, told, verdict(name, told, spreads.get((stage, name)))))
        else:
            side, there = ("first", old) if old else ("second", new)
            found.append(
                MetricComparison(stage, name, None, f"only the {side} side has it: {summarize(there).mean:.4f}")
            )
    return found


def metric_values(results: Sequence[RunResult], stage: str, name: str) -> list[float]:
    """A figure of each result that has it."""
    return [result.metrics[stage][name] for result in results if name in result.metrics[stage]]


def compare_predictions(
    before: pd.DataFrame, after: pd.DataFrame, result: RunResult, rows: int
) -> PairedComparison | None:
    """Compare two runs row by row; None where they did not judge the same rows by the same labels.

    Args:
        before: the predictions of the first, by the columns of `evaluate.stage.prediction_table`.
        after: those of the second.
        result: the first's.
        rows: how many of the rows that changed to name.
    """
    which = [name for name in ROW_COLUMNS if name in before]
    if which != [name for name in ROW_COLUMNS if name in after] or not before[which].equals(after[which]):
        return None
    labels = [str(label) for label in result.recipe["task.labels"]]
    if labels and not set(after["prediction"].map(str)) <= set(labels):
        return None
    from reprise.tasks.metrics.registry import metric_function

    truth, first, second = (
        label_ids(column, labels) for column in (before["label"], before["prediction"], after["prediction"])
    )
    weight = confidence(before) + confidence(after) if labels else np.abs(second - first)
    changed = [int(row) for row in np.argsort(-weight, kind="stable") if first[row] != second[row]]
    return PairedComparison(
        rows=len(truth),
        discordance=mcnemar(first == truth, second == truth) if labels else None,
        intervals={
            name: paired_bootstrap_ci(metric_function(name, len(labels)), first, second, truth)
            for name in result.recipe["task.metrics"]
        },
        changed=len(changed),
        examples=[
            {
                "id": row,
                **{name: to_python(before[name].iloc[row]) for name in which},
                "first": to_python(before["prediction"].iloc[row]),
                "second": to_python(after["prediction"].iloc[row]),
            }
            for row in changed[:rows]
        ],
    )


def label_ids(column: "pd.Series[Any]", labels: Sequence[str]) -> npt.NDArray[Any]:
    """Labels by their numbers; of a regression the values."""
    if not labels:
        return column.to_numpy(np.float64)
    known = {label: number for number, label in enumerate(labels)}
    return np.array([known[str(label)] for label in column])


def confidence(predictions: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The probability that a model gave to its answer, shape [rows]."""
    return np.array([max(each) for each in predictions["probabilities"]], np.float64)


def to_python(value: Any) -> Any:
    """A value as Python has it, instead of NumPy."""
    return value.item() if isinstance(value, np.generic) else value


def to_jsonable(content: Any) -> Any:
    """The same with null for numbers that JSON has no word for."""
    if isinstance(content, dict):
        return {key: to_jsonable(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [to_jsonable(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def describe_group(side: RunGroup) -> str:
    """A side in a line: the word, and what it stands for."""
    seeds = f"seed{'s' if len(side.seeds) > 1 else ''} {', '.join(map(str, side.seeds))}"
    runs = "" if side.runs == [side.word] else f": {', '.join(side.runs)}"
    return f"{side.word} ({seeds}{runs})"


def format_row(metric: MetricComparison) -> list[str]:
    """A figure's line, by HEADINGS."""
    told = metric.contrast
    if told is None:
        return [metric.stage, metric.name, "", "", "", "", metric.verdict]
    interval = "–" if told.low is None or told.high is None else f"{told.low:+.4f} to {told.high:+.4f}"
    means = [
        f"{side.mean:.4f}" + ("" if side.sd is None else f" ± {side.sd:.4f}") for side in (told.before, told.after)
    ]
    return [metric.stage, metric.name, *means, f"{told.difference:+.4f}", interval, metric.verdict]


def explain(told: Comparison) -> list[str]:
    """What the table means, and what the rows say, a line each."""
    tested = [metric for metric in told.metrics if metric.contrast and metric.contrast.p is not None]
    lines = []
    if tested:
        single = 1 in (len(told.first.runs), len(told.second.runs))
        lines.append(
            "Mean ± standard deviation over seeds; the difference is second less first. "
            f"{'Student' if single else 'Welch'}'s t-test, with intervals and p made for "
            f"{sum(each.contrast is not None for each in told.metrics)} metrics at once (Bonferroni)."
        )
        if single:
            lines.append("A side of one seed is judged by the other's spread, as if another seed moved both as far.")
    if told.pairing:
        lines.append(f"Rows: {told.pairing.changed} of {told.pairing.rows} are predicted otherwise.")
        if odd := told.pairing.discordance:
            lines.append(
                f"Only the first is right on {odd.only_before} rows, only the second on {odd.only_after}: "
                f"McNemar's exact test, {format_p(odd.p)}."
            )
        lines += [
            f"{name}: second less first is {ends[0]:+.4f} to {ends[1]:+.4f} over other rows (paired bootstrap, 95 %)."
            if ends
            else f"{name}: the rows do not tell an interval."
            for name, ends in told.pairing.intervals.items()
        ]
        lines.append("The rows speak of these two models; what another seed would do, only more seeds tell.")
    return lines


def print_comparison(told: Comparison) -> None:
    """Print a comparison on the terminal."""
    console = Console(highlight=False, markup=False)
    for place, side in (("first", told.first), ("second", told.second)):
        console.print(f"{place}: {describe_group(side)}", soft_wrap=True)
    for warning in told.warnings:
        console.print(f"Beware: {warning}", style="bold", soft_wrap=True)
    console.print(as_table(HEADINGS, map(format_row, told.metrics)))
    for line in explain(told):
        console.print(line, soft_wrap=True)
    if told.pairing and told.pairing.examples:
        named = list(told.pairing.examples[0])
        console.print(as_table(named, ([shortened(row[name]) for name in named] for row in told.pairing.examples)))
    for line in format_differences(told.differences):
        console.print(f"Differs: {line}", soft_wrap=True)


def as_table(headings: Sequence[str], rows: Any) -> Table:
    """Texts as a table of rich."""
    table = Table()
    for name in headings:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def to_markdown(told: Comparison) -> str:
    """A comparison as Markdown, for a pull request."""
    lines = [
        f"**{place}**: {escaped(describe_group(side))}  "
        for place, side in (("first", told.first), ("second", told.second))
    ]
    lines += ["", *(f"> **Beware**: {escaped(warning)}" for warning in told.warnings), ""]
    lines += [*markdown_table(HEADINGS, map(format_row, told.metrics)), ""]
    lines += [f"- {escaped(line)}" for line in explain(told)]
    if told.pairing and told.pairing.examples:
        named = list(told.pairing.examples[0])
        rows = ([shortened(row[name]) for name in named] for row in told.pairing.examples)
        lines += ["", *markdown_table(named, rows)]
    listed = [[each.what, each.key, each.before, each.after] for each in told.differences]
    lines += [
        "",
        *(markdown_table(("differs", "", "first", "second"), listed) if listed else ["Nothing else differs."]),
    ]
    return "\n".join(lines)


def markdown_table(headings: Sequence[str], rows: Any) -> list[str]:
    """A table of GitHub's Markdown, a line each."""
    return [f"| {' | '.join(map(escaped, each))} |" for each in (headings, ["---"] * len(headings), *rows)]


def escaped(text: str) -> str:
    """A text that Markdown takes as it is, on one line."""
    flat = " ".join(text.split())
    for sign in "\\|*_`<[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat


def shortened(value: Any) -> str:
    """A value of a row as a table has room for it."""
    text = f"{value:.4f}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS].rstrip()} …"
