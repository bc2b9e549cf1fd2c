"""Find the user's own tables and model under data/own/, which DVC tracks as a dependency."""

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
        UserError: If a file is missing or does not match its extension, or a folder has no files or several formats.
    """
    given = {"train": source.train, "validation": source.validation, "test": source.test}
    paths = {split: Path(path) for split, path in given.items() if path is not None}
    found = []
    for split, path in paths.items():
        files = _files(path, f"task.source.{split}")
        for file in files:
            check_file(file)
        found += [(split if len(paths) > 1 else "all", file) for file in files]
    return found


def _files(path: Path, key: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise UserError(f"{path}: {'empty folder' if path.is_dir() else 'not found'} ({key})")
    if others := {format_suffix(file) for file in files} - {format_suffix(files[0])}:
        raise UserError(
            f"{path}: expected files of one format, got {format_suffix(files[0])} and {min(others)} ({key})"
        )
    return files


def find_model(source: LocalModel) -> Path:
    """Return the user's model folder, which has the layout of a Hub repository.

    Raises:
        UserError: If the folder does not exist.
    """
    folder = Path(source.path)
    if not folder.is_dir():
        raise UserError(f"{folder}: not found (model.source.path); expected a folder with config.json and safetensors")
    return folder
