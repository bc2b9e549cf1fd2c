"""Whether training faster costs quality: whole trainings by the course's loop, beside Reprise's in reference/.

`make bench-accuracy` trains the seeds that are not yet in results.json, so it goes on where it was stopped. To train a
seed again, take its entry out.
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
from folders import Recipe, default_recipe
from race import running
from reprise.core.errors import UserError
from reprise.hardware import current_hardware
from reprise.results.reference import REFERENCES, read_reference
from reprise.results.run import flatten

SEEDS = int(os.environ.get("SEEDS", "5"))
STEPS = 50  # between two lines that say how far the course has come

Accuracies = dict[str, dict[str, float]]  # by contender and seed: of the best epoch, on the validation split


def main() -> None:
    """Train what is missing, seed after seed, and print the table."""
    recipe = default_recipe()
    reprise = by_reprise(recipe)
    course: dict[str, float] = results.read().get("quality", {"accuracy": {"course": {}}})["accuracy"]["course"]
    for seed in itertools.islice(reprise, SEEDS):
        if seed not in course:
            print(f"bench-accuracy: course, seed {seed}", flush=True)
            course[seed] = by_course(recipe | {"seed": int(seed)})
        accuracy = {"course": course, "reprise": {seed: reprise[seed] for seed in course if seed in reprise}}
        results.write("quality", {"machine": results.machine(), "accuracy": accuracy, **compared(accuracy)})
    show(Console(highlight=False), results.read()["quality"])


def by_reprise(recipe: Recipe) -> dict[str, float]:
    """The accuracy of each seed that `reprise reference` has trained on this kind of hardware: of the epoch it keeps.

    Raises:
        UserError: it has trained none by this recipe.
    """
    file = REFERENCES / f"{recipe['task']['name']}-{recipe['model']['name']}-{current_hardware()}.json"
    if not file.is_file():
        raise UserError(f"{file}: not found; expected what `reprise reference` writes")
    reference, ours = read_reference(file), flatten(recipe)
    for key, value in reference.recipe.items():
        if ours.get(key) != value:
            raise UserError(f"{file}: {key}: expected {ours.get(key)}, as in params.yaml: `reprise reference` anew")
    return {seed: figures["train"]["accuracy"] for seed, figures in reference.seeds.items()}


def by_course(recipe: Recipe, place: Path = Path()) -> float:
    """Train as the course does; return the accuracy of the best epoch."""
    with (
        tempfile.TemporaryDirectory(prefix="reprise-bench-") as scratch,
        running(["course"], Path(scratch) / "course", recipe, place, "cpu") as (runner,),
    ):
        runner.answer()
        for steps in itertools.count(STEPS, STEPS):
            answer = runner.go(STEPS)
            if "accuracies" in answer:
                break
            print(f"bench-accuracy: course: {steps} steps", flush=True)
        return float(max(answer["accuracies"]))


def compared(accuracy: Accuracies) -> dict[str, Any]:
    """Mean and standard deviation of each contender, and Welch's 95 % interval of the difference; {} of too few."""
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
    """Print the accuracy of each seed, and what they say together."""
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
        console.print(f"Reprise minus course: {low:+.4f} to {high:+.4f} (Welch's 95 % interval).", soft_wrap=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"bench-accuracy: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
