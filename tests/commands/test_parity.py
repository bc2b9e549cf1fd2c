"""`reprise parity` with a second backend on the CPU; XLA itself is tested in tests/e2e/test_xla.py."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from tiny import Run, write_params


def give_second_backend(folder: Path, before: str = "") -> None:
    """Create an XLA environment whose Python is this one, computing on the CPU."""
    python = folder / ".venv-xla/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n{before}\nREPRISE_HARDWARE=cpu exec {sys.executable} "$@"\n')
    python.chmod(0o755)


@pytest.mark.full
def test_losses_of_every_backend_are_printed_and_saved_for_a_plot(repo_copy: Path, run: Run) -> None:
    give_second_backend(repo_copy)
    before = {file: file.read_bytes() for file in sorted((repo_copy / "metrics").iterdir())}
    write_params(repo_copy, **{"train.precision": "bf16"})
    done = run(repo_copy, "reprise", "parity", "--steps", "4", env={"COLUMNS": "80"})
    assert "exact: fp32; the backends agree to 1e-05" in done.stdout
    assert "…" not in done.stdout, "the table fits a terminal of 80 columns"
    curves = pd.read_csv(repo_copy / "plots/parity.csv")
    assert list(curves.columns) == ["kind", "backend", "step", "loss"]
    by_backend = curves.pivot_table(index=["kind", "step"], columns="backend", values="loss")
    assert by_backend.shape == (8, 2)
    assert (by_backend["cpu"] == by_backend["xla"]).all()
    exact, recipe = (by_backend.loc[kind, "cpu"].to_numpy() for kind in ("fp32", "bf16"))
    assert (exact != recipe).all(), "one of them is rounded"
    assert before == {file: file.read_bytes() for file in sorted((repo_copy / "metrics").iterdir())}


@pytest.mark.full
def test_dvc_plots_the_losses_of_the_backends(repo_copy: Path, run: Run) -> None:
    give_second_backend(repo_copy)
    run(repo_copy, "reprise", "parity", "--steps", "2")
    run(repo_copy, "dvc", "plots", "show", "plots/parity.csv", "--template", "parity", "-x", "step", "-y", "loss")
    assert "The first steps on each backend" in (repo_copy / "dvc_plots/index.html").read_text()


@pytest.mark.full
def test_backends_that_do_not_agree_exit_with_1(repo_copy: Path, run: Run) -> None:
    give_second_backend(repo_copy, before="sed -i 's/weight_decay: .*/weight_decay: 9.0/' params.yaml")
    done = run(repo_copy, "reprise", "parity", "--steps", "4", code=1)
    assert "the backends do NOT agree to 1e-05" in done.stdout


def test_a_single_backend_is_refused_with_the_command_to_add_one(repo_copy: Path, run: Run) -> None:
    done = run(repo_copy, "reprise", "parity", code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("reprise: error: parity: only cpu found; expected ")
    assert line.endswith("make setup VENV=.venv-xla LOCKS=docker/tpu")


def test_missing_data_is_refused_in_one_line(repo: Path, tmp_path: Path, reprise: Run) -> None:
    give_second_backend(tmp_path)
    (tmp_path / "params.yaml").write_bytes((repo / "params.yaml").read_bytes())
    shutil.copytree(repo / "docker", tmp_path / "docker")
    done = reprise(tmp_path, "parity", code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("reprise: error: data/prepared/stats.json: not found; expected ")


@pytest.mark.full
def test_a_backend_that_fails_is_named(repo_copy: Path, run: Run) -> None:
    give_second_backend(repo_copy, before="exit 3")
    done = run(repo_copy, "reprise", "parity", "--steps", "2", code=2)
    assert ".venv-xla/bin/python: `reprise train` failed, see above; " in done.stderr


@pytest.mark.full
def test_engines_are_bit_identical(repo_copy: Path, run: Run) -> None:
    done = run(repo_copy, "reprise", "parity", "--engines", "--steps", "3", env={"COLUMNS": "80"})
    assert "Losses and weights of the engines are bit-identical" in done.stdout
    largest = [line for line in done.stdout.splitlines() if "largest" in line]
    assert [line.count("0.0e+00") for line in largest] == [1]
    assert "…" not in done.stdout, "the tables fit a terminal of 80 columns"
    assert all(engine in done.stdout for engine in ("accelerate", "trainer", "pytorch"))
