"""The Hugging Face Hub as a source: the needed files of one repository at one commit hash.

Its client keeps whole files in a cache of its own, so a download that was interrupted goes on with the first missing
file. A token comes from the environment (HF_TOKEN), a mirror through HF_ENDPOINT.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import httpx2
from huggingface_hub import constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging

from reprise.core.config import HubDataset, HubModel
from reprise.core.errors import UserError

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what goes wrong is told once, in our own line


def download_dataset(source: HubDataset) -> list[tuple[str, Path]]:
    """Download the Parquet files of one dataset configuration, or of the splits that `source.splits` lists.

    Returns:
        Each file with its split: our name where `source.splits` gives one, else the Hub's.

    Raises:
        UserError: the Hub has no such files, or they cannot be had.
    """
    patterns = [f"{name}-*.parquet" for name in source.splits.values()] if source.splits else ["*.parquet"]
    folder = _snapshot(source, "dataset", [f"{source.config}/{pattern}" for pattern in patterns]) / source.config
    files = sorted(folder.glob("*.parquet"))
    names = source.splits or {_split_of_file(file.name): _split_of_file(file.name) for file in files}
    found = [(split, file) for split, name in names.items() for file in files if _split_of_file(file.name) == name]
    lacking = [split for split in names if split not in dict(found)]
    if lacking or not found:
        raise UserError(_missing_split_error(source, lacking))
    return found


def _split_of_file(name: str) -> str:
    """The split of a file, which the Hub calls SPLIT-00000-of-00001.parquet."""
    return name.split("-")[0]


def _missing_split_error(source: HubDataset, lacking: Sequence[str]) -> str:
    try:  # the client has listed the repository, and keeps the list
        listed = get_cached_repo_tree(source.repo, repo_type="dataset", revision=source.revision)
    except CachedRepoTreeNotFoundError:  # an earlier version's cache, and no network
        listed = []
    paths = [PurePosixPath(file.path) for file in listed]
    tables = [path for path in paths if str(path.parent) == source.config and path.suffix == ".parquet"]
    there = sorted({_split_of_file(path.name) for path in tables})
    if not there:
        return f"task.source.config: no Parquet files in {source.config!r} of {source.repo} at {source.revision}"
    return (
        f"task.source.splits.{lacking[0]}: {source.repo} has no {(source.splits or {})[lacking[0]]!r} in "
        f"{source.config!r}; expected one of {', '.join(there)}"
    )


def download_model(source: HubModel, patterns: Sequence[str]) -> Path:
    """Download the files at the top of a model's repository that match `patterns`; return their folder."""
    return _snapshot(source, "model", patterns, ["*/*"])


def _snapshot(
    source: HubDataset | HubModel,
    kind: Literal["dataset", "model"],
    patterns: Sequence[str],
    ignore: Sequence[str] = (),
) -> Path:
    print(f"fetch: {kind} {source.repo} at {source.revision}", flush=True)
    key = "task.source" if kind == "dataset" else "model.source"
    try:
        return Path(
            snapshot_download(
                source.repo,
                repo_type=kind,
                revision=source.revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignore),
            )
        )
    except GatedRepoError:
        problem = "is gated: accept its terms on the Hub and set HF_TOKEN"
    except RepositoryNotFoundError:
        problem = "is not on the Hub, or is private and HF_TOKEN does not open it"
    except RevisionNotFoundError:
        problem = f"has no commit {source.revision}"
    except LocalEntryNotFoundError:
        problem = f"cannot be reached at {constants.ENDPOINT}; fetch is the one stage that needs the network"
    except HFValidationError:
        problem = "is no repository's name; expected NAME or OWNER/NAME"
    except (httpx2.HTTPError, OSError) as error:
        problem = f"could not be downloaded: {next(iter(str(error).splitlines()), type(error).__name__)}"
    raise UserError(f"{key}: {source.repo} {problem}")
