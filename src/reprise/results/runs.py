"""The runs of this repository: the workspace, commits, and the experiments that DVC keeps in git."""

import functools
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import pandas as pd
from tqdm import tqdm

from reprise.core.display import echo
from reprise.core.dvc_lock import LOCK, output_md5
from reprise.core.errors import UserError
from reprise.core.paths import PREDICTIONS
from reprise.results.diff import FOLD_KEYS, SEED_KEYS, replicate_key
from reprise.results.run import (
    EVALUATION,
    FileReader,
    RunResult,
    commit_reader,
    folder_reader,
    parse_metrics,
    read_result,
)
from reprise.results.vcs import check_output, resolve_commit, try_output

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

Kind = Literal["workspace", "commit", "experiment"]
WORKSPACE = "workspace"
EXAMPLE_COLUMNS = ("id", "text", "text_pair", "label")  # columns of the predictions that identify an example
SEEDS_PREFIX = "seeds:"  # selects a run and all runs that differ from it only in the seed
FOLDS_PREFIX = "folds:"  # and only in the fold of the cross-validation, or in the division that it is of
# The git ref of a DVC experiment: the commit it started from, and its name.
EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")


class Fold(NamedTuple):
    """The part of the data that validates a run: the seed that divided the data, and the number of the fold."""

    split_seed: int
    number: int


@dataclass(frozen=True)
class Run:
    """A run and how to read its files.

    Attributes:
        name: an experiment's name, a commit as the user wrote it, or "workspace".
        kind: workspace, commit or experiment.
        commit: full hash; None for the workspace.
        created: time of the commit; None for the workspace.
        result: inputs and outputs.
        read: returns the content of a file in git, or in the workspace; None if there is no such file.
    """

    name: str
    kind: Kind
    commit: str | None
    created: datetime | None
    result: RunResult
    read: FileReader

    @property
    def seed(self) -> int:
        """The seed of the recipe."""
        return int(self.result.recipe["seed"])

    @property
    def fold(self) -> Fold | None:
        """The fold that validates; None if the recipe has no folds."""
        recipe = self.result.recipe
        if recipe.get("task.split.folds") is None:
            return None
        return Fold(recipe["task.split.seed"], recipe["train.fold"] or 0)

    @property
    def constant_prediction(self) -> bool:
        """Whether the model predicts the same for every example."""
        content = self.read(EVALUATION)
        return bool(content and parse_metrics(EVALUATION, content).get("constant_prediction"))

    def predictions(self) -> pd.DataFrame | None:
        """Read the predictions of the evaluation split, with the columns of `evaluate.stage.prediction_table`.

        Predictions of a commit are read from the DVC cache of this machine; no remote is contacted.

        Returns:
            The predictions, None if they are not on this machine.
        """
        file = PREDICTIONS / f"{self.result.recipe['evaluate.split']}.parquet"
        if self.commit is None:
            return pd.read_parquet(file) if file.is_file() else None
        from dvc_data.index import DataIndexDirError  # slow

        try:
            with _cache(self.commit).open(file.as_posix()) as stream:
                return pd.read_parquet(stream)
        except (OSError, DataIndexDirError):
            return None

    def copy_output(self, folder: Path, target: Path) -> bool:
        """Copy a folder that DVC keeps, and check that it is as this run's dvc.lock records it.

        That of a commit is copied from the DVC cache of this machine; no remote is contacted.

        Args:
            folder: an output, such as models/final.
            target: where its files go; it does not exist.

        Returns:
            Whether it is on this machine.

        Raises:
            UserError: it is damaged, or of another run.
        """
        from dvc_data.index import DataIndexDirError  # slow

        try:
            if self.commit is None:
                shutil.copytree(folder, target)
            else:
                _cache(self.commit).get(folder.as_posix(), str(target), recursive=True)
        except (OSError, DataIndexDirError):
            return False
        locked = self.result.outputs.get(folder.as_posix())
        if locked is None or output_md5(target) != locked.md5:
            expected = "what `reprise fsck` calls ok; it names the damaged files and what restores them"
            raise UserError(f"not as {LOCK} records it", file=f"{self.name}: {folder}", expected=expected)
        return True


def _cache(commit: str) -> "DVCFileSystem":
    """Return the files of a commit as DVC's cache on this machine has them."""
    from dvc.api import DVCFileSystem  # slow

    # Without a default remote DVC reads only its cache.
    return DVCFileSystem(rev=commit, config={"core": {"remote": ""}})


