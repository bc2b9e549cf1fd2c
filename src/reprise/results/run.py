"""What one cooking gave, read from a commit, an experiment or a folder alike."""

import functools
import hashlib
import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from yaml import YAMLError

from reprise.core.errors import UserError
from reprise.core.paths import METRICS, PLOTS
from reprise.hardware import ENVIRONMENT
from reprise.results.fast_yaml import load_yaml
from reprise.results.renamed import with_current_metrics, with_current_params

LOCK = Path("dvc.lock")
LOSSES = PLOTS / "train.csv"
PROVENANCE = METRICS / "provenance.json"
EVALUATION = METRICS / "evaluate.json"
# What says how, where and when it was cooked, and so is no result that could be the same.
VOLATILE = {str(PROVENANCE), str(METRICS / "speed.json"), str(ENVIRONMENT)}

T = TypeVar("T")
FileReader = Callable[[Path], bytes | None]


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage made, and the MD5 that DVC knows it by."""

    stage: str
    md5: str


@dataclass(frozen=True)
class RunResult:
    """What was cooked from what.

    Attributes:
        outputs: by path; those in VARYING are left out.
        recipe: what the stages read of params.yaml, by dotted key.
        code: the MD5 of each file and folder that the stages read and no stage makes, by path.
        losses: the mean loss of each step, fp64, shape [steps].
        figures: by stage, the metrics that say how good the model is; of `train`, the mean loss of all steps too.
        provenance: the last session and its result, by dotted key.
    """

    outputs: dict[str, Output]
    recipe: dict[str, Any]
    code: dict[str, str]
    losses: npt.NDArray[np.float64]
    metrics: dict[str, dict[str, float]]
    provenance: dict[str, Any]


def read_result(read: FileReader, where: str) -> RunResult:
    """Read the result of a whole cooking.

    Args:
        read: gives the bytes of a file, None where there is no such file.
        where: names the place in an error.

    Raises:
        UserError: nothing, or not all, was cooked there, or a file was damaged since.
    """

    def taken(file: Path, parse: Callable[[bytes], T]) -> T:
        content = read(file)
        if content is None:
            raise UserError(f"{where}: no {file}; expected the results of `dvc repro`, committed")
        try:
            return parse(content)
        except (YAMLError, ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{where}: {file}: damaged; expected the results of `dvc repro`") from None

    outputs, recipe, code = taken(LOCK, lambda content: parse_lock(content, read))
    losses = taken(LOSSES, parse_losses)
    return RunResult(
        outputs=outputs,
        recipe=recipe,
        code=code,
        losses=losses,
        metrics={
            # The loss of all steps: that of the epoch that was kept is another figure where a seed keeps another epoch.
            "train": {"loss": float(losses.mean()), **taken(METRICS / "train.json", parse_train_metrics)},
            "evaluate": taken(EVALUATION, parse_evaluation_metrics),
        },
        provenance={} if read(PROVENANCE) is None else taken(PROVENANCE, parse_provenance),
    )


def parse_lock(content: bytes, read: FileReader) -> tuple[dict[str, Output], dict[str, Any], dict[str, str]]:
    """Outputs, recipe and code, as dvc.lock knows them; of an output that is committed, the committed bytes count."""
    stages: dict[str, Any] = load_yaml(content)["stages"]
    outputs: dict[str, Output] = {}
    recipe: dict[str, Any] = {}
    code: dict[str, str] = {}
    made = {out["path"]: (stage, out["md5"]) for stage, entry in stages.items() for out in entry.get("outs", [])}
    for path, (stage, locked) in made.items():
        if path not in VOLATILE:
            md5, committed = locked, read(Path(path))
            if committed is not None:
                md5 = hashlib.md5(committed, usedforsecurity=False).hexdigest()
            outputs[path] = Output(stage, md5)
    for entry in stages.values():
        for params in entry.get("params", {}).values():
            recipe |= with_current_params(flatten(params))
        for dep in entry.get("deps", []):
            if not any(PurePosixPath(dep["path"]).is_relative_to(path) for path in made):
                code[dep["path"]] = dep["md5"]
    return outputs, recipe, code


def parse_losses(content: bytes) -> npt.NDArray[np.float64]:
    """The loss of each step, to the last bit."""
    table = pd.read_csv(io.BytesIO(content), float_precision="round_trip")
    return table["loss"].to_numpy(np.float64)


def parse_train_metrics(content: bytes) -> dict[str, float]:
    """The validation metrics of the epoch that was kept."""
    scores: dict[str, float] = json.loads(content)["validation"]
    return scores


def parse_evaluation_metrics(content: bytes) -> dict[str, float]:
    """The recipe's metrics."""
    evaluated = parse_metrics(EVALUATION, content)
    return {name: evaluated[name] for name in evaluated["ci95"]}


def parse_metrics(file: Path, content: bytes) -> dict[str, Any]:
    """Parse a metrics file; keys that an earlier version wrote get the names that they have now."""
    return with_current_metrics(file, json.loads(content))


def parse_provenance(content: bytes) -> dict[str, Any]:
    """The last session and its result."""
    told = json.loads(content)
    last = flatten(told["sessions"][-1]) | flatten(told["results"][-1])
    return with_current_metrics(PROVENANCE, last)


def folder_reader(folder: Path) -> FileReader:
    """The files of a folder."""
    return lambda file: (folder / file).read_bytes() if (folder / file).is_file() else None


def commit_reader(commit: str) -> FileReader:
    """The files of a git commit of the repository that we stand in, given its full hash."""
    return lambda file: cat_file(Path.cwd()).read(f"{commit}:{file.as_posix()}")


class GitCatFile:
    """One `git cat-file --batch` that answers for every file of every commit (git-scm.com/docs/git-cat-file)."""

    def __init__(self, repository: Path) -> None:
        self._git = subprocess.Popen(
            ["git", "cat-file", "--batch"], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def read(self, name: str) -> bytes | None:
        """The bytes of a blob by what git calls it, None where there is none, or where it is something else."""
        asked, answered = self._git.stdin, self._git.stdout
        assert asked is not None
        assert answered is not None
        asked.write(f"{name}\n".encode())
        asked.flush()
        head = answered.readline().split()
        if len(head) != 3 or not head[2].isdigit():  # "NAME missing"
            return None
        content = answered.read(int(head[2]) + 1)[:-1]
        return content if head[1] == b"blob" else None


@functools.cache
def cat_file(repository: Path) -> GitCatFile:
    """The one of a repository, which lives as long as this process."""
    return GitCatFile(repository)


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, by dotted key: {"a": {"b": 1}} is {"a.b": 1}."""
    level: dict[str, Any] = {}
    for key, value in nested.items():
        level |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return level
