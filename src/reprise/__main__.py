"""Entry point of the command line: `reprise COMMAND` and `python -m reprise COMMAND`."""

import gc
import os
import signal
import sys
from pathlib import Path

from reprise.core.display import echo


def main() -> None:
    """Run a command in the root of the current checkout, and with its source, if there is one.

    As with git, the current folder may be below the root. DVC runs queued experiments in copies of the repository,
    each with its own source, but the `reprise` on the PATH is installed from the original checkout. An experiment must
    run the code of its copy to be reproducible.
    """
    # Threads of GNU's OpenMP, which torch uses on Linux, spin for milliseconds when they wait: on a machine that others
    # use too, a step then takes up to ten times as long. This count costs nothing on a quiet one, where threads that
    # sleep at once (OMP_WAIT_POLICY=PASSIVE) cost a fifth. It is read when torch is imported, also by workers.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # Imports make a million objects that live to the end. Searching them for garbage as often as by default takes a
    # tenth of a stage.
    gc.set_threshold(10_000)
    folder = Path.cwd()
    root = next((parent for parent in (folder, *folder.parents) if (parent / ".dvc").is_dir()), folder)
    source = root / "src/reprise"
    if source.is_dir() and not source.samefile(Path(__file__).parent) and "REPRISE_REEXECUTED" not in os.environ:
        environment = {**os.environ, "PYTHONPATH": str(source.parent), "REPRISE_REEXECUTED": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "reprise", *sys.argv[1:]], environment)  # noqa: S606
    try:
        from reprise.cli import app

        os.chdir(root)
        app(prog_name="reprise", obj=folder.relative_to(root))
    except ModuleNotFoundError as error:
        # `pip install .` brings no package, since only the locks name the versions that run.
        expected = "the environment of `make setup`, or an image"
        echo(f"reprise: error: the package {error.name} is not installed; expected {expected}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:  # before a command runs, or after
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while Python ends, libraries would print a traceback


if __name__ == "__main__":
    main()