def same_examples(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    """Return whether two tables of predictions are of the same examples with the same labels, in the same order."""
    identifying = [name for name in EXAMPLE_COLUMNS if name in before]
    same_columns = identifying == [name for name in EXAMPLE_COLUMNS if name in after]
    return same_columns and before[identifying].equals(after[identifying])


@dataclass(frozen=True)
class Experiment:
    """A DVC experiment in git.

    Attributes:
        name: name of the experiment.
        commit: full hash of its commit.
        base: full hash of the commit it started from.
        created: time of its commit.
        ref: git ref.
    """

    name: str
    commit: str
    base: str
    created: datetime
    ref: str


def resolve_runs(selector: str) -> list[Run]:
    """Return the runs that a selector names.

    A selector is `workspace`, an experiment's name or a commit. With the prefix `seeds:` it selects that run and, of
    HEAD, the workspace and all experiments, those that differ from it only in the seed: one run per seed, by seed. With
    `folds:`, those that differ only in the fold, by fold.

    Raises:
        UserError: the selector is unknown or ambiguous, or the run has no results, or no folds.
    """
    if selector.startswith(FOLDS_PREFIX):
        run = resolve_run(selector.removeprefix(FOLDS_PREFIX))
        if run.fold is None:
            raise UserError("its recipe has no folds", key=selector, expected="a run of `reprise cv`")
        return first_per_fold([run, *replicates(replicate_key(run.result, FOLD_KEYS), all_runs(), FOLD_KEYS)])
    if not selector.startswith(SEEDS_PREFIX):
        return [resolve_run(selector)]
    run = resolve_run(selector.removeprefix(SEEDS_PREFIX))
    return first_per_seed([run, *replicates(replicate_key(run.result), all_runs())])


def resolve_run(selector: str) -> Run:
    """Return the run that a selector without a prefix names.

    Raises:
        UserError: as `resolve_runs`.
    """
    if selector == WORKSPACE:
        return workspace_run()
    head = try_output("git", "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    named = [experiment for experiment in experiments() if experiment.name == selector]
    # Of several experiments with one name, the one that started from HEAD wins, as in DVC.
    named = [experiment for experiment in named if experiment.base == head] or named
    if len(named) > 1:
        commits = ", ".join(experiment.commit[:12] for experiment in named)
        raise UserError("experiments of several commits have this name", key=selector, expected=f"one of {commits}")
    commit = try_output("git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{selector}^{{commit}}")
    if named and commit not in (None, named[0].commit):
        expected = f"{named[0].commit[:12]} for the experiment or {commit[:12] if commit else ''} for the commit"
        raise UserError("both an experiment and a commit", key=selector, expected=expected)
    if named:
        return experiment_run(named[0])
    if commit is None:
        expected = "`workspace`, an experiment's name (`dvc exp list --all-commits`) or a commit"
        raise UserError(key=selector, expected=expected)
    return commit_run(resolve_commit(selector), commit[:12] if commit.startswith(selector) else selector)


def all_runs() -> list[Run]:
    """Return the workspace, HEAD and all experiments that have results.

    The workspace is skipped if its outputs are those of HEAD.
    """
    runs = []
    for load in (workspace_run, lambda: commit_run(resolve_commit("HEAD"), "HEAD")):
        try:
            runs.append(load())
        except UserError:  # no results yet
            continue
    if len(runs) == 2 and runs[0].result.outputs == runs[1].result.outputs:
        runs = runs[1:]
    return [*runs, *all_experiments()]


def all_experiments() -> list[Run]:
    """Return the runs of all experiments, latest first; incomplete ones are named on stderr and skipped."""
    runs = []
    for experiment in tqdm(experiments(), desc="experiments: read", unit="", delay=2, leave=False):
        try:
            runs.append(experiment_run(experiment))
        except UserError as error:
            echo(f"skipped: {error}", err=True)
    return runs


def experiments() -> list[Experiment]:
    """List the experiments under refs/exps/ (dvc.org/doc/user-guide/experiment-management), latest first."""
    fields = "%(objectname) %(committerdate:iso-strict) %(refname)"
    lines = check_output("git", "for-each-ref", "--sort=-committerdate", f"--format={fields}", "refs/exps").splitlines()
    return [
        Experiment(parts[3], commit, parts[1] + parts[2], datetime.fromisoformat(created), ref)
        for commit, created, ref in (line.split(maxsplit=2) for line in lines)
        if (parts := EXPERIMENT.fullmatch(ref))
    ]


def workspace_run() -> Run:
    """Read the run of the workspace."""
    read = folder_reader(Path())
    return Run(WORKSPACE, "workspace", None, None, read_result(read, WORKSPACE), read)


def commit_run(commit: str, name: str) -> Run:
    """Read the run of a commit."""
    read = commit_reader(commit)
    created = datetime.fromisoformat(check_output("git", "show", "--no-patch", "--format=%cI", commit))
    return Run(name, "commit", commit, created, read_result(read, name), read)


@functools.cache
def experiment_run(experiment: Experiment) -> Run:
    """Read the run of an experiment; cached, because a commit never changes."""
    read = commit_reader(experiment.commit)
    result = read_result(read, experiment.name)
    return Run(experiment.name, "experiment", experiment.commit, experiment.created, result, read)


def replicates(key: str, runs: Sequence[Run], varying: Sequence[str] = SEED_KEYS) -> list[Run]:
    """Return the runs with a `replicate_key` that does not cover `varying`."""
    return [run for run in runs if replicate_key(run.result, varying) == key]


def first_per_seed(runs: Sequence[Run]) -> list[Run]:
    """Return the first run of each seed, sorted by seed."""
    first: dict[int, Run] = {}
    for run in runs:
        first.setdefault(run.seed, run)
    return [run for _, run in sorted(first.items())]


def first_per_fold(runs: Sequence[Run]) -> list[Run]:
    """Return the first run of each fold, sorted by division and fold; runs without folds are left out."""
    first: dict[Fold, Run] = {}
    for run in runs:
        if run.fold is not None:
            first.setdefault(run.fold, run)
    return [run for _, run in sorted(first.items())]
