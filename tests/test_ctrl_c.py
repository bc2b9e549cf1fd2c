"""Ctrl-C ends each stage at the first press, in one line, and keeps the earlier results."""

import re
import signal
import time
from pathlib import Path

import pytest

from interrupts import Running, results
from reprise.core.paths import WORKSPACE_LOCK

STAGES = ("environment", "sources", "fetch", "prepare", "check-data", "teacher", "preflight", "train", "evaluate")
# Seconds after the stage has its lock: while libraries and data are loaded, and later.
MOMENTS = (0.0, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("stage", "moment"),
    [
        pytest.param(stage, moment, marks=[] if (stage, moment) == ("prepare", 1.0) else pytest.mark.full)
        for stage in STAGES
        for moment in MOMENTS
    ],
)
def test_ctrl_c_ends_a_stage_at_once(repo_copy: Path, stage: str, moment: float) -> None:
    before = results(repo_copy)
    # The shell that runs the tests may ignore the signal.
    with Running(repo_copy, "env", "--default-signal=INT", "reprise", stage) as running:
        running.until((repo_copy / WORKSPACE_LOCK).exists)
        time.sleep(moment)
        running.send(signal.SIGINT)
        code = running.process.wait(timeout=60)
    # 0: it had ended. The signal itself: Python was ending, where a shell shows 130, too.
    assert code in (130, 0, -signal.SIGINT), running.stderr
    assert "Traceback" not in running.stderr
    if code:
        assert re.fullmatch(
            r"(reprise [a-z-]+: interrupted; .*\n)?|train: SIGINT: .*\nreprise train: .*\n", running.stderr
        )
    assert results(repo_copy) == before
    assert not [*repo_copy.rglob("*.partial"), *repo_copy.glob(".reprise*")]
