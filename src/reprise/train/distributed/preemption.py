"""Stopping a run early: SIGTERM, as a preempted machine receives it, and SIGINT from Ctrl-C.

Neither ends the run at once: the step is finished and a checkpoint is written, so no step is lost.
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tqdm import tqdm

# Ranks must stop after the same step. They agree only this often, because agreeing waits for the device.
SYNC_EVERY_STEPS = 10


class TrainingInterrupted(Exception):  # noqa: N818 - nothing went wrong
    """Raised when a run ends early, after its checkpoint; `signal` is 0 if another rank got it."""

    def __init__(self, message: str, signal: int) -> None:
        """Raise with a message for the user."""
        super().__init__(message)
        self.signal = signal


class StopRequest:
    """A request to stop: a signal to this process, or the launcher's stop file."""

    def __init__(self, file: Path | None = None) -> None:
        """Start without a request; `file` is the launcher's stop file."""
        self.signal = 0
        self.file = file

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Handle a signal; a second one ends the process as usual."""
        self.signal = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        name = signal.Signals(number).name
        # Through tqdm, so that the line is not appended to the progress bar.
        tqdm.write(f"train: {name}: finishing the step and writing a checkpoint", file=sys.stderr)
        sys.stderr.flush()

    @property
    def requested(self) -> bool:
        """Whether this process should stop."""
        return bool(self.signal) or (self.file is not None and self.file.exists())


def set_pdeathsig(number: signal.Signals) -> None:
    """Have Linux send this process a signal when its parent dies, so that no orphan runs on."""
    pr_set_pdeathsig = 1  # prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)


@contextmanager
def handle_signals(stop_file: Path | None = None) -> Iterator[StopRequest]:
    """Treat SIGTERM and SIGINT as requests to stop.

    A TPU process runs a thread per core, and Python handles signals in the main thread only. The other threads see the
    launcher's stop file.
    """
    stop = StopRequest(stop_file)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(number, stop.on_signal) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
