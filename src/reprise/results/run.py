"""Read the result of a run, alike from a commit, an experiment or a folder."""

import functools
import hashlib
import io
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from ruamel.yaml.error import YAMLError

from reprise.core.config import LOCAL_DATA
from reprise.core.dvc_lock import LOCK, Output, locked_outputs, read_stages
from reprise.core.errors import UserError
from reprise.core.files import json_sha256
from reprise.core.paths import METRICS, PLOTS, PROVENANCE, SOURCES, SPEED
from reprise.hardware import ENVIRONMENT
from reprise.results.renamed import with_current_metrics, with_current_params, with_implied_params
from reprise.tasks.kind import TaskKind
from reprise.tasks.registry import task_kind

LOSSES = PLOTS / "train.csv"
EVALUATION = METRICS / "evaluate.json"
# They record how, where and when a run took place. They differ between identical runs, so none is compared. In earlier
# commits all three are outputs in dvc.lock.
RECORDED = (PROVENANCE, SPEED)
VOLATILE = {str(ENVIRONMENT), *map(str, RECORDED)}
# What is printed in place of speed or provenance, see `read_recorded`.
NOT_RECORDED = "not recorded (restored from the run cache)"

T = TypeVar("T")
FileReader = Callable[[Path], bytes | None]


@dataclass(frozen=True)
class RunResult:
    """Inputs and outputs of a run.

    Attributes:
        outputs: outputs by path, without those in `VOLATILE`.
        recipe: parameters that the stages read, by dotted key.
        code: digest of each file and folder that the stages read and no stage writes, by path: DVC's MD5, and the
            SHA-256 of the user's own files and folders.
        losses: mean loss of each optimizer step, fp64, shape [steps].
        metrics: model quality by stage and name; for `train`, validation metrics and the mean loss of all steps.
        provenance: the last session and its result, by dotted key; only the environment if they were not recorded.
        edited: the outputs in git, or beside dvc.lock in the workspace, that are not as this dvc.lock records them, and
            of `RECORDED` those that are not as train wrote them.
    """

    outputs: dict[str, Output]
    recipe: dict[str, Any]
    code: dict[str, str]
    losses: npt.NDArray[np.float64]
    metrics: dict[str, dict[str, float]]
    provenance: dict[str, Any]
    edited: list[str] = field(default_factory=list)

    @property
    def task_kind(self) -> TaskKind:
        """The kind of the recipe's task."""
        labels, positive = self.recipe.get("task.labels") or [], self.recipe.get("task.positive_label")
        sections = ("separator", "thresholds")
        multi_label = {name: self.recipe.get(f"task.multi_label.{name}") for name in sections}
        subwords = self.recipe.get("task.token_classification.subwords")
        return task_kind(
            [str(label) for label in labels],
            None if positive is None else str(positive),
            multi_label if multi_label["thresholds"] is not None else None,
            None if subwords is None else {"subwords": subwords},
        )


