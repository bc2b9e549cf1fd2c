"""Outputs are complete or absent, even if an error or a signal interrupts the writer."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, atomic_file, read_json, write_json
from tiny import ROOT

ERRORS = [RuntimeError, UserError, KeyboardInterrupt, SystemExit, MemoryError]

Atomic = Callable[[Path], AbstractContextManager[Path]]


def names(folder: Path) -> list[str]:
    """Return all paths below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    """Return a folder with an earlier output."""
    folder = tmp_path / "out"
    (folder / "below").mkdir(parents=True)
    (folder / "below/old.txt").write_text("old")
    return folder


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """Return a file with an earlier output."""
    file = tmp_path / "out.txt"
    file.write_text("old")
    return file


def test_a_new_folder_replaces_the_old_one_and_its_content(old_folder: Path) -> None:
    with atomic_dir(old_folder) as partial:
        assert list(partial.iterdir()) == []
        (partial / "new.txt").write_text("new")
        assert (old_folder / "below/old.txt").read_text() == "old", "the old folder stays until the new one is complete"
    assert names(old_folder.parent) == ["out", "out/new.txt"]


def test_a_new_folder_is_created_with_its_parents(tmp_path: Path) -> None:
    with atomic_dir(tmp_path / "a/b/out") as partial:
        (partial / "new.txt").write_text("new")
        assert not (tmp_path / "a/b/out").exists()
    assert names(tmp_path / "a/b") == ["out", "out/new.txt"]


@pytest.mark.parametrize("error", ERRORS)
def test_the_old_folder_stays_if_an_error_interrupts(old_folder: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_dir(old_folder) as partial:  # noqa: PT012 - both statements are needed
        (partial / "half.txt").write_text("half")
        raise error
    assert names(old_folder.parent) == ["out", "out/below", "out/below/old.txt"]
    assert (old_folder / "below/old.txt").read_text() == "old"


@pytest.mark.parametrize("error", ERRORS)
def test_no_folder_is_created_if_an_error_interrupts(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_dir(tmp_path / "out") as partial:  # noqa: PT012
        (partial / "half.txt").write_text("half")
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", ERRORS)
def test_the_old_file_stays_if_an_error_interrupts(old_file: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_file(old_file) as partial:  # noqa: PT012
        partial.write_text("half")
        raise error
    assert names(old_file.parent) == ["out.txt"]
    assert old_file.read_text() == "old"


@pytest.mark.parametrize("error", ERRORS)
def test_no_file_is_created_if_an_error_interrupts(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_file(tmp_path / "out.txt") as partial:  # noqa: PT012
        partial.write_text("half")
        raise error
    assert names(tmp_path) == []


def test_a_new_file_replaces_the_old_one(old_file: Path) -> None:
    with atomic_file(old_file) as partial:
        partial.write_text("new")
        assert old_file.read_text() == "old"
    assert names(old_file.parent) == ["out.txt"]
    assert old_file.read_text() == "new"


def test_a_new_file_is_created_with_its_parents(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a/b/out.txt") as partial:
        partial.write_text("new")
    assert names(tmp_path) == ["a", "a/b", "a/b/out.txt"]


def test_the_old_file_stays_if_nothing_was_written(old_file: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(old_file):
        pass
    assert old_file.read_text() == "old"


@pytest.mark.parametrize("atomic", [atomic_dir, atomic_file])
def test_the_partial_output_of_a_killed_run_is_removed_by_the_next(tmp_path: Path, atomic: Atomic) -> None:
    output = tmp_path / "out"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        f"from reprise.core.files import {atomic.__name__} as atomic\n"
        "with atomic(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'half' if partial.is_dir() else partial).write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    killed = subprocess.run([sys.executable, "-c", program, str(output)], env=environment, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not output.exists()
    assert ".out.partial" in names(tmp_path)

    with atomic(output) as partial:
        (partial / "new" if partial.is_dir() else partial).write_text("new")
    assert names(tmp_path) == (["out", "out/new"] if output.is_dir() else ["out"])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_rejected_and_the_old_file_stays(old_file: Path, number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(old_file, {"deep": [{"accuracy": number}]})
    assert names(old_file.parent) == ["out.txt"]
    assert old_file.read_text() == "old"


def test_json_is_indented_and_not_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics/out.json", {"label": "süß", "accuracy": 0.5})
    written = (tmp_path / "metrics/out.json").read_text(encoding="utf-8")
    assert written == '{\n  "label": "süß",\n  "accuracy": 0.5\n}\n'


@given(
    content=st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_json_is_read_back_unchanged(tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    write_json(file, content)
    assert read_json(file) == content == json.loads(file.read_bytes())
