"""Find the user's own tables and model under data/own/, which DVC tracks as a dependency."""

import hashlib
from pathlib import Path

from reprise.core.config import LocalDataset, LocalModel
from reprise.core.errors import UserError
from reprise.data.readers import check_file, format_suffix


def find_dataset(source: LocalDataset) -> list[tuple[str, Path]]:
    """Check the user's files and assign them to splits.

    Args:
        source: Names a file or a folder for each split. The files of a folder form one table.

    Returns:
        Pairs of split name and file. A single table has the split name "all"; `task.split` divides it later.

    Raises:
        UserError: If a file is missing or does not match its extension, two files have the same content, or a folder
            has no files or several formats.
    """
    given = {"train": source.train, "validation": source.validation, "test": source.test}
    paths = {split: Path(path) for split, path in given.items() if path is not None}
    found = []
    for split, path in paths.items():
        files = _files(path, f"task.source.{split}")
        for file in files:
            check_file(file)
        found += [(split if len(paths) > 1 else "all", file) for file in files]
    _check_different([file for _, file in found])
    return found


def _check_different(files: list[Path]) -> None:
    """Refuse a file that is given twice, or copied: its rows would count twice, or be both trained on and evaluated."""
    sizes = [file.stat().st_size for file in files]
    seen: dict[str, Path] = {}
    for file, size in zip(files, sizes, strict=True):
        if sizes.count(size) > 1:
            with file.open("rb") as stream:
                other = seen.setdefault(hashlib.file_digest(stream, "sha256").hexdigest(), file)
            if other is not file:
                raise UserError(f"the same rows as {other}", file=file, key="task.source", expected="different files")


def _files(path: Path, key: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise UserError(f"{'empty folder' if path.is_dir() else 'not found'} ({key})", file=path)
    if others := {format_suffix(file) for file in files} - {format_suffix(files[0])}:
        formats = f"{format_suffix(files[0])} and {min(others)}"
        raise UserError(f"{formats} files ({key})", file=path, expected="files of one format")
    return files


def find_model(source: LocalModel) -> Path:
    """Return the user's model folder, which has the layout of a Hub repository.

    Raises:
        UserError: If the folder does not exist.
    """
    folder = Path(source.path)
    if not folder.is_dir():
        raise UserError(
            "not found (model.source.path)", file=folder, expected="a folder with config.json and safetensors"
        )
    return folder
