"""Download files of one Hugging Face Hub repository at one commit hash.

The Hub's client caches complete files, so an interrupted download resumes with the first missing file. HF_TOKEN sets an
access token, HF_ENDPOINT a mirror.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Literal

from huggingface_hub import (
    constants,
    get_cached_repo_tree,
    hf_hub_download,
    set_client_factory,
    snapshot_download,
)
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

from reprise.core.config import MAX_FILES, HubDataset, HubModel
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.validation import shorten
from reprise.fetch.hub_limits import Limits

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

    def wanted(path: PurePosixPath) -> bool:
        listed = source.splits is None or _split_of_file(path.name) in source.splits.values()
        return path.parent == PurePosixPath(source.config) and path.suffix == ".parquet" and listed

    folder, paths = _snapshot(source, "dataset", wanted)
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
    folder, _ = _snapshot(
        source, "model", lambda path: len(path.parts) == 1 and any(fnmatch(path.name, pattern) for pattern in patterns)
    )
    return folder


def _snapshot(
    source: HubDataset | HubModel, kind: Literal["dataset", "model"], wanted: Callable[[PurePosixPath], bool]
) -> tuple[Path, list[PurePosixPath]]:
    """Download the wanted files of a repository; return the client's folder, and their paths in it."""
    echo(f"fetch: {kind} {source.repo} at {source.revision}")
    key, expected = "task.source" if kind == "dataset" else "model.source", ""
    limits = Limits(source.repo, source.revision, key)
    set_client_factory(limits.client)
    warnings.filterwarnings("error", "Not enough free disk space")  # before the disk is full, in one line
    try:
        # Without a file to download, the client only gets the list of files, and keeps it.
        folder = Path(snapshot_download(source.repo, repo_type=kind, revision=source.revision, allow_patterns=["/"]))
        try:
            listed = get_cached_repo_tree(source.repo, repo_type=kind, revision=source.revision)
            files = {path: file for file in listed if wanted(path := PurePosixPath(file.path))}
        except CachedRepoTreeNotFoundError:  # the cache of an older client version, without network
            if not folder.is_dir():
                problem = f"could not be downloaded: {folder} cannot be written"
                raise limits.error(problem, "HF_HOME to be a writable folder") from None
            paths = sorted(PurePosixPath(file.relative_to(folder)) for file in folder.rglob("*"))
            return folder, [path for path in paths if wanted(path)]
        if len(files) > MAX_FILES:
            raise limits.error(f"has {len(files):,} such files", f"at most {MAX_FILES:,}")
        for path, entry in sorted(files.items()):  # one by one and in this thread, so that Ctrl-C ends it at once
            file = Path(hf_hub_download(source.repo, str(path), repo_type=kind, revision=source.revision))
            if (received := file.stat().st_size) != entry.size:
                file.resolve().unlink()
                file.unlink(missing_ok=True)
                raise limits.error(f"sends {received:,} bytes of {path}", f"{entry.size:,}, as in its list of files")
            _check_digest(file, entry, source.repo, key)
        return folder, sorted(files)
    except UserError:
        raise
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
    except Exception as error:  # of what a server answers in place of the Hub
        problem = f"could not be downloaded: {type(error).__name__ * (not str(error))}{shorten(error)}"
        if isinstance(error, OSError) and str(error.filename).startswith(constants.HF_HOME):
            expected = "HF_HOME to be a writable folder"
    raise UserError(f"{source.repo} {problem}", key=key, expected=expected)


def _check_digest(file: Path, listed: RepoFile, repo: str, key: str) -> None:
    """Check a file against its digest in the Hub's list, which a mirror or a disk may not keep.

    The list has the SHA-256 of a large file, and of others the SHA-1 of git, which is also of a header with the size.

    Raises:
        UserError: If the file has another content.
    """
    header = f"blob {listed.size}\0".encode()
    digest = hashlib.sha256() if listed.lfs else hashlib.sha1(header, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    expected = listed.lfs.sha256 if listed.lfs else listed.blob_id
    if (found := digest.hexdigest()) != expected:
        raise UserError(
            f"{repo} lists {listed.path} with the digest {expected}, downloaded was {found}",
            file=file.resolve(), key=key,
            expected=f"the listed one: remove the damaged file; {constants.ENDPOINT} may serve another",
        )  # fmt: skip
