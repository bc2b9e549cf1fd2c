"""A verb of `reprise` in a process of its own, clocked: `python clocked.py FIGURES VERB`, in the folder of a recipe.

FIGURES is a file that gets the seconds of the function that does the verb's work, and the most memory that the process
has used. What the verb takes beyond the function, from the start of the interpreter on, only its parent can tell.
`python clocked.py FIGURES plan ROWS` clocks the plan of an epoch of so many rows.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

# What does a verb's work: the module and the name.
WORK = {
    "environment": ("reprise.environment", "describe"),
    "fetch": ("reprise.fetch.stage", "fetch"),
    "prepare": ("reprise.prepare.stage", "prepare"),
    "train": ("reprise.train.stage", "run"),
    "evaluate": ("reprise.evaluate.stage", "evaluate"),
}


def main(file: Path, verb: str, rows: int = 0) -> None:
    """Run the verb, or plan the rows, and write what it took."""
    figures: dict[str, float] = {}
    try:
        if verb == "plan":
            plan(rows, figures)
        else:
            from reprise.cli import app

            module, name = import_module(WORK[verb][0]), WORK[verb][1]
            setattr(module, name, clocked(getattr(module, name), figures))
            app([verb], prog_name="reprise")
    finally:
        file.write_text(json.dumps(figures | {"peak_mb": peak_mb()}))


def plan(rows: int, figures: dict[str, float]) -> None:
    """Plan an epoch of so many rows in steps of 32, their lengths like those of MRPC's pairs."""
    import numpy as np

    from reprise.train.plan import plan_epoch

    lengths = np.random.default_rng(0).normal(53, 17, rows).clip(16, 128).astype(np.int64)
    clocked(plan_epoch, figures)(lengths, seed=0, epoch=0, batch_size=32, micro_batch_size=32)


def clocked(function: Callable[..., Any], figures: dict[str, float]) -> Callable[..., Any]:
    """The function, noting the seconds that it takes, by the clock and on all cores together."""

    @functools.wraps(function)
    def noting(*arguments: Any, **named: Any) -> Any:
        began, cpu_began = time.perf_counter(), time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            figures["work_seconds"] = time.perf_counter() - began
            figures["cpu_seconds"] = time.process_time() - cpu_began

    return noting


def peak_mb() -> float:
    """The most memory that this process has used, in MB (10⁶ bytes), pages of mapped files among it."""
    # Not ru_maxrss, which begins with what the process that started this one had.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
