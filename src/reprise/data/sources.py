"""The user's own files under data/own/ that a recipe names, and their digests.

The stages that fetch depend on these digests, so another file in data/own/ reruns nothing.
"""

import hashlib
from pathlib import Path, PurePath

from reprise.core.config import (
    LOCAL_DATA,
    MAX_FILES,
    HubDataset,
    HubModel,
    LocalDataset,
    LocalModel,
    Recipe,
    WheelSource,
)
from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.paths import experiment_root

TEACHER_KEY = "train.distill.teacher"


def local_paths(source: WheelSource | HubDataset | HubModel | LocalDataset | LocalModel) -> dict[str, Path]:
    """Return the user's own files and folders that a source names, by key of the recipe."""
    match source:
        case LocalDataset():
            given = {"train": source.train, "validation": source.validation, "test": source.test}
            return {f"task.source.{split}": Path(path) for split, path in given.items() if path is not None}
        case LocalModel():
            return {"model.source.path": Path(source.path)}
        case _:
            return {}


def own_paths(recipe: Recipe) -> dict[str, dict[str, Path]]:
    """Return the user's own files and folders that a recipe names, by key of the recipe, for each key of sources.json.

    These are the sources of task and model, and the teacher of `train.distill`.
    """
    distill = recipe.train.distill
    return {
        "task": local_paths(recipe.task.source),
        "model": local_paths(recipe.model.source),
        "teacher": {TEACHER_KEY: Path(distill.teacher)} if distill else {},
    }


def files_of(path: Path, key: str) -> list[Path]:
    """Return a file, or the files of a folder; hidden files and subfolders do not count.

    Raises:
        UserError: There are none, too many, or the path leads through a link to a folder.
    """
    check_links(path, key)
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise not_found(path, key)
    if len(files) > MAX_FILES:
        raise UserError(f"{len(files):,} files", file=path, key=key, expected=f"at most {MAX_FILES:,}")
    return files


def model_files(folder: Path, key: str) -> list[Path]:
    """Return all files of a folder, also those of an ensemble's members in folders below; hidden ones do not count.

    Raises:
        UserError: There is no such folder, or a path leads through a link to a folder.
    """
    check_links(folder, key)
    if folder.is_file():
        raise UserError("a file", file=folder, key=key, expected="a folder with config.json and safetensors")
    if not folder.is_dir():
        raise not_found(folder, key)
    for inner in (path for path in folder.rglob("*") if path.is_symlink() and path.is_dir()):
        check_links(inner, key)
    files = [path for path in folder.rglob("*") if path.is_file()]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    if not files:
        raise not_found(folder, key)
    if len(files) > MAX_FILES:
        raise UserError(f"{len(files):,} files", file=folder, key=key, expected=f"at most {MAX_FILES:,}")
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def check_links(path: Path, key: str) -> None:
    """Check that a path has no link to a folder: DVC follows links to files only, and would miss its changes.

    Raises:
        UserError: it has one.
    """
    for part in (path, *path.parents):
        if part.is_symlink() and part.is_dir() and part.is_relative_to(LOCAL_DATA) and part != Path(LOCAL_DATA):
            raise UserError(
                "a link to a folder, in which DVC sees no changes", file=part, key=key,
                expected="the folder itself; its files may be links",
            )  # fmt: skip


def not_found(path: Path, key: str) -> UserError:
    """Return the error of a missing file or folder; it says where the file may be."""
    if path.is_dir():
        return UserError("empty folder", file=path, key=key, expected="files")
    if pointer := next((pointer for pointer in dvc_pointers(path) if Path(pointer).is_file()), None):
        return UserError("not found", file=path, key=key, expected=f"the data of {pointer}: run `dvc pull {pointer}`")
    if experiment_root(Path.cwd()):
        return untracked(path, key)
    return UserError("not found", file=path, key=key, expected="a file or a folder of files")


def untracked(path: Path, key: str) -> UserError:
    """Return the error of a file that is missing from the copies in which DVC runs experiments."""
    expected = f"`git add {path}`, or `dvc add {path}` and `git add {path}.dvc` for a large one"
    return UserError(
        "not tracked, so it is not in the copy of the repository that an experiment runs in",
        file=path,
        key=key,
        expected=expected,
    )


def dvc_pointers(path: PurePath) -> list[PurePath]:
    """Return the files with which DVC may track a path: those of the path itself and of the folders above it."""
    return [parent.with_name(f"{parent.name}.dvc") for parent in (path, *path.parents) if parent.name]


def source_digests(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Return the SHA-256 of each file or folder that `own_paths` names.

    Raises:
        UserError: One is missing.
    """
    list_files = {"teacher": model_files}
    return {
        section: {
            str(path): path_digest(path, list_files.get(section, files_of)(path, key)) for key, path in paths.items()
        }
        for section, paths in own_paths(recipe).items()
    }


def path_digest(path: Path, files: list[Path]) -> str:
    """Return the digest of a file, or of the names and digests of a folder's files."""
    if path.is_file():
        return sha256(path)
    return hashlib.sha256(
        "".join(f"{sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files).encode()
    ).hexdigest()
