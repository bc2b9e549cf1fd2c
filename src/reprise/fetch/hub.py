"""The Hugging Face Hub as a source: the needed files of one repository at one commit hash.

Its client keeps what it downloaded in its own cache, so an interrupted download goes on where it stopped. A token comes
from the environment (HF_TOKEN), a mirror through HF_ENDPOINT.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from reprise.errors import InputError
from reprise.recipe import HubModel, HubTables


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
    """Download the files of a model that match `patterns`; return the folder that holds them."""
    return _snapshot(source, "model", patterns)


def _snapshot(source: HubTables | HubModel, kind: Literal["dataset", "model"], patterns: Sequence[str]) -> Path:
    print(f"fetch: {kind} {source.repo} at {source.revision}", flush=True)
    key = "task.source" if kind == "dataset" else "model.source"
    try:
        return Path(
            snapshot_download(source.repo, repo_type=kind, revision=source.revision, allow_patterns=list(patterns))
        )
    except GatedRepoError:
        problem = "is gated: accept its terms on the Hub and set HF_TOKEN"
    except RepositoryNotFoundError:
        problem = "is not on the Hub, or is private and HF_TOKEN does not open it"
    except RevisionNotFoundError:
        problem = f"has no commit {source.revision}"
    except LocalEntryNotFoundError:
        problem = f"cannot be reached at {constants.ENDPOINT}; fetch is the one stage that needs the network"
    except (HfHubHTTPError, OSError) as error:
        problem = f"could not be downloaded: {str(error).splitlines()[0] or type(error).__name__}"
    raise InputError(f"{key}: {source.repo} {problem}")
