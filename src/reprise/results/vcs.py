"""git and DVC, run as a user would run them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from reprise.core.errors import UserError


def dvc(*arguments: str, folder: Path = Path()) -> int:
    """Run a dvc command in a folder, with its progress on the terminal, and return its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the terminal tells DVC and its stage too, and they end in their own way
            first.
    """
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        code = subprocess.call([find_program("dvc"), *arguments], cwd=folder, env=subprocess_env())
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
    return code


def check_output(*command: str, folder: Path = Path()) -> str:
    """Run a command of git or dvc and return what it prints.

    Raises:
        UserError: it fails; its own words are in the message.
    """
    called = [find_program(command[0]), *command[1:]]
    done = subprocess.run(called, cwd=folder, env=subprocess_env(), capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"{' '.join(command)}: failed in {folder.absolute()}: {said}")
    return done.stdout.strip()


def try_output(*command: str, folder: Path = Path()) -> str | None:
    """The same where the answer may be no: None where the command fails."""
    try:
        return check_output(*command, folder=folder)
    except UserError:
        return None


def resolve_commit(revision: str) -> str:
    """The full hash of a commit of the repository whose root we stand in, whatever git calls it.

    Raises:
        UserError: git does not know it, or we stand below the root.
    """
    below = try_output("git", "rev-parse", "--show-prefix")
    if below:
        raise UserError(f"{below}: expected to be run in the repository's root, not below it")
    commit = try_output("git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if not commit:
        raise UserError(f"{revision}: expected a commit of this git repository: a branch, a tag or a hash")
    return commit


def find_program(name: str) -> str:
    """A program of this environment, or else of the system."""
    ours = Path(sys.executable).with_name(name)
    return str(ours) if ours.exists() else name


def subprocess_env() -> dict[str, str]:
    """What lets DVC find this environment's `reprise`, which goes by the source that lies where it is started."""
    there = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "REPRISE_REEXECUTED")}
    return there | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
