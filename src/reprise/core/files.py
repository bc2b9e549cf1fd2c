"""Write outputs atomically and durably: complete or absent, whatever interrupts the writer and whenever.

An output is written beside its path and synced to disk. Then an earlier folder is moved aside, the new one moved to its
path, and the earlier one removed. The names beside the path end in `.partial`, which git and DVC ignore:

    .NAME.partial             what is being written
    .NAME.earlier.partial     the earlier folder, while the new one is moved to its path
    .NAME.lock.partial        locked by the process that writes

The next writer of the output removes what a killed one left, and moves an earlier folder back to a path that is empty.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from reprise.core.errors import UserError
from reprise.core.lock import write_lock


@contextmanager
def atomic_dir(folder: Path) -> Iterator[Path]:
    """Yield an empty directory that replaces `folder` on success; on failure, `folder` keeps its content.

    Raises:
        UserError: it cannot be written, or another process keeps writing it.
    """
    with _replacement(folder) as partial:
        partial.mkdir()
        yield partial


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it replaces `file`, on failure `file` is unchanged.

    Raises:
        UserError: it cannot be written, or another process keeps writing it.
    """
    with _replacement(file) as partial:
        yield partial


@contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """Yield a free path; what is written there replaces `path` on success."""
    partial, earlier, lock = (path.with_name(f".{path.name}{part}.partial") for part in ("", ".earlier", ".lock"))

    def settle() -> None:
        """Bring back the earlier folder if there is no new one, and remove everything else."""
        if earlier.exists() and not path.exists():
            earlier.rename(path)
        remove(partial)
        remove(earlier)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_lock(lock, f"write {path}"):
            settle()
            try:
                yield partial
                fsync_tree(partial)
                if partial.is_dir() and path.exists():
                    path.rename(earlier)
                partial.replace(path)
                fsync(path.parent)
            finally:
                with suppress(OSError):  # the next writer tries again
                    settle()
    except Exception as error:
        if line := write_error(error, partial, path):
            raise line from error
        raise


def write_error(error: Exception, partial: Path, path: Path) -> UserError | None:
    """Turn a full disk, missing permissions and the like into one line that names the output.

    Args:
        error: raised while the output was being written.
        partial: where it was being written.
        path: the output.

    Returns:
        The error; None for any other, such as one about a file elsewhere that cannot be read.
    """
    named, number = partial, 0
    if isinstance(error, UserError):
        named = Path(error.file)
    elif isinstance(error, OSError):
        number = error.errno or 0
        named = Path(error.filename) if isinstance(error.filename, str | Path) else partial
    elif found := re.search(r"\(os error (\d+)\)", str(error)):  # libraries in Rust, such as tokenizers
        number = int(found[1])
    inside = named.is_relative_to(partial)
    ours = inside or named.name.startswith(f".{path.name}.")
    file = path / named.relative_to(partial) if inside else path
    if isinstance(error, UserError):
        return UserError(error.problem, file=file, key=error.key, expected=error.expected) if ours else None
    if number in (0, errno.ENOENT) or not (ours or path.is_relative_to(named)):  # without a file: a mistake of Reprise
        return None
    expected = "space and permission to write it, also for temporary files; earlier results are kept"
    return UserError(os.strerror(number), file=file, expected=expected)


def remove(path: Path) -> None:
    """Remove a file, a folder with its content, or a link, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fsync_tree(path: Path) -> None:
    """Flush a file, or a folder with all files below it, to disk."""
    for each in path.rglob("*"):
        fsync(each)
    fsync(path)


def fsync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def scratch_dir(purpose: str) -> Iterator[Path]:
    """Yield an empty folder in the system's folder for temporary files, and remove those that killed runs left.

    A run holds a lock in its folder, so that no other run removes it.
    """
    place = Path(tempfile.gettempdir())
    for lock in place.glob("reprise-*/lock"):
        with suppress(OSError, Timeout), FileLock(lock, blocking=False):
            if lock.parent.stat().st_uid == os.getuid():
                shutil.rmtree(lock.parent)
    with tempfile.TemporaryDirectory(prefix=f"reprise-{purpose}-") as folder:
        made = Path(folder) / "made"
        with FileLock(made):
            made.rename(Path(folder) / "lock")  # it is never seen without its holder
            (Path(folder) / "files").mkdir()
            yield Path(folder) / "files"


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON cannot represent.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(file) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object that another stage wrote.

    Raises:
        UserError: If the file is missing or is not valid JSON.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("not found", file=file, expected="the result of `dvc repro`") from None
    except ValueError:
        raise UserError("not valid JSON", file=file, expected="the result of `dvc repro`, which recreates it") from None
    return content


def json_sha256(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, independent of the order of its keys and of the layout of a file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(*files: Path) -> str:
    """Return the hexadecimal SHA-256 of the concatenated contents of `files`."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
