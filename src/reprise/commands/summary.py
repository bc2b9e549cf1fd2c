"""What is shown at the end: the figures of the last cooking, and the shelf."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reprise.core.files import read_json
from reprise.core.paths import FINAL_MODEL, METRICS
from reprise.core.validation import read_recipe

NEXT_COMMANDS = (
    ("dvc metrics diff", "how far the metrics are from the last commit's"),
    ("dvc plots show", "the curves, the confusion matrix, the calibration"),
    ("dvc exp run -S train.learning_rate=3e-5", "try another value; `dvc exp show` compares"),
    ("reprise compose", "what else is on the shelf"),
)


def print_summary(metrics: Path = METRICS) -> None:
    """Print the metrics with their intervals, the baseline, where the model lies and what to try next.

    Raises:
        UserError: nothing was cooked yet.
    """
    judged, trained, speed = (read_json(metrics / f"{name}.json") for name in ("evaluate", "train", "speed"))
    recipe = read_recipe()
    console = Console(highlight=False)
    what = f"{recipe.model.name} on {recipe.task.name}: {judged['num_examples']} rows of the {judged['split']} split"
    console.print(Text(what, style="bold"), soft_wrap=True)
    table = Table()
    for heading in ("metric", "value", "95 % interval", "baseline"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, ends in judged["ci95"].items():
        table.add_row(
            name, f"{judged[name]:.4f}", f"{ends['low']:.4f} – {ends['high']:.4f}", f"{judged['baseline'][name]:.4f}"
        )
    console.print(table)
    if judged["constant_prediction"]:
        console.print(
            "[bold]Constant prediction:[/bold] every example got the same prediction; the metrics say nothing."
        )
    console.print(f"The baseline always predicts {recipe.task.kind.baseline} of the training split.")
    console.print(
        f"Epoch {trained['best_epoch']} of {recipe.train.epochs} was kept; "
        f"{speed['examples_per_second']:.0f} examples/s in training.\n"
        f"The model is in {FINAL_MODEL}/.\n\nWhat to try next:"
    )
    for command, meaning in NEXT_COMMANDS:
        console.print(f"  {command:<42} {meaning}", soft_wrap=True)


def print_recipes(shelf: dict[str, list[tuple[str, str]]]) -> None:
    """Print what may be composed, a line a choice."""
    console = Console(highlight=False)
    table = Table(title="The shelf")
    for heading in ("choice", "what it is"):
        table.add_column(heading)
    for group, choices in shelf.items():
        for name, headline in choices:
            table.add_row(f"{group}={name}", headline)
        table.add_section()
    console.print(table)
    console.print("Compose: reprise compose task=rotten-tomatoes model=minilm train.learning_rate=3e-5", soft_wrap=True)
