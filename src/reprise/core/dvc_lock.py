"""What dvc.lock records of the outputs, and whether files and folders still have that content.

DVC hashes a file again only if its size or modification time has changed. A rotten disk changes neither, so
an output is hashed here where it is used.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reprise.core.errors import UserError

LOCK = Path("dvc.lock")
# Files that .dvcignore excludes wherever they are; no stage writes them to its output.
IGNORED = ("__pycache__", "*.pyc", "*.egg-info", "*.partial")


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage wrote, and its MD5 as DVC computes it."""

    stage: str
    md5: str


def read_stages(content: bytes | None = None) -> dict[str, Any]:
    """Parse the stages in dvc.lock.

    Args:
        content: of a dvc.lock; None for that of the current folder.

    Raises:
        UserError: dvc.lock is missing or damaged.
    """
    try:
        stages: dict[str, Any] = YAML(typ="safe").load(LOCK.read_bytes() if content is None else content)["stages"]
        locked_outputs(stages)
    except FileNotFoundError:
        raise UserError("not found", file=LOCK, expected="the result of `dvc repro`") from None
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError):
        raise UserError("damaged", file=LOCK, expected="the result of `dvc repro`") from None
    return stages


def locked_outputs(stages: Mapping[str, Any]) -> dict[str, Output]:
    """Return the outputs of all stages, by path."""
    return {out["path"]: Output(name, out["md5"]) for name, stage in stages.items() for out in stage.get("outs", [])}


def file_md5(file: Path) -> str:
    """Return the MD5 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def file_md5s(folder: Path, md5: Callable[[Path], str] = file_md5) -> dict[str, str]:
    """Return the MD5 of each file in a folder, by path relative to it, without files that DVC ignores."""
    files = {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
    return {
        path.as_posix(): md5(file)
        for path, file in files.items()
        if not any(fnmatch(part, pattern) for part in path.parts for pattern in IGNORED)
    }


def folder_md5(files: Mapping[str, str]) -> str:
    """Return DVC's MD5 of a folder: that of its object in the cache, a list of its files, with `.dir` appended."""
    listed = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    return f"{hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest()}.dir"


def output_md5(path: Path) -> str | None:
    """Hash a file or folder as DVC does; None if there is neither."""
    if path.is_dir():
        return folder_md5(file_md5s(path))
    return file_md5(path) if path.is_file() else None


def check_content(path: Path, copy: Path | None = None) -> None:
    """Check that an output in the current folder has the content that dvc.lock records, if there is a dvc.lock.

    Args:
        path: of the output.
        copy: where its content is, if it was copied.

    Raises:
        UserError: the content is another, or dvc.lock is damaged.
    """
    locked = locked_outputs(read_stages()).get(path.as_posix()) if LOCK.is_file() else None
    if locked and output_md5(copy or path) != locked.md5:
        raise UserError(
            f"not as {LOCK} records it: edited, damaged, or of another run",
            file=path,
            expected="what `reprise fsck` calls ok; it names the damaged files and what restores them",
        )
