"""Whether the processes of a host still live, which torchrun may not get to see: cut off from host 0, it waits for it.

Each holds a lock on a file for as long as it lives. However it ends, the kernel lets go.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where launch.py looks for life.
ALIVE = "REPRISE_ALIVE_FILE"


@contextmanager
def living() -> Iterator[None]:
    """Be seen to live, and in the end that nothing failed; an exception says that it did."""
    with Path(os.environ.get(ALIVE, os.devnull)).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
        file.write("well")


class Watch:
    """Says when processes that failed ended so long ago that nothing more is to be expected of torchrun."""

    def __init__(self, file: Path, patience: float) -> None:
        """`patience` is in seconds; `file` is theirs."""
        file.touch()
        self.file, self.patience = file, patience
        self.began, self.ended = False, 0.0

    def is_over(self) -> bool:
        """Whether it is so long since the last of them ended, none has followed, and they did not end well."""
        with self.file.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.began, self.ended = True, time.monotonic()
                return False
            late = time.monotonic() - self.ended > self.patience
            return self.began and late and not file.read()
