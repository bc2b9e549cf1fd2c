"""The user's own tables and model, under data/own/, which DVC watches for changes."""

from pathlib import Path

from reprise.core.config import LocalDataset, LocalModel
from reprise.core.errors import UserError
from reprise.data.readers import check_file, format_suffix


def find_dataset(source: LocalDataset) -> list[tuple[str, Path]]:
    """Check the user's files, return each with its split: a file, or the files of a folder, which are one table.

    One table alone is `all`, which `task.split` divides.

    Raises:
        UserError: a file is not there or not what its ending says, or a folder has none or differing ones.
    """
    given = {"train": source.train, "validation": source.validation, "test": source.test}
    places = {split: Path(path) for split, path in given.items() if path is not None}
    found = []
    for split, place in places.items():
        files = _files(place, f"task.source.{split}")
        for file in files:
            check_file(file)
        found += [(split if len(places) > 1 else "all", file) for file in files]
    return found


def _files(place: Path, key: str) -> list[Path]:
    if place.is_file():
        return [place]
    files = sorted(file for file in place.glob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise UserError(f"{place}: {'no file in it' if place.is_dir() else 'not found'} ({key})")
    if endings := {format_suffix(file) for file in files} - {format_suffix(files[0])}:
        raise UserError(
            f"{place}: expected files of one format, got {format_suffix(files[0])} and {min(endings)} ({key})"
        )
    return files


def find_model(source: LocalModel) -> Path:
    """Return the user's own folder in the Hub's layout."""
    folder = Path(source.path)
    if not folder.is_dir():
        raise UserError(f"{folder}: not found (model.source.path); expected a folder with config.json and safetensors")
    return folder
