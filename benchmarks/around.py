"""What stands around the training loop: commands' start, DVC, prepare, the plan of an epoch, prediction.

The second part of `make bench`. With `--million` nothing but prepare is measured, up to a million pairs.
"""

import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils import logging

import results
from clocked import WORK
from folders import PAIRS, Recipe, default_recipe, lay_out, lay_out_repository, write_pairs
from made_up import MODEL, TINY_BERT, made_up, random_pairs, write_model
from predicting import predict_speed
from reprise.core.errors import UserError
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.data.tokenization import load_tokenizer

Figures = dict[str, float]

PAIRS_PREPARED, MILLION = (10_000, 100_000), 1_000_000
ROWS_PLANNED = 10_000_000
ROWS_PREDICTED, ROUNDS = 640, 5
REPEATS = 5  # of commands that take no second
STAGES = tuple(WORK)
# Our goals: the figure, on which side of which number it must lie.
GOALS = (
    ("help_seconds", "at most", 0.3),
    ("repro_seconds", "at most", 3.0),
    ("plan_seconds", "at most", 5.0),
    ("prepare_peak_mb", "at most", 1500.0),
    ("prepare_growth", "at most", 1.2),
    ("predict_to_pipeline", "at least", 2.0),
    ("evaluate_to_pipeline", "at least", 2.0),
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def main(*, million: bool) -> None:
    """Measure, print the tables, and write the results."""
    console, recipe = Console(highlight=False), default_recipe()
    logging.disable_progress_bar()
    content: dict[str, Any] = results.read().get("around", {}) | {"machine": results.machine()}
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        scratch = Path(name)
        prepared = {}
        for rows in (*PAIRS_PREPARED, *([MILLION] if million else [])):
            prepared[str(rows)] = prepare_speed(scratch / str(rows), recipe, rows)
        content["prepare"] = content.get("prepare", {}) | prepared
        figures = of_prepare(prepared)
        if not million:
            place = lay_out(scratch / "predict", recipe, Path(), [PREPARED, PRETRAINED])
            around = {"help_seconds": help_seconds(), **plan_speed(scratch, ROWS_PLANNED)}
            repository = cook_tiny(scratch / "repository", recipe)
            around["repro_seconds"] = repro_seconds(repository)
            content["stages"] = {stage: clock(repository, stage) for stage in STAGES}
            print(f"bench: {ROUNDS} rounds of predicting {ROWS_PREDICTED} rows", flush=True)
            speeds = predict_speed(place, ROWS_PREDICTED, ROUNDS)
            content["predict"] = {name: statistics.median(of_rounds) for name, of_rounds in speeds.items()}
            figures |= around | ratios(content["predict"])
    content["figures"] = content.get("figures", {}) | figures
    content["goals"] = judge(content["figures"])
    results.write("around", content)
    show_prepare(console, prepared)
    if not million:
        show_stages(console, content["stages"])
        show_predict(console, content["predict"])
    show_goals(console, judge(figures))


def clock(folder: Path, *arguments: str, code: int = 0, limit_mb: int | None = None) -> Figures:
    """Run a verb, or `plan ROWS`, in a process of its own in a folder, see clocked.py.

    Args:
        folder: of a recipe and what the verb reads.
        arguments: as clocked.py takes them.
        code: how it is to end.
        limit_mb: how much memory of its own the kernel lets it have, in MB; None: any.

    Returns:
        seconds: from the start of the process to its end.
        work_seconds, cpu_seconds: of the function that does the work, by the clock and on all cores together.
        peak_mb, own_mb: the most memory that the process has used, with pages of mapped files and without.
        first_step_seconds, first_step_cpu_seconds: of `train`, from its start to the end of the first step.

    Raises:
        UserError: it failed; its own words stand above.
    """
    with tempfile.NamedTemporaryFile(prefix="reprise-bench-") as file:
        command = [sys.executable, str(Path(__file__).with_name("clocked.py")), file.name, *arguments]
        environment, limit = os.environ | OFFLINE, None
        if limit_mb is not None:
            # Arrow's own allocator would reserve a whole gigabyte that it may never use, and that would count.
            environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}
            limit = functools.partial(resource.setrlimit, resource.RLIMIT_DATA, (limit_mb * 10**6,) * 2)
        began = time.time()
        ended = subprocess.call(command, cwd=folder, env=environment, stdout=sys.stderr, preexec_fn=limit)
        seconds = time.time() - began
        if ended != code:
            raise UserError(f"`{' '.join(arguments)}` failed, see above; expected it to run in {folder}")
        told: Figures = json.loads(file.read())
    if "first_step" in told:
        told["first_step_seconds"] = told.pop("first_step") - began
    return {"seconds": seconds, **told}


def fastest(command: Sequence[str], folder: Path, repeats: int) -> float:
    """The seconds that a command takes, the least of several times.

    Raises:
        UserError: it failed; its own words stand above.
    """
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        # The command is this checkout's, not that of the folder, which it would start another time.
        if subprocess.call(command, cwd=folder, env=os.environ | {"REPRISE_CHECKOUT": "1"}, stdout=subprocess.DEVNULL):
            raise UserError(f"`{' '.join(command)}` failed, see above; expected it to run in {folder}")
        took.append(time.perf_counter() - began)
    return min(took)


