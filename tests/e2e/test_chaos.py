"""After SIGKILL at random moments, `dvc repro` resumes and gives the same bits as an uninterrupted run.

`make test-chaos` kills 50 times, `make test-chaos N=200 SEED=7` more often and at other moments.
"""

import itertools
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from interrupts import Running, checkpoints, position, results, set_processes
from reprise.train.checkpoint import verify_manifest
from tiny import Run, write_params

KILLS_PER_ROUND = 5
EPOCHS, STEPS = 30, 270
SAVE_STEPS = 2  # few, so that many kills happen while a checkpoint is being written
LONG = {"train.epochs": EPOCHS, "run.save_steps": SAVE_STEPS}
BEGINS, ENDS = "train: tiny on 144 examples", f"train: epoch {EPOCHS}/{EPOCHS}: validation"


@dataclass(frozen=True)
class Uninterrupted:
    """An uninterrupted run: its results and the seconds from the first line of its training to the last."""

    results: dict[str, bytes]
    seconds: float


@dataclass
class Kill:
    """The state at a kill: the last valid checkpoint, and whether another was being written."""

    step: int
    epoch: int
    writing: bool

    def __str__(self) -> str:
        during = "while writing a checkpoint, " if self.writing else ""
        return f"{during}in epoch {self.epoch + 1}, with a checkpoint of step {self.step}/{STEPS}"


@pytest.fixture(scope="module")
def uninterrupted(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Uninterrupted]:
    """Return a function from a number of processes to an uninterrupted run, which is cached."""
    cache: dict[int, Uninterrupted] = {}

    def uninterrupted(processes: int) -> Uninterrupted:
        if processes not in cache:
            folder = longer_training(trained_repo, tmp_path_factory.mktemp("uninterrupted"), processes)
            with Running(folder, "dvc", "repro") as pipeline:
                pipeline.until(lambda: BEGINS in pipeline.stdout)
                start = time.monotonic()
                pipeline.until(lambda: ENDS in pipeline.stdout)
                seconds = time.monotonic() - start
                pipeline.end()
            cache[processes] = Uninterrupted(results(folder), seconds)
        return cache[processes]

    return uninterrupted


def longer_training(trained_repo: Path, beside: Path, processes: int) -> Path:
    """Copy the trained repository and configure a longer training."""
    folder = Path(shutil.copytree(trained_repo, beside / "repo", symlinks=True))
    write_params(folder, **LONG)
    set_processes(folder, processes)
    return folder


def partials(folder: Path) -> set[tuple[str, int]]:
    """Return partial checkpoints with their modification times, to distinguish them from those of earlier kills."""
    seen = set()
    for partial in folder.glob("checkpoints/*/.step-*.partial"):
        with suppress(FileNotFoundError):
            seen.add((partial.name, partial.stat().st_mtime_ns))
    return seen


def kill_once(
    folder: Path, moment: float, seconds: float, *, kept: int, while_writing: bool
) -> tuple[Kill | None, str]:
    """Run the pipeline until a moment of the training, given in steps, and kill it.

    Waits for the last checkpoint before that moment, so that the test also works on a busy machine, and first for the
    training to resume after the `kept` steps of the previous run.

    Returns:
        The state at the kill, None if the training was over, and the output.
    """
    before = partials(folder)
    with Running(folder, "dvc", "repro") as pipeline:
        pipeline.until(lambda: (f"train: resuming from step {kept}/" if kept else BEGINS) in pipeline.stdout)
        groups = pipeline.groups()  # before the moment, so that nothing delays the kill

        def until(seen: Callable[[], object]) -> None:
            pipeline.until(lambda: seen() or ENDS in pipeline.stdout)

        last = moment // SAVE_STEPS * SAVE_STEPS
        until(lambda: max((position(checkpoint)[0] for checkpoint in checkpoints(folder)), default=0) >= last)
        time.sleep(moment % SAVE_STEPS * seconds / STEPS)
        if while_writing:
            until(lambda: partials(folder) - before)
        pipeline.kill(groups)
        if ENDS in pipeline.stdout:
            return None, pipeline.stdout
        # Only valid ones: a kill may happen while the checkpoints of a finished run are being deleted.
        valid = [position(checkpoint) for checkpoint in checkpoints(folder) if not verify_manifest(checkpoint)]
        step, epoch = max(valid, default=(0, 0))
        return Kill(step, epoch, writing=bool(partials(folder) - before)), pipeline.stdout


