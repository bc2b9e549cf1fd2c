"""Liveness of workers: running, ended cleanly, failed, and restarted."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reprise.train.distributed.liveness import LivenessMonitor, liveness_lock

PROGRAM = """
import sys
from pathlib import Path
from reprise.train.distributed.liveness import liveness_lock

with liveness_lock(Path(sys.argv[1])):
    print("running", flush=True)
    if sys.stdin.readline() == "fail\\n":
        sys.exit(1)
"""


def start_worker(file: Path) -> subprocess.Popen[str]:
    """Start a process that runs until a line on its stdin."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def test_no_worker_is_dead_before_the_first_starts(tmp_path: Path) -> None:
    assert LivenessMonitor(tmp_path / "alive", timeout=0).is_dead() is False


@pytest.mark.parametrize(("end", "dead"), [("well", False), ("fail", True), ("killed", True)])
def test_workers_are_dead_once_the_last_one_failed(tmp_path: Path, end: str, dead: bool) -> None:
    monitor = LivenessMonitor(tmp_path / "alive", timeout=0)
    first, last = start_worker(monitor.file), start_worker(monitor.file)
    assert monitor.is_dead() is False
    first.communicate("fail\n")
    assert monitor.is_dead() is False
    if end == "killed":
        last.send_signal(signal.SIGKILL)
    last.communicate(f"{end}\n")
    assert monitor.is_dead() is dead


def test_worker_restarted_within_the_timeout_is_alive(tmp_path: Path) -> None:
    monitor = LivenessMonitor(tmp_path / "alive", timeout=600)
    failing = start_worker(monitor.file)
    assert monitor.is_dead() is False
    failing.communicate("fail\n")
    assert monitor.is_dead() is False
    restarted = start_worker(monitor.file)
    assert monitor.is_dead() is False
    restarted.communicate("fail\n")
    monitor.timeout = 0
    assert monitor.is_dead() is True


def test_worker_without_a_launcher_needs_no_liveness_file() -> None:
    with liveness_lock(None):
        pass