def help_seconds() -> float:
    """The seconds of `reprise --help`."""
    print("bench: reprise --help", flush=True)
    return fastest([sys.executable, "-m", "reprise", "--help"], Path(), REPEATS)


def prepare_speed(folder: Path, recipe: Recipe, rows: int) -> Figures:
    """What `reprise prepare` takes for so many pairs of this checkout's tokenizer's own words."""
    print(f"bench: prepare {rows} pairs", flush=True)
    lay_out(folder, recipe | {"task": PAIRS}, Path(), [PRETRAINED])
    known = load_tokenizer(PRETRAINED / "tokenizer").get_vocab()
    words = sorted(word for word in known if word.isascii() and word.isalpha())
    write_pairs(folder / RAW / "all/pairs.csv", random_pairs(words, rows))
    figures = clock(folder, "prepare")
    shutil.rmtree(folder)  # a million pairs take 1.2 GB
    return {"rows": rows, **figures, "rows_per_second": rows / figures["seconds"]}


def of_prepare(prepared: dict[str, Figures]) -> Figures:
    """The peak memory, and the most by which a row of one size takes more of the cores than one of the size before."""
    times = [figures["cpu_seconds"] / figures["rows"] for figures in prepared.values()]
    return {
        "prepare_peak_mb": max(figures["peak_mb"] for figures in prepared.values()),
        "prepare_growth": max(after / before for before, after in pairwise(times)),
    }


def plan_speed(scratch: Path, rows: int) -> Figures:
    """What planning an epoch of so many rows takes."""
    print(f"bench: plan an epoch of {rows} rows", flush=True)
    figures = clock(scratch, "plan", str(rows))
    return {"plan_seconds": figures["work_seconds"], "plan_peak_mb": figures["peak_mb"]}


def cook_tiny(folder: Path, recipe: Recipe) -> Path:
    """Cook a tiny model on made-up pairs in a repository of its own, by `dvc repro`; return it, all committed."""
    print("bench: cook a tiny recipe", flush=True)
    tiny = made_up(recipe)
    tiny |= {"train": tiny["train"] | {"max_steps": 20}, "evaluate": recipe["evaluate"] | {"bootstrap": 100}}
    lay_out_repository(folder, tiny)
    words = write_model(TINY_BERT, folder / MODEL, folder / MODEL)
    write_pairs(folder / PAIRS["source"]["train"], random_pairs(words, 400))
    repro_seconds(folder, 1)
    committing = ["git", "-c", "user.name=Bench", "-c", "user.email=bench@example.org", "commit", "-qm", "Cook it"]
    for command in (["git", "add", "."], committing):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def repro_seconds(folder: Path, repeats: int = 3) -> float:
    """The seconds of `dvc repro`."""
    return fastest(["dvc", "repro"], folder, repeats)


def ratios(speeds: Figures) -> Figures:
    """How many times as fast as the pipeline the other ways are."""
    return {f"{name}_to_pipeline": speeds[name] / speeds["pipeline"] for name in speeds if name != "pipeline"}


def judge(figures: Figures) -> list[dict[str, Any]]:
    """Our goals, as far as figures are there, and whether they were met."""
    return [
        {
            "figure": name,
            "side": side,
            "goal": goal,
            "reached": figures[name],
            "met": figures[name] <= goal if side == "at most" else figures[name] >= goal,
        }
        for name, side, goal in GOALS
        if name in figures
    ]


def show_prepare(console: Console, prepared: dict[str, Figures]) -> None:
    """Print what prepare takes."""
    table = titled(console, "reprise prepare", "pairs", "seconds", "pairs/s", "peak MB")
    for figures in prepared.values():
        table.add_row(
            f"{figures['rows']:,}",
            f"{figures['seconds']:.1f}",
            f"{figures['rows_per_second']:,.0f}",
            f"{figures['peak_mb']:.0f}",
        )
    console.print(table)


def show_stages(console: Console, stages: dict[str, Figures]) -> None:
    """Print what a stage takes beyond its work: the interpreter, imports, reading the recipe."""
    table = titled(console, "The stages of a tiny recipe", "stage", "seconds", "its work", "beyond it")
    for stage, figures in stages.items():
        seconds, work = figures["seconds"], figures["work_seconds"]
        table.add_row(stage, f"{seconds:.2f}", f"{work:.2f}", f"{seconds - work:.2f}")
    console.print(table)


def show_predict(console: Console, speeds: Figures) -> None:
    """Print how fast each way answers."""
    table = titled(console, "Answers of the final model", "", "rows/s", "to pipeline")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed:.0f}", f"{speed / speeds['pipeline']:.2f} ×")
    console.print(table)


def show_goals(console: Console, goals: list[dict[str, Any]]) -> None:
    """Print which goals were met."""
    table = titled(console, "Around the loop", "", "reached", "goal", "")
    for goal in goals:
        figure, verdict = goal["figure"].replace("_", " "), "met" if goal["met"] else "[bold]not met[/bold]"
        table.add_row(figure, f"{goal['reached']:.2f}", f"{goal['side']} {goal['goal']:g}", verdict)
    console.print(table)


def titled(console: Console, title: str, first: str, *headings: str) -> Table:
    """Print a title; return a table whose columns but the first hold numbers."""
    console.print(f"[bold]{title}[/bold]", soft_wrap=True)
    table = Table()
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


if __name__ == "__main__":
    try:
        main(million=sys.argv[1:] == ["--million"])
    except UserError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
