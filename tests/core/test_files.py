"""Outputs are complete or absent, even if an error or a signal interrupts the writer."""

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprise.core import lock
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, atomic_file, read_json, remove, scratch_dir, write_json
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


# Every call with which core/files.py and the libraries below it change the disk.
CALLS = ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir")
FATES = {"kill before": 0, "kill after": 0, "full disk": errno.ENOSPC, "no permission": errno.EACCES}


def intercept(patch: pytest.MonkeyPatch, number: int, fate: str) -> "itertools.count[int]":
    """Let the n-th of CALLS in this process end it, or fail; return the number of the next one."""
    count = itertools.count(1)

    def intercepted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(count) != number:
                return function(*arguments, **options)
            if code := FATES[fate]:
                named = arguments[0] if isinstance(arguments[0], str | Path) else None
                raise OSError(code, os.strerror(code), *([named] if named is not None else []))
            if fate == "kill after":
                with suppress(OSError):  # of a folder that exists
                    function(*arguments, **options)
            os._exit(9)  # like SIGKILL: no handler runs, and the kernel releases the locks

        return call

    for name in CALLS:
        patch.setattr(os, name, intercepted(getattr(os, name)))
    return count


def new_folder(folder: Path) -> None:
    with atomic_dir(folder) as partial:
        (partial / "below").mkdir()
        (partial / "below/new.txt").write_text("new")
        write_json(partial / "new.json", {"new": 1})


def new_file(file: Path) -> None:
    write_json(file, {"new": 1})


def content(path: Path) -> object:
    """Return the content of a file, of all files in a folder, or None."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in names(path) if (path / name).is_file()}
    return path.read_bytes() if path.exists() else None


@pytest.fixture(params=[new_folder, new_file], ids=["folder", "file"])
def writer(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Return a function that writes an output."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def versions(writer: Callable[[Path], None], tmp_path: Path) -> tuple[Path, object, object]:
    """Return an output, its content before, and its content once it is written."""
    output = tmp_path / "data/out"
    writer(tmp_path / "expected")
    if writer is new_folder:
        (output / "below").mkdir(parents=True)
        (output / "below/old.txt").write_text("old")
    else:
        output.parent.mkdir()
        output.write_text("old")
    return output, content(output), content(tmp_path / "expected")


def reset(output: Path, before: Path | None) -> None:
    """Put an earlier version in place of an output, or nothing."""
    remove(output)
    if before:
        (shutil.copytree if before.is_dir() else shutil.copy)(before, output)  # type: ignore[operator]


def interrupted(writer: Callable[[Path], None], output: Path, number: int, fate: str) -> bool:
    """Write in another process, which ends at the n-th call; return whether there are as many."""

    def write() -> None:
        intercept(pytest.MonkeyPatch(), number, fate)
        writer(output)

    child = multiprocessing.get_context("fork").Process(target=write)
    child.start()
    child.join()
    assert child.exitcode in (0, 9)
    return child.exitcode == 9


@pytest.mark.parametrize("fate", ["kill before", "kill after"])
@pytest.mark.parametrize("exists", [True, False], ids=["replaced", "new"])
def test_writer_killed_at_any_call_leaves_one_complete_version_and_the_next_cleans_up(
    writer: Callable[[Path], None], versions: tuple[Path, object, object], fate: str, exists: bool
) -> None:
    output, old, new = versions
    before = output.with_name("before")
    output.rename(before)
    if not exists:
        old = None
    seen = []
    for number in itertools.count(1):
        reset(output, before if exists else None)
        if not interrupted(writer, output, number, fate):
            break
        aside = output.with_name(".out.earlier.partial")
        left = content(aside) if aside.exists() and not output.exists() else content(output)
        assert left in (old, new), number
        seen.append(left)
        # The next writer fails, so that what it recovered is seen.
        with suppress(RuntimeError), atomic_dir(output) if writer is new_folder else atomic_file(output):
            raise RuntimeError
        assert content(output) == left, number
        assert [name.name for name in output.parent.iterdir() if name.name.startswith(".")] == []
        writer(output)
        assert content(output) == new
    assert old in seen
    assert new in seen
    assert len(seen) > 8


@pytest.mark.parametrize("fate", ["full disk", "no permission"])
def test_any_call_that_fails_is_one_line_and_keeps_a_complete_version(
    writer: Callable[[Path], None], versions: tuple[Path, object, object], fate: str
) -> None:
    output, old, new = versions
    before = output.with_name("before")
    output.rename(before)
    errors: list[UserError] = []
    for number in itertools.count(1):
        reset(output, before)
        try:
            with pytest.MonkeyPatch.context() as patch:
                count = intercept(patch, number, fate)
                writer(output)
        except UserError as error:
            errors.append(error)
            assert content(output) in (old, new), number
        else:
            assert content(output) == new, number
            if next(count) <= number:
                break
        writer(output)
        assert content(output) == new
        assert [name.name for name in output.parent.iterdir() if name.name.startswith(".")] == []
    assert len(errors) > 8
    assert {error.problem for error in errors} == {os.strerror(FATES[fate])}
    assert all(Path(error.file).is_relative_to(output) for error in errors)


def hold(folder: Path, ready: Any, done: Any) -> None:
    """Write an output, and wait in the middle."""
    with atomic_file(folder) as partial:
        partial.write_text("first")
        ready.set()
        done.wait(60)


def test_two_writers_of_an_output_wait_for_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    first = context.Process(target=hold, args=(tmp_path / "out", ready, done))
    first.start()
    assert ready.wait(60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lock, "TIMEOUT_S", 0.2)
        with pytest.raises(UserError, match=f"process {first.pid} on "), atomic_file(tmp_path / "out"):
            pytest.fail("the first one writes")
    done.set()
    with atomic_file(tmp_path / "out") as partial:
        assert not partial.exists()
        partial.write_text("second")
    first.join()
    assert first.exitcode == 0
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "second"
    assert f"write {tmp_path / 'out'}: waiting for a lock held by another run" in capsys.readouterr().out


def test_scratch_folders_of_killed_runs_are_removed_and_those_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "reprise-notes").mkdir()  # of somebody else

    def work(ready: Any, done: Any) -> NoReturn:
        with scratch_dir("work") as folder:
            (folder / "big").write_text("big")
            ready.set()
            done.wait(60)
            os._exit(9)

    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    running = context.Process(target=work, args=(ready, done))
    running.start()
    assert ready.wait(60)
    (living,) = tmp_path.glob("reprise-work-*")
    with scratch_dir("next") as folder:
        assert list(folder.iterdir()) == []
        assert (living / "files/big").is_file()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "reprise-notes", living]
    done.set()
    running.join()
    assert living.is_dir()
    with scratch_dir("next"):
        assert not living.exists()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "reprise-notes"]


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
