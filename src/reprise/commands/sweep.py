"""`reprise sweep`: search for better parameters, and test the best trials against the committed recipe."""

import hashlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from reprise.commands.seeds import apply_overrides, check_copyable, planned_replicate_key, run_experiment
from reprise.commands.terminal import Terminal
from reprise.core.config import PARAMS
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe, load_params
from reprise.results.runs import Run, all_runs, experiments, replicates, resolve_run
from reprise.results.statistics import is_greater_better, summarize
from reprise.results.vcs import resolve_commit
from reprise.sweep.record import (
    FAILED,
    FINISHED,
    Record,
    RecordedTrial,
    read_record,
    record_dimension,
    record_finals,
    record_trial,
    write_record,
)
from reprise.sweep.result import Finals, Result, describe, folder_of, write_result
from reprise.sweep.selection import FINALISTS, FIRST_LOOK, is_settled, winner_of
from reprise.sweep.space import Space, parse_space, read_overrides
from reprise.sweep.study import Finished, Sampler, Study

VALIDATION = "evaluate.split=validation"  # no run of a sweep evaluates the test split
MAX_CORNERS = 256  # combinations of ends that are checked before the first trial


class Settings(NamedTuple):
    """Options of a sweep; `reprise sweep --help` describes them."""

    number: int
    sampler: Sampler
    seed: int
    max_seeds: int
    name: str


class Plan(NamedTuple):
    """What all runs of a sweep share.

    Attributes:
        settings: options.
        metric: name of the metric that trials are compared by.
        seed: of the search; the finalists have the following ones.
        identity: digest of the committed recipe, the code and the software.
    """

    settings: Settings
    metric: str
    seed: int
    identity: str

    @property
    def greater_is_better(self) -> bool:
        """The direction of the metric."""
        return is_greater_better(self.metric)


def run_sweep(overrides: Sequence[str], file: Path | None, settings: Settings) -> None:
    """Run the trials, then the finalists and the committed recipe with fresh seeds, and print the answer.

    Each run is a DVC experiment in a copy of the checkout, so the workspace is untouched. The command resumes an
    interrupted sweep, and reuses every run that exists already.

    Args:
        overrides: dimensions and fixed overrides.
        file: more of them in YAML.
        settings: the other options.

    Raises:
        UserError: the space is invalid, the repository has no commit or cannot be copied, the name is of another sweep,
            or the pipeline fails.
    """
    folder = folder_of(settings.name)
    resolve_commit("HEAD")
    space = parse_space([*(read_space(file) if file else []), *overrides])
    committed = apply_overrides([VALIDATION])
    check_space(space)
    check_copyable(check_recipe(committed, str(PARAMS)))
    metric = committed["task"]["metrics"][0]  # which selects the epoch, too
    plan = Plan(settings, metric, committed["seed"], identity_of(committed))
    study = Study(
        folder / "journal.log",
        space,
        settings.sampler,
        settings.seed,
        plan.identity,
        greater_is_better=plan.greater_is_better,
    )
    record = run_trials(study, plan, folder)
    trials = ranked(study.finished(), greater_is_better=plan.greater_is_better)
    record = replace(record, importance=study.importance())
    finals, record = run_finals(choose_finalists(trials, committed), plan, folder, record)
    recipe = apply_overrides([])
    by_number = {each.number: each.overrides for each in trials}
    sentence = describe(finals, by_number, recipe, metric)
    print_trials(space, trials, metric, {each.number: each.ended for each in record.trials})
    print_finals(finals, by_number, metric)
    write_result(
        folder,
        Result(
            sentence,
            winner_of(finals.comparisons()),
            metric,
            recipe,
            {str(number): list(texts) for number, texts in sorted(by_number.items())},
        ),
    )
    write_record(folder, replace(record, answer=sentence))
    echo(sentence)
    if winner_of(finals.comparisons()) is not None:
        echo(f"Adopt it: reprise sweep --adopt {settings.name}")


def read_space(file: Path) -> list[str]:
    """Read overrides from a file in YAML.

    Raises:
        UserError: there is no such file, or it is no mapping of keys.
    """
    if not file.is_file():
        raise UserError("not found", file=file, expected="a file in YAML with the space")
    return read_overrides(load_params(file), str(file))


def check_space(space: Space) -> None:
    """Check that the ends of the dimensions give valid recipes, in up to MAX_CORNERS combinations.

    Raises:
        UserError: one does not.
    """
    for corner in itertools.islice(space.corners(), MAX_CORNERS):
        apply_overrides(corner)


