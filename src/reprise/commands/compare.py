"""`reprise compare`: compare two runs or two groups of seeds, and test which differences are significant."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.table import Table

from reprise.commands.markdown import escape_markdown, markdown_table
from reprise.commands.terminal import Terminal
from reprise.core.display import echo_lines, to_json
from reprise.core.paths import PREPARED
from reprise.results.diff import Difference, diff_runs, format_differences
from reprise.results.folds import folds_of, paired_folds, paired_t_test
from reprise.results.reference import Reference, read_references
from reprise.results.run import RunResult, describe_edited
from reprise.results.runs import EXAMPLE_COLUMNS, Run, resolve_runs, same_examples
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
from reprise.results.workspace import read_made
from reprise.tasks.kind import TaskKind
from reprise.tasks.metrics.registry import METRICS, display_name, metric_function
from reprise.tasks.token_classification import entity_texts

OutputFormat = Literal["text", "json", "markdown"]
HEADINGS = ("stage", "metric", "first", "second", "difference", "95 % interval", "verdict")
MAX_TEXT_CHARS = 200  # of a text in a table


@dataclass(frozen=True)
class RunGroup:
    """One of the two groups: its selector, the names of its runs, and their seeds in the same order.

    `folds` names the fold of each run if the groups are compared fold by fold; else it is empty.
    """

    selector: str
    runs: list[str]
    seeds: list[int]
    folds: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MetricComparison:
    """A metric in both groups.

    Attributes:
        stage: stage that computed it.
        name: name of the metric.
        test: result of the t-test, None if only one group has the metric.
        verdict: the result in words.
    """

    stage: str
    name: str
    test: TTestResult | None
    verdict: str


@dataclass(frozen=True)
class PairedComparison:
    """Two runs evaluated on the same examples.

    Attributes:
        num_examples: number of examples.
        mcnemar: McNemar's test, None in regression.
        intervals: by metric, 95 % interval of the second run's score minus the first's; None if undefined.
        changed: number of examples that the runs predict differently.
        examples: the first of these: id, texts, label, both predictions. They are sorted by the sum of both models'
            confidence, largest first; in regression by the distance between the predictions.
    """

    num_examples: int
    mcnemar: McNemarResult | None
    intervals: dict[str, tuple[float, float] | None]
    changed: int
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Comparison of two groups of runs.

    Attributes:
        first: first group.
        second: second group.
        metrics: metrics of either group, evaluation first.
        paired: comparison by example, None unless each group is one run with predictions of the same examples.
        differences: differences between the inputs of the groups.
        warnings: reasons to doubt the comparison.
    """

    first: RunGroup
    second: RunGroup
    metrics: list[MetricComparison]
    paired: PairedComparison | None
    differences: list[Difference]
    warnings: list[str]


def compare(before: str, after: str, rows: int, output_format: OutputFormat) -> None:
    """Compare the runs of two selectors and print the result.

    Args:
        before: selector of the first group.
        after: selector of the second group.
        rows: number of examples to print.
        output_format: text, json or markdown.

    Raises:
        UserError: a selector names no run.
    """
    first, second = resolve_runs(before), resolve_runs(after)
    result = comparison((before, first), (after, second), read_references(), rows)
    if any(run.kind == "workspace" for run in (*first, *second)):
        changes = read_made("the workspace's results were made").changes
        result = replace(result, warnings=[*result.warnings, *changes])
    if output_format == "json":
        echo_lines(to_json(to_jsonable(asdict(result)), indent=2))
    elif output_format == "markdown":
        echo_lines(to_markdown(result))
    else:
        print_comparison(result)


