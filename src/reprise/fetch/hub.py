"""Choose the files that a recipe names in a repository of the Hugging Face Hub."""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

from huggingface_hub import get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from reprise.core.config import HubDataset, HubModel
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.hub.client import download


def download_dataset(source: HubDataset) -> list[tuple[str, Path]]:
    """Download the Parquet files of one dataset configuration.

    Args:
        source: If it lists splits, only their files are downloaded.

    Returns:
        Pairs of split name and file. The split has the recipe's name if `source.splits` gives one, else the Hub's.

    Raises:
        UserError: If the Hub has no such files, or the download fails.
    """

    def wanted(path: PurePosixPath) -> bool:
        listed = source.splits is None or _split_of_file(path.name) in source.splits.values()
        return path.parent == PurePosixPath(source.config) and path.suffix == ".parquet" and listed

    folder, paths = _download(source, wanted)
    files = [folder / path for path in paths]
    for file in files:
        if not re.fullmatch(r"\w+", _split_of_file(file.name), re.ASCII):  # it names a folder
            problem = f"{source.repo} has a file {file.name!r}"
            raise UserError(problem, key="task.source", expected="SPLIT-00000-of-00001.parquet")
    names = source.splits or {_split_of_file(file.name): _split_of_file(file.name) for file in files}
    found = [(split, file) for split, name in names.items() for file in files if _split_of_file(file.name) == name]
    missing = [split for split in names if split not in dict(found)]
    if missing or not found:
        raise _missing_split_error(source, missing)
    return found


def _split_of_file(name: str) -> str:
    """Return the split of a file that the Hub names SPLIT-00000-of-00001.parquet."""
    return name.split("-")[0]


def _missing_split_error(source: HubDataset, missing: Sequence[str]) -> UserError:
    try:  # the client caches the repository's file list
        listed = get_cached_repo_tree(source.repo, repo_type="dataset", revision=source.revision)
    except CachedRepoTreeNotFoundError:  # the cache of an older client version, without network
        listed = []
    paths = [PurePosixPath(file.path) for file in listed]
    tables = [path for path in paths if path.parent == PurePosixPath(source.config) and path.suffix == ".parquet"]
    available = sorted({_split_of_file(path.name) for path in tables})
    if not available:
        problem = f"no Parquet files in {source.config!r} of {source.repo} at {source.revision}"
        return UserError(problem, key="task.source.config")
    problem = f"{source.repo} has no {(source.splits or {})[missing[0]]!r} in {source.config!r}"
    return UserError(problem, key=f"task.source.splits.{missing[0]}", expected=f"one of {', '.join(available)}")


def download_model(source: HubModel, patterns: Sequence[str]) -> Path:
    """Download top-level files of a model repository that match `patterns`; return their folder."""
    folder, _ = _download(
        source, lambda path: len(path.parts) == 1 and any(fnmatch(path.name, pattern) for pattern in patterns)
    )
    return folder


def _download(
    source: HubDataset | HubModel, wanted: Callable[[PurePosixPath], bool]
) -> tuple[Path, list[PurePosixPath]]:
    kind: Literal["dataset", "model"] = "dataset" if isinstance(source, HubDataset) else "model"
    echo(f"fetch: {kind} {source.repo} at {source.revision}")
    return download(source.repo, source.revision, kind, wanted, "task.source" if kind == "dataset" else "model.source")
