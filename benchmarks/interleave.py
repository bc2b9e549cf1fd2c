"""Time baselines interleaved: one computes at a time, each for one slice per round."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from baselines import BASELINES
from flops import SIZE, matrix_rate
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.data.format import stats_path
from reprise.train.distributed.preemption import set_pdeathsig
from workspaces import Recipe, make_workspace

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WARM_UP = 2  # steps, twice: the first two fill caches, the next two give the seconds per step

Metrics = dict[str, Any]  # of one slice, as a baseline answers; or of all slices, as they are written


class Runner:
    """The process of a baseline. The kernel kills it when this process dies."""

    def __init__(self, name: str, folder: Path, hardware: str) -> None:
        """Start the baseline in a workspace."""
        self.name = name
        threads = str(len(os.sched_getaffinity(0)))
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("baselines.py")), name],
            cwd=folder, env={"OMP_NUM_THREADS": threads} | os.environ | {"REPRISE_HARDWARE": hardware},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,  # Ctrl-C reaches only this process: reprise would finish its step
            preexec_fn=partial(set_pdeathsig, SIGKILL),
        )  # fmt: skip

    def answer(self) -> Metrics:
        """Wait for its next answer.

        Raises:
            UserError: the process failed or was killed.
        """
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer: Metrics = json.loads(line or "{}")
        if not line or "error" in answer:
            raise UserError(f"{self.name} ended: {answer.get('error') or f'code {self.process.wait()}'}")
        return answer

    def go(self, steps: int) -> Metrics:
        """Let it take `steps` optimizer steps; return their metrics."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has exited; `answer` raises
            self.process.stdin.write(f"go {steps}\n")
            self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def running(names: Sequence[str], scratch: Path, recipe: Recipe, source: Path, hardware: str) -> Iterator[list[Runner]]:
    """Start baselines, each in its own workspace with the data and the model of `source`."""
    runners = []
    with ExitStack() as stack:
        for name in names:
            runner = Runner(name, make_workspace(scratch / name, recipe, source), hardware)
            stack.callback(runner.end)
            runners.append(runner)
        yield runners


def interleave(
    runners: list[Runner],
    rounds: int,
    seconds: float,
    device: torch.device,
    report: Callable[[int, float], None],
    *,
    matrix: int = SIZE,
) -> tuple[dict[str, list[Metrics]], dict[str, float]]:
    """Run the time slices of all baselines, round by round.

    Args:
        runners: baselines that were just started; all load at the same time.
        rounds: number of rounds; the order rotates by one from round to round.
        seconds: approximate duration of a slice; all slices of a baseline together stay within an epoch.
        device: the device whose matrix rate is measured in every round.
        report: called with the number of each round, from 1, and the seconds since the first one began.
        matrix: rows of the matrices that are multiplied to measure the rate.

    Returns:
        The warm-up and the slices of each baseline, and the median matrix rate by precision.
    """
    steps, slices = {}, {}
    epochs = {runner.name: runner.answer()["steps_per_epoch"] for runner in runners}
    for runner in runners:
        slices[runner.name] = [runner.go(WARM_UP)]
        step_seconds = runner.go(WARM_UP)["seconds"] / WARM_UP
        max_steps = (epochs[runner.name] - 2 * WARM_UP) // rounds
        steps[runner.name] = max(1, min(round(seconds / step_seconds), max_steps))
    rates: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    began = time.monotonic()
    for number in range(rounds):
        report(number + 1, time.monotonic() - began)
        for precision, dtype in PRECISIONS.items():
            rates[precision].append(matrix_rate(dtype, device, matrix))
        first = number % len(runners)
        for runner in (*runners[first:], *runners[:first]):
            slices[runner.name].append(runner.go(steps[runner.name]))
    return slices, {precision: statistics.median(measured) for precision, measured in rates.items()}


def progress(data: str, rounds: int, more: int = 0) -> Callable[[int, float], None]:
    """Return a function that prints the round and the time left, with `more` rounds to follow."""

    def report(number: int, elapsed: float) -> None:
        done = number - 1
        left = f", {tqdm.format_interval(elapsed / done * (rounds - done + more))} left" if done else ""
        print(f"bench: {data}: round {number}/{rounds}{left}", flush=True)

    return report


def summarize(slices: dict[str, list[Metrics]], rates: dict[str, float], mean_length: float) -> dict[str, Metrics]:
    """Return the metrics of each baseline over all slices.

    Throughput is measured in tokens without padding and reported in examples of the data's mean length, because the
    mean length differs between slices of a few steps, most of all with batches grouped by length.
    """
    summaries = {}
    for name, (warm_up, *measured) in slices.items():
        rate = rates[BASELINES[name].precision]
        summaries[name] = {
            "examples_per_second": round(statistics.median(speeds(slices[name])) / mean_length, 1),
            **{
                f"ratio_to_{other.replace('-', '_')}": ratio(speeds(slices[name]), speeds(slices[other]))
                for other in ("course", "course-bf16")
                if other in slices
            },
            "matrix_rate_fraction": round(per_second(measured, "flops") / rate, 3),
            "padding_fraction": round(1 - total(measured, "tokens") / total(measured, "padded_tokens"), 3),
            "peak_memory_mib": max(time_slice["peak_memory_mib"] for time_slice in measured),
            "steps": total(measured, "steps"),
        }
        if "executed_fraction" in warm_up:
            executed = warm_up["executed_fraction"] * per_second(measured, "padded_flops")
            summaries[name]["utilization"] = round(executed / rate, 3)
    return summaries


def speeds(slices: list[Metrics]) -> list[float]:
    """Return the tokens per second of each slice after the warm-up."""
    return [time_slice["tokens"] / time_slice["seconds"] for time_slice in slices[1:]]


def per_second(slices: list[Metrics], metric: str) -> float:
    """Return a metric per second, the median over slices."""
    return float(statistics.median(time_slice[metric] / time_slice["seconds"] for time_slice in slices))


def total(slices: list[Metrics], metric: str) -> int:
    """Return the sum of a metric over slices."""
    return sum(time_slice[metric] for time_slice in slices)


def ratio(one: list[float], other: list[float]) -> float:
    """Return the median over rounds of the ratio of two speeds."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 3)


def show(console: Console, title: str, summaries: dict[str, Metrics], rates: dict[str, float]) -> None:
    """Print the table of a dataset."""
    console.print(f"[bold]{title}[/bold]", soft_wrap=True)
    table = Table()
    table.add_column("baseline")
    for heading in ("examples/s", "to course", "of rate", "padding", "peak MiB"):
        table.add_column(heading, justify="right")
    for name, metrics in summaries.items():
        table.add_row(
            name,
            f"{metrics['examples_per_second']:.1f}",
            f"{metrics['ratio_to_course']:.2f} ×",
            f"{metrics['matrix_rate_fraction']:.0%}",
            f"{metrics['padding_fraction']:.1%}",
            f"{metrics['peak_memory_mib']}",
        )
    console.print(table)
    utilization = ", ".join(
        f"{name} {metrics['utilization']:.0%}" for name, metrics in summaries.items() if "utilization" in metrics
    )
    matrix_rates = ", ".join(f"{rate / 1e12:.3g} TFLOP/s in {precision}" for precision, rate in rates.items())
    console.print(f"Utilization by executed FLOPs: {utilization}. Matrix rate: {matrix_rates}.", soft_wrap=True)


def mean_length(source: Path) -> float:
    """Return the mean number of tokens of a training text."""
    train = read_json(source / stats_path())["splits"]["train"]
    return float(train["tokens"] / train.get("windows", train["num_examples"]))
