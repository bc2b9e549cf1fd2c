"""Outputs that are whole or absent: everything is written beside its place and moved into it at the end."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reprise.core.errors import UserError


@contextmanager
def atomic_dir(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it takes the place of `folder`, else `folder` stays as it was.

    What a killed run left half-made (`.NAME.partial`) is removed by the next one.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it takes the place of `file`, on any failure `file` stays as it was."""
    partial = file.with_name(f".{file.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON that people and diffs can read. NaN and infinity are refused: they are not JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(file) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object that another stage wrote.

    Raises:
        UserError: the file is not there, or was damaged since.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: not found; expected the result of `dvc repro`") from None
    except ValueError:
        raise UserError(f"{file}: not JSON; expected the result of `dvc repro`, which makes it anew") from None
    return content


def sha256(*files: Path) -> str:
    """The SHA-256 of a file, or of the bytes of several one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            hashlib.file_digest(opened, lambda: digest)
    return digest.hexdigest()
