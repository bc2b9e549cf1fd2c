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

from reprise.experiments.differences import Difference, differences, lines
from reprise.experiments.runs import Run, find_runs
from reprise.experiments.statistics import (
    Contrast,
    Discordance,
    contrast,
    mcnemar,
    paired_interval,
    shown_p,
    summarize,
    verdict,
)
from reprise.places import PREPARED
from reprise.reproduce.reference import Reference, read_references
from reprise.reproduce.result import Result

Form = Literal["text", "json", "markdown"]
HEADINGS = ("stage", "figure", "first", "second", "difference", "95 % interval", "verdict")
ROW = ("id", "text", "text_pair", "label")  # what says which row it is
CHARACTERS = 200  # of a text in a table


@dataclass(frozen=True)
class Side:
    """What one side of a comparison is: the word for it, its runs and their seeds, in the same order."""

    word: str
    runs: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Figure:
    """A figure of both sides, by the stage that gave it; no contrast where a side lacks it."""

    stage: str
    name: str
    contrast: Contrast | None
    verdict: str


@dataclass(frozen=True)
class Pairing:
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
    discordance: Discordance | None
    intervals: dict[str, tuple[float, float] | None]
    changed: int
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Two sides, and what there is to say of them."""

    first: Side
    second: Side
    figures: list[Figure]
    pairing: Pairing | None
    differences: list[Difference]
    warnings: list[str]


def compare(before: str, after: str, rows: int, form: Form) -> None:
    """Compare what two words name and print it.

    Raises:
        InputError: a word names no run.
    """
    first, second = find_runs(before), find_runs(after)
    told = comparison((before, first), (after, second), read_references(), rows)
    if form == "json":
        print(json.dumps(in_json(asdict(told)), indent=2, ensure_ascii=False, allow_nan=False))
    elif form == "markdown":
        print(in_markdown(told))
    else:
        show(told)


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
    sides = [Side(word, [run.name for run in runs], [run.seed for run in runs]) for word, runs in (before, after)]
    results = [[run.result for run in runs] for _, runs in (before, after)]
    warnings = [
        f"{run.name} has collapsed: it says the same of every row" for run in (*before[1], *after[1]) if run.collapsed
    ]
    if len({rows_judged(result) for side in results for result in side}) > 1:
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
            pairing = pair(predicted[0], predicted[1], results[0][0], rows)
            if pairing is None:
                warnings.append("the predictions are of other rows or labels: rows are not compared")
    return Comparison(
        sides[0], sides[1], figures(results[0], results[1], known_spread(results, measured)), pairing,
        differences(results[0], results[1]), warnings,
    )  # fmt: skip


def rows_judged(result: Result) -> tuple[str, str]:
    """What says which rows a result was judged on: the digest of the prepared data, and the split."""
    prepared = result.outputs.get(str(PREPARED))
    return prepared.md5 if prepared else "", str(result.recipe.get("evaluate.split"))


def known_spread(results: Sequence[Sequence[Result]], measured: Sequence[tuple[str, Reference]]) -> dict[Any, float]:
    """The standard deviation over seeds of each figure, by stage and name, as it was measured before.

    A reference of a side's very recipe goes before one of the same task and pretrained model; either must be of the
    same hardware.
    """
    flat = [result for side in results for result in side]
    known = [(result.provenance.get("environment.hardware"), subject(result.recipe)) for result in flat]
    fitting = [each for kind, each in measured if (kind, subject(each.recipe)) in known]
    fitting.sort(key=lambda each: not any(each.holds_for(result) for result in flat))
    if not fitting:
        return {}
    return {(stage, name): spread.sd for stage, names in fitting[0].figures.items() for name, spread in names.items()}


def subject(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Which task and pretrained model a recipe is about, by dotted key."""
    return {key: value for key, value in recipe.items() if key == "task.name" or key.startswith("model.")}


def figures(before: Sequence[Result], after: Sequence[Result], spreads: dict[Any, float]) -> list[Figure]:
    """Every figure of either side, evaluation first, compared."""
    keys = {
        (stage, name): None
        for stage in ("evaluate", "train")
        for result in (*before, *after)
        for name in result.figures[stage]
    }
    values = {key: [values_of(side, *key) for side in (before, after)] for key in keys}
    compared = sum(all(both) for both in values.values())
    found = []
    for (stage, name), (old, new) in values.items():
        if old and new:
            told = contrast(old, new, compared)
            found.append(Figure(stage, name, told, verdict(name, told, spreads.get((stage, name)))))
        else:
            side, there = ("first", old) if old else ("second", new)
            found.append(Figure(stage, name, None, f"only the {side} side has it: {summarize(there).mean:.4f}"))
    return found


def values_of(results: Sequence[Result], stage: str, name: str) -> list[float]:
    """A figure of each result that has it."""
    return [result.figures[stage][name] for result in results if name in result.figures[stage]]