def identity_of(committed: Mapping[str, Any]) -> str:
    """Return a digest of the committed recipe, the code and the software: a sweep compares runs of one of each."""
    return hashlib.sha256(f"{planned_replicate_key(committed)} {committed['seed']}".encode()).hexdigest()


def run_trials(study: Study, plan: Plan, folder: Path) -> Record:
    """Run trials until there are as many as wanted; a grid ends earlier. Record each in the folder of the sweep.

    A trial whose pipeline fails counts, as with a learning rate at which training diverges. The sweep ends if the first
    trial fails, or three in a row.

    Raises:
        UserError: see above, or a run cannot start.
    """
    number = min(plan.settings.number, study.size or plan.settings.number)
    record = Record(
        plan.metric,
        plan.greater_is_better,
        max(number, len(study.finished())),
        study.space.fixed,
        tuple(map(record_dimension, study.space.dimensions)),
        recorded_trials(study, plan, folder),
    )
    write_record(folder, record)
    durations = []
    while len(done := study.finished()) < number:
        trial, asked = study.ask()
        progress = f"sweep: trial {asked.number} of {number}"
        echo(f"{progress}: {' '.join(asked.overrides)}")
        started = time.monotonic()
        run = find_run(asked.overrides, plan.seed)
        if run is None:
            name = f"{plan.settings.name}-{asked.number:03}"
            check_start(name, plan)
            try:
                run = run_new(name, asked.overrides, plan.seed)
            except UserError:
                if all(each.metric is None for each in done[-2:]):
                    raise
            durations.append(time.monotonic() - started)
        value = None if run is None else run.result.metrics["evaluate"][plan.metric]
        study.tell(trial, value)
        recorded = record_trial(asked.number, asked.overrides, value, run, study.space)
        record = replace(record, trials=(*record.trials, recorded))
        write_record(folder, record)
        left = ""
        if durations and number > asked.number:
            left = f"; about {minutes((number - asked.number) * sum(durations) / len(durations))} left"
        echo(f"{progress}: {'failed' if value is None else f'{plan.metric} {value:.4f} of {run and run.name}'}{left}")
    return record


def recorded_trials(study: Study, plan: Plan, folder: Path) -> tuple[RecordedTrial, ...]:
    """Return the records of the trials that have ended: those in the folder of the sweep, or as their runs are."""
    try:
        earlier = {trial.number: trial for trial in read_record(folder).trials}
    except UserError:  # a sweep that begins, or was killed before it wrote; the runs have it all
        earlier = {}
    trials = []
    for each in study.finished():
        found = earlier.get(each.number)
        if found is None or (found.run is None and each.metric is not None):
            run = None if each.metric is None else find_run(each.overrides, plan.seed)
            found = record_trial(each.number, each.overrides, each.metric, run, study.space)
        trials.append(found)
    return tuple(trials)


def minutes(seconds: float) -> str:
    """Return a duration in minutes, or in hours and minutes."""
    hours, rest = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def find_run(overrides: Sequence[str], seed: int) -> Run | None:
    """Return a run on validation with overrides and a seed, here or among the experiments; None if there is none."""
    key = planned_replicate_key(apply_overrides([*overrides, VALIDATION]))
    return next((run for run in replicates(key, all_runs()) if run.seed == seed), None)


def check_start(name: str, plan: Plan) -> None:
    """Check that a run can start: its name is free, and nothing has changed since the sweep began.

    Raises:
        UserError: an experiment has the name; or the recipe, code or software are others by now, by which an experiment
            would run.
    """
    head = resolve_commit("HEAD")
    if any(each.name == name and each.base == head for each in experiments()):
        expected = f"another --name, or `dvc exp remove {name}` first"
        raise UserError("an experiment with another recipe has this name", key=name, expected=expected)
    if identity_of(apply_overrides([VALIDATION])) != plan.identity:
        expected = "those that the sweep began with: restore them, and the same command resumes it"
        raise UserError("params.yaml, the code or the software has changed", key=name, expected=expected)


def run_new(name: str, overrides: Sequence[str], seed: int) -> Run:
    """Run the pipeline on validation with overrides and a seed, as an experiment.

    Raises:
        UserError: the pipeline fails.
    """
    run_experiment(name, seed, [*overrides, VALIDATION])
    return resolve_run(name)


def ranked(trials: Sequence[Finished], *, greater_is_better: bool) -> list[Finished]:
    """Sort trials by metric, best first; those that failed are last."""

    def rank(trial: Finished) -> tuple[bool, float]:
        metric = trial.metric or 0.0
        return trial.metric is None, -metric if greater_is_better else metric

    return sorted(trials, key=rank)


