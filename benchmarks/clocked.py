"""A verb of `reprise` in a process of its own, clocked: `python clocked.py FIGURES VERB`, in the folder of a recipe.

FIGURES is a file that gets the seconds of the function that does the verb's work, and the most memory that the process
has used. What the verb takes beyond the function, from the start of the interpreter on, only its parent can tell.
`python clocked.py FIGURES plan ROWS` clocks the plan of an epoch of so many rows, and `python clocked.py FIGURES train
STEPS` is stopped after so many steps, as a scheduler stops it.
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

# What does a verb's work: the module and the name.
WORK = {
    "environment": ("reprise.hardware", "locked_environment"),
    "fetch": ("reprise.fetch.stage", "fetch"),
    "prepare": ("reprise.prepare.stage", "prepare"),
    "train": ("reprise.train.worker", "train_worker"),
    "evaluate": ("reprise.evaluate.stage", "evaluate"),
}


def main(file: Path, verb: str, number: int = 0) -> None:
    """Run the verb, or plan so many rows, and write what it took."""
    figures: dict[str, float] = {}
    threading.Thread(target=watch, args=(figures,), daemon=True).start()
    try:
        if verb == "plan":
            plan(number, figures)
        else:
            from reprise.cli import app

            if verb == "train":
                watch_steps(number, figures)
            module, name = import_module(WORK[verb][0]), WORK[verb][1]
            setattr(module, name, clocked(getattr(module, name), figures))
            app([verb], prog_name="reprise")
    finally:
        file.write_text(json.dumps(figures | {"peak_mb": memory_mb("VmHWM")}))


def plan(rows: int, figures: dict[str, float]) -> None:
    """Plan an epoch of so many rows in steps of 32, their lengths like those of MRPC's pairs: all of its steps to tell
    their order, and before that the last one alone."""
    import numpy as np

    from reprise.train.sampler import order_digest, plan_epoch

    lengths = np.random.default_rng(0).normal(53, 17, rows).clip(16, 128).astype(np.int64)
    whole, last = (plan_epoch(lengths, seed=0, epoch=0, batch_size=32, micro_batch_size=32) for _ in range(2))
    began = time.perf_counter()
    last[-1]
    figures["last_step_seconds"] = time.perf_counter() - began
    clocked(order_digest, figures)(whole)


def watch_steps(number: int, figures: dict[str, float]) -> None:
    """Note when the first step of a training is taken (in seconds since 1970, and in those of all cores together);
    stop it after so many, 0 for never."""
    from reprise.train.recorder import Recorder

    step = Recorder.log_step

    def noting(recorder: Recorder, *arguments: Any) -> None:
        figures.setdefault("first_step", time.time())
        figures.setdefault("first_step_cpu_seconds", time.process_time())
        step(recorder, *arguments)
        if recorder.history.steps_done == number:
            os.kill(os.getpid(), signal.SIGTERM)

    Recorder.log_step = noting  # type: ignore[assignment, method-assign]


def watch(figures: dict[str, float]) -> None:
    """Note the most memory that this process has of its own, in MB: no pages of mapped files, which the kernel takes
    back where it needs them."""
    figures["own_mb"] = 0.0
    while True:
        figures["own_mb"] = max(figures["own_mb"], memory_mb("RssAnon", "RssShmem"))
        time.sleep(0.05)


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


def memory_mb(*names: str) -> float:
    """What the kernel says of this process's memory under these names together, in MB (10⁶ bytes).

    VmHWM is the most that it has used, pages of mapped files among it; ru_maxrss begins with what its parent had.
    """
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[0].rstrip(":") in names) * 1024 / 1e6


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
