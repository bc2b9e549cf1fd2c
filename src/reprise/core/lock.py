"""One writer at a time: a lock on a file, which the kernel releases however its process ends."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from reprise.core.display import echo
from reprise.core.errors import UserError

TIMEOUT_S = 30  # a killed run may take that many seconds to end


@contextmanager
def write_lock(file: Path, command: str) -> Iterator[None]:
    """Hold a lock; if another process has it, print one line and wait for up to TIMEOUT_S.

    Args:
        file: the locked file; it names the process that holds the lock.
        command: what this process does, for that line and for others that wait.

    Raises:
        UserError: the other process keeps the lock, or the file cannot be written.
    """
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        echo(f"{command}: waiting for a lock held by another run: {_holder(file)}")
        try:
            lock.acquire(timeout=TIMEOUT_S)
        except Timeout:
            raise UserError(f"held by another run: {_holder(file)}", file=file, expected="it to end first") from None
    except OSError as error:
        raise UserError(
            os.strerror(error.errno or 0), file=file, expected="permission to write here, and space"
        ) from None
    try:
        if type(lock) is FileLock:  # where a file system has no locks, filelock has its own content for the file
            with suppress(OSError):  # only for the messages above
                file.write_text(f"{command}, process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        try:
            file.unlink(missing_ok=True)  # one that waits notices, and locks a new file
        finally:
            lock.release()


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace") or "unknown"
    except OSError:
        return "unknown"