def comparison(
    before: tuple[str, Sequence[Run]],
    after: tuple[str, Sequence[Run]],
    references: Sequence[tuple[str, Reference]],
    rows: int,
) -> Comparison:
    """Compare two groups of runs.

    Args:
        before: selector and runs of the first group.
        after: selector and runs of the second group.
        references: measured seed noise, each with its hardware.
        rows: number of differently predicted examples to include.

    Raises:
        UserError: folds are compared with other ones.
    """
    folds = paired_folds(before, after)
    groups = [
        RunGroup(selector, [run.name for run in runs], [run.seed for run in runs], folds_of(runs) if folds else [])
        for selector, runs in (before, after)
    ]
    results = [[run.result for run in runs] for _, runs in (before, after)]
    warnings = [
        f"{run.name} is a constant prediction: {run.result.task_kind.constant_meaning}"
        for run in (*before[1], *after[1])
        if run.constant_prediction
    ]
    warnings += [
        f"{run.name}: {describe_edited(path)}" for run in (*before[1], *after[1]) for path in run.result.edited
    ]
    # Each fold has examples of its own.
    sets = zip(*results, strict=True) if folds else [[result for group in results for result in group]]
    if any(len(set(map(evaluated_on, each))) > 1 for each in sets):
        warnings.append("not all runs were evaluated on the same examples: differences may come from the data")
    if {run.commit or run.name for run in before[1]} & {run.commit or run.name for run in after[1]}:
        warnings.append("a run is in both groups")
    for name in [name for name, metric in METRICS.items() if metric.of_one_label]:
        variants = {each: None for group in results for result in group for each in display_names(result, name)}
        if len(variants) > 1:
            warnings.append(f"not all runs have the same label in {' and '.join(variants)}")
    paired = None
    if len(before[1]) == len(after[1]) == 1:
        predictions = [runs[0].predictions() for _, runs in (before, after)]
        if predictions[0] is None or predictions[1] is None:
            missing = [
                runs[0].name for (_, runs), table in zip((before, after), predictions, strict=True) if table is None
            ]
            warnings.append(
                f"the predictions of {' and '.join(missing)} are not on this machine (dvc pull): "
                "examples are not compared"
            )
        else:
            paired = compare_predictions(predictions[0], predictions[1], results[0][0], rows)
            if paired is None:
                warnings.append("the predictions have different examples or labels: examples are not compared")
    return Comparison(
        groups[0], groups[1], compare_metrics(results[0], results[1], known_sd(results, references), folds), paired,
        diff_runs(results[0], results[1]), warnings,
    )  # fmt: skip


def display_names(result: RunResult, name: str) -> list[str]:
    """Return the name of a metric with the label that it is of in a run; nothing if the run lacks the metric."""
    kind = result.task_kind
    present = [each for each in result.metrics["evaluate"] if each == name]
    return [display_name(each, kind.positive_label, len(kind.labels)) for each in present]


def evaluated_on(result: RunResult) -> tuple[str, str]:
    """Return what identifies the evaluated examples: digest of the prepared data, and split."""
    prepared = result.outputs.get(str(PREPARED))
    return prepared.md5 if prepared else "", str(result.recipe.get("evaluate.split"))


def known_sd(results: Sequence[Sequence[RunResult]], references: Sequence[tuple[str, Reference]]) -> dict[Any, float]:
    """Return the measured standard deviation over seeds of each metric, by stage and name.

    A reference of exactly one of the recipes is preferred to one of the same task and pretrained model. The hardware
    must be the same.

    Returns:
        Standard deviations, empty if no reference applies.
    """
    flat = [result for group in results for result in group]
    known = [(result.provenance.get("environment.hardware"), task_and_model(result.recipe)) for result in flat]
    matching = [each for hardware, each in references if (hardware, task_and_model(each.recipe)) in known]
    matching.sort(key=lambda each: not any(each.matches(result) for result in flat))
    if not matching:
        return {}
    return {(stage, name): spread.sd for stage, names in matching[0].metrics.items() for name, spread in names.items()}


