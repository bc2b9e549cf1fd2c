"""Detect that all workers of this host are dead.

torchrun waits if the connection to host 0 is lost. So each worker holds a shared lock on a file, and the kernel
releases it however the worker ends.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def liveness_lock(file: Path | None) -> Iterator[None]:
    """Hold a shared lock while running; mark a clean exit. Without a launcher there is no file."""
    with (file or Path(os.devnull)).open("a", encoding="utf-8") as opened:
        fcntl.flock(opened, fcntl.LOCK_SH)
        yield
        opened.write("clean exit")


class LivenessMonitor:
    """Watches the workers' file."""

    def __init__(self, file: Path, timeout: float) -> None:
        """Create the file; failed workers may be restarted within `timeout` seconds."""
        file.touch()
        self.file, self.timeout = file, timeout
        self.seen_alive, self.last_seen = False, 0.0

    def is_dead(self) -> bool:
        """Return whether all workers failed and none was started within the timeout."""
        with self.file.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.seen_alive, self.last_seen = True, time.monotonic()
                return False
            late = time.monotonic() - self.last_seen > self.timeout
            return self.seen_alive and late and not file.read()
