"""What sets results apart, and what makes them the same but for the seed: pure functions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from reprise.core.config import LOCAL_DATA
from reprise.results.run import RunResult

DiffKind = Literal["parameter", "data", "environment", "code"]
# What of a provenance says with what software, on what kind of hardware.
SOFTWARE_KEYS = ("environment.locks.", "environment.hardware")
# What it says anew of every run. The weights are a result, what was not committed is told by what differs, and the
# order of the rows follows from the seed, the batches and the data.
VOLATILE_KEYS = ("started", "commit", "from_step", "weights.", "dirty", "data_order_sha256")
# What provenance.json says of data and of pretrained weights, which is told by their digests in dvc.lock.
INPUT_KEYS = ("data.", "pretrained.")
ABSENT = "absent"
MAX_WIDTH = 60  # characters


@dataclass(frozen=True)
class Difference:
    """Something that is not the same on two sides, as it is shown; a side of several values lists them."""

    what: DiffKind
    key: str
    before: str
    after: str


def replicate_key(result: RunResult) -> str:
    """What results that differ in the seed alone have in common: recipe, code, locks and kind of hardware."""
    return replicate_key_of(result.recipe, result.code, result.provenance)


def replicate_key_of(recipe: Mapping[str, Any], code: Mapping[str, str], told: Mapping[str, Any]) -> str:
    """The same of its parts, as in `Result`, of something that may not be cooked yet.

    Args:
        recipe: what the stages read of params.yaml, by dotted key.
        code: the MD5 of each file and folder that the stages read and no stage makes, by path.
        told: the provenance, by dotted key, or the environment alone.
    """
    software = {key: value for key, value in told.items() if key.startswith(SOFTWARE_KEYS)}
    return json.dumps(
        [{key: value for key, value in recipe.items() if key != "seed"}, dict(code), software],
        sort_keys=True, default=str,
    )  # fmt: skip


def diff_runs(before: Sequence[RunResult], after: Sequence[RunResult]) -> list[Difference]:
    """What two sides were cooked with that differs, parameters first.

    A parameter is a key of params.yaml that a stage reads. Data is what was fetched and prepared, by its digest, and
    the user's own files. Environment is what provenance.json says: locks, hardware, devices, processes, threads.
    """
    found = []
    for what, tell in EXTRACTORS.items():
        old, new = ([tell(result) for result in side] for side in (before, after))
        for key in sorted({key for told in (*old, *new) for key in told}):
            # By all of a value, since what is shown of a long one is its beginning.
            values = [{repr(told.get(key)): abbreviate(told.get(key, ABSENT)) for told in side} for side in (old, new)]
            if values[0].keys() != values[1].keys():
                found.append(Difference(what, key, *(", ".join(side.values()) for side in values)))
    return found


def format_differences(found: Sequence[Difference]) -> list[str]:
    """Differences in words, a line each; one line where there are none."""
    told = [f"{each.what}: {each.key}: {each.before} → {each.after}" for each in found]
    return told or ["nothing that dvc.lock or provenance.json tells"]


def data(result: RunResult) -> dict[str, Any]:
    """The digest of each thing that was fetched or prepared, and of each own file, by path."""
    made = {path: out.md5 for path, out in result.outputs.items() if out.stage in ("fetch", "prepare")}
    return made | {path: md5 for path, md5 in result.code.items() if is_data(path)}


def environment(result: RunResult) -> dict[str, Any]:
    """What provenance.json says of where and with what it was trained, but for what a run says anew."""
    return {key: value for key, value in result.provenance.items() if not key.startswith((*VOLATILE_KEYS, *INPUT_KEYS))}


def code(result: RunResult) -> dict[str, Any]:
    """The digest of each file and folder of code, by path."""
    return {path: md5 for path, md5 in result.code.items() if not is_data(path)}


def is_data(path: str) -> bool:
    """Whether a dependency that no stage makes is the user's own data."""
    return PurePosixPath(path).is_relative_to(LOCAL_DATA)


def abbreviate(value: Any) -> str:
    """A value as a line has room for it: of a digest, or a list of them, the beginning."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= MAX_WIDTH else f"{text[:12]}…"


EXTRACTORS: dict[DiffKind, Any] = {
    "parameter": lambda result: result.recipe,
    "data": data,
    "environment": environment,
    "code": code,
}
