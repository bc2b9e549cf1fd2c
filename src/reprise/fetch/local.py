"""Find and check the user's own tables and model under data/own/."""

import hashlib
from pathlib import Path

from reprise.core.config import Distill, LocalDataset, LocalModel
from reprise.core.errors import UserError
from reprise.data.readers import check_file, format_suffix
from reprise.data.sources import TEACHER_KEY, check_links, files_of, local_paths, model_files, not_found


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
    paths = local_paths(source)
    found = []
    for key, path in paths.items():
        files = files_of(path, key)
        if others := {format_suffix(file) for file in files} - {format_suffix(files[0])}:
            got = f"got {format_suffix(files[0])} and {min(others)}"
            raise UserError(got, file=path, key=key, expected="files of one format")
        for file in files:
            check_file(file)
        split = key.removeprefix("task.source.") if len(paths) > 1 else "all"
        found += [(split, file) for file in files]
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


def find_model(source: LocalModel) -> Path:
    """Return the user's model folder, which has the layout of a Hub repository.

    Raises:
        UserError: If there is no such folder.
    """
    ((key, folder),) = local_paths(source).items()
    check_links(folder, key)
    if folder.is_file():
        raise UserError("a file", file=folder, key=key, expected="a folder with config.json and safetensors")
    if not folder.is_dir():
        raise not_found(folder, key)
    return folder


def find_teacher(distill: Distill) -> Path:
    """Return the folder of the user's teacher: a final or exported model, or an ensemble.

    Raises:
        UserError: If there is no such folder.
    """
    folder = Path(distill.teacher)
    names = {str(file.relative_to(folder)) for file in model_files(folder, TEACHER_KEY)}
    if not {"config.json", "recipe.json"} <= names and "ensemble.json" not in names:
        expected = "a copy of models/final/, or a folder of `reprise export` or `reprise ensemble --output`"
        raise UserError("no model with its recipe.json", file=folder, key=TEACHER_KEY, expected=expected)
    return folder
