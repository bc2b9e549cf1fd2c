"""`reprise seed-noise`: cook several seeds of a recipe and keep what became of each."""

from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reprise.commands.seeds import run_experiment
from reprise.core.validation import read_recipe
from reprise.hardware import current_hardware
from reprise.results.reference import REFERENCES, Reference, summarize_seeds
from reprise.results.runs import resolve_run
from reprise.results.vcs import resolve_commit, try_output


def measure_seed_noise(seeds: int) -> None:
    """Cook the recipe with its own seed and those after it, and write and show their reference.

    Each is a DVC experiment in a copy of the checkout, so the workspace stays as it is. A measurement that was
    interrupted goes on with what is missing: DVC's run cache has the rest.

    Raises:
        UserError: the pipeline fails, or there is no commit to cook from.
    """
    resolve_commit("HEAD")
    recipe, kind = read_recipe(), current_hardware()
    experiments = {seed: f"reference-seed-{seed}" for seed in range(recipe.seed, recipe.seed + seeds)}
    remove_experiments(experiments.values())
    results = {}
    for number, (seed, name) in enumerate(experiments.items(), start=1):
        print(f"seed-noise: seed {seed}, {number} of {seeds}", flush=True)
        run_experiment(name, seed)
        results[seed] = resolve_run(name).result
    reference = summarize_seeds(results)
    file = REFERENCES / f"{recipe.task.name}-{recipe.model.name}-{kind}.json"
    reference.write(file)
    remove_experiments(experiments.values())
    print_reference(reference, file)


def remove_experiments(experiments: Collection[str]) -> None:
    """Remove the experiments of these names that there are; what they cooked stays in DVC's run cache."""
    there = (try_output("dvc", "exp", "list", "--name-only") or "").split()
    for name in set(experiments) & set(there):
        try_output("dvc", "exp", "remove", name)


def print_reference(reference: Reference, file: Path) -> None:
    """Print the figures over the seeds, and where they were written."""
    console = Console(highlight=False)
    table = Table()
    table.add_column("seed")
    columns = [(stage, name) for stage, metrics in reference.metrics.items() for name in metrics]
    for stage, name in columns:
        table.add_column(f"{stage}\n{name}", justify="right")
    for seed, metrics in reference.seeds.items():
        table.add_row(seed, *(f"{metrics[stage][name]:.4f}" for stage, name in columns))
    table.add_section()
    spreads = [reference.metrics[stage][name] for stage, name in columns]
    table.add_row("mean", *(f"{spread.mean:.4f}" for spread in spreads))
    table.add_row("standard deviation", *(f"{spread.sd:.4f}" for spread in spreads))
    console.print(table)
    console.print(f"Written to {file}; `reprise verify` judges by it.", soft_wrap=True)
