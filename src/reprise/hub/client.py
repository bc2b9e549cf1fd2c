"""Download files of one Hugging Face Hub repository at one commit hash.

The Hub's client caches complete files, so an interrupted download resumes with the first missing file. HF_TOKEN sets an
access token, HF_ENDPOINT a mirror.
"""

import hashlib
import warnings
from collections.abc import Callable
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

from reprise.core.config import MAX_FILES
from reprise.core.errors import UserError
from reprise.core.validation import shorten
from reprise.hub.limits import Limits

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # errors are reported once, as a UserError


def download(
    repo: str, revision: str, kind: Literal["dataset", "model"], wanted: Callable[[PurePosixPath], bool], key: str
) -> tuple[Path, list[PurePosixPath]]:
    """Download the wanted files of a repository.

    Args:
        repo: its name on the Hub.
        revision: full commit hash.
        kind: of the repository.
        wanted: whether a file is downloaded, by its path in the repository.
        key: key or argument that errors name.

    Returns:
        The client's folder, and the paths of the wanted files in it.

    Raises:
        UserError: the repository, the commit or a file cannot be had.
    """
    expected, limits = "", Limits(repo, revision, key)
    set_client_factory(limits.client)
    warnings.filterwarnings("error", "Not enough free disk space")  # before the disk is full, in one line
    try:
        # Without a file to download, the client only gets the list of files, and keeps it.
        folder = Path(snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=["/"]))
        try:
            listed = get_cached_repo_tree(repo, repo_type=kind, revision=revision)
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
            file = Path(hf_hub_download(repo, str(path), repo_type=kind, revision=revision))
            if (received := file.stat().st_size) != entry.size:
                file.resolve().unlink()
                file.unlink(missing_ok=True)
                raise limits.error(f"sends {received:,} bytes of {path}", f"{entry.size:,}, as in its list of files")
            _check_digest(file, entry, repo, key)
        return folder, sorted(files)
    except UserError:
        raise
    except GatedRepoError:
        problem = "is gated: accept its terms on the Hub and set HF_TOKEN"
    except RepositoryNotFoundError:
        problem = "is not on the Hub, or is private and HF_TOKEN gives no access"
    except RevisionNotFoundError:
        problem = f"has no commit {revision}"
    except LocalEntryNotFoundError:
        problem = f"cannot be reached at {constants.ENDPOINT}; downloads need the network"
    except HFValidationError:
        problem, expected = "is not a repository name", "NAME or OWNER/NAME"
    except Exception as error:  # of what a server answers in place of the Hub
        problem = f"could not be downloaded: {type(error).__name__ * (not str(error))}{shorten(error)}"
        if isinstance(error, OSError) and str(error.filename).startswith(constants.HF_HOME):
            expected = "HF_HOME to be a writable folder"
    raise UserError(f"{repo} {problem}", key=key, expected=expected)


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
