"""The notebook runs on tiny data, and its committed outputs are those of one run on the real data."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from tiny import ROOT, Run

NOTEBOOK = Path("notebooks/finetune.ipynb")
LAUNCH = "for processes, curve in curves.items():"


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run the notebook's cells in the folder of its file, as Jupyter does."""
    at = {"metadata": {"path": str(folder / NOTEBOOK.parent)}}
    return NotebookClient(notebook, timeout=400, kernel_name="python3", resources=at).execute()


def printed(notebook: NotebookNode) -> str:
    """Return all text outputs of a run."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a Jupyter path with a kernel `python3` that uses the Python of the tests."""
    folder = tmp_path_factory.mktemp("jupyter")
    write_kernel_spec(folder / "kernels/python3")
    return str(folder)


@pytest.fixture(autouse=True)
def quiet(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", kernel)
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def committed() -> NotebookNode:
    """Return the committed notebook with its outputs."""
    notebook = nbformat.read(ROOT / NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def test_the_notebook_runs_and_two_processes_give_the_losses_of_one(repo_copy: Path, committed: NotebookNode) -> None:
    prepared = {file: file.read_bytes() for file in (repo_copy / "data/prepared").iterdir()}
    (launch,) = (number for number, cell in enumerate(committed.cells) if LAUNCH in cell.source)
    second_launch = nbformat.v4.new_code_cell(committed.cells[launch].source)
    cells = [*committed.cells[:launch], second_launch, *committed.cells[launch:]]  # running a cell twice must work
    notebook = execute(NotebookNode({**committed, "cells": cells}), repo_copy)

    output = printed(notebook)
    assert output.count("world size 1, ranks [0], different process ids: 1") == 2
    assert output.count("world size 2, ranks [0, 1], different process ids: 2") == 2
    assert float(re.search(r"difference between one process and two: (\S+)", output)[1]) <= 1e-6
    by_hand, validated, tested, accelerated = (float(value) for value in re.findall(r"accuracy': '?([\d.]+)", output))
    assert all(0 < accuracy <= 1 for accuracy in (by_hand, validated, tested))
    assert accelerated == by_hand
    # No files may be added beside the data, whose digest they would change.
    assert {file: file.read_bytes() for file in (repo_copy / "data/prepared").iterdir()} == prepared


def test_without_prepared_data_the_notebook_names_the_command_to_run(
    repo: Path, tmp_path: Path, committed: NotebookNode
) -> None:
    folder = tmp_path / "repo"
    shutil.copytree(repo / NOTEBOOK.parent, folder / NOTEBOOK.parent)
    with pytest.raises(CellExecutionError, match="models/pretrained/model: not found; run `dvc repro prepare` first"):
        execute(NotebookNode({**committed, "cells": committed.cells[:4]}), folder)


def test_the_committed_outputs_are_from_one_complete_run_without_machine_paths(
    committed: NotebookNode,
) -> None:
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len({cell.id for cell in committed.cells}) == len(committed.cells)
    assert committed.metadata.kernelspec.name == "python3"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert "world size 2, ranks [0, 1], different process ids: 2" in printed(committed)
    kept = nbformat.writes(committed)
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr|opt|Users)/|site-packages|\.local/", kept)
    assert len(kept) < 40_000


def test_the_notebook_passes_the_linter(run: Run) -> None:
    run(ROOT, "ruff", "check", str(NOTEBOOK))
    run(ROOT, "ruff", "format", "--check", str(NOTEBOOK))


def test_importing_reprise_initialises_no_device_so_notebooks_can_fork() -> None:
    program = """
import importlib, pkgutil, sys
import reprise
for module in pkgutil.walk_packages(reprise.__path__, "reprise."):
    if not module.name.startswith("reprise.train.") or not module.name.endswith("_kernel"):
        # The others need Triton, which only the GPUs' locks have.
        importlib.import_module(module.name)
import torch
from accelerate.state import AcceleratorState, PartialState
assert "reprise.train.engines.accelerate" in sys.modules
assert not torch.cuda.is_initialized()
assert not torch.distributed.is_initialized()
assert PartialState._shared_state == {} == AcceleratorState._shared_state
"""
    subprocess.run([sys.executable, "-c", program], check=True)