def task_and_model(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a recipe that define its task and pretrained model."""
    return {key: value for key, value in recipe.items() if key == "task.name" or key.startswith("model.")}


def compare_metrics(
    before: Sequence[RunResult],
    after: Sequence[RunResult],
    standard_deviations: dict[Any, float],
    folds: int | None = None,
) -> list[MetricComparison]:
    """Compare every metric of either group, evaluation first.

    Args:
        before: results of the first group.
        after: results of the second group.
        standard_deviations: known standard deviations over seeds, by stage and name.
        folds: compare result by result, each of a fold of this many; None for groups of seeds.
    """
    keys = {
        (stage, name): None
        for stage in ("evaluate", "train")
        for result in (*before, *after)
        for name in result.metrics[stage]
    }
    values = {key: [metric_values(group, *key) for group in (before, after)] for key in keys}
    tests = sum(all(both) for both in values.values())
    comparisons = []
    for (stage, name), (old, new) in values.items():
        if old and new:
            test = paired_t_test(old, new, folds, tests) if folds else t_test(old, new, tests)
            words = verdict(name, test, standard_deviations.get((stage, name)), unit="fold" if folds else "seed")
            comparisons.append(MetricComparison(stage, name, test, words))
        else:
            group, present = ("first", old) if old else ("second", new)
            words = f"only in the {group} group: {summarize(present).mean:.4f}"
            comparisons.append(MetricComparison(stage, name, None, words))
    return comparisons


def metric_values(results: Sequence[RunResult], stage: str, name: str) -> list[float]:
    """Return a metric of each result that has it."""
    return [result.metrics[stage][name] for result in results if name in result.metrics[stage]]


def compare_predictions(
    before: pd.DataFrame, after: pd.DataFrame, result: RunResult, rows: int
) -> PairedComparison | None:
    """Compare two runs example by example.

    Args:
        before: predictions of the first run, with the columns of `evaluate.stage.predictions_table`.
        after: predictions of the second run.
        result: result of the first run.
        rows: number of differently predicted examples to include.

    Returns:
        The comparison, None if the runs were not evaluated on the same examples with the same labels.
    """
    if not same_examples(before, after):
        return None
    identifying = [name for name in EXAMPLE_COLUMNS if name in before]
    kind = result.task_kind
    try:
        truth, first, second = (
            kind.label_values(list(column)) for column in (before["label"], before["prediction"], after["prediction"])
        )
    except ValueError:  # the second run predicts other labels
        return None
    ranking = np.argsort(-kind.disagreement(before, after), kind="stable")
    changed = [int(row) for row in ranking if not np.array_equal(first[row], second[row])]
    correct = [kind.is_correct(predictions, truth) for predictions in (first, second)]
    return PairedComparison(
        num_examples=len(truth),
        mcnemar=None if correct[0] is None or correct[1] is None else mcnemar(correct[0], correct[1]),
        intervals={
            name: paired_bootstrap_ci(
                metric_function(name, kind.positive), judged(name, before, first), judged(name, after, second), truth
            )
            for name in result.recipe["task.metrics"]
        },
        changed=len(changed),
        examples=[
            {
                "id": row,
                **{name: to_python(before[name].iloc[row]) for name in identifying if name != "label"},
                "label": spell(before.iloc[row], "label", kind),
                "first": spell(before.iloc[row], "prediction", kind),
                "second": spell(after.iloc[row], "prediction", kind),
            }
            for row in changed[:rows]
        ],
    )


def judged(name: str, table: pd.DataFrame, predictions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what a metric takes of a run: its predictions, or the probabilities in the table of them."""
    return np.array(table["probabilities"].tolist()) if METRICS[name].of_probabilities else predictions


def spell(row: "pd.Series[Any]", side: str, kind: TaskKind) -> Any:
    """Return `label` or `prediction` in a row of predictions/ for JSON; of labels of words, a text of the entities."""
    return entity_texts(row.to_dict(), side) if kind.per_token else to_python(row[side])


def to_python(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number, and an array to a list."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def to_jsonable(content: Any) -> Any:
    """Replace numbers that are not finite by None, because JSON cannot represent them."""
    if isinstance(content, dict):
        return {key: to_jsonable(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [to_jsonable(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def describe_group(group: RunGroup) -> str:
    """Describe a group on one line: selector, seeds or folds, and runs if the selector does not name them."""
    unit, values = ("fold", group.folds) if group.folds else ("seed", list(map(str, group.seeds)))
    runs = "" if group.runs == [group.selector] else f": {', '.join(group.runs)}"
    return f"{group.selector} ({unit}{'s' * (len(values) > 1)} {', '.join(values)}{runs})"


def format_row(metric: MetricComparison) -> list[str]:
    """Format a metric as a table row with the columns of `HEADINGS`."""
    test = metric.test
    if test is None:
        return [metric.stage, metric.name, "", "", "", "", metric.verdict]
    interval = "–" if test.low is None or test.high is None else f"{test.low:+.4f} to {test.high:+.4f}"
    means = [
        f"{group.mean:.4f}" + ("" if group.sd is None else f" ± {group.sd:.4f}") for group in (test.before, test.after)
    ]
    return [metric.stage, metric.name, *means, f"{test.difference:+.4f}", interval, metric.verdict]


def explain(result: Comparison) -> list[str]:
    """Explain the tests behind the table, and summarize the comparison by example; one sentence or two per line."""
    tested = [metric for metric in result.metrics if metric.test and metric.test.p is not None]
    lines = []
    if tested and result.first.folds:
        lines.append(
            "Mean ± standard deviation over folds; differences are second minus first, fold by fold. t-test corrected "
            "for training splits that share examples (Nadeau & Bengio 2003), with intervals and p-values corrected for "
            f"{sum(metric.test is not None for metric in result.metrics)} metrics (Bonferroni)."
        )
    elif tested:
        single = 1 in (len(result.first.runs), len(result.second.runs))
        lines.append(
            "Mean ± standard deviation over seeds; differences are second minus first. "
            f"{'Student' if single else 'Welch'}'s t-test, with intervals and p-values corrected for "
            f"{sum(metric.test is not None for metric in result.metrics)} metrics (Bonferroni)."
        )
        if single:
            lines.append("The single seed is tested against the spread of the other group, assuming equal variances.")
    if result.paired:
        lines.append(f"Predictions differ on {result.paired.changed} of {result.paired.num_examples} examples.")
        if test := result.paired.mcnemar:
            lines.append(
                f"Only the first is correct on {test.only_before} examples, only the second on {test.only_after}: "
                f"McNemar's exact test, {format_p(test.p)}."
            )
        lines += [
            f"{name}: second minus first is {interval[0]:+.4f} to {interval[1]:+.4f} over other examples "
            "(paired bootstrap, 95 %)."
            if interval
            else f"{name}: the paired bootstrap gives no interval."
            for name, interval in result.paired.intervals.items()
        ]
        lines.append("These tests compare two trained models; to compare recipes, use several seeds per group.")
    return lines


def print_comparison(result: Comparison) -> None:
    """Print a comparison on the terminal."""
    console = Terminal()
    for title, group in (("first", result.first), ("second", result.second)):
        console.print(f"{title}: {describe_group(group)}", soft_wrap=True)
    for warning in result.warnings:
        console.print(f"Warning: {warning}", style="bold", soft_wrap=True)
    console.print(as_table(HEADINGS, map(format_row, result.metrics)))
    for line in explain(result):
        console.print(line, soft_wrap=True)
    if result.paired and result.paired.examples:
        columns = list(result.paired.examples[0])
        console.print(as_table(columns, ([truncate(row[name]) for name in columns] for row in result.paired.examples)))
    for line in format_differences(result.differences):
        console.print(f"Differs: {line}", soft_wrap=True)


def as_table(headings: Sequence[str], rows: Any) -> Table:
    """Build a table for the terminal from rows of strings."""
    table = Table()
    for name in headings:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def to_markdown(result: Comparison) -> str:
    """Format a comparison as Markdown, for a pull request."""
    lines = [
        f"**{title}**: {escape_markdown(describe_group(group))}  "
        for title, group in (("first", result.first), ("second", result.second))
    ]
    lines += ["", *(f"> **Warning**: {escape_markdown(warning)}" for warning in result.warnings), ""]
    lines += [*markdown_table(HEADINGS, map(format_row, result.metrics)), ""]
    lines += [f"- {escape_markdown(line)}" for line in explain(result)]
    if result.paired and result.paired.examples:
        columns = list(result.paired.examples[0])
        rows = ([truncate(row[name]) for name in columns] for row in result.paired.examples)
        lines += ["", *markdown_table(columns, rows)]
    listed = [[each.kind, each.key, each.before, each.after] for each in result.differences]
    lines += [
        "",
        *(markdown_table(("differs", "", "first", "second"), listed) if listed else ["Nothing else differs."]),
    ]
    return "\n".join(lines)


def truncate(value: Any) -> str:
    """Format a value of an example for a table; long texts are cut."""
    text = f"{value:.4f}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS].rstrip()} …"
