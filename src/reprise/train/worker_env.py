"""What launcher (stage.py) and workers (worker.py) exchange: variables and three files.

The launcher creates the stop file when it receives a signal, and a worker that stopped writes its message there. An
error of all ranks goes to the error file. Each worker locks the liveness file while it runs.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reprise.core.display import echo
from reprise.train.distributed.launch_config import LaunchConfig

WORLD_SIZE = "REPRISE_WORLD_SIZE"
TIMEOUT = "REPRISE_TIMEOUT"
STOP_FILE = "REPRISE_STOP_FILE"
ERROR_FILE = "REPRISE_ERROR_FILE"
LIVENESS_FILE = "REPRISE_LIVENESS_FILE"


@dataclass(frozen=True)
class WorkerEnv:
    """What a worker receives; the defaults are those of a single process without a launcher."""

    world_size: int = 1  # processes on all hosts together
    timeout: int = LaunchConfig.timeout  # seconds
    stop_file: Path | None = None
    error_file: Path | None = None
    liveness_file: Path | None = None

    def variables(self) -> dict[str, str]:
        """Return the environment variables that pass this to a worker."""
        values = {
            WORLD_SIZE: self.world_size,
            TIMEOUT: self.timeout,
            STOP_FILE: self.stop_file,
            ERROR_FILE: self.error_file,
            LIVENESS_FILE: self.liveness_file,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    @classmethod
    def read(cls) -> Self:
        """Read the environment variables of this process."""
        stop, error, liveness = (
            Path(os.environ[name]) if name in os.environ else None for name in (STOP_FILE, ERROR_FILE, LIVENESS_FILE)
        )
        return cls(
            int(os.environ.get(WORLD_SIZE, cls.world_size)), int(os.environ.get(TIMEOUT, cls.timeout)),
            stop, error, liveness,
        )  # fmt: skip


def write_message(file: Path | None, message: str) -> None:
    """Write a message for the launcher; without a file, print it to stderr."""
    if file is None:
        echo(message, err=True)
    else:
        file.write_text(message, encoding="utf-8")


def read_message(file: Path) -> str:
    """Read the message of a worker; "" if there is none."""
    return file.read_text(encoding="utf-8") if file.exists() else ""
