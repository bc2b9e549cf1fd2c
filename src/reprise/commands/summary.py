"""Print the metrics of the last run, and the recipe catalog."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from reprise.commands.classes import (
    CLASS_HEADINGS,
    ERROR_HEADINGS,
    class_rows,
    error_rows,
    read_classes,
    read_confusions,
)
from reprise.commands.terminal import Terminal
from reprise.core.display import printable
from reprise.core.dvc_lock import locked_outputs, read_stages
from reprise.core.files import read_json
from reprise.core.paths import FINAL_MODEL, METRICS, PLOTS, PREFLIGHT, PREPARED, SPEED
from reprise.data.checks import describe_baseline, read_checks
from reprise.data.format import stats_path
from reprise.data.warnings import describe_warnings
from reprise.results.run import NOT_RECORDED, describe_edited, edited_outputs, folder_reader, read_recorded
from reprise.results.workspace import read_made
from reprise.tasks.curves import worst_classes
from reprise.tasks.metrics.registry import display_name

MAX_CLASSES = 5  # labels, and kinds of errors


def next_commands(text_columns: Sequence[str]) -> list[tuple[str, str]]:
    """Return commands to try next, each with what it does.

    Args:
        text_columns: of the task: one, or two for pairs of texts.
    """
    texts = '"A quiet, moving film."' if len(text_columns) == 1 else '"A text" "Another"'
    return [
        (f"reprise predict {texts}", "use the model"),
        ("make verify", "reproduce the committed result from scratch and grade it"),
        ("dvc metrics diff", "compare the metrics with the last commit's"),
        ("dvc plots show", "draw curves, confusion matrix and calibration"),
        ("dvc exp run -S train.learning_rate=3e-5", "try another value; compare with `reprise runs`"),
        ("reprise compose", "list the tasks and models of the recipe catalog"),
    ]


def print_summary(metrics: Path = METRICS) -> None:
    """Print the metrics with intervals and baseline, the model's folder and commands to try next.

    Raises:
        UserError: the metrics or dvc.lock, which has their recipe, are missing.
    """
    evaluation, training = (read_json(metrics / f"{name}.json") for name in ("evaluate", "train"))
    made, speed = read_made(), read_recorded(folder_reader(Path()), SPEED)
    recipe, console = made.recipe, Terminal()
    fold = f", fold {recipe.train.fold}" if recipe.train.fold is not None and evaluation["split"] != "test" else ""
    examples = f"{evaluation['num_examples']} examples of the {evaluation['split']} split{fold}"
    console.print(f"{recipe.model.name} on {recipe.task.name}: {examples}", style="bold", soft_wrap=True)
    table = Table()
    for heading in ("metric", "value", "95 % interval", "baseline"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, interval in evaluation["ci95"].items():
        table.add_row(
            display_name(name, recipe.task.positive_label, len(recipe.task.labels)),
            f"{evaluation[name]:.4f}",
            format_interval(interval),
            f"{evaluation['baseline'][name]:.4f}",
        )
    console.print(table)
    print_classes(console)
    if methods := evaluation.get("ci95_method"):
        listed = ", ".join(f"{name}: {method}" for name, method in methods.items())
        console.print(f"Intervals: {listed}.")
    if "ece_uncalibrated" in evaluation:
        errors = f"expected calibration error {evaluation['ece']:.4f}, before {evaluation['ece_uncalibrated']:.4f}."
        console.print(Text.assemble(("Calibrated: ", "bold"), errors))
    if evaluation["constant_prediction"]:
        meaning = f"{recipe.task.kind.constant_meaning}; the metrics are meaningless."
        console.print(Text.assemble(("Constant prediction: ", "bold"), meaning))
    stats = read_json(stats_path(PREPARED)) if stats_path(PREPARED).is_file() else {}
    if (checks := read_checks(stats)) and (line := describe_baseline(checks, evaluation["split"])):
        console.print(Text.assemble(("Linear model: ", "bold"), printable(line)), soft_wrap=True)
    for warning in describe_warnings(stats):
        console.print(Text.assemble(("Data: ", "bold"), printable(f"{warning}.")), soft_wrap=True)
    if PREFLIGHT.is_file():
        for warning in read_json(PREFLIGHT)["warnings"]:
            console.print(Text.assemble(("Model: ", "bold"), printable(f"{warning}.")), soft_wrap=True)
    for change in made.changes:
        console.print(
            Text.assemble(("Out of date: ", "bold"), printable(f"{change}; `dvc repro` updates the results."))
        )
    for path in edited_outputs(locked_outputs(read_stages()), folder_reader(Path())):
        console.print(
            Text.assemble(
                ("Edited: ", "bold"), printable(f"{describe_edited(path)}; `reprise fsck` names what restores it.")
            ),
            soft_wrap=True,
        )
    console.print(f"The baseline always predicts {recipe.task.kind.baseline} of the training split.")
    console.print(
        f"Epoch {training['best_epoch']} of {recipe.train.epochs} was kept; "
        + (f"{speed['examples_per_second']:.0f} examples/s in training." if speed else f"the speed is {NOT_RECORDED}."),
        soft_wrap=True,
    )
    console.print(Text(f"The model is saved to {FINAL_MODEL}/.\n\nWhat to try next:"))
    for command, meaning in next_commands(recipe.task.text_columns):
        console.print(f"  {command:<42} {meaning}", soft_wrap=True)


def print_classes(console: Terminal) -> None:
    """Print the labels with the lowest F1 and the most frequent errors of more than two labels."""
    classes, confusions = read_classes(), read_confusions()
    if len(classes) <= 2:
        return
    worst, frequent = worst_classes(classes).head(MAX_CLASSES), confusions.head(MAX_CLASSES)
    for title, headings, rows in (
        (
            f"Lowest F1 of {len(classes)} labels; all are in {PLOTS / 'per_class.csv'}",
            CLASS_HEADINGS,
            class_rows(worst),
        ),
        (f"Most frequent of {len(confusions)} kinds of errors", ERROR_HEADINGS, error_rows(frequent)),
    ):
        table = Table()
        for heading in headings:
            is_name = heading in ("label", "actual", "predicted")
            table.add_column(heading, justify="left" if is_name else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        if rows:
            console.print(f"{title}:", soft_wrap=True)
            console.print(table)


def format_interval(interval: dict[str, float | None]) -> str:
    """Format the bounds of an interval; a dash where the examples do not determine it."""
    low, high = interval["low"], interval["high"]
    return "–" if low is None or high is None else f"{low:.4f} – {high:.4f}"


def print_recipes(catalog: dict[str, list[tuple[str, str]]]) -> None:
    """Print the recipe catalog, one choice per row."""
    console = Terminal()
    table = Table(title="Recipe catalog")
    for heading in ("choice", "description"):
        table.add_column(heading)
    for group, choices in catalog.items():
        for name, title in choices:
            table.add_row(f"{group}={name}", title)
        table.add_section()
    console.print(table)
    console.print("Compose: reprise compose task=rotten-tomatoes model=minilm train.learning_rate=3e-5", soft_wrap=True)
