"""Upload an exported folder to a repository of the Hugging Face Hub, in one commit.

A repository has either the whole folder or none of it, so an interrupted upload is simply repeated. The Hub's client
sends no file twice.
"""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils._validators import validate_repo_id

from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.validation import shorten
from reprise.hub.client import download
from reprise.sharing.folder import is_checked
from reprise.sharing.record import RECORD, read_record

TIMEOUT_S = 120.0  # without a byte in either direction
KEY = "--push"


@dataclass(frozen=True)
class Destination:
    """A repository that may receive an exported folder.

    Attributes:
        repo: OWNER/NAME.
        commit: its newest commit; None if the repository does not exist yet.
        private: whether only its owner sees it; a new one is private.
        exported: the files of an earlier export in it.
    """

    repo: str
    commit: str | None
    private: bool
    exported: frozenset[str]


def check_repository(repo: str) -> None:
    """Check what can be checked before an export and without the network.

    Raises:
        UserError: `repo` is not OWNER/NAME, or there is no token.
    """
    owner, _, name = repo.partition("/")
    try:
        validate_repo_id(repo)
        valid = bool(owner and name)
    except HFValidationError:
        valid = False
    if not valid:
        raise UserError(f"{repo!r} is not a name of a repository on the Hub", key=KEY, expected="OWNER/NAME")
    if not get_token():
        raise UserError("no token for the Hub", key=KEY, expected="HF_TOKEN with write access, or `hf auth login`")


def find_destination(repo: str) -> Destination:
    """Ask the Hub what a repository has.

    Raises:
        UserError: it has files that `reprise export` did not write, or the Hub does not answer.
    """
    with _online(repo) as api:
        try:
            info = api.model_info(repo, timeout=TIMEOUT_S)
        except RepositoryNotFoundError:
            return Destination(repo, None, private=True, exported=frozenset())
        assert info.sha is not None
        files = _listed(api, repo, info.sha).keys() - {".gitattributes"}  # with which the Hub creates a repository
        exported: set[str] = set()
        if str(RECORD) in files:
            folder, _ = download(repo, info.sha, "model", lambda path: str(path) == str(RECORD), KEY)
            exported = files & read_record(folder).files.keys()
            files = {path for path in files if is_checked(PurePosixPath(path))}
    if others := sorted(files - exported):
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UserError(
            f"{repo} has files that are of no export: {some}",
            key=KEY,
            expected="a repository that does not exist, is empty, or has an earlier export alone",
        )
    return Destination(repo, info.sha, private=bool(info.private), exported=frozenset(exported))


def upload(folder: Path, files: list[str], to: Destination, message: str) -> str:
    """Upload files of a folder in one commit, and remove those of an earlier export that are not among them.

    Args:
        folder: an exported folder.
        files: their paths in it.
        to: a repository that was not there is created as a private one.
        message: of the commit.

    Returns:
        The hash of the commit.

    Raises:
        UserError: the upload fails, or the commit has other files afterwards.
    """
    with _online(to.repo) as api:
        parent = to.commit
        if parent is None:
            api.create_repo(to.repo, private=True)
            parent = api.model_info(to.repo, timeout=TIMEOUT_S).sha
        commit = api.create_commit(
            to.repo,
            [
                *(CommitOperationAdd(name, folder / name) for name in files),
                *(CommitOperationDelete(name) for name in sorted(to.exported - set(files))),
            ],
            commit_message=message,
            parent_commit=parent,  # else another upload at the same time could add files to ours
        ).oid
        listed = _listed(api, to.repo, commit)
        for name in files:
            if name not in listed or not _is_equal(folder / name, listed[name]):
                raise UserError(
                    f"{to.repo} at {commit} has {'another' if name in listed else 'no'} {name}",
                    key=KEY, expected="the uploaded files: remove a .gitignore there, and push again",
                )  # fmt: skip
    return commit


@contextmanager
def _online(repo: str) -> Iterator[HfApi]:
    """Let the Hub's client use the network, which all commands but fetch and push forbid it.

    Raises:
        UserError: for whatever the Hub answers instead of what was asked.
    """
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the Hub, about the metadata of the card
            set_client_factory(_client)
            yield HfApi(endpoint=constants.ENDPOINT, token=get_token())
    except UserError:
        raise
    except Exception as error:  # the client wraps errors of a file in its own
        raise _explain(error, repo) from None
    finally:
        constants.HF_HUB_OFFLINE = offline


def _client() -> httpx2.Client:
    """Return the Hub's own client, with a time limit: it has none, and a server may stall."""
    client = default_client_factory()
    client.timeout = httpx2.Timeout(TIMEOUT_S)
    return client


def _explain(error: BaseException, repo: str) -> UserError:
    """Return the line about an error of the Hub's client."""
    while not isinstance(error, HfHubHTTPError | httpx2.TransportError) and error.__cause__:
        error = error.__cause__
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    again = "the same command again uploads what is missing"
    if isinstance(error, httpx2.TransportError):
        problem = f"{repo} cannot be reached at {constants.ENDPOINT}: {type(error).__name__}"
        return UserError(problem, key=KEY, expected=f"a network; {again}")
    if status == 401:
        return UserError(f"the Hub does not accept the token for {repo}", key=KEY, expected="a valid one in HF_TOKEN")
    if status == 403:
        expected = f"one with write access to {repo.partition('/')[0]}"
        return UserError(f"the token may not write to {repo}", key=KEY, expected=expected)
    if status in (409, 412):
        problem = f"{repo} was created or changed by somebody else in the meantime, or is not visible to this token"
        return UserError(problem, key=KEY, expected="the same command again, or another name")
    problem = f"{repo} could not be written: {type(error).__name__}: {shorten(error)}"
    return UserError(problem, key=KEY, expected=again)


def _listed(api: HfApi, repo: str, commit: str) -> Mapping[str, RepoFile]:
    """Return the files of a commit by path."""
    entries = api.list_repo_tree(repo, recursive=True, revision=commit)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _is_equal(file: Path, listed: RepoFile) -> bool:
    """Compare a file with its digest on the Hub: the SHA-256 of a large file, of others the SHA-1 of git."""
    if listed.lfs:
        return sha256(file) == listed.lfs.sha256
    content = file.read_bytes()
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return digest.hexdigest() == listed.blob_id
