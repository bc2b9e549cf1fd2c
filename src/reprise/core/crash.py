"""The last net: an unexpected exception is one line on the terminal, and its traceback is in a file."""

import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from reprise.core.display import echo
from reprise.core.errors import UserError


def report_exception(error: Exception) -> int:
    """Print an exception in one line.

    Returns:
        The exit code: 2 if it is the user's to mend, such as a full disk or missing permissions, also of DVC's
        databases; 70 for a mistake of Reprise.
    """
    system = isinstance(error, OSError) and error.errno is not None
    known = system or type(error).__module__ == "sqlite3"
    line = UserError(str(error) if system else f"{type(error).__name__}: {error}"[:300])
    kind = "error" if known else "internal error"
    echo(f"reprise: {kind}: {line}; the traceback {write_traceback()}", err=True)
    return 2 if known else 70


def write_traceback() -> str:
    """Write the traceback of the current exception to .dvc/tmp/, or without a repository to the system's folder.

    Returns:
        Where it is; the disk may be full.
    """
    for folder in (Path(".dvc/tmp"), None):
        with (
            suppress(OSError),
            tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", prefix="reprise-traceback-", suffix=".txt", delete=False, dir=folder
            ) as file,
        ):
            file.write(traceback.format_exc())
            file.flush()
            return f"is in {Path(file.name)}"
    return "cannot be written"
