"""Download files of one Hugging Face Hub repository at one commit hash.

The Hub's client caches complete files, so an interrupted download resumes with the first missing file. HF_TOKEN sets an
access token, HF_ENDPOINT a mirror.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import httpx2
from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import logging

from reprise.core.config import HubDataset, HubModel
from reprise.core.display import echo
from reprise.core.errors import UserError

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # errors are reported once, as a UserError


def download_dataset(source: HubDataset) -> list[tuple[str, Path]]:
    """Download the Parquet files of one dataset configuration.

    Args:
        source: If it lists splits, only their files are downloaded.

    Returns:
        Pairs of split name and file. The split has the recipe's name if `source.splits` gives one, else the Hub's.

    Raises:
        UserError: If the Hub has no such files, or the download fails.
    """
    patterns = [f"{name}-*.parquet" for name in source.splits.values()] if source.splits else ["*.parquet"]
    folder = _snapshot(source, "dataset", [f"{source.config}/{pattern}" for pattern in patterns]) / source.config
    files = sorted(folder.glob("*.parquet"))
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
    tables = [path for path in paths if str(path.parent) == source.config and path.suffix == ".parquet"]
    available = sorted({_split_of_file(path.name) for path in tables})
    if not available:
        problem = f"no Parquet files in {source.config!r} of {source.repo} at {source.revision}"
        return UserError(problem, key="task.source.config")
    problem = f"{source.repo} has no {(source.splits or {})[missing[0]]!r} in {source.config!r}"
    return UserError(problem, key=f"task.source.splits.{missing[0]}", expected=f"one of {', '.join(available)}")


def download_model(source: HubModel, patterns: Sequence[str]) -> Path:
    """Download top-level files of a model repository that match `patterns`; return their folder."""
    return _snapshot(source, "model", patterns, ["*/*"])


def _snapshot(
    source: HubDataset | HubModel,
    kind: Literal["dataset", "model"],
    patterns: Sequence[str],
    ignore: Sequence[str] = (),
) -> Path:
    echo(f"fetch: {kind} {source.repo} at {source.revision}")
    key, expected = "task.source" if kind == "dataset" else "model.source", ""
    try:
        folder = Path(
            snapshot_download(
                source.repo,
                repo_type=kind,
                revision=source.revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignore),
            )
        )
        _check_digests(folder, source, kind, key)
        return folder
    except GatedRepoError:
        problem = "is gated: accept its terms on the Hub and set HF_TOKEN"
    except RepositoryNotFoundError:
        problem = "is not on the Hub, or is private and HF_TOKEN gives no access"
    except RevisionNotFoundError:
        problem = f"has no commit {source.revision}"
    except LocalEntryNotFoundError:
        problem = f"cannot be reached at {constants.ENDPOINT}; only fetch needs the network"
    except HFValidationError:
        problem, expected = "is not a repository name", "NAME or OWNER/NAME"
    except (httpx2.HTTPError, OSError) as error:
        problem = f"could not be downloaded: {next(iter(str(error).splitlines()), type(error).__name__)}"
        if isinstance(error, OSError) and str(error.filename).startswith(constants.HF_HOME):
            expected = "HF_HOME to be a writable folder"
    raise UserError(f"{source.repo} {problem}", key=key, expected=expected)


def _check_digests(folder: Path, source: HubDataset | HubModel, kind: Literal["dataset", "model"], key: str) -> None:
    """Check the files of a snapshot against the digests in the Hub's file list, which a mirror or a disk may not keep.

    The list has the SHA-256 of large files, and of others the SHA-1 of git, which is also of a header with the size.

    Raises:
        UserError: If a file has another content, or is not in the list.
    """
    try:
        listed = get_cached_repo_tree(source.repo, repo_type=kind, revision=source.revision)
    except CachedRepoTreeNotFoundError:  # the cache of an older client version
        listed = [
            entry
            for entry in HfApi().list_repo_tree(source.repo, repo_type=kind, revision=source.revision, recursive=True)
            if isinstance(entry, RepoFile)
        ]
    digests = {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in listed}
    large = {entry.path for entry in listed if entry.lfs}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        path = file.relative_to(folder).as_posix()
        header = f"blob {file.stat().st_size}\0".encode()
        digest = hashlib.sha256() if path in large else hashlib.sha1(header, usedforsecurity=False)
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
        if (found := digest.hexdigest()) != digests.get(path):
            raise UserError(
                f"{source.repo} lists {path} with the digest {digests.get(path)}, downloaded was {found}",
                file=file.resolve(),
                key=key,
                expected=f"the listed one: remove the damaged file; {constants.ENDPOINT} may serve another",
            )
