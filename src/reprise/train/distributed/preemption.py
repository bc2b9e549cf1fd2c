"""Stopping a training from outside: SIGTERM, as a machine that is taken away sends it, and SIGINT, as Ctrl-C does.

Neither ends it at once. The step is finished and a checkpoint is written, so nothing is lost.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from accelerate import PartialState
from accelerate.utils import reduce

# Where one of several processes finds what the launcher was told; only the launcher takes signals then.
STOP_FILE = "REPRISE_STOP_FILE"
# Several processes must stop after the same step. They talk about it this often, as each talk waits for the device.
SYNC_EVERY_STEPS = 10


class TrainingInterrupted(Exception):  # noqa: N818 - nothing went wrong
    """The training ended early with everything kept; `signal` asked for it, 0 where another process took it."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class StopRequest:
    """Whether this process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal = 0
        self.file = Path(os.environ[STOP_FILE]) if STOP_FILE in os.environ else None

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Take a signal; a second one ends the process as if nobody listened."""
        self.signal = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        name = signal.Signals(number).name
        print(f"train: {name}: finishing the step and keeping a checkpoint", file=sys.stderr, flush=True)

    def should_stop(self, world: PartialState, steps: int) -> bool:
        """Whether to stop after this step, the same answer on every process."""
        told = bool(self.signal) or (self.file is not None and self.file.exists())
        if world.num_processes == 1:
            return told
        if steps % SYNC_EVERY_STEPS:
            return False
        return bool(reduce(torch.tensor(float(told), device=world.device), "sum").item())


def set_pdeathsig(number: signal.Signals) -> None:
    """Have Linux send this process a signal when the one that started it dies, even of SIGKILL: no orphan trains on."""
    pr_set_pdeathsig = 1  # prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)


@contextmanager
def handle_signals() -> Iterator[StopRequest]:
    """Take SIGTERM and SIGINT as wishes for as long as this lasts.

    A process of a TPU runs a thread for each of its cores, and Python lets none but the main thread take signals: there
    the launcher's file tells of them.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, stop.on_signal) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
