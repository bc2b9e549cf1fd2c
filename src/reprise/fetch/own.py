"""The user's own tables and model, under data/own/, which DVC watches for changes."""

from pathlib import Path

from reprise.errors import InputError
from reprise.recipe import OwnModel, OwnTables
from reprise.tables import check_file


def tables(source: OwnTables) -> list[tuple[str, Path]]:
    """Check the user's files, return each with its split. One file alone is `all`, which `task.split` divides."""
    given = {"train": source.train, "validation": source.validation, "test": source.test}
    files = {split: Path(path) for split, path in given.items() if path is not None}
    for split, file in files.items():
        if not file.is_file():
            raise InputError(f"{file}: not found (task.source.{split})")
        check_file(file)
    return [("all", files["train"])] if len(files) == 1 else list(files.items())


def model(source: OwnModel) -> Path:
    """Return the user's own folder in the Hub's layout."""
    folder = Path(source.path)
    if not folder.is_dir():
        raise InputError(f"{folder}: not found (model.source.path); expected a folder with config.json and safetensors")
    return folder
