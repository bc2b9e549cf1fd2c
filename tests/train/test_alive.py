"""Whether a host's processes live: what is seen of those that go on, that end well, that fail and that follow."""

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
    print("lives", flush=True)
    if sys.stdin.readline() == "fail\\n":
        sys.exit(1)
"""


def live(file: Path) -> subprocess.Popen[str]:
    """A process that lives until it is told how to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "lives\n"
    return process


def test_before_the_first_process_has_come_nothing_is_over(tmp_path: Path) -> None:
    assert LivenessMonitor(tmp_path / "alive", timeout=0).is_dead() is False


@pytest.mark.parametrize(("end", "over"), [("well", False), ("fail", True), ("killed", True)])
def test_it_is_over_once_the_last_process_has_ended_unless_it_ended_well(tmp_path: Path, end: str, over: bool) -> None:
    watch = LivenessMonitor(tmp_path / "alive", timeout=0)
    first, last = live(watch.file), live(watch.file)
    assert watch.is_dead() is False
    first.communicate("fail\n")
    assert watch.is_dead() is False
    if end == "killed":
        last.send_signal(signal.SIGKILL)
    last.communicate(f"{end}\n")
    assert watch.is_dead() is over


def test_a_process_that_follows_within_the_time_goes_on(tmp_path: Path) -> None:
    watch = LivenessMonitor(tmp_path / "alive", timeout=600)
    live_and_fail = live(watch.file)
    assert watch.is_dead() is False
    live_and_fail.communicate("fail\n")
    assert watch.is_dead() is False
    following = live(watch.file)
    assert watch.is_dead() is False
    following.communicate("fail\n")
    watch.timeout = 0
    assert watch.is_dead() is True


def test_whoever_starts_the_stage_without_a_launcher_need_not_watch_it() -> None:
    with liveness_lock(None):
        pass
