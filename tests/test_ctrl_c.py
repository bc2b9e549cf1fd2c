"""Ctrl-C ends each stage at the first press, in one line, and keeps the earlier results."""

import re
import signal
import time
from pathlib import Path

import pytest

from interrupts import Running, results

STAGES = ("environment", "sources", "fetch", "prepare", "preflight", "train", "evaluate")
# Seconds after which it is pressed: while the interpreter, libraries and data are loaded, and later.
MOMENTS = (0.3, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0)


@pytest.mark.parametrize(
    ("stage", "moment"),
    [
        pytest.param(stage, moment, marks=[] if (stage, moment) == ("prepare", 2.0) else pytest.mark.full)
        for stage in STAGES
        for moment in MOMENTS
    ],
)
def test_ctrl_c_ends_a_stage_at_once(repo_copy: Path, stage: str, moment: float) -> None:
    before = results(repo_copy)
    # The shell that runs the tests may ignore the signal.
    with Running(repo_copy, "env", "--default-signal=INT", "reprise", stage) as running:
        time.sleep(moment)
        running.send(signal.SIGINT)
        pressed = time.monotonic()
        code = running.process.wait(timeout=60)
        waited = time.monotonic() - pressed
    print(f"{stage} after {moment} s: exit code {code} {waited:.1f} s later: {running.stderr}")
    assert code in (130, 0, -signal.SIGINT)  # 0: it had ended; -2: before the interpreter handles signals
    assert "Traceback" not in running.stderr
    if code == 130:
        assert re.fullmatch(
            r"(reprise [a-z]+: interrupted; .*\n)?|train: SIGINT: .*\nreprise train: .*\n", running.stderr
        )
    assert results(repo_copy) == before
    assert not [*repo_copy.rglob("*.partial"), *repo_copy.glob(".reprise*")]
