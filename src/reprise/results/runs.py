"""The runs of this repository: the workspace, its commits, and the experiments that DVC keeps in git."""

import functools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import pandas as pd
from tqdm import tqdm

from reprise.core.errors import UserError
from reprise.core.paths import PREDICTIONS
from reprise.results.diff import replicate_key
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

Kind = Literal["workspace", "commit", "experiment"]
WORKSPACE = "workspace"
SEEDS_PREFIX = "seeds:"  # before a run's word: that run, and all that differ from it in the seed alone
# Where DVC keeps an experiment: by the commit that it was tried on, and by its name.
EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")


@dataclass(frozen=True)
class Run:
    """What was cooked once, and where its files are.

    Attributes:
        name: an experiment's name, a commit as it was asked for, or "workspace".
        kind: where it lies.
        commit: the full hash; None for the workspace.
        created: when it was committed; None for the workspace.
        result: what was cooked from what.
        read: gives the bytes of a file that git has (of the workspace: that lies there), None where there is none.
    """

    name: str
    kind: Kind
    commit: str | None
    created: datetime | None
    result: RunResult
    read: FileReader

    @property
    def seed(self) -> int:
        """The seed of its recipe."""
        return int(self.result.recipe["seed"])

    @property
    def constant_prediction(self) -> bool:
        """Whether it says the same of every row."""
        content = self.read(EVALUATION)
        return bool(content and parse_metrics(EVALUATION, content).get("constant_prediction"))

    def predictions(self) -> pd.DataFrame | None:
        """The predictions of the evaluation split, by the columns of `evaluate.stage.prediction_table`.

        Those of a commit come out of DVC's cache on this machine. None where they are not here; no remote is asked.
        """
        file = PREDICTIONS / f"{self.result.recipe['evaluate.split']}.parquet"
        if self.commit is None:
            return pd.read_parquet(file) if file.is_file() else None
        from dvc.api import DVCFileSystem  # slow
        from dvc_data.index import DataIndexDirError

        # Without a default remote DVC looks into its cache alone.
        there = DVCFileSystem(rev=self.commit, config={"core": {"remote": ""}})
        try:
            with there.open(file.as_posix()) as opened:
                return pd.read_parquet(opened)
        except (OSError, DataIndexDirError):
            return None


@dataclass(frozen=True)
class Experiment:
    """An experiment as git knows it: name, its commit, the commit that it was tried on, when, and the ref."""

    name: str
    commit: str
    base: str
    created: datetime
    ref: str


def resolve_runs(word: str) -> list[Run]:
    """The runs that a word names: `workspace`, an experiment, or a commit; with `seeds:` before it, its whole group.

    Of a group are the run itself and HEAD, the workspace and all experiments that differ from it in the seed alone, a
    run a seed, in the order of the seeds.

    Raises:
        UserError: the word names nothing, or several things, or nothing was cooked there.
    """
    if not word.startswith(SEEDS_PREFIX):
        return [resolve_run(word)]
    run = resolve_run(word.removeprefix(SEEDS_PREFIX))
    return first_per_seed([run, *seed_replicates(replicate_key(run.result), all_runs())])


def resolve_run(word: str) -> Run:
    """The one run that a word without `seeds:` names.

    Raises:
        UserError: as `resolve_runs`.
    """
    if word == WORKSPACE:
        return workspace_run()
    head = try_output("git", "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    named = [experiment for experiment in experiments() if experiment.name == word]
    # As DVC does: of experiments of one name, that which was tried on HEAD.
    named = [experiment for experiment in named if experiment.base == head] or named
    if len(named) > 1:
        commits = ", ".join(experiment.commit[:12] for experiment in named)
        raise UserError(f"{word}: experiments on several commits are called so; expected one of {commits}")
    commit = try_output("git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}")
    if named and commit not in (None, named[0].commit):
        raise UserError(
            f"{word}: both an experiment and a commit; expected {named[0].commit[:12]} for the experiment "
            f"or {commit[:12] if commit else ''} for the commit"
        )
    if named:
        return experiment_run(named[0])
    if commit is None:
        raise UserError(
            f"{word}: expected `workspace`, an experiment's name (`dvc exp list --all-commits`) or a commit"
        )
    return commit_run(resolve_commit(word), commit[:12] if commit.startswith(word) else word)


def all_runs() -> list[Run]:
    """The workspace, HEAD and all experiments, as far as something was cooked there.

    The workspace is left out where it has the very results of HEAD.
    """
    found = []
    for place in (workspace_run, lambda: commit_run(resolve_commit("HEAD"), "HEAD")):
        try:
            found.append(place())
        except UserError:  # nothing was cooked there yet
            continue
    if len(found) == 2 and found[0].result.outputs == found[1].result.outputs:
        found = found[1:]
    return [*found, *all_experiments()]


def all_experiments() -> list[Run]:
    """All experiments of all commits, the latest first; what is no whole result is named on stderr and left out."""
    found = []
    for experiment in tqdm(experiments(), desc="experiments: read", unit="", delay=2, leave=False):
        try:
            found.append(experiment_run(experiment))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def experiments() -> list[Experiment]:
    """What DVC keeps under refs/exps/ (dvc.org/doc/user-guide/experiment-management), the latest first."""
    told = "%(objectname) %(committerdate:iso-strict) %(refname)"
    lines = check_output("git", "for-each-ref", "--sort=-committerdate", f"--format={told}", "refs/exps").splitlines()
    return [
        Experiment(parts[3], commit, parts[1] + parts[2], datetime.fromisoformat(created), ref)
        for commit, created, ref in (line.split(maxsplit=2) for line in lines)
        if (parts := EXPERIMENT.fullmatch(ref))
    ]


def workspace_run() -> Run:
    """The run whose files lie here."""
    read = folder_reader(Path())
    return Run(WORKSPACE, "workspace", None, None, read_result(read, WORKSPACE), read)


def commit_run(commit: str, name: str) -> Run:
    """The run that a commit holds."""
    read = commit_reader(commit)
    created = datetime.fromisoformat(check_output("git", "show", "--no-patch", "--format=%cI", commit))
    return Run(name, "commit", commit, created, read_result(read, name), read)


@functools.cache
def experiment_run(experiment: Experiment) -> Run:
    """The run of an experiment, read once: what a commit holds stays."""
    read = commit_reader(experiment.commit)
    result = read_result(read, experiment.name)
    return Run(experiment.name, "experiment", experiment.commit, experiment.created, result, read)


def seed_replicates(group: str, runs: Sequence[Run]) -> list[Run]:
    """Those of the runs that are of a group, by its `identity`."""
    return [run for run in runs if replicate_key(run.result) == group]


def first_per_seed(runs: Sequence[Run]) -> list[Run]:
    """The first run of each seed, in the order of the seeds: a seed that was cooked twice counts once."""
    first: dict[int, Run] = {}
    for run in runs:
        first.setdefault(run.seed, run)
    return [run for _, run in sorted(first.items())]
