"""`reprise parity`: the first steps of the recipe on every backend that is here, side by side.

Each backend runs the train stage itself, in a folder of its own and, where its software asks for one, in an environment
of its own. Twice: without dropout in fp32, where every backend must find the same losses, and as the recipe says, where
each draws its own dropout and rounds in its own order.
"""

from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table

from reprise.errors import InputError
from reprise.outputs import read_json, replacing_file
from reprise.places import METRICS, PLOTS
from reprise.recipe import Recipe, as_plain, read_recipe
from reprise.reproduce.backends import ENVIRONMENTS, Backend, find_backends, trained_elsewhere

TOLERANCE = 1e-5  # of a step's mean loss, without dropout in fp32
CURVES = PLOTS / "parity.csv"


@dataclass(frozen=True)
class Run:
    """What a backend made of the first steps: the loss of each, and then the validation split's score."""

    kind: str
    backend: str
    losses: list[float]
    score: float


def parity(steps: int) -> bool:
    """Train so many steps on each backend, print the losses and write them to plots/parity.csv.

    Returns:
        Whether the losses without dropout agree to TOLERANCE.

    Raises:
        InputError: there is nothing to compare, nothing was prepared, or a backend fails.
    """
    recipe, backends = read_recipe(), find_backends()
    if len(backends) < 2:
        raise InputError(
            f"parity: only {', '.join(backends)} is here; expected another: a GPU, or XLA in {ENVIRONMENTS['xla']}: "
            f"make setup VENV={ENVIRONMENTS['xla']} LOCKS=docker/tpu"
        )
    kinds = {"exact": "without dropout, fp32", "recipe": f"with dropout, {recipe.train.precision}"}
    runs = []
    for kind, meaning in kinds.items():
        for name, backend in backends.items():
            print(f"parity: {kind}: {meaning}, {name}", flush=True)
            runs.append(Run(kind, name, *first_steps(recipe, steps, backend, exact=kind == "exact")))
    curves = [
        pd.DataFrame({"kind": kinds[run.kind], "backend": run.backend, "step": range(1, steps + 1), "loss": run.losses})
        for run in runs
    ]
    with replacing_file(CURVES) as partial:
        pd.concat(curves).to_csv(partial, index=False)
    return show(runs, kinds, recipe.task.metrics[0])


def first_steps(recipe: Recipe, steps: int, backend: Backend, *, exact: bool) -> tuple[list[float], float]:
    """The losses of the first steps on a backend, and then the validation split's score."""
    changed = as_plain(recipe)
    changed["train"] |= {"max_steps": steps, "checkpoint_every": steps + 1} | ({"precision": "fp32"} if exact else {})
    with trained_elsewhere(changed, backend, dropout=not exact) as folder:
        losses = pd.read_csv(folder / PLOTS / "train.csv")["loss"].tolist()
        return losses, read_json(folder / METRICS / "train.json")["validation"][recipe.task.metrics[0]]


def show(runs: list[Run], kinds: dict[str, str], metric: str) -> bool:
    """Print a row for each step and below them what they come to; return whether the exact ones agree."""
    table = Table(title="Loss of each step")
    table.add_column("step", justify="right")
    columns: list[list[str]] = []
    largest: dict[str, float] = {}
    for kind in kinds:
        same = [run for run in runs if run.kind == kind]
        differences = [max(losses) - min(losses) for losses in zip(*(run.losses for run in same), strict=True)]
        largest[kind] = max(differences)
        for run in same:
            table.add_column(f"{kind}\n{run.backend}", justify="right")
            columns.append([*(f"{loss:.6f}" for loss in run.losses), "", f"{run.score:.4f}"])
        table.add_column("\napart", justify="right")
        columns.append([*(f"{difference:.1e}" for difference in differences), f"{largest[kind]:.1e}", ""])
    for number, row in enumerate(zip(*columns, strict=True), start=1):
        below = number - len(runs[0].losses)
        table.add_row({1: "largest", 2: f"validation\n{metric}"}.get(below, str(number)), *row, end_section=below == 0)
    console = Console(highlight=False)
    console.print(table)
    agree = largest["exact"] <= TOLERANCE
    verdict = "agree" if agree else "do NOT agree"
    console.print(f"exact: {kinds['exact']}; the backends {verdict} to {TOLERANCE:g}", soft_wrap=True)
    console.print(f"recipe: {kinds['recipe']}, which each backend draws and rounds in its own way", soft_wrap=True)
    console.print(f"The curves together: dvc plots show {CURVES} --template parity -x step -y loss", soft_wrap=True)
    return agree
