"""`reproduce.json`: what a stranger needs to check an exported folder, besides the source repository.

What it says of the run is a pure function of the run's files, so it is computed again from the commit and compared.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import TypeAdapter, ValidationError

from reprise.core.config import PARAMS
from reprise.core.dvc_lock import LOCK
from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.paths import PROVENANCE
from reprise.hardware import HARDWARE_DIR, LOCKS
from reprise.onnx.files import EVALUATION, FILES, ONNX, SPEED
from reprise.results.diff import data
from reprise.results.reference import REFERENCES, Reference, read_reference
from reprise.results.run import FileReader, RunResult

RECORD = Path("reproduce.json")
SCHEMA: Literal[1] = 1
ATTESTATIONS = Path("attestations")
# What is exported beside the model; verify accepts no other file.
CARD = Path("README.md")
COPIED = {PARAMS.name: PARAMS, LOCK.name: LOCK, PROVENANCE.name: PROVENANCE}
SLSA, SBOM, CROISSANT = "metadata/slsa-provenance.json", "metadata/sbom.cdx.json", "metadata/croissant.json"
IMAGE_SBOM = "metadata/image.cdx.json"  # only of a run in an image
CRATE, EVAL_RESULTS = "ro-crate-metadata.json", ".eval_results/reprise.yaml"  # where their standards want them
STANDARD_FORMS = (SLSA, SBOM, IMAGE_SBOM, CROISSANT, CRATE, EVAL_RESULTS)
ONNX_FILES = tuple(str(path) for path in (EVALUATION, SPEED, *(ONNX / name for name in FILES.values())))


@dataclass(frozen=True)
class Record:
    """Content of `reproduce.json`.

    Attributes:
        schema: version of this format.
        repository: URL of the source repository, without secrets; "" if it has none.
        commit: the commit that has these results, 40 hexadecimal digits.
        missing: what a stranger lacks to check the folder, a sentence each; empty if nothing.
        run: what the commit's files say of the run, see `describe_run`.
        model: names of the exported files of the model.
        files: SHA-256 of each exported file, by path in the folder. The model card is not among them, because its
            owner may add to it; its metrics are compared with the commit's.
    """

    schema: Literal[1]
    repository: str
    commit: str
    missing: list[str]
    run: dict[str, Any]
    model: list[str]
    files: dict[str, str]


def describe_run(result: RunResult, reference: dict[str, Any] | None) -> dict[str, Any]:
    """Describe what a run was made of and what it made.

    Args:
        result: of a folder or a commit.
        reference: from `describe_reference`.

    Returns:
        `environment`: hardware, machine, Python, image, and SHA-256 of the lock files; `data`: digests of what was
        fetched and prepared and of the user's own files; `outputs`: stage and digest of each output, as DVC computes
        it; `reference`: mean and standard deviation of each metric over seeds, None if not measured.
    """
    made = result.provenance
    environment = {key: made.get(f"environment.{key}") for key in ("hardware", "machine", "python")}
    locks = {lock: made.get(f"environment.locks.{lock}") for lock in LOCKS}
    return {
        "environment": {**environment, "image": made.get("image"), "locks": locks},
        "data": data(result),
        "outputs": {path: asdict(output) for path, output in result.outputs.items()},
        "reference": reference,
    }


def describe_reference(reference: Reference | None) -> dict[str, Any] | None:
    """Name the file of the seed noise that verdicts use, with its spread; None if none was measured."""
    for file in sorted(REFERENCES.glob("*.json")) if reference else ():
        if read_reference(file) == reference:
            return reference_content(file, file.read_bytes())
    return None


def reference_content(file: Path, content: bytes | None) -> dict[str, Any] | None:
    """Return name, spread and seeds of a file of `reprise seed-noise`; None if there is no such file."""
    try:
        parsed = json.loads(content or b"")
        return {"file": file.as_posix(), "metrics": parsed["metrics"], "seeds": list(parsed["seeds"])}
    except (ValueError, LookupError, TypeError):
        return None


def lock_digests(hardware: str, read: FileReader) -> dict[str, str | None]:
    """Return the SHA-256 of the lock files of a hardware; None for one that is not there."""
    contents = {lock: read(HARDWARE_DIR / hardware / lock) for lock in LOCKS}
    return {
        lock: None if content is None else hashlib.sha256(content).hexdigest() for lock, content in contents.items()
    }


def file_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files of a folder, by path."""
    return {name: sha256(folder / name) for name in sorted(files)}


def read_record(folder: Path) -> Record:
    """Read and check `reproduce.json`.

    Raises:
        UserError: it is missing, damaged, or of another version.
    """
    file = folder / RECORD
    expected = "a folder that `reprise export` of this version wrote; else check out the commit that it names"
    try:
        record = TypeAdapter(Record).validate_json(file.read_bytes())
    except OSError:
        raise UserError("not found", file=file, expected=expected) from None
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError("not in this format", file=file, key=key, expected=expected) from None
    if len(record.commit) != 40 or set(record.commit) - set("0123456789abcdef"):
        raise UserError(file=file, key="commit", expected="a full commit hash")
    if record.repository and redact_url(record.repository) != record.repository:
        raise UserError(file=file, key="repository", expected="an https or ssh URL without secrets")
    return record


def differences(recorded: Mapping[str, Any], found: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the dotted keys at which two nested mappings differ."""
    keys: list[str] = []
    for key in sorted({*recorded, *found}):
        old, new = recorded.get(key), found.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys += differences(old, new, f"{prefix}{key}.")
        elif old != new or (key in recorded) != (key in found):
            keys.append(f"{prefix}{key}")
    return keys


def digest_name(digest: str) -> str:
    """Name the algorithm of a digest in `Record.run["data"]`: of a file or folder by DVC, or of the user's own one."""
    return "repriseSha256" if len(digest) == 64 else "dvcMd5"


def redact_url(url: str) -> str:
    """Remove password and token from a clone URL; return an empty string for a path on this machine."""
    if url.startswith("git@"):
        return url
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http", "ssh") or not parts.hostname:
        return ""
    user = f"{parts.username}@" if parts.scheme == "ssh" and parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, user + parts.hostname + port, parts.path, "", ""))
