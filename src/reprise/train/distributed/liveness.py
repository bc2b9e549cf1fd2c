"""Whether the processes of a host still live, which torchrun may not get to see: cut off from host 0, it waits for it.

Each holds a lock on a file for as long as it lives. However it ends, the kernel lets go.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where stage.py looks for life.
LIVENESS_FILE = "REPRISE_LIVENESS_FILE"


@contextmanager
def liveness_lock() -> Iterator[None]:
    """Be seen to live, and in the end that nothing failed; an exception says that it did."""
    with Path(os.environ.get(LIVENESS_FILE, os.devnull)).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
        file.write("well")


class LivenessMonitor:
    """Says when processes that failed ended so long ago that nothing more is to be expected of torchrun."""

    def __init__(self, file: Path, patience: float) -> None:
        """`patience` is in seconds; `file` is theirs."""
        file.touch()
        self.file, self.timeout = file, patience
        self.seen_alive, self.last_seen = False, 0.0

    def is_dead(self) -> bool:
        """Whether it is so long since the last of them ended, none has followed, and they did not end well."""
        with self.file.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.seen_alive, self.last_seen = True, time.monotonic()
                return False
            late = time.monotonic() - self.last_seen > self.timeout
            return self.seen_alive and late and not file.read()
