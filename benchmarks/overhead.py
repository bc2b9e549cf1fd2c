"""Overhead around training: command start, DVC, prepare, the epoch plan, prediction.

The second part of `make bench`. With `--million` only prepare is measured, up to a million pairs.
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
from predicting import time_predictions
from reprise.core.errors import UserError
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.data.tokenization import load_tokenizer
from synthetic import MODEL, TINY_BERT, random_pairs, synthetic_recipe, write_model
from timed_command import WORK
from workspaces import PAIRS, Recipe, default_recipe, make_repository, make_workspace, write_pairs

Metrics = dict[str, float]

PAIRS_PREPARED, MILLION = (10_000, 100_000), 1_000_000
ROWS_PLANNED = 10_000_000
ROWS_PREDICTED, ROUNDS = 640, 5
REPEATS = 5  # of commands that take less than a second
STAGES = tuple(WORK)
# Goals: metric, direction, bound.
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
    content: dict[str, Any] = results.read().get("overhead", {}) | {"machine": results.machine()}
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        scratch = Path(name)
        prepared = {}
        for rows in (*PAIRS_PREPARED, *([MILLION] if million else [])):
            prepared[str(rows)] = time_prepare(scratch / str(rows), recipe, rows)
        content["prepare"] = content.get("prepare", {}) | prepared
        metrics = prepare_metrics(prepared)
        if not million:
            source = make_workspace(scratch / "predict", recipe, Path(), [PREPARED, PRETRAINED])
            metrics |= {"help_seconds": time_help(), **time_plan(scratch, ROWS_PLANNED)}
            repository = make_trained_repository(scratch / "repository", recipe)
            metrics["repro_seconds"] = time_repro(repository)
            content["stages"] = {stage: time_command(repository, stage) for stage in STAGES}
            print(f"bench: {ROUNDS} rounds of predicting {ROWS_PREDICTED} rows", flush=True)
            speeds = time_predictions(source, ROWS_PREDICTED, ROUNDS)
            content["predict"] = {name: statistics.median(of_rounds) for name, of_rounds in speeds.items()}
            metrics |= ratios(content["predict"])
    content["metrics"] = content.get("metrics", {}) | metrics
    content["goals"] = check_goals(content["metrics"])
    results.write("overhead", content)
    show_prepare(console, prepared)
    if not million:
        show_stages(console, content["stages"])
        show_predict(console, content["predict"])
    show_goals(console, check_goals(metrics))


def time_command(folder: Path, *arguments: str, code: int = 0, limit_mb: int | None = None) -> Metrics:
    """Run a command, or `plan ROWS`, in its own process and measure it, see timed_command.py.

    Args:
        folder: the workspace of the command.
        arguments: the arguments of timed_command.py.
        code: the expected exit code.
        limit_mb: limit on private memory in MB, enforced by the kernel; None for no limit.

    Returns:
        `seconds` of the process; `work_seconds` and `cpu_seconds` of the function that does the work; `peak_mb` and
        `own_mb`, the peak memory with and without pages of mapped files; of `train` also `first_step_seconds` and
        `first_step_cpu_seconds`, from the start of the process to the end of the first step.

    Raises:
        UserError: another exit code; the command's own message is on stderr.
    """
    with tempfile.NamedTemporaryFile(prefix="reprise-bench-") as file:
        command = [sys.executable, str(Path(__file__).with_name("timed_command.py")), file.name, *arguments]
        environment, limit = os.environ | OFFLINE, None
        if limit_mb is not None:
            # Arrow's own allocator reserves one gigabyte of address space, which would count against the limit.
            environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system"}
            limit = functools.partial(resource.setrlimit, resource.RLIMIT_DATA, (limit_mb * 10**6,) * 2)
        began = time.time()
        ended = subprocess.call(command, cwd=folder, env=environment, stdout=sys.stderr, preexec_fn=limit)
        seconds = time.time() - began
        if ended != code:
            raise UserError("failed, see above", key=" ".join(arguments), expected=f"it to run in {folder}")
        metrics: Metrics = json.loads(file.read())
    if "first_step" in metrics:
        metrics["first_step_seconds"] = metrics.pop("first_step") - began
    return {"seconds": seconds, **metrics}


def fastest(command: Sequence[str], folder: Path, repeats: int) -> float:
    """Return the seconds of a command, the minimum of `repeats` runs.

    Raises:
        UserError: the command failed; its own message is on stderr.
    """
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        # Run this checkout's code: without the variable, `reprise` re-executes itself with the code of the folder.
        if subprocess.call(
            command, cwd=folder, env=os.environ | {"REPRISE_REEXECUTED": "1"}, stdout=subprocess.DEVNULL
        ):
            raise UserError("failed, see above", key=" ".join(command), expected=f"it to run in {folder}")
        took.append(time.perf_counter() - began)
    return min(took)


def time_help() -> float:
    """Return the seconds of `reprise --help`."""
    print("bench: reprise --help", flush=True)
    return fastest([sys.executable, "-m", "reprise", "--help"], Path(), REPEATS)


def time_prepare(folder: Path, recipe: Recipe, rows: int) -> Metrics:
    """Measure `reprise prepare` on `rows` pairs of words from this checkout's tokenizer."""
    print(f"bench: prepare {rows} pairs", flush=True)
    make_workspace(folder, recipe | {"task": PAIRS}, Path(), [PRETRAINED])
    known = load_tokenizer(PRETRAINED / "tokenizer").get_vocab()
    words = sorted(word for word in known if word.isascii() and word.isalpha())
    write_pairs(folder / RAW / "all/pairs.csv", random_pairs(words, rows))
    metrics = time_command(folder, "prepare")
    shutil.rmtree(folder)  # a million pairs take 1.2 GB
    return {"rows": rows, **metrics, "rows_per_second": rows / metrics["seconds"]}