def resumed_after(output: str) -> int:
    """Return the step after which a training resumed; 0 if it started from the beginning."""
    return max(map(int, re.findall(r"train: resuming from step (\d+)/", output)), default=0)


def rounds(
    trained_repo: Path, folders: Path, uninterrupted: Callable[[int], Uninterrupted], run: Run, draw: random.Random, *,
    kills: int, processes: Iterator[int],
) -> None:  # fmt: skip
    """Kill `kills` times, in rounds that each end with a complete run, compared with an uninterrupted one."""
    all_kills: list[Kill] = []
    resumed: list[int] = []
    identical: list[bool] = []
    while len(all_kills) < kills:
        number, count = len(identical) + 1, next(processes)
        expected = uninterrupted(count)
        (folders / str(number)).mkdir()
        folder = longer_training(trained_repo, folders / str(number), count)
        kept, kill = 0, None
        moments = sorted(draw.uniform(0, STEPS) for _ in range(min(KILLS_PER_ROUND, kills - len(all_kills))))
        for moment in moments:
            kill, output = kill_once(folder, moment, expected.seconds, kept=kept, while_writing=draw.random() < 1 / 3)
            resumed.append(resumed_after(output))
            assert resumed[-1] == kept, output  # the last valid checkpoint: DVC did not remove it
            if not kill:
                break
            kept = kill.step
            assert "checkpoints" not in run(folder, "git", "status", "--porcelain").stdout
            print(f"chaos: round {number}, processes: {count}: killed {kill}", flush=True)
            all_kills.append(kill)
        output = run(folder, "dvc", "repro").stdout
        if kill:
            resumed.append(resumed_after(output))
            assert resumed[-1] == kept, output
        identical.append(results(folder) == expected.results)
        print(f"chaos: round {number}: {'bit-identical' if identical[-1] else 'DIFFERENT'}", flush=True)
        assert not list(folder.rglob("*.partial"))
        assert not list(folder.glob("checkpoints/*"))
    table = {
        "kills": len(all_kills),
        "kills while a checkpoint was being written": sum(kill.writing for kill in all_kills),
        "kills after the first epoch": sum(kill.epoch > 0 for kill in all_kills),
        "resumed after steps": ", ".join(str(step) for step in resumed if step),
        "rounds bit-identical to the uninterrupted run": f"{sum(identical)} of {len(identical)}",
    }
    for name, value in table.items():
        print(f"chaos: {name}: {value}")
    assert all(identical)
    assert any(resumed)


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_many_kills_change_no_bit(
    trained_repo: Path, tmp_path: Path, uninterrupted: Callable[[int], Uninterrupted], run: Run
) -> None:
    seed, kills = int(os.environ.get("SEED", "0")), int(os.environ.get("N", "50"))
    print(f"\nchaos: {kills} kills, seed {seed}")
    rounds(
        trained_repo, tmp_path, uninterrupted, run, random.Random(seed), kills=kills, processes=itertools.cycle([1, 2])
    )


@pytest.mark.full
def test_a_few_kills_change_no_bit(
    trained_repo: Path, tmp_path: Path, uninterrupted: Callable[[int], Uninterrupted], run: Run
) -> None:
    rounds(trained_repo, tmp_path, uninterrupted, run, random.Random(0), kills=3, processes=itertools.repeat(1))
