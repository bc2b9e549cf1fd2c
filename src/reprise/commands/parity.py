"""`reprise parity`: the first steps of the recipe on every backend that is here, or by every engine, side by side.

Each runs the train stage itself, in a folder of its own and, where its software asks for one, in an environment of its
own: in fp32, where all must find the same losses, and in the recipe's precision, where each backend rounds bf16 in its
own order. Engines round alike, so they agree to the bit in both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pandas as pd
from rich.console import Console
from rich.table import Table

from reprise.commands.backends import ENVIRONMENTS, Backend, current_backend, find_backends, train_in_tempdir
from reprise.core.config import Engine, Recipe, to_dict
from reprise.core.errors import UserError
from reprise.core.files import atomic_file, read_json, sha256
from reprise.core.paths import FINAL_MODEL, METRICS, PLOTS
from reprise.core.validation import read_recipe

TOLERANCE = 1e-5  # of a step's mean loss, in fp32
LOSSES_CSV = PLOTS / "parity.csv"

console = Console(highlight=False)


@dataclass(frozen=True)
class Run:
    """What the first steps came to: the loss of each, and then the validation split's score and the weights' digest."""

    kind: str
    name: str  # of the backend or the engine
    losses: list[float]
    score: float
    weights: str


def engine_parity(steps: int) -> bool:
    """Train so many steps by each engine, on this backend, and print the losses.

    Returns:
        Whether losses and weights are the same to the bit.

    Raises:
        UserError: nothing was prepared, or an engine fails.
    """
    recipe, backend = read_recipe(), current_backend()
    engines = {name: (backend, {"engine": name}) for name in get_args(Engine)}
    runs = list(run_each(recipe, steps, engines))
    for kind, meaning in precisions(recipe).items():
        print_losses(runs, {kind: meaning}, recipe.task.metrics[0], weights=True)
    alike = all(
        len({(*run.losses, run.weights) for run in runs if run.kind == kind}) == 1 for kind in precisions(recipe)
    )
    verdict = "give the same bits" if alike else "do NOT give the same bits"
    console.print(f"The engines {verdict}: losses and weights", soft_wrap=True)
    return alike


def parity(steps: int) -> bool:
    """Train so many steps on each backend, print the losses and write them to plots/parity.csv.

    Returns:
        Whether the losses in fp32 agree to TOLERANCE.

    Raises:
        UserError: there is nothing to compare, nothing was prepared, or a backend fails.
    """
    recipe, backends = read_recipe(), find_backends()
    if len(backends) < 2:
        raise UserError(
            f"parity: only {', '.join(backends)} is here; expected another: a GPU, or XLA in {ENVIRONMENTS['xla']}: "
            f"make setup VENV={ENVIRONMENTS['xla']} LOCKS=docker/tpu"
        )
    kinds = precisions(recipe)
    runs = list(run_each(recipe, steps, {name: (backend, {}) for name, backend in backends.items()}))
    curves = [
        pd.DataFrame({"kind": kinds[run.kind], "backend": run.name, "step": range(1, steps + 1), "loss": run.losses})
        for run in runs
    ]
    with atomic_file(LOSSES_CSV) as partial:
        pd.concat(curves).to_csv(partial, index=False)
    agree = print_losses(runs, kinds, recipe.task.metrics[0])["exact"] <= TOLERANCE
    verdict = "agree" if agree else "do NOT agree"
    console.print(f"exact: {kinds['exact']}; the backends {verdict} to {TOLERANCE:g}", soft_wrap=True)
    if "recipe" in kinds:
        console.print(f"recipe: {kinds['recipe']}, which each backend rounds in its own way", soft_wrap=True)
    console.print(f"The curves together: dvc plots show {LOSSES_CSV} --template parity -x step -y loss", soft_wrap=True)
    return agree


def precisions(recipe: Recipe) -> dict[str, str]:
    """In which precision the first steps are trained: always in fp32, and in the recipe's where it is another."""
    return {"exact": "fp32"} | ({"recipe": recipe.train.precision} if recipe.train.precision != "fp32" else {})


def run_each(recipe: Recipe, steps: int, ways: dict[str, tuple[Backend, dict[str, Any]]]) -> Iterator[Run]:
    """Train the first steps in each way: a backend, and what it changes in the recipe's section train."""
    for kind, meaning in precisions(recipe).items():
        for name, (backend, changes) in ways.items():
            print(f"parity: {kind}: {meaning}, {name}", flush=True)
            changed = to_dict(recipe)
            changed["train"] |= {"max_steps": steps, **changes}
            changed["run"] |= {"save_steps": steps + 1}
            changed["train"]["precision"] = meaning
            with train_in_tempdir(changed, backend) as folder:
                losses = pd.read_csv(folder / PLOTS / "train.csv")["loss"].tolist()
                validation = read_json(folder / METRICS / "train.json")["validation"]
                weights = sha256(folder / FINAL_MODEL / "model.safetensors")
            yield Run(kind, name, losses, validation[recipe.task.metrics[0]], weights)


def print_losses(runs: list[Run], kinds: dict[str, str], metric: str, *, weights: bool = False) -> dict[str, float]:
    """Print a row for each step and below them what they come to, the first digits of the weights' digest if asked.

    Returns:
        The largest difference of each kind.
    """
    table = Table(title=f"Loss of each step{'' if len(kinds) > 1 else ', ' + next(iter(kinds.values()))}")
    table.add_column("step", justify="right")
    columns: list[list[str]] = []
    largest: dict[str, float] = {}
    for kind in kinds:
        same = [run for run in runs if run.kind == kind]
        differences = [max(losses) - min(losses) for losses in zip(*(run.losses for run in same), strict=True)]
        largest[kind] = max(differences)
        for run in same:
            table.add_column(f"{kind}\n{run.name}", justify="right")
            below = ["", f"{run.score:.4f}", *([run.weights[:8]] if weights else [])]
            columns.append([*(f"{loss:.6f}" for loss in run.losses), *below])
        table.add_column("\napart", justify="right")
        columns.append(
            [*(f"{difference:.1e}" for difference in differences), f"{largest[kind]:.1e}", *[""] * (len(below) - 1)]
        )
    for number, row in enumerate(zip(*columns, strict=True), start=1):
        place = number - len(runs[0].losses)
        heading = {1: "largest", 2: f"validation\n{metric}", 3: "weights"}.get(place, str(number))
        table.add_row(heading, *row, end_section=place == 0)
    console.print(table)
    return largest
