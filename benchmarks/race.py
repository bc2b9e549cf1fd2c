"""Contenders side by side: one computes at a time, and everyone has a turn in each round."""

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

from contender import CONTENDERS
from flops import matrix_rate
from folders import Recipe, lay_out
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.data.format import stats_path
from reprise.train.distributed.preemption import set_pdeathsig

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WARM_UP = 2  # steps, twice: the first fill caches, the second say how many a turn holds

Figures = dict[str, Any]  # of a turn, as a contender answers them; or of all turns, as they are written


class Runner:
    """A contender's process. Ended when this one ends, whatever ends it."""

    def __init__(self, name: str, folder: Path, hardware: str) -> None:
        """Start it in a folder that has all that train reads."""
        self.name = name
        threads = str(len(os.sched_getaffinity(0)))
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("contender.py")), name],
            cwd=folder, env={"OMP_NUM_THREADS": threads} | os.environ | {"REPRISE_HARDWARE": hardware},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,  # Ctrl-C reaches us alone: reprise would finish its step
            preexec_fn=partial(set_pdeathsig, SIGKILL),
        )  # fmt: skip

    def answer(self) -> Figures:
        """Wait for its next line.

        Raises:
            UserError: it has ended, by an error of its own or from outside.
        """
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer: Figures = json.loads(line or "{}")
        if not line or "error" in answer:
            raise UserError(f"{self.name} ended: {answer.get('error') or f'code {self.process.wait()}'}")
        return answer

    def go(self, steps: int) -> Figures:
        """Have it take so many steps and say what they took."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has ended, as `answer` says
            self.process.stdin.write(f"go {steps}\n")
            self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def running(names: Sequence[str], scratch: Path, recipe: Recipe, place: Path, hardware: str) -> Iterator[list[Runner]]:
    """Start contenders, each in a folder of its own in `scratch`, on the data and the model of a place."""
    runners = []
    with ExitStack() as stack:
        for name in names:
            runner = Runner(name, lay_out(scratch / name, recipe, place), hardware)
            stack.callback(runner.end)
            runners.append(runner)
        yield runners


def race(
    runners: list[Runner], rounds: int, seconds: float, device: torch.device, say: Callable[[int, float], None]
) -> tuple[dict[str, list[Figures]], dict[str, float]]:
    """Let contenders take their turns.

    Args:
        runners: just started; all load at the same time.
        rounds: in which everyone has one turn, the first of one round being the last of the next.
        seconds: that a turn takes about; all turns together stay within an epoch.
        device: whose matrix rate is measured in every round.
        say: is told each round's number, from 1, and the seconds since the first began.

    Returns:
        The warm-up and the turns of each contender, and the matrix rate by precision.
    """
    steps, turns = {}, {}
    epochs = {runner.name: runner.answer()["steps_per_epoch"] for runner in runners}
    for runner in runners:
        turns[runner.name] = [runner.go(WARM_UP)]
        a_step = runner.go(WARM_UP)["seconds"] / WARM_UP
        most = (epochs[runner.name] - 2 * WARM_UP) // rounds
        steps[runner.name] = max(1, min(round(seconds / a_step), most))
    rates: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    began = time.monotonic()
    for number in range(rounds):
        say(number + 1, time.monotonic() - began)
        for precision, dtype in PRECISIONS.items():
            rates[precision].append(matrix_rate(dtype, device))
        first = number % len(runners)
        for runner in (*runners[first:], *runners[:first]):
            turns[runner.name].append(runner.go(steps[runner.name]))
    return turns, {precision: statistics.median(measured) for precision, measured in rates.items()}


def progress(data: str, rounds: int, more: int = 0) -> Callable[[int, float], None]:
    """A function that prints which round begins, and how long they all will take with so many more after them."""

    def say(number: int, elapsed: float) -> None:
        done = number - 1
        left = f", {tqdm.format_interval(elapsed / done * (rounds - done + more))} left" if done else ""
        print(f"bench: {data}: round {number}/{rounds}{left}", flush=True)

    return say


def summarize(turns: dict[str, list[Figures]], rates: dict[str, float], mean_length: float) -> dict[str, Figures]:
    """What is written of each contender.

    Speed is measured in tokens that are no padding and told in examples of the data's mean length: turns of a few steps
    differ in how long their texts happen to be, the more so where steps are of similar lengths.
    """
    found = {}
    speeds = {name: [turn["tokens"] / turn["seconds"] for turn in measured[1:]] for name, measured in turns.items()}
    for name, (warm_up, *measured) in turns.items():
        rate = rates[CONTENDERS[name].precision]
        found[name] = {
            "examples_per_second": round(statistics.median(speeds[name]) / mean_length, 1),
            "ratio_to_course": ratio(speeds[name], speeds["course"]),
            "ratio_to_course_bf16": ratio(speeds[name], speeds["course-bf16"]),
            "share_of_matrix_rate": round(a_second(measured, "flops") / rate, 3),
            "padding_share": round(1 - total(measured, "tokens") / total(measured, "padded_tokens"), 3),
            "peak_memory_mib": max(turn["peak_memory_mib"] for turn in measured),
            "steps": total(measured, "steps"),
        }
        if "executed_share" in warm_up:
            executed = warm_up["executed_share"] * a_second(measured, "padded_flops")
            found[name]["busy"] = round(executed / rate, 3)
    return found


def a_second(turns: list[Figures], figure: str) -> float:
    """What a figure comes to in a second, by the median over turns."""
    return float(statistics.median(turn[figure] / turn["seconds"] for turn in turns))


def total(turns: list[Figures], figure: str) -> int:
    """What a figure comes to over turns."""
    return sum(turn[figure] for turn in turns)


def ratio(one: list[float], other: list[float]) -> float:
    """How many times as fast one is as the other, by the median over rounds."""
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 3)


def show(console: Console, title: str, found: dict[str, Figures], rates: dict[str, float]) -> None:
    """Print the table of a data set."""
    console.print(f"[bold]{title}[/bold]", soft_wrap=True)
    table = Table()
    table.add_column("contender")
    for heading in ("examples/s", "to course", "of rate", "padding", "peak MiB"):
        table.add_column(heading, justify="right")
    for name, figures in found.items():
        table.add_row(
            name,
            f"{figures['examples_per_second']:.1f}",
            f"{figures['ratio_to_course']:.2f} ×",
            f"{figures['share_of_matrix_rate']:.0%}",
            f"{figures['padding_share']:.1%}",
            f"{figures['peak_memory_mib']}",
        )
    console.print(table)
    busy = ", ".join(f"{name} {figures['busy']:.0%}" for name, figures in found.items() if "busy" in figures)
    told = ", ".join(f"{rate / 1e12:.3g} TFLOP/s in {precision}" for precision, rate in rates.items())
    console.print(f"Busy, by the products that are really executed: {busy}. Matrix rate: {told}.", soft_wrap=True)


def mean_length(place: Path) -> float:
    """The tokens of a training text, on average."""
    train = read_json(place / stats_path())["splits"]["train"]
    return float(train["tokens"] / train["rows"])