def choose_finalists(trials: Sequence[Finished], committed: dict[str, Any]) -> dict[int, tuple[str, ...]]:
    """Return the overrides of the best different trials by number; the committed recipe is none of them.

    Args:
        trials: best first.
        committed: its parameters, on validation.
    """
    finalists: dict[int, tuple[str, ...]] = {}
    recipes = [committed]
    for trial in trials:
        recipe = apply_overrides([*trial.overrides, VALIDATION])
        if trial.metric is not None and recipe not in recipes and len(finalists) < FINALISTS:
            finalists[trial.number] = trial.overrides
            recipes.append(recipe)
    return finalists


def run_finals(
    finalists: dict[int, tuple[str, ...]], plan: Plan, folder: Path, record: Record
) -> tuple[Finals, Record]:
    """Run the finalists and the committed recipe with the seeds after that of the search, until the answer is settled.

    Args:
        finalists: overrides by the number of the trial.
        plan: of the sweep.
        folder: of the sweep, in which each run is recorded.
        record: of the trials.

    Raises:
        UserError: a run cannot start, or the pipeline fails.
    """
    most = plan.settings.max_seeds
    overrides = dict[int | None, tuple[str, ...]]([(None, ()), *finalists.items()])
    values: dict[int | None, list[float]] = {number: [] for number in overrides}
    runs: dict[int | None, list[Run]] = {number: [] for number in overrides}
    for count in range(1, most + 1 if finalists else 1):
        seed = plan.seed + count
        for number, texts in overrides.items():
            role, shown = ("committed", "committed recipe") if number is None else (f"{number:03}", f"trial {number}")
            run = find_run(texts, seed)
            reused = f": reusing {run.name}" if run else ""
            echo(f"sweep: {shown}, seed {seed}, {count} of at most {most}{reused}")
            if run is None:
                name = f"{plan.settings.name}-{role}-seed-{seed}"
                check_start(name, plan)
                run = run_new(name, texts, seed)
            values[number].append(run.result.metrics["evaluate"][plan.metric])
            runs[number].append(run)
            write_record(folder, replace(record, finals=record_finals(runs, plan.metric, None)))
        if count >= FIRST_LOOK and is_settled(list(_finals(values, plan).comparisons().values())):
            break
    finals = _finals(values, plan)
    return finals, replace(record, finals=record_finals(runs, plan.metric, finals))


def _finals(values: dict[int | None, list[float]], plan: Plan) -> Finals:
    finalists = {number: list(each) for number, each in values.items() if number is not None}
    return Finals(list(values[None]), finalists, plan.settings.max_seeds, plan.greater_is_better)


def print_trials(space: Space, trials: Sequence[Finished], metric: str, ends: Mapping[int, str]) -> None:
    """Print the trials with the searched parameters, best first; what ended them if it was not the last epoch.

    Args:
        space: what is searched.
        trials: best first.
        metric: its name.
        ends: what ended each trial, by number.
    """
    any_cut = not {*ends.values()} <= {FINISHED, FAILED}
    table = Table("trial", metric, *(each.key for each in space.dimensions), *(["training"] if any_cut else []))
    for trial in trials:
        values = [text.partition("=")[2] for text in trial.overrides[len(space.fixed) :]]
        end = ["" if ends[trial.number] == FAILED else ends[trial.number]] if any_cut else []
        table.add_row(str(trial.number), FAILED if trial.metric is None else f"{trial.metric:.4f}", *values, *end)
    Terminal().print(table)


def print_finals(finals: Finals, trials: dict[int, tuple[str, ...]], metric: str) -> None:
    """Print the means of the finalists and of the committed recipe over the fresh seeds."""
    if not finals.finalists:
        return
    table = Table("recipe", f"{metric} on validation", "better by", "interval")
    control = summarize(finals.control)
    table.add_row("committed", f"{control.mean:.4f} ± {control.sd:.4f}", "", "")
    for number, each in finals.comparisons().items():
        group = summarize(finals.finalists[number])
        interval = "–" if each.half_width is None else f"± {each.half_width:.4f}"
        row = (f"{group.mean:.4f} ± {group.sd:.4f}", f"{each.difference:+.4f}", interval)
        table.add_row(f"trial {number}: {' '.join(trials[number])}", *row)
    console = Terminal()
    console.print(table)
    console.print(
        f"Mean ± standard deviation over {control.n} seeds that the search did not use. Intervals hold together with "
        f"95 % probability, over {len(finals.finalists)} finalists and every look.",
        soft_wrap=True,
    )
