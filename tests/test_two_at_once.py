"""Two commands at once in one folder: as one after the other, or one is refused in one line; nothing is mixed."""

import itertools
import shutil
from pathlib import Path

import pytest

from interrupts import Running, results
from reprise.core.validation import read_recipe
from tiny import Run

# In the trained repository, each of these repeats what is there: its results have the same bits.
LIGHT = {
    "environment": "",
    "sources": "",
    "fetch": "",
    "prepare": "",
    "check-data": "",
    "teacher": "",
    "preflight": "",
    "train": "",
    "evaluate": "",
    "summary": "",
    "predict": "--file data/own/reviews.csv --out report/labels.jsonl",
    "export": "report/exported",
    "report": "",
    "compare": "HEAD workspace",
    "seeds": "-n 1",
    "prune": "--yes",
}
HEAVY = {"verify": "", "seed-noise": "", "parity": "--engines --steps 2"}
OFFLINE = {"PIP_NO_INDEX": "1"}  # the composed recipe has its data in the package index
DEFAULT = {("prepare", "evaluate")}
PAIRS = [
    pytest.param(*pair, marks=[] if pair in DEFAULT else pytest.mark.full, id="-".join(pair))
    for pair in [
        *itertools.combinations_with_replacement(LIGHT, 2),
        *itertools.product(HEAVY, LIGHT),
        *itertools.combinations_with_replacement(HEAVY, 2),
    ]
]


@pytest.fixture(scope="module")
def folder(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the trained repository for all pairs of this worker."""
    return Path(shutil.copytree(trained_repo, tmp_path_factory.mktemp("pairs") / "repo", symlinks=True))


def run_both(folder: Path, *commands: str) -> list[tuple[int, str]]:
    """Run two commands at once; return exit code and last line on stderr of each, and check that there is no more."""
    with (
        Running(folder, "reprise", *commands[0].split(), env=OFFLINE) as one,
        Running(folder, "reprise", *commands[1].split(), env=OFFLINE) as two,
    ):
        codes = [each.process.wait(timeout=280) for each in (one, two)]
    for each in (one, two):
        assert "Traceback" not in each.stderr
    return [(code, (each.stderr.splitlines() or [""])[-1]) for code, each in zip(codes, (one, two), strict=True)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_commands_at_once_are_as_one_after_the_other(
    folder: Path, trained_repo: Path, run: Run, first: str, second: str
) -> None:
    arguments = LIGHT | HEAVY
    ended = run_both(folder, f"{first} {arguments[first]}", f"{second} {arguments[second]}")
    refused = [line for code, line in ended if code]
    assert [code for code, _ in ended if code not in (0, 2)] == []
    # The other one has the lock, wrote the folder that must be empty, or has trained without `dvc repro`.
    allowed = [".lock: held by", "report/exported", *(["out of date: train"] if "train" in (first, second) else [])]
    assert all(any(text in line for text in allowed) for line in refused), refused
    assert len(refused) < 2
    assert results(folder) == results(trained_repo)
    shutil.rmtree(folder / "report", ignore_errors=True)
    shutil.rmtree(folder / "reference", ignore_errors=True)
    changed = run(folder, "git", "status", "--porcelain", "--untracked-files=all").stdout.split()[1::2]
    assert set(changed) <= {"metrics/speed.json", "metrics/provenance.json", "dvc.lock"}
    assert not [*folder.rglob("*.partial"), *folder.glob(".reprise*")]
    run(folder, "git", "checkout", "-q", "--", "metrics", "dvc.lock")


@pytest.mark.parametrize("other", ["compose", *(pytest.param(name, marks=pytest.mark.full) for name in LIGHT)])
def test_recipe_composed_while_a_command_runs_is_complete(repo_copy: Path, run: Run, other: str) -> None:
    arguments = {"compose": "seed=44"} | LIGHT
    before = results(repo_copy)
    ended = run_both(repo_copy, "compose seed=43", f"{other} {arguments[other]}")
    assert ended[0] == (0, "")
    code, line = ended[1]
    assert code in (0, 2), line
    assert code == 0 or line.startswith("reprise: error: ")
    assert read_recipe(repo_copy / "params.yaml").seed in (43, 44)
    if code:
        assert results(repo_copy) == before
    assert not [*repo_copy.rglob("*.partial"), *repo_copy.glob(".reprise*")]
