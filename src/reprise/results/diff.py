"""Compare what runs were made from: parameters, data, environment and code. Pure functions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from reprise.core.config import LOCAL_DATA
from reprise.results.run import RunResult

DiffKind = Literal["parameter", "data", "environment", "code"]
# Keys of the provenance that name the locked software and the hardware.
SOFTWARE_KEYS = ("environment.locks.", "environment.hardware")
# Keys of the provenance that are new in every run or follow from the rest: the weights are a result, uncommitted
# changes appear among the differences, and the order of the examples follows from the seed, the batches and the data.
VOLATILE_KEYS = ("started", "commit", "from_step", "weights.", "dirty", "data_order_sha256")
# Keys of the provenance for data and pretrained weights, which are compared by their digests in dvc.lock.
INPUT_KEYS = ("data.", "pretrained.")
# Stages whose outputs are data or pretrained weights; "fetch" is the stage of earlier commits for both.
DATA_STAGES = ("fetch", "fetch-data", "fetch-model", "prepare")
# Keys of the recipe in which the runs of a group differ: seeds, or the folds of a cross-validation and their divisions.
SEED_KEYS = ("seed",)
FOLD_KEYS = ("train.fold", "task.split.seed")
ABSENT = "absent"
NOT_RECORDED = "not recorded"  # of the environment, when provenance.json is of another run
MAX_WIDTH = 60  # characters


@dataclass(frozen=True)
class Difference:
    """A key whose value differs between two groups of runs.

    Attributes:
        kind: parameter, data, environment or code.
        key: dotted key or path.
        before: value in the first group, for display; several values are separated by commas.
        after: value in the second group.
    """

    kind: DiffKind
    key: str
    before: str
    after: str


def replicate_key(result: RunResult, varying: Sequence[str] = SEED_KEYS) -> str:
    """Return a key that is equal for runs that differ only in `varying`.

    It covers recipe, code, lock files and hardware.
    """
    return replicate_key_of(result.recipe, result.code, result.provenance, varying)


def replicate_key_of(
    recipe: Mapping[str, Any],
    code: Mapping[str, str],
    provenance: Mapping[str, Any],
    varying: Sequence[str] = SEED_KEYS,
) -> str:
    """Return the replicate key of a run that may not exist yet.

    Args:
        recipe: parameters that the stages read, by dotted key.
        code: digest of each file and folder that the stages read and no stage writes, by path.
        provenance: provenance, or the environment alone, by dotted key.
        varying: keys of the recipe that the replicate key does not cover.
    """
    software = {key: value for key, value in provenance.items() if key.startswith(SOFTWARE_KEYS)}
    return json.dumps(
        [{key: value for key, value in recipe.items() if key not in varying}, dict(code), software],
        sort_keys=True, default=str,
    )  # fmt: skip


def diff_runs(before: Sequence[RunResult], after: Sequence[RunResult]) -> list[Difference]:
    """List the differences between two groups of runs, parameters first.

    Parameters are the keys of params.yaml that a stage reads. Data is what was fetched and prepared, and the user's own
    files, by digest. The environment is the provenance: locks, hardware, devices, processes, threads.
    """
    differences = []
    for kind, extract in EXTRACTORS.items():
        missing = NOT_RECORDED if kind == "environment" else ABSENT
        old, new = ([extract(result) for result in group] for group in (before, after))
        for key in sorted({key for values in (*old, *new) for key in values}):
            # Values are compared in full, because long ones are abbreviated for display.
            shown = [{repr(run.get(key)): abbreviate(run.get(key, missing)) for run in group} for group in (old, new)]
            if shown[0].keys() != shown[1].keys():
                differences.append(Difference(kind, key, *(", ".join(group.values()) for group in shown)))
    return differences


def format_differences(differences: Sequence[Difference]) -> list[str]:
    """Format differences, one per line; one line if there are none."""
    lines = [f"{each.kind}: {each.key}: {each.before} → {each.after}" for each in differences]
    return lines or ["nothing recorded in dvc.lock or provenance.json"]


def data(result: RunResult) -> dict[str, Any]:
    """Return the digests of fetched and prepared data and of the user's own files, by path."""
    stages = {path: out.md5 for path, out in result.outputs.items() if out.stage in DATA_STAGES}
    return stages | {path: md5 for path, md5 in result.code.items() if is_data(path)}


def environment(result: RunResult) -> dict[str, Any]:
    """Return the provenance without volatile keys and without the inputs."""
    return {key: value for key, value in result.provenance.items() if not key.startswith((*VOLATILE_KEYS, *INPUT_KEYS))}


def code(result: RunResult) -> dict[str, Any]:
    """Return the digest of each file and folder of code, by path."""
    return {path: md5 for path, md5 in result.code.items() if not is_data(path)}


def is_data(path: str) -> bool:
    """Return whether a dependency that no stage writes is the user's own data."""
    return PurePosixPath(path).is_relative_to(LOCAL_DATA)


def abbreviate(value: Any) -> str:
    """Format a value for display; only the beginning of a long one, such as a digest."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= MAX_WIDTH else f"{text[:12]}…"


EXTRACTORS: dict[DiffKind, Any] = {
    "parameter": lambda result: result.recipe,
    "data": data,
    "environment": environment,
    "code": code,
}
