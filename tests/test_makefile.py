"""Variables of make are data: no shell runs what they hold, and the environment does not set them."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny import ROOT

# A program that records its name and arguments.
STUB = """#!/bin/bash
{ printf '%s' "${0##*/}"; [ $# = 0 ] || printf '\\x1f%s' "$@"; echo; } >> calls
"""
Make = Callable[..., list[list[str]]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run make in a set-up checkout whose programs are stubs; return their calls."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("reprise", "dvc", "python"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    (tmp_path / ".venv/.installed").touch()

    def make(*arguments: str, **env: str) -> list[list[str]]:
        subprocess.run(["make", "--silent", *arguments], cwd=tmp_path, env={**os.environ, **env}, check=True)
        calls = (tmp_path / "calls").read_text().splitlines()
        assert not list(tmp_path.glob("pwned*")), "a value was run"
        return [line.split("\x1f") for line in calls]

    return make


ATTACKS = ["x; touch pwned", "$(touch pwned)", "$$(touch pwned)", "`touch pwned`", "$(shell touch pwned)"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_value_of_train_runs(make: Make, attack: str) -> None:
    (composed, ran, summarised) = make(
        "train", f"TASK={attack}", f"MODEL={attack}", f"TRAIN={attack}", f"ARGS=-S train.epochs='{attack}'"
    )
    assert composed[:2] == ["reprise", "compose"]
    assert ran[:4] == ["dvc", "exp", "run", "-S"]
    assert summarised == ["reprise", "summary"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_name_of_a_file_runs(make: Make, attack: str) -> None:
    (made, ran, _) = make("train", f"DATA={attack}")
    assert made[:3] == ["reprise", "init", "--"]
    assert ran == ["dvc", "repro"]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("target", ["seeds N={} ARGS={}", "report RUNS={}", "verify REV={}"])
def test_no_value_of_other_targets_runs(make: Make, attack: str, target: str) -> None:
    name, *variables = target.split(" ")
    ((program, verb, *_),) = make(name, *(variable.format(attack) for variable in variables))
    assert (program, verb) == ("reprise", name)


def test_the_environment_sets_no_variable(make: Make) -> None:
    exported = dict.fromkeys(["DATA", "TASK", "MODEL", "TRAIN", "ARGS", "N", "RUNS", "REV", "STRICT"], "mrpc")
    assert make("train", **exported) == [["dvc", "repro"], ["reprise", "summary"]]


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (["train"], [["dvc", "repro"], ["reprise", "summary"]]),
        (
            ["train", "TASK=mrpc", "MODEL=minilm", "ARGS=-S train.epochs=3 -S 'task.labels=[a, b]'"],
            [
                ["reprise", "compose", "task=mrpc", "model=minilm"],
                ["dvc", "exp", "run", "-S", "train.epochs=3", "-S", "task.labels=[a, b]"],
                ["reprise", "summary"],
            ],
        ),
        (
            ["train", "DATA=my reviews.csv"],
            [["reprise", "init", "--", "my reviews.csv"], ["dvc", "repro"], ["reprise", "summary"]],
        ),
        (
            ["train", "DATA=-x.csv", "TASK=mine", "MODEL=minilm", "TRAIN=lora"],
            [
                ["reprise", "init", "--name", "mine", "-S", "model=minilm", "-S", "train=lora", "--", "-x.csv"],
                ["dvc", "repro"],
                ["reprise", "summary"],
            ],
        ),
        (["train", "TRAIN=lora"], [["reprise", "compose", "train=lora"], ["dvc", "repro"], ["reprise", "summary"]]),
        # Queued experiments have no metrics yet.
        (
            ["train", "ARGS=-S 'train.learning_rate=2e-5,5e-5' --queue"],
            [["dvc", "exp", "run", "-S", "train.learning_rate=2e-5,5e-5", "--queue"]],
        ),
        (["seeds"], [["reprise", "seeds", "-n", "5"]]),
        (["seeds", "N=3", "ARGS=-S train.epochs=1"], [["reprise", "seeds", "-n", "3", "-S", "train.epochs=1"]]),
        (["report", "RUNS=main *"], [["reprise", "report", "main", "*"]]),
        (["verify", "REV=v1", "STRICT=1"], [["reprise", "verify", "v1", "--strict"]]),
        (["bench-data"], [["python", "benchmarks/data.py", "100000", "1000000"]]),
    ],
)
def test_targets_pass_their_variables_on(make: Make, arguments: list[str], calls: list[list[str]]) -> None:
    assert make(*arguments) == calls
