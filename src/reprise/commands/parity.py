"""`reprise parity`: train the first steps on every backend, or by every engine, and compare the losses.

Each training runs the train stage in a temporary folder and, if its software requires it, in another environment. It
runs in fp32, where all losses must agree, and in the recipe's precision, where each backend rounds bf16 in another
order. Engines share one backend, so they must agree bit for bit in both precisions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pandas as pd
from rich.table import Table
from rich.text import Text

from reprise.commands.backends import ENVIRONMENTS, Backend, current_backend, find_backends, train_in_tempdir
from reprise.commands.terminal import Terminal
from reprise.core.config import Engine, Recipe, to_dict
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_file, read_json, sha256
from reprise.core.paths import FINAL_MODEL, METRICS, PLOTS
from reprise.core.validation import read_recipe

TOLERANCE = 1e-5  # largest difference of a step's mean loss in fp32
LOSSES_CSV = PLOTS / "parity.csv"

console = Terminal()


@dataclass(frozen=True)
class Run:
    """The first steps of a training.

    Attributes:
        kind: key of `precisions`.
        name: name of the backend or the engine.
        losses: mean loss of each step.
        score: first metric of the recipe on the validation split.
        weights: SHA-256 of the final weights.
    """

    kind: str
    name: str
    losses: list[float]
    score: float
    weights: str


def engine_parity(steps: int) -> bool:
    """Train the first steps by each engine on this backend and print the losses.

    Args:
        steps: number of optimizer steps.

    Returns:
        Whether losses and weights are bit-identical.

    Raises:
        UserError: no data is prepared, or an engine fails.
    """
    recipe, backend = read_recipe(), current_backend()
    engines = {name: (backend, {"engine": name}) for name in get_args(Engine)}
    runs = list(run_each(recipe, steps, engines))
    for kind, precision in precisions(recipe).items():
        print_losses(runs, {kind: precision}, recipe.task.metrics[0], weights=True)
    identical = all(
        len({(*run.losses, run.weights) for run in runs if run.kind == kind}) == 1 for kind in precisions(recipe)
    )
    console.print(f"Losses and weights of the engines are {'' if identical else 'NOT '}bit-identical", soft_wrap=True)
    return identical


def parity(steps: int) -> bool:
    """Train the first steps on each backend, print the losses and write them to plots/parity.csv.

    Args:
        steps: number of optimizer steps.

    Returns:
        Whether the losses in fp32 agree to `TOLERANCE`.

    Raises:
        UserError: there is only one backend, no data is prepared, or a backend fails.
    """
    recipe, backends = read_recipe(), find_backends()
    if len(backends) < 2:
        xla = ENVIRONMENTS["xla"]
        expected = f"another backend: a GPU, or XLA in {xla}: make setup VENV={xla} LOCKS=docker/tpu"
        raise UserError(f"only {', '.join(backends)} found", key="parity", expected=expected)
    kinds = precisions(recipe)
    runs = list(run_each(recipe, steps, {name: (backend, {}) for name, backend in backends.items()}))
    curves = [
        pd.DataFrame({"kind": kinds[run.kind], "backend": run.name, "step": range(1, steps + 1), "loss": run.losses})
        for run in runs
    ]
    with atomic_file(LOSSES_CSV) as partial:
        pd.concat(curves).to_csv(partial, index=False)
    agree = print_losses(runs, kinds, recipe.task.metrics[0])["exact"] <= TOLERANCE
    console.print(
        f"exact: {kinds['exact']}; the backends {'agree' if agree else 'do NOT agree'} to {TOLERANCE:g}",
        soft_wrap=True,
    )
    if "recipe" in kinds:
        console.print(f"recipe: {kinds['recipe']}, rounded in another order by each backend", soft_wrap=True)
    console.print(f"Plot the curves: dvc plots show {LOSSES_CSV} --template parity -x step -y loss", soft_wrap=True)
    return agree


def precisions(recipe: Recipe) -> dict[str, str]:
    """Return the precisions to train in: fp32 as `exact`, and bf16 as `recipe` if it is the recipe's."""
    return {"exact": "fp32"} | ({"recipe": "bf16"} if recipe.train.precision == "bf16" else {})


def run_each(recipe: Recipe, steps: int, variants: dict[str, tuple[Backend, dict[str, Any]]]) -> Iterator[Run]:
    """Train the first steps of each variant in each precision.

    Args:
        recipe: recipe to train.
        steps: number of optimizer steps.
        variants: backend and changes to the recipe's section `train`, by name.
    """
    for kind, precision in precisions(recipe).items():
        for name, (backend, changes) in variants.items():
            echo(f"parity: {kind}: {precision}, {name}")
            changed = to_dict(recipe)
            changed["train"] |= {"max_steps": steps, **changes}
            changed["run"] |= {"save_steps": steps + 1}
            changed["train"]["precision"] = precision
            with train_in_tempdir(changed, backend) as folder:
                losses = pd.read_csv(folder / PLOTS / "train.csv")["loss"].tolist()
                validation = read_json(folder / METRICS / "train.json")["validation"]
                weights = sha256(folder / FINAL_MODEL / "model.safetensors")
            yield Run(kind, name, losses, validation[recipe.task.metrics[0]], weights)


def print_losses(runs: list[Run], kinds: dict[str, str], metric: str, *, weights: bool = False) -> dict[str, float]:
    """Print one row per step, then the largest difference and the validation metric.

    Args:
        runs: runs to compare.
        kinds: precisions to print, from `precisions`.
        metric: name of the validation metric.
        weights: also print the first digits of the weights' digest.

    Returns:
        The largest difference by kind.
    """
    table = Table(title=f"Loss of each step{'' if len(kinds) > 1 else ', ' + next(iter(kinds.values()))}")
    table.add_column("step", justify="right")
    columns: list[list[str]] = []
    largest: dict[str, float] = {}
    for kind in kinds:
        group = [run for run in runs if run.kind == kind]
        differences = [max(losses) - min(losses) for losses in zip(*(run.losses for run in group), strict=True)]
        largest[kind] = max(differences)
        for run in group:
            table.add_column(Text(f"{kind}\n{run.name}"), justify="right")
            footer = ["", f"{run.score:.4f}", *([run.weights[:8]] if weights else [])]
            columns.append([*(f"{loss:.6f}" for loss in run.losses), *footer])
        table.add_column(Text("max abs\ndiff"), justify="right")
        columns.append(
            [*(f"{difference:.1e}" for difference in differences), f"{largest[kind]:.1e}", *[""] * (len(footer) - 1)]
        )
    for step, row in enumerate(zip(*columns, strict=True), start=1):
        below = step - len(runs[0].losses)
        heading = {1: "largest", 2: f"validation\n{metric}", 3: "weights"}.get(below, str(step))
        table.add_row(Text(heading), *row, end_section=below == 0)
    console.print(table)
    return largest
