"""Imports of the train stage: no cycle between its modules, and no torch before the options are checked."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import ROOT, write_params

TRAIN = ROOT / "src/reprise/train"


def imports_within_train() -> dict[str, set[str]]:
    """The modules of train/ that each of them imports, also within functions."""
    names = {
        ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"): file
        for file in TRAIN.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not node.level, f"{file}: relative import"
                found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[name] = found & names.keys()
    return graph


def test_modules_of_train_have_no_import_cycle() -> None:
    graph = imports_within_train()
    assert "reprise.train.worker" in graph["reprise.train.stage"]  # within a function
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


# Runs the command line and prints whether torch was imported, however the command ends.
PROGRAM = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules))
from reprise.cli import app
app(prog_name="reprise")
"""


@pytest.mark.parametrize(
    ("options", "changes", "problem"),
    [
        (["--processes", "0"], {}, "--processes"),
        (["--nodes", "2"], {}, "--rendezvous: got none; expected HOST:PORT of host 0"),
        (["--profile", "fdsp"], {}, "docker/cpu/fdsp.yaml: not found"),
        ([], {"train.engine": "keras"}, "params.yaml: train.engine"),
        (["--processes", "2"], {"train.engine": "pytorch"}, "train.engine: pytorch trains in one process"),
        (["--profile", "fsdp"], {"train.engine": "trainer"}, "train.engine: trainer needs the full model"),
    ],
    ids=["processes", "rendezvous", "profile", "unknown engine", "engine", "fsdp"],
)
def test_wrong_options_are_refused_without_importing_torch(
    workdir: Path, options: list[str], changes: dict[str, str], problem: str
) -> None:
    write_params(workdir, **changes)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "train", *options], cwd=workdir, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stdout == "False\n"


def test_launcher_of_several_processes_does_not_import_torch(workdir: Path) -> None:
    (workdir / "data/prepared/stats.json").unlink()
    options = ["train", "--processes", "2"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *options], cwd=workdir, capture_output=True, text=True)
    assert done.stderr.startswith("reprise: error: data/prepared/stats.json: not found")
    assert done.stdout == "False\n"
