"""Entry point of the command line: `reprise COMMAND` and `python -m reprise COMMAND`."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run a command with the source of the current checkout, if there is one.

    DVC runs queued experiments in copies of the repository, each with its own source, but the `reprise` on the PATH is
    installed from the original checkout. An experiment must run the code of its copy to be reproducible.
    """
    source = Path("src/reprise")
    if source.is_dir() and not source.samefile(Path(__file__).parent) and "REPRISE_REEXECUTED" not in os.environ:
        environment = {**os.environ, "PYTHONPATH": "src", "REPRISE_REEXECUTED": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "reprise", *sys.argv[1:]], environment)  # noqa: S606
    from reprise.cli import app

    app(prog_name="reprise")


if __name__ == "__main__":
    main()
