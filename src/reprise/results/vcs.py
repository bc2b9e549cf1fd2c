"""Run git and DVC as a user would."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from reprise.core.errors import UserError


def dvc(*arguments: str, folder: Path = Path()) -> int:
    """Run a dvc command in a folder with its output on the terminal; return its exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. The terminal signals DVC and its stage too, so both shut down first.
    """
    received: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        code = subprocess.call([find_program("dvc"), *arguments], cwd=folder, env=subprocess_env())
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        raise KeyboardInterrupt
    return code


def check_output(*command: str, folder: Path = Path()) -> str:
    """Run a git or dvc command and return its output.

    Raises:
        UserError: the command fails; the message holds its stderr on one line.
    """
    program = [find_program(command[0]), *command[1:]]
    try:
        done = subprocess.run(program, cwd=folder, env=subprocess_env(), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:  # an image that serves has no git
        raise UserError("not found", file=error.filename, key=" ".join(command)) from None
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"failed in {folder.absolute()}: {reason}", key=" ".join(command))
    return done.stdout.strip()


def try_output(*command: str, folder: Path = Path()) -> str | None:
    """Run a git or dvc command and return its output, None if it fails."""
    try:
        return check_output(*command, folder=folder)
    except UserError:
        return None


def resolve_commit(revision: str) -> str:
    """Return the full hash of a revision; the current folder must be the repository's root.

    Raises:
        UserError: git does not find the revision, or the current folder is below the root of its repository.
    """
    subfolder = try_output("git", "rev-parse", "--show-prefix")
    if subfolder:
        raise UserError(file=subfolder, expected="the project to be the root of its git repository")
    commit = try_output("git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if not commit:
        raise UserError(key=revision, expected="a commit of this git repository: a branch, a tag or a hash")
    return commit


def check_experiments(root: Path) -> None:
    """Check that DVC can run experiments in copies of a repository, and keep their results.

    Raises:
        UserError: the path is not ASCII, which DVC cannot write to a copy's configuration, or the clone is shallow,
            from which DVC loses the experiment without an error.
    """
    if not str(root).isascii():
        raise UserError("not an ASCII path", file=root, expected="one, for DVC's experiments: move the repository")
    if try_output("git", "rev-parse", "--is-shallow-repository", folder=root) == "true":
        expected = "the full history, since DVC loses the experiment else: run `git fetch --unshallow`"
        raise UserError("a shallow clone", file=root, expected=expected)


def find_program(name: str) -> str:
    """Return the path of a program of this Python environment, or its name if the environment lacks it."""
    installed = Path(sys.executable).with_name(name)
    return str(installed) if installed.exists() else name


def subprocess_env() -> dict[str, str]:
    """Return the environment for git and DVC, so that stages find `reprise` where this environment is not activated.

    `PYTHONPATH` is dropped: the `reprise` of a stage uses the source of the folder in which it starts.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "REPRISE_REEXECUTED")}
    programs, path = str(Path(sys.executable).parent), os.environ["PATH"].split(os.pathsep)
    return inherited | {"PATH": os.pathsep.join(path if programs in path else [programs, *path])}
