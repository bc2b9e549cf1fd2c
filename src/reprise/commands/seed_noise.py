"""`reprise seed-noise`: run a recipe with several seeds and save the spread of its metrics."""

from collections.abc import Collection
from pathlib import Path

from rich.table import Table
from rich.text import Text

from reprise.commands.seeds import check_copyable, run_experiment
from reprise.commands.terminal import Terminal
from reprise.core.display import echo
from reprise.core.validation import read_recipe
from reprise.hardware import current_hardware
from reprise.results.reference import REFERENCES, Reference, summarize_seeds
from reprise.results.runs import resolve_run
from reprise.results.vcs import resolve_commit, try_output


def measure_seed_noise(seeds: int) -> None:
    """Run the recipe with consecutive seeds; write and print its reference.

    Each run is a DVC experiment in a copy of the checkout, so the workspace is untouched. After an interruption, DVC's
    run cache restores the seeds that are done.

    Args:
        seeds: number of seeds, starting at the recipe's seed.

    Raises:
        UserError: the pipeline fails, or the repository has no commit or cannot be copied.
    """
    resolve_commit("HEAD")
    recipe, hardware = read_recipe(), current_hardware()
    check_copyable(recipe)
    experiments = {seed: f"reference-seed-{seed}" for seed in range(recipe.seed, recipe.seed + seeds)}
    remove_experiments(experiments.values())
    results = {}
    for index, (seed, name) in enumerate(experiments.items(), start=1):
        echo(f"seed-noise: seed {seed}, {index} of {seeds}")
        run_experiment(name, seed)
        results[seed] = resolve_run(name).result
    reference = summarize_seeds(results)
    file = REFERENCES / f"{recipe.task.name}-{recipe.model.name}-{hardware}.json"
    reference.write(file)
    remove_experiments(experiments.values())
    print_reference(reference, file)


def remove_experiments(names: Collection[str]) -> None:
    """Remove the experiments of these names that exist; DVC's run cache keeps their results."""
    existing = (try_output("dvc", "exp", "list", "--name-only") or "").split()
    for name in set(names) & set(existing):
        try_output("dvc", "exp", "remove", name)


def print_reference(reference: Reference, file: Path) -> None:
    """Print the metrics of each seed, their mean and standard deviation, and the file."""
    console = Terminal()
    table = Table()
    table.add_column("seed")
    columns = [(stage, name) for stage, metrics in reference.metrics.items() for name in metrics]
    for stage, name in columns:
        table.add_column(Text(f"{stage}\n{name}"), justify="right")
    for seed, metrics in reference.seeds.items():
        table.add_row(seed, *(f"{metrics[stage][name]:.4f}" for stage, name in columns))
    table.add_section()
    spreads = [reference.metrics[stage][name] for stage, name in columns]
    table.add_row("mean", *(f"{spread.mean:.4f}" for spread in spreads))
    table.add_row("standard deviation", *(f"{spread.sd:.4f}" for spread in spreads))
    console.print(table)
    console.print(f"Saved to {file}; `reprise verify` and `reprise compare` use it.", soft_wrap=True)
