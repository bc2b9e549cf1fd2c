"""The Hugging Face Hub as a source: the needed files of one repository at one commit hash.

Its client keeps whole files in a cache of its own, so a download that was interrupted goes on with the first missing
file. A token comes from the environment (HF_TOKEN), a mirror through HF_ENDPOINT.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging

from reprise.errors import InputError
from reprise.recipe import HubModel, HubTables

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what goes wrong is told once, in our own line


def tables(source: HubTables) -> list[tuple[str, Path]]:
    """Download the Parquet files of one dataset configuration; return each with the split that its name begins with."""
    folder = _snapshot(source, "dataset", [f"{source.config}/*.parquet"]) / source.config
    # The Hub names them SPLIT-00000-of-00001.parquet.
    files = [(file.name.split("-")[0], file) for file in sorted(folder.glob("*.parquet"))]
    if not files:
        raise InputError(
            f"task.source.config: no Parquet files in {source.config!r} of {source.repo} at {source.revision}"
        )
    return files


def model(source: HubModel, patterns: Sequence[str]) -> Path:
    """Download the files at the top of a model's repository that match `patterns`; return their folder."""
    return _snapshot(source, "model", patterns, ["*/*"])


def _snapshot(
    source: HubTables | HubModel, kind: Literal["dataset", "model"], patterns: Sequence[str], ignore: Sequence[str] = ()
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
    raise InputError(f"{key}: {source.repo} {problem}")
