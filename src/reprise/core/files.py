"""Read and write files atomically: an output is written beside its path and moved there once complete."""

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
    """Yield an empty directory that replaces `folder` on success.

    On failure, `folder` keeps its content. The partial directory of a killed run (`.NAME.partial`) is removed by the
    next run.
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
    """Yield a path to write to; on success it replaces `file`, on failure `file` is unchanged."""
    partial = file.with_name(f".{file.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON cannot represent.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(file) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object that another stage wrote.

    Raises:
        UserError: If the file is missing or is not valid JSON.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("not found", file=file, expected="the result of `dvc repro`") from None
    except ValueError:
        raise UserError("not valid JSON", file=file, expected="the result of `dvc repro`, which recreates it") from None
    return content


def sha256(*files: Path) -> str:
    """Return the hexadecimal SHA-256 of the concatenated contents of `files`."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