def pair(before: pd.DataFrame, after: pd.DataFrame, result: Result, rows: int) -> Pairing | None:
    """Compare two runs row by row; None where they did not judge the same rows by the same labels.

    Args:
        before: the predictions of the first, by the columns of `evaluate.stage.prediction_table`.
        after: those of the second.
        result: the first's.
        rows: how many of the rows that changed to name.
    """
    which = [name for name in ROW if name in before]
    if which != [name for name in ROW if name in after] or not before[which].equals(after[which]):
        return None
    labels = [str(label) for label in result.recipe["task.labels"]]
    if labels and not set(after["prediction"].map(str)) <= set(labels):
        return None
    from reprise.metrics import score_function  # slow

    truth, first, second = (
        numbers(column, labels) for column in (before["label"], before["prediction"], after["prediction"])
    )
    weight = sureness(before) + sureness(after) if labels else np.abs(second - first)
    changed = [int(row) for row in np.argsort(-weight, kind="stable") if first[row] != second[row]]
    return Pairing(
        rows=len(truth),
        discordance=mcnemar(first == truth, second == truth) if labels else None,
        intervals={
            name: paired_interval(score_function(name, labels=len(labels)), first, second, truth)
            for name in result.recipe["task.metrics"]
        },
        changed=len(changed),
        examples=[
            {
                "id": row,
                **{name: plain(before[name].iloc[row]) for name in which},
                "first": plain(before["prediction"].iloc[row]),
                "second": plain(after["prediction"].iloc[row]),
            }
            for row in changed[:rows]
        ],
    )


def numbers(column: "pd.Series[Any]", labels: Sequence[str]) -> npt.NDArray[Any]:
    """Labels by their numbers; of a regression the values."""
    if not labels:
        return column.to_numpy(np.float64)
    known = {label: number for number, label in enumerate(labels)}
    return np.array([known[str(label)] for label in column])


def sureness(predictions: pd.DataFrame) -> npt.NDArray[np.float64]:
    """The probability that a model gave to its answer, shape [rows]."""
    return np.array([max(each) for each in predictions["probabilities"]], np.float64)


def plain(value: Any) -> Any:
    """A value as Python has it, instead of NumPy."""
    return value.item() if isinstance(value, np.generic) else value


def in_json(content: Any) -> Any:
    """The same with null for numbers that JSON has no word for."""
    if isinstance(content, dict):
        return {key: in_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [in_json(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def heading(side: Side) -> str:
    """A side in a line: the word, and what it stands for."""
    seeds = f"seed{'s' if len(side.seeds) > 1 else ''} {', '.join(map(str, side.seeds))}"
    runs = "" if side.runs == [side.word] else f": {', '.join(side.runs)}"
    return f"{side.word} ({seeds}{runs})"


def cells(figure: Figure) -> list[str]:
    """A figure's line, by HEADINGS."""
    told = figure.contrast
    if told is None:
        return [figure.stage, figure.name, "", "", "", "", figure.verdict]
    interval = "–" if told.low is None or told.high is None else f"{told.low:+.4f} to {told.high:+.4f}"
    means = [
        f"{side.mean:.4f}" + ("" if side.sd is None else f" ± {side.sd:.4f}") for side in (told.before, told.after)
    ]
    return [figure.stage, figure.name, *means, f"{told.difference:+.4f}", interval, figure.verdict]


def notes(told: Comparison) -> list[str]:
    """What the table means, and what the rows say, a line each."""
    tested = [figure for figure in told.figures if figure.contrast and figure.contrast.p is not None]
    lines = []
    if tested:
        single = 1 in (len(told.first.runs), len(told.second.runs))
        lines.append(
            "Mean ± standard deviation over seeds; the difference is second less first. "
            f"{'Student' if single else 'Welch'}'s t-test, with intervals and p made for "
            f"{sum(each.contrast is not None for each in told.figures)} figures at once (Bonferroni)."
        )
        if single:
            lines.append("A side of one seed is judged by the other's spread, as if another seed moved both as far.")
    if told.pairing:
        lines.append(f"Rows: {told.pairing.changed} of {told.pairing.rows} are predicted otherwise.")
        if odd := told.pairing.discordance:
            lines.append(
                f"Only the first is right on {odd.only_before} rows, only the second on {odd.only_after}: "
                f"McNemar's exact test, {shown_p(odd.p)}."
            )
        lines += [
            f"{name}: second less first is {ends[0]:+.4f} to {ends[1]:+.4f} over other rows (paired bootstrap, 95 %)."
            if ends
            else f"{name}: the rows do not tell an interval."
            for name, ends in told.pairing.intervals.items()
        ]
        lines.append("The rows speak of these two models; what another seed would do, only more seeds tell.")
    return lines


def show(told: Comparison) -> None:
    """Print a comparison on the terminal."""
    console = Console(highlight=False, markup=False)
    for place, side in (("first", told.first), ("second", told.second)):
        console.print(f"{place}: {heading(side)}", soft_wrap=True)
    for warning in told.warnings:
        console.print(f"Beware: {warning}", style="bold", soft_wrap=True)
    console.print(as_table(HEADINGS, map(cells, told.figures)))
    for line in notes(told):
        console.print(line, soft_wrap=True)
    if told.pairing and told.pairing.examples:
        named = list(told.pairing.examples[0])
        console.print(as_table(named, ([shortened(row[name]) for name in named] for row in told.pairing.examples)))
    for line in lines(told.differences):
        console.print(f"Differs: {line}", soft_wrap=True)


def as_table(headings: Sequence[str], rows: Any) -> Table:
    """Texts as a table of rich."""
    table = Table()
    for name in headings:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def in_markdown(told: Comparison) -> str:
    """A comparison as Markdown, for a pull request."""
    lines = [
        f"**{place}**: {escaped(heading(side))}  " for place, side in (("first", told.first), ("second", told.second))
    ]
    lines += ["", *(f"> **Beware**: {escaped(warning)}" for warning in told.warnings), ""]
    lines += [*markdown_table(HEADINGS, map(cells, told.figures)), ""]
    lines += [f"- {escaped(line)}" for line in notes(told)]
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
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS].rstrip()} …"
