"""Killed at random moments with no chance to tidy up, `dvc repro` goes on and ends with the bits of an unbroken run.

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

from interrupting import Running, checkpoints, place, results, set_processes
from reprise.train.checkpoint import verify_manifest
from tiny import Run, write_params

KILLS_A_ROUND = 5
EPOCHS, STEPS = 30, 270
EVERY = 2  # steps, so that many a kill comes while a checkpoint is written
LONG = {"train.epochs": EPOCHS, "run.save_steps": EVERY}
BEGINS, ENDS = "train: tiny on 144 examples", f"train: epoch {EPOCHS}/{EPOCHS}: validation"


@dataclass(frozen=True)
class Unbroken:
    """A run that nobody killed: its results, and the seconds that its training took from its first line."""

    results: dict[str, bytes]
    seconds: float


@dataclass
class Kill:
    """What a kill found: the last whole checkpoint, and whether the next one was half-written."""

    step: int
    epoch: int
    writing: bool

    def __str__(self) -> str:
        doing = "while writing a checkpoint, " if self.writing else ""
        return f"{doing}in epoch {self.epoch + 1}, with a checkpoint of step {self.step}/{STEPS}"


@pytest.fixture(scope="module")
def unbroken(cooked: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Unbroken]:
    """A run that nobody killed, by the number of its processes."""
    made: dict[int, Unbroken] = {}

    def unbroken(processes: int) -> Unbroken:
        if processes not in made:
            folder = longer(cooked, tmp_path_factory.mktemp("unbroken"), processes)
            with Running(folder, "dvc", "repro") as cooking:
                cooking.until(lambda: BEGINS in cooking.said)
                start = time.monotonic()
                cooking.until(lambda: ENDS in cooking.said)
                seconds = time.monotonic() - start
                cooking.end()
            made[processes] = Unbroken(results(folder), seconds)
        return made[processes]

    return unbroken


def longer(cooked: Path, beside: Path, processes: int) -> Path:
    """A copy of the cooked kitchen, with a longer training to be cooked next."""
    folder = Path(shutil.copytree(cooked, beside / "kitchen", symlinks=True))
    write_params(folder, **LONG)
    set_processes(folder, processes)
    return folder


def partials(folder: Path) -> set[tuple[str, int]]:
    """Checkpoints that were not finished, with their times: one that an earlier kill has left is not one of now."""
    seen = set()
    for partial in folder.glob("checkpoints/*/.step-*.partial"):
        with suppress(FileNotFoundError):
            seen.add((partial.name, partial.stat().st_mtime_ns))
    return seen


def kill_once(folder: Path, moment: float, seconds: float, *, kept: int, in_writing: bool) -> tuple[Kill | None, str]:
    """Cook until a moment of the training, in steps; what the kill found then, None if the training was over.

    The moment is awaited from the last checkpoint before it, so that it comes on a busy machine too, and not before the
    training has taken up the `kept` steps of the one before.
    """
    left = partials(folder)
    with Running(folder, "dvc", "repro") as cooking:
        cooking.until(lambda: (f"train: resuming from step {kept}/" if kept else BEGINS) in cooking.said)
        groups = cooking.groups()  # now: once the moment has come, nothing is in the way of the kill

        def until(seen: Callable[[], object]) -> None:
            cooking.until(lambda: seen() or ENDS in cooking.said)

        until(lambda: max((place(left)[0] for left in checkpoints(folder)), default=0) >= moment // EVERY * EVERY)
        time.sleep(moment % EVERY * seconds / STEPS)
        if in_writing:
            until(lambda: partials(folder) - left)
        cooking.kill(groups)
        if ENDS in cooking.said:
            return None, cooking.said
        # Damaged ones are none: the kill may have come while the folder of a run that succeeded was being removed.
        whole = [place(checkpoint) for checkpoint in checkpoints(folder) if not verify_manifest(checkpoint)]
        step, epoch = max(whole, default=(0, 0))
        return Kill(step, epoch, writing=bool(partials(folder) - left)), cooking.said


def gone_on_after(said: str) -> int:
    """The step after which a training went on; 0 where it started over."""
    return max(map(int, re.findall(r"train: resuming from step (\d+)/", said)), default=0)


def rounds(
    cooked: Path, folders: Path, unbroken: Callable[[int], Unbroken], run: Run, draw: random.Random, *, kills: int,
    processes: Iterator[int],
) -> None:  # fmt: skip
    """Kill so many times, in rounds that each end with a run that is let through and compared with an unbroken one."""
    all_kills: list[Kill] = []
    resumed: list[int] = []
    identical: list[bool] = []
    while len(all_kills) < kills:
        number, count = len(identical) + 1, next(processes)
        whole = unbroken(count)
        (folders / str(number)).mkdir()
        folder = longer(cooked, folders / str(number), count)
        kept, kill = 0, None
        moments = sorted(draw.uniform(0, STEPS) for _ in range(min(KILLS_A_ROUND, kills - len(all_kills))))
        for moment in moments:
            kill, said = kill_once(folder, moment, whole.seconds, kept=kept, in_writing=draw.random() < 1 / 3)
            resumed.append(gone_on_after(said))
            assert resumed[-1] == kept, said  # the last whole one: DVC has not touched it
            if not kill:
                break
            kept = kill.step
            assert "checkpoints" not in run(folder, "git", "status", "--porcelain").stdout
            print(f"chaos: round {number}, processes: {count}: killed {kill}", flush=True)
            all_kills.append(kill)
        said = run(folder, "dvc", "repro").stdout
        if kill:
            resumed.append(gone_on_after(said))
            assert resumed[-1] == kept, said
        identical.append(results(folder) == whole.results)
        print(f"chaos: round {number}: {'the same bits' if identical[-1] else 'OTHER BITS'}", flush=True)
        assert not list(folder.rglob("*.partial"))
        assert not list(folder.glob("checkpoints/*"))
    table = {
        "kills": len(all_kills),
        "of these while writing a checkpoint": sum(kill.writing for kill in all_kills),
        "of these in a later epoch than the first": sum(kill.epoch > 0 for kill in all_kills),
        "went on after steps": ", ".join(str(step) for step in resumed if step),
        "rounds with the bits of the unbroken run": f"{sum(identical)} of {len(identical)}",
    }
    for name, value in table.items():
        print(f"chaos: {name}: {value}")
    assert all(identical)
    assert any(resumed)


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_many_kills_at_random_moments_change_no_bit(
    cooked: Path, tmp_path: Path, unbroken: Callable[[int], Unbroken], run: Run
) -> None:
    seed, kills = int(os.environ.get("SEED", "0")), int(os.environ.get("N", "50"))
    print(f"\nchaos: {kills} kills, seed {seed}")
    rounds(cooked, tmp_path, unbroken, run, random.Random(seed), kills=kills, processes=itertools.cycle([1, 2]))


def test_a_few_kills_at_random_moments_change_no_bit(
    cooked: Path, tmp_path: Path, unbroken: Callable[[int], Unbroken], run: Run
) -> None:
    rounds(cooked, tmp_path, unbroken, run, random.Random(0), kills=3, processes=itertools.repeat(1))