def prepare_metrics(prepared: dict[str, Metrics]) -> Metrics:
    """Return the maximum peak memory and the maximum growth of CPU seconds per row."""
    times = [metrics["cpu_seconds"] / metrics["rows"] for metrics in prepared.values()]
    return {
        "prepare_peak_mb": max(metrics["peak_mb"] for metrics in prepared.values()),
        "prepare_growth": max(after / before for before, after in pairwise(times)),
    }


def time_plan(scratch: Path, rows: int) -> Metrics:
    """Measure the plan of an epoch of `rows` rows."""
    print(f"bench: plan an epoch of {rows} rows", flush=True)
    metrics = time_command(scratch, "plan", str(rows))
    return {"plan_seconds": metrics["work_seconds"], "plan_peak_mb": metrics["peak_mb"]}


def make_trained_repository(folder: Path, recipe: Recipe) -> Path:
    """Create a repository, run a tiny recipe there with `dvc repro`, and commit everything."""
    print("bench: run a tiny recipe", flush=True)
    tiny = synthetic_recipe(recipe)
    tiny |= {"train": tiny["train"] | {"max_steps": 20}, "evaluate": recipe["evaluate"] | {"bootstrap_resamples": 100}}
    make_repository(folder, tiny)
    words = write_model(TINY_BERT, folder / MODEL, folder / MODEL)
    write_pairs(folder / PAIRS["source"]["train"], random_pairs(words, 400))
    time_repro(folder, 1)
    committing = ["git", "-c", "user.name=Bench", "-c", "user.email=bench@example.org", "commit", "-qm", "Train"]
    for command in (["git", "add", "."], committing):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def time_repro(folder: Path, repeats: int = 3) -> float:
    """Return the seconds of `dvc repro`."""
    return fastest(["dvc", "repro"], folder, repeats)


def ratios(speeds: Metrics) -> Metrics:
    """Return the speed of each method relative to the pipeline."""
    return {f"{name}_to_pipeline": speeds[name] / speeds["pipeline"] for name in speeds if name != "pipeline"}


def check_goals(metrics: Metrics) -> list[dict[str, Any]]:
    """Return the goals whose metric was measured, and whether they were met."""
    return [
        {
            "metric": name,
            "side": side,
            "goal": goal,
            "reached": metrics[name],
            "met": metrics[name] <= goal if side == "at most" else metrics[name] >= goal,
        }
        for name, side, goal in GOALS
        if name in metrics
    ]


def show_prepare(console: Console, prepared: dict[str, Metrics]) -> None:
    """Print time and memory of prepare."""
    table = titled_table(console, "reprise prepare", "pairs", "seconds", "pairs/s", "peak MB")
    for metrics in prepared.values():
        table.add_row(
            f"{metrics['rows']:,}",
            f"{metrics['seconds']:.1f}",
            f"{metrics['rows_per_second']:,.0f}",
            f"{metrics['peak_mb']:.0f}",
        )
    console.print(table)


def show_stages(console: Console, stages: dict[str, Metrics]) -> None:
    """Print the overhead of each stage: the interpreter, imports, reading the recipe."""
    table = titled_table(console, "The stages of a tiny recipe", "stage", "seconds", "work", "overhead")
    for stage, metrics in stages.items():
        seconds, work = metrics["seconds"], metrics["work_seconds"]
        table.add_row(stage, f"{seconds:.2f}", f"{work:.2f}", f"{seconds - work:.2f}")
    console.print(table)


def show_predict(console: Console, speeds: Metrics) -> None:
    """Print the prediction throughput of each method."""
    table = titled_table(console, "Predictions of the final model", "", "rows/s", "to pipeline")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed:.0f}", f"{speed / speeds['pipeline']:.2f} ×")
    console.print(table)


def show_goals(console: Console, goals: list[dict[str, Any]]) -> None:
    """Print which goals were met."""
    table = titled_table(console, "Overhead", "", "reached", "goal", "")
    for goal in goals:
        metric, verdict = goal["metric"].replace("_", " "), "met" if goal["met"] else "[bold]not met[/bold]"
        table.add_row(metric, f"{goal['reached']:.2f}", f"{goal['side']} {goal['goal']:g}", verdict)
    console.print(table)


def titled_table(console: Console, title: str, first: str, *headings: str) -> Table:
    """Print a title; return a table with right-aligned columns after the first."""
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
