"""Interrupt a running training at a chosen moment, and compare its results with those of an uninterrupted one."""

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

# The outputs whose bits the recipe determines: not speed.json and provenance.json, which have times and hosts.
FIXED = ("models/final/*", "metrics/train.json", "metrics/evaluate.json", "plots/*.csv", "predictions/*")
TIMEOUT_S = 120.0


def results(folder: Path) -> dict[str, bytes]:
    """Return the content of every result file whose bits the recipe determines, by path."""
    files = [file for pattern in FIXED for file in sorted(folder.glob(pattern))]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def take_results(folder: Path) -> dict[str, bytes]:
    """Return the results and delete them, so that later results must be new."""
    found = results(folder)
    for output in ("models/final", "metrics", "plots", "predictions"):
        shutil.rmtree(folder / output, ignore_errors=True)
    return found


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoints/*/step-*"), key=lambda path: path.name)


def position(checkpoint: Path) -> tuple[int, int]:
    """Return the numbers of steps and of complete epochs in the name of a checkpoint."""
    _, steps, _, epochs = checkpoint.name.split("-")
    return int(steps), int(epochs)


def set_processes(folder: Path, processes: int) -> None:
    """Make `reprise train` start this number of processes."""
    (folder / "docker/cpu/accelerate.yaml").write_text(f"num_processes: {processes}\n")


class Running:
    """A command that runs in the background in its own session; killed when the `with` block ends early."""

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
    def stdout(self) -> str:
        """The output so far."""
        return self.out.read_text()

    @property
    def stderr(self) -> str:
        """The error output so far."""
        return self.err.read_text()

    @property
    def ended(self) -> bool:
        """Whether the command has exited."""
        return self.process.poll() is not None

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition is true; fail if the command ends before."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            hopeless = self.ended or time.monotonic() > deadline
            assert not hopeless, f"{self.command}: condition not met\n{self.stdout}{self.stderr}"
            time.sleep(0.002)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command, but not to its children."""
        self.process.send_signal(number)

    def end(self, code: int = 0) -> str:
        """Wait for the command to exit, check the exit code and return the output."""
        got = self.process.wait(timeout=TIMEOUT_S)
        assert got == code, f"{self.command}: {got}\n{self.stdout}{self.stderr}"
        return self.stdout

    def groups(self) -> set[int]:
        """Return the process groups of the command and its descendants; torchrun starts sessions of its own."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return {os.getpgid(one.pid) for one in (parent, *parent.children(recursive=True)) if one.is_running()}
        return set()

    def kill(self, groups: set[int]) -> None:
        """Send SIGKILL to these process groups at once, so that no process can clean up."""
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.process.wait()
