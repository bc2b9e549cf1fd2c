"""Interrupting a training from outside, at a moment that is waited for, and the bits that it must end with."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

# What training and evaluating leave behind whose bits the recipe fixes: not the clock's figures, nor where they ran.
FIXED = ("models/final/*", "metrics/train.json", "metrics/evaluate.json", "plots/*.csv", "predictions/*")
PATIENCE = 120.0  # seconds until something that is waited for counts as never coming


def results(folder: Path) -> dict[str, bytes]:
    """The results in a folder, by name: every file whose bits the recipe fixes."""
    files = [file for pattern in FIXED for file in sorted(folder.glob(pattern))]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def taken(folder: Path) -> dict[str, bytes]:
    """The results, which are gone from the folder then: what is found there next was made anew."""
    found = results(folder)
    for place in ("models/final", "metrics", "plots", "predictions"):
        shutil.rmtree(folder / place, ignore_errors=True)
    return found


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; those that are still being written have no name yet."""
    return sorted(folder.glob("checkpoints/*/step-*"), key=lambda path: path.name)


def place(checkpoint: Path) -> tuple[int, int]:
    """The steps and the whole epochs that a checkpoint was made after, as its name says."""
    _, steps, _, epochs = checkpoint.name.split("-")
    return int(steps), int(epochs)


def set_processes(folder: Path, processes: int) -> None:
    """Have `reprise train` start so many processes."""
    (folder / "docker/cpu/accelerate.yaml").write_text(f"num_processes: {processes}\n")


class Running:
    """A command that goes on while the test does, in a session of its own; killed when the `with` ends before it."""

    def __init__(self, folder: Path, *command: str, env: dict[str, str] | None = None) -> None:
        number = len(list(folder.parent.glob("*.out")))
        self.command, self.out, self.err = command, *(folder.parent / f"{number}.{name}" for name in ("out", "err"))
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **(env or {})}
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=out, stderr=err, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.kill(self.groups())

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.out.read_text()

    @property
    def errors(self) -> str:
        """What it has printed on stderr so far."""
        return self.err.read_text()

    @property
    def ended(self) -> bool:
        """Whether it came to its end."""
        return self.process.poll() is not None

    def until(self, seen: Callable[[], object]) -> None:
        """Wait until something is to be seen, and fail if the command ends before."""
        last = time.monotonic() + PATIENCE
        while not seen():
            hopeless = self.ended or time.monotonic() > last
            assert not hopeless, f"{self.command}: never seen\n{self.said}{self.errors}"
            time.sleep(0.002)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command alone."""
        self.process.send_signal(number)

    def end(self, code: int = 0) -> str:
        """Wait for its end, check the exit code, and return all that it printed."""
        got = self.process.wait(timeout=PATIENCE)
        assert got == code, f"{self.command}: {got}\n{self.said}{self.errors}"
        return self.said

    def groups(self) -> set[int]:
        """The process groups of everything that it started: torchrun opens sessions of its own."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return {os.getpgid(one.pid) for one in (parent, *parent.children(recursive=True)) if one.is_running()}
        return set()

    def kill(self, groups: set[int]) -> None:
        """SIGKILL to all of these at once: nobody has a chance to tidy up."""
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.process.wait()
