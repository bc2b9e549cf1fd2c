"""Compare the accuracy of Reprise with that of the course's loop, seed by seed.

`make bench-accuracy` trains the seeds that are not yet in results.json, so it resumes after an interruption. To train a
seed again, remove its entry.
"""

import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import ttest_ind

import results
from interleave import running
from reprise.core.errors import UserError
from reprise.hardware import current_hardware
from reprise.results.reference import REFERENCES, read_reference
from reprise.results.run import flatten
from workspaces import Recipe, default_recipe

SEEDS = int(os.environ.get("SEEDS", "5"))
STEPS = 50  # steps between two lines of progress

Accuracies = dict[str, dict[str, float]]  # validation accuracy of the best epoch, by baseline and seed


def main() -> None:
    """Train the missing seeds, one after the other, and print the table."""
    recipe = default_recipe()
    reprise = reprise_accuracies(recipe)
    course: dict[str, float] = results.read().get("accuracy", {"accuracy": {"course": {}}})["accuracy"]["course"]
    for seed in itertools.islice(reprise, SEEDS):
        if seed not in course:
            print(f"bench-accuracy: course, seed {seed}", flush=True)
            course[seed] = train_course(recipe | {"seed": int(seed)})
        accuracy = {"course": course, "reprise": {seed: reprise[seed] for seed in course if seed in reprise}}
        results.write("accuracy", {"machine": results.machine(), "accuracy": accuracy, **compare(accuracy)})
    show(Console(highlight=False), results.read()["accuracy"])


def reprise_accuracies(recipe: Recipe) -> dict[str, float]:
    """Read the validation accuracy of each seed from the reference of this recipe and hardware.

    Raises:
        UserError: there is no such reference, or it is of another recipe.
    """
    file = REFERENCES / f"{recipe['task']['name']}-{recipe['model']['name']}-{current_hardware()}.json"
    if not file.is_file():
        raise UserError("not found", file=file, expected="what `reprise seed-noise` writes")
    reference, ours = read_reference(file), flatten(recipe)
    for key, value in reference.recipe.items():
        if ours.get(key) != value:
            expected = f"{ours.get(key)}, as in params.yaml: `reprise seed-noise` anew"
            raise UserError(f"got {value}", file=file, key=key, expected=expected)
    return {seed: metrics["train"]["accuracy"] for seed, metrics in reference.seeds.items()}


def train_course(recipe: Recipe, source: Path = Path()) -> float:
    """Train with the course's loop; return the validation accuracy of the best epoch."""
    with (
        tempfile.TemporaryDirectory(prefix="reprise-bench-") as scratch,
        running(["course"], Path(scratch) / "course", recipe, source, "cpu") as (runner,),
    ):
        runner.answer()
        for steps in itertools.count(STEPS, STEPS):
            answer = runner.go(STEPS)
            if "accuracies" in answer:
                break
            print(f"bench-accuracy: course: {steps} steps", flush=True)
        return float(max(answer["accuracies"]))


def compare(accuracy: Accuracies) -> dict[str, Any]:
    """Return means, standard deviations and Welch's 95 % interval of their difference.

    Returns:
        {} if either has fewer than two seeds.
    """
    if any(len(seeds) < 2 for seeds in (accuracy.get("course", {}), accuracy.get("reprise", {}))):
        return {}
    course, reprise = (list(accuracy[name].values()) for name in ("course", "reprise"))
    interval = ttest_ind(reprise, course, equal_var=False).confidence_interval(0.95)
    return {
        "mean": {name: statistics.mean(seeds.values()) for name, seeds in accuracy.items()},
        "standard_deviation": {name: statistics.stdev(seeds.values()) for name, seeds in accuracy.items()},
        "reprise_minus_course": {"low": float(interval.low), "high": float(interval.high)},
    }


def show(console: Console, content: dict[str, Any]) -> None:
    """Print the accuracy of each seed, means, standard deviations and the confidence interval."""
    accuracy: Accuracies = content["accuracy"]
    console.print("[bold]Validation accuracy of the best epoch[/bold]", soft_wrap=True)
    table = Table()
    table.add_column("seed")
    for name in accuracy:
        table.add_column(name, justify="right")

    def row(heading: str, values: dict[str, float]) -> None:
        table.add_row(heading, *(f"{values[name]:.4f}" if name in values else "" for name in accuracy))

    for seed in sorted({seed for seeds in accuracy.values() for seed in seeds}, key=int):
        row(seed, {name: seeds[seed] for name, seeds in accuracy.items() if seed in seeds})
    if "mean" in content:
        table.add_section()
        row("mean", content["mean"])
        row("standard deviation", content["standard_deviation"])
    console.print(table)
    if "mean" in content:
        low, high = content["reprise_minus_course"].values()
        console.print(
            f"Reprise minus course: {low:+.4f} to {high:+.4f} (Welch's 95 % confidence interval).", soft_wrap=True
        )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"bench-accuracy: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
