"""Run one command of `reprise` and measure it: `python timed_command.py FILE COMMAND`.

The working directory is that of a recipe. FILE gets the seconds of the function that does the command's work and the
peak memory of the process, as JSON. The parent process measures the total time, which includes the start of the
interpreter.
`python timed_command.py FILE plan ROWS` times the plan of an epoch of ROWS rows. `python timed_command.py FILE train
STEPS` sends SIGTERM after STEPS steps, as a scheduler does.
"""

import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

# The function that does the work of each command: module and name.
WORK = {
    "environment": ("reprise.hardware", "locked_environment"),
    "fetch": ("reprise.fetch.stage", "fetch"),
    "prepare": ("reprise.prepare.stage", "prepare"),
    "train": ("reprise.train.worker", "train_worker"),
    "evaluate": ("reprise.evaluate.stage", "evaluate"),
}


def main(file: Path, command: str, number: int = 0) -> None:
    """Run a command, or plan an epoch of `number` rows, and write the metrics."""
    metrics: dict[str, float] = {}
    threading.Thread(target=watch, args=(metrics,), daemon=True).start()
    try:
        if command == "plan":
            plan(number, metrics)
        else:
            from reprise.cli import app

            if command == "train":
                watch_steps(number, metrics)
            module, name = import_module(WORK[command][0]), WORK[command][1]
            setattr(module, name, timed(getattr(module, name), metrics))
            app([command], prog_name="reprise")
    finally:
        file.write_text(json.dumps(metrics | {"peak_mb": memory_mb("VmHWM")}))


def plan(rows: int, metrics: dict[str, float]) -> None:
    """Plan an epoch of `rows` rows in steps of 32, with lengths distributed like MRPC's pairs.

    The last step alone is timed first, then the order of all steps.
    """
    import numpy as np

    from reprise.train.sampler import order_digest, plan_epoch

    lengths = np.random.default_rng(0).normal(53, 17, rows).clip(16, 128).astype(np.int64)
    full, last = (plan_epoch(lengths, seed=0, epoch=0, batch_size=32, micro_batch_size=32) for _ in range(2))
    began = time.perf_counter()
    last[-1]
    metrics["last_step_seconds"] = time.perf_counter() - began
    timed(order_digest, metrics)(full)


def watch_steps(number: int, metrics: dict[str, float]) -> None:
    """Record the end of the first training step; stop after step `number`, 0 for never.

    The first step's end is recorded in seconds since 1970 and in CPU seconds of this process.
    """
    from reprise.train.recorder import Recorder

    step = Recorder.log_step

    def noting(recorder: Recorder, *arguments: Any) -> None:
        metrics.setdefault("first_step", time.time())
        metrics.setdefault("first_step_cpu_seconds", time.process_time())
        step(recorder, *arguments)
        if recorder.history.steps_done == number:
            os.kill(os.getpid(), signal.SIGTERM)

    Recorder.log_step = noting  # type: ignore[assignment, method-assign]


def watch(metrics: dict[str, float]) -> None:
    """Track the peak private memory of this process, in MB.

    Pages of mapped files are left out, because the kernel can reclaim them.
    """
    metrics["own_mb"] = 0.0
    while True:
        metrics["own_mb"] = max(metrics["own_mb"], memory_mb("RssAnon", "RssShmem"))
        time.sleep(0.05)


def timed(function: Callable[..., Any], metrics: dict[str, float]) -> Callable[..., Any]:
    """Wrap a function so that it records its wall-clock and CPU seconds, also if it raises."""

    @functools.wraps(function)
    def noting(*arguments: Any, **named: Any) -> Any:
        began, cpu_began = time.perf_counter(), time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            metrics["work_seconds"] = time.perf_counter() - began
            metrics["cpu_seconds"] = time.process_time() - cpu_began

    return noting


def memory_mb(*names: str) -> float:
    """Return the sum of some fields of /proc/self/status, in MB (10⁶ bytes).

    VmHWM is the peak, pages of mapped files included. ru_maxrss would start with the value of the parent process.
    """
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[0].rstrip(":") in names) * 1024 / 1e6


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
