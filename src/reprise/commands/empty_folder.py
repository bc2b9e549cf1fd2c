"""The folder that a command writes: an earlier one is never replaced."""

from pathlib import Path

from reprise.core.errors import UserError


def empty_folder(folder: Path) -> Path:
    """Check that a folder is free to be written, before any work; return its path, of a link the one it points to.

    Raises:
        UserError: it has a file, or it or a parent is one.
    """
    target = folder.resolve()
    blocked = any(parent.is_file() for parent in target.parents) or target.is_file()
    if blocked or (target.is_dir() and any(target.iterdir())):
        raise UserError(file=folder, expected="a folder that is empty or does not exist")
    return target