def read_result(read: FileReader, where: str) -> RunResult:
    """Read the result of a complete run.

    Args:
        read: returns the content of a file, None if there is no such file.
        where: name of the folder or commit, for error messages.

    Raises:
        UserError: a result is missing or damaged.
    """

    def parse_file(file: Path, parse: Callable[[bytes], T]) -> T:
        content = read(file)
        if content is None:
            raise UserError("not found", file=f"{where}: {file}", expected="the results of `dvc repro`, committed")
        try:
            return parse(content)
        except (UserError, YAMLError, ValueError, LookupError, TypeError, AttributeError):
            raise UserError("damaged", file=f"{where}: {file}", expected="the results of `dvc repro`") from None

    def parse_optional(file: Path, parse: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
        return {} if read(file) is None else parse_file(file, parse)

    stages = parse_file(LOCK, read_stages)
    outputs, recipe, code, edited = parse_file(LOCK, lambda _: parse_lock(stages, read))
    losses = parse_file(LOSSES, parse_losses)
    return RunResult(
        outputs=outputs,
        recipe=recipe,
        code=code,
        losses=losses,
        metrics={
            # The mean over all steps: the loss of the kept epoch is not comparable, as seeds keep different epochs.
            "train": {"loss": float(losses.mean()), **parse_file(METRICS / "train.json", parse_train_metrics)},
            "evaluate": parse_file(EVALUATION, parse_evaluation_metrics),
        },
        provenance=parse_optional(ENVIRONMENT, lambda content: parse_environment(content, stages))
        | parse_optional(PROVENANCE, lambda _: parse_provenance(read_recorded(read, PROVENANCE))),
        edited=edited,
    )


def parse_lock(
    stages: Mapping[str, Any], read: FileReader
) -> tuple[dict[str, Output], dict[str, Any], dict[str, str], list[str]]:
    """Parse the stages of dvc.lock into outputs, recipe, code, and the outputs that were edited.

    Committed outputs are hashed again, so that an edited file differs from its entry in dvc.lock.
    """
    recipe: dict[str, Any] = {}
    code: dict[str, str] = {}
    locked = locked_outputs(stages)
    edited = edited_outputs(locked, read)
    outputs = {
        path: replace(output, md5=edited.get(path, output.md5))
        for path, output in locked.items()
        if path not in VOLATILE
    }
    for stage in stages_in_order(stages):
        for file, params in stage.get("params", {}).items():
            if file == str(SOURCES):
                code |= {path: digest for digests in params.values() for path, digest in digests.items()}
            else:
                recipe |= with_current_params(flatten(params))
        for dep in stage.get("deps", []):
            if str(SOURCES) in locked and dep["path"] == str(LOCAL_DATA):
                continue  # most of its files may have no effect
            if not any(PurePosixPath(dep["path"]).is_relative_to(path) for path in locked):
                code[dep["path"]] = dep["md5"]
    return outputs, with_implied_params(recipe), code, [*edited, *edited_records(locked, read)]


def edited_outputs(locked: Mapping[str, Output], read: FileReader) -> dict[str, str]:
    """Return the MD5 of each file that is not as dvc.lock records it: edited by hand, or of another run.

    Folders, and files that only DVC's cache has, are not among them.

    Args:
        locked: outputs in dvc.lock.
        read: returns the content of a file of the same commit or folder.
    """
    contents = {path: read(Path(path)) for path in locked}
    digests = {path: md5 for path, content in contents.items() if (md5 := md5_of(content))}
    return {path: md5 for path, md5 in digests.items() if md5 != locked[path].md5}


def md5_of(content: bytes | None) -> str | None:
    """Return the MD5 of a file's content; None for no file."""
    return None if content is None else hashlib.md5(content, usedforsecurity=False).hexdigest()


def describe_edited(path: str) -> str:
    """Describe an output of `RunResult.edited`."""
    written = "its run wrote it" if Path(path) in RECORDED else f"{LOCK} records it"
    return f"{path} is not as {written}: it was edited after the run, or is of another run"


def stages_in_order(stages: Mapping[str, Any]) -> list[Any]:
    """Return the stages of dvc.lock, train and evaluate last: a key that several read is the one that made the model.

    The stages can disagree, because `dvc repro prepare` locks the new value for that stage alone.
    """
    return [stages[name] for name in sorted(stages, key=lambda name: (name == "evaluate", name == "train"))]


def parse_losses(content: bytes) -> npt.NDArray[np.float64]:
    """Parse the loss of each step, exact to the last bit."""
    table = pd.read_csv(io.BytesIO(content), float_precision="round_trip")
    return table["loss"].to_numpy(np.float64)


def describe_early_end(recipe: Mapping[str, Any], curve: bytes) -> str | None:
    """Describe what ended a training before it had all its epochs; None if it had.

    Args:
        recipe: by dotted key.
        curve: content of plots/train.csv.
    """
    epochs = pd.read_csv(io.BytesIO(curve), usecols=["epoch"])["epoch"]
    last, planned = int(epochs.iloc[-1]), recipe["train.epochs"]
    if len(epochs) == recipe.get("train.max_steps"):
        # Of a single epoch, the curve does not show how many steps it would have had.
        complete = planned > 1 and len(epochs) == planned * (epochs == 1).sum()
        return None if complete else f"stopped in epoch {last} of {planned}: train.max_steps"
    return f"stopped after epoch {last} of {planned}: early stopping" if last < planned else None


def parse_train_metrics(content: bytes) -> dict[str, float]:
    """Parse the validation metrics of the kept epoch."""
    scores: dict[str, float] = json.loads(content)["validation"]
    return scores


def parse_evaluation_metrics(content: bytes) -> dict[str, float]:
    """Parse the recipe's metrics on the evaluation split."""
    evaluated = parse_metrics(EVALUATION, content)
    return {name: evaluated[name] for name in evaluated["ci95"]}


def parse_metrics(file: Path, content: bytes) -> dict[str, Any]:
    """Parse a metrics file; keys of earlier versions get their current names."""
    return with_current_metrics(file, json.loads(content))


def read_recorded(read: FileReader, file: Path) -> dict[str, Any] | None:
    """Read `SPEED` or `PROVENANCE`, if it is of the run in dvc.lock.

    DVC does not know these files: after a restore from the run cache, they are still those of another run. So each
    holds the MD5 of the model, and of the environment and the code that made it, and its own SHA-256.

    Args:
        read: returns the content of a file of a commit or folder.
        file: what to read.

    Returns:
        The content; None if there is no such file, or it is of another run or was edited.

    Raises:
        UserError: the file or dvc.lock is damaged.
    """
    content, lock = read(file), read(LOCK)
    if content is None or lock is None:
        return None
    stages = read_stages(lock)
    try:
        recorded = parse_metrics(file, content)
        run = recorded.get("run", {}).items()
    except (ValueError, AttributeError):
        raise UserError("damaged", file=file, expected="the result of `dvc repro --force train`") from None
    if str(file) in locked_outputs(stages):  # of an earlier commit: `edited_outputs` compares it
        return recorded
    return recorded if run and run <= train_digests(stages).items() and is_intact(content) else None


def is_intact(content: bytes) -> bool:
    """Return whether a file that `read_recorded` reads is as train wrote it."""
    try:
        fields = json.loads(content)
        return bool(fields.pop("sha256") == json_sha256(fields))
    except (ValueError, LookupError, AttributeError, TypeError):
        return False


def edited_records(locked: Mapping[str, Output], read: FileReader) -> list[str]:
    """List the files that `read_recorded` reads and that are not as train wrote them.

    Args:
        locked: outputs in dvc.lock; of an earlier commit, they include these files.
        read: returns the content of a file of the same commit or folder.
    """
    contents = {str(file): read(file) for file in RECORDED}
    return [path for path, content in contents.items() if content and path not in locked and not is_intact(content)]


def train_digests(stages: Mapping[str, Any]) -> dict[str, str]:
    """Return the MD5 of what train read and wrote, by path, from the stages of dvc.lock."""
    train = stages.get("train", {})
    return {entry["path"]: entry["md5"] for entry in (*train.get("deps", []), *train.get("outs", []))}


def parse_environment(content: bytes, stages: Mapping[str, Any]) -> dict[str, Any]:
    """Parse environment.json, by dotted key as in the provenance; {} if train had another one."""
    of_train = md5_of(content) == train_digests(stages).get(str(ENVIRONMENT))
    return flatten({"environment": json.loads(content)}) if of_train else {}


def parse_provenance(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parse the last session and its result, by dotted key; {} if they were not recorded."""
    if provenance is None:
        return {}
    last = flatten(provenance["sessions"][-1]) | flatten(provenance["results"][-1])
    return with_current_metrics(PROVENANCE, last)


def folder_reader(folder: Path) -> FileReader:
    """Return a reader of the files of a folder."""
    return lambda file: (folder / file).read_bytes() if (folder / file).is_file() else None


def commit_reader(commit: str) -> FileReader:
    """Return a reader of the files of a commit in the current repository.

    Args:
        commit: full hash.
    """
    return lambda file: cat_file(Path.cwd()).read(f"{commit}:{file.as_posix()}")


class GitCatFile:
    """A `git cat-file --batch` process that serves all reads (git-scm.com/docs/git-cat-file)."""

    def __init__(self, repository: Path) -> None:
        """Start the process in a repository."""
        self._git = subprocess.Popen(
            ["git", "cat-file", "--batch"], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def read(self, name: str) -> bytes | None:
        """Return the content of a blob by its git name, None if it does not exist or is not a blob."""
        if "\n" in name:  # two requests, whose second answer the next caller would get
            return None
        stdin, stdout = self._git.stdin, self._git.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{name}\n".encode())
        stdin.flush()
        header = stdout.readline().split()
        if len(header) != 3 or not header[2].isdigit():  # "NAME missing"
            return None
        content = stdout.read(int(header[2]) + 1)[:-1]
        return content if header[1] == b"blob" else None


@functools.cache
def cat_file(repository: Path) -> GitCatFile:
    """Return the process for a repository, started once and kept for the life of this process."""
    return GitCatFile(repository)


def flatten(nested: Mapping[str, Any], prefix: str = "", *, keep_empty: bool = False) -> dict[str, Any]:
    """Flatten nested mappings to dotted keys: {"a": {"b": 1}} becomes {"a.b": 1}.

    Args:
        nested: mappings with string keys.
        prefix: prepended to every key.
        keep_empty: keep an empty mapping as a value, instead of dropping its key.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and (value or not keep_empty):
            flat |= flatten(value, f"{prefix}{key}.", keep_empty=keep_empty)
        else:
            flat[f"{prefix}{key}"] = value
    return flat
