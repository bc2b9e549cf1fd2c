"""The door to the command line: `reprise VERB` and `python -m reprise VERB`."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the verb with the code of the checkout that we stand in.

    DVC's queued experiments work in copies of the repository, each with its own source, while the `reprise` on the PATH
    belongs to the one that was installed. An experiment that ran somebody else's code would not be reproducible.
    """
    here = Path("src/reprise")
    if here.is_dir() and not here.samefile(Path(__file__).parent) and "REPRISE_REEXECUTED" not in os.environ:
        environment = {**os.environ, "PYTHONPATH": "src", "REPRISE_REEXECUTED": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "reprise", *sys.argv[1:]], environment)  # noqa: S606
    from reprise.cli import app

    app(prog_name="reprise")


if __name__ == "__main__":
    main()
