"""What the report shows of a sweep, beside its journal: `trials.json`, from its first trial on.

It is read where Optuna is not installed, and when the experiments are gone.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, FiniteFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reprise.core.errors import UserError
from reprise.core.files import write_json
from reprise.core.paths import SPEED
from reprise.results.run import LOSSES, describe_early_end, read_recorded
from reprise.results.runs import Run
from reprise.results.statistics import summarize
from reprise.sweep.result import NAME, SWEEPS, Finals
from reprise.sweep.space import Dimension, Range, Space

RECORD = "trials.json"
FINISHED, FAILED = "finished", "failed"  # other ends are as `describe_early_end` describes them

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=STRICT)
class RecordedRun:
    """The name of a run, and its commit, which stays when an experiment is renamed; None for the workspace."""

    name: str
    commit: str | None


@dataclass(frozen=True, config=STRICT)
class RecordedDimension:
    """A searched parameter.

    Attributes:
        key: dotted key of the recipe.
        scale: of its axis.
        values: both ends of a range, or all values of a choice, as texts of overrides.
    """

    key: str
    scale: Literal["log", "uniform", "int", "choice"]
    values: tuple[str, ...]


@dataclass(frozen=True, config=STRICT)
class RecordedTrial:
    """A trial that has ended.

    Attributes:
        number: from 1.
        values: of the dimensions, as texts of overrides.
        metric: on the validation split; None if the pipeline failed.
        run: what was run or reused; None if it failed, or is not among the experiments any more.
        seconds: training time; None if it was not recorded.
        ended: what ended it.
    """

    number: int
    values: tuple[str, ...]
    metric: FiniteFloat | None
    run: RecordedRun | None
    seconds: FiniteFloat | None
    ended: str


@dataclass(frozen=True, config=STRICT)
class RecordedFinal:
    """A finalist, or the committed recipe, with fresh seeds.

    Attributes:
        trial: number of the trial; None for the committed recipe.
        runs: one for each seed.
        metrics: on the validation split, in the same order.
        difference: from the committed recipe; above 0 if the finalist is better. None until the sweep has finished.
        half_width: of its interval; None also if the differences do not vary.
    """

    trial: int | None
    runs: tuple[RecordedRun, ...]
    metrics: tuple[FiniteFloat, ...]
    difference: FiniteFloat | None = None
    half_width: FiniteFloat | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return summarize(self.metrics).mean

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds; None for a single one."""
        return summarize(self.metrics).sd


@dataclass(frozen=True, config=STRICT)
class Record:
    """A sweep as far as it is.

    Attributes:
        metric: name of the metric.
        greater_is_better: its direction.
        number: of trials that are wanted.
        fixed: overrides of all trials.
        dimensions: what is searched.
        trials: by number.
        importance: of the searched parameters, by key, see `Study.importance`; None if there are too few trials.
        finals: the committed recipe first; empty until the trials have ended.
        answer: the sentence; None until the sweep has finished.
    """

    metric: str
    greater_is_better: bool
    number: int
    fixed: tuple[str, ...]
    dimensions: tuple[RecordedDimension, ...]
    trials: tuple[RecordedTrial, ...] = ()
    importance: dict[str, FiniteFloat] | None = None
    finals: tuple[RecordedFinal, ...] = ()
    answer: str | None = None

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs of the trials, by number, and then of the finals."""
        return [trial.run for trial in self.trials if trial.run] + [run for each in self.finals for run in each.runs]


def record_dimension(dimension: Dimension) -> RecordedDimension:
    """Return a dimension as it is recorded."""
    scale = dimension.scale if isinstance(dimension, Range) else "choice"
    return RecordedDimension(dimension.key, scale, dimension.ends)


def record_run(run: Run) -> RecordedRun:
    """Return the name of a run as it is recorded."""
    return RecordedRun(run.name, run.commit)


def record_trial(
    number: int, overrides: Sequence[str], metric: float | None, run: Run | None, space: Space
) -> RecordedTrial:
    """Return a trial as it is recorded, with what ended it and its training time, from the files of its run.

    Args:
        number: from 1.
        overrides: of the trial.
        metric: None if the pipeline failed.
        run: None if the pipeline failed, or the run is gone.
        space: what is searched.
    """
    values = tuple(text.partition("=")[2] for text in overrides[len(space.fixed) :])
    if run is None:
        return RecordedTrial(number, values, metric, None, None, FAILED if metric is None else FINISHED)
    curve, speed = run.read(LOSSES), read_recorded(run.read, SPEED) or {}
    end = describe_early_end(run.result.recipe, curve) if curve else None
    return RecordedTrial(number, values, metric, record_run(run), speed.get("train_seconds"), end or FINISHED)


def record_finals(runs: dict[int | None, list[Run]], metric: str, finals: Finals | None) -> tuple[RecordedFinal, ...]:
    """Return the runs with fresh seeds as they are recorded.

    Args:
        runs: of the committed recipe, None, and of the finalists, by the number of the trial; without any, it is left
            out.
        metric: name of the metric.
        finals: their comparison; None until there is one.
    """
    comparisons = finals.comparisons() if finals else {}
    recorded = []
    for number, each in runs.items():
        if each:
            compared = comparisons.get(number) if number is not None else None
            metrics = tuple(run.result.metrics["evaluate"][metric] for run in each)
            difference, half_width = (compared.difference, compared.half_width) if compared else (None, None)
            recorded.append(RecordedFinal(number, tuple(map(record_run, each)), metrics, difference, half_width))
    return tuple(recorded)


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a sweep to its folder."""
    write_json(folder / RECORD, asdict(record))


def read_record(folder: Path) -> Record:
    """Read the record of a sweep.

    Raises:
        UserError: it is missing or damaged.
    """
    file, expected = folder / RECORD, "what `reprise sweep` writes; the command of this sweep writes it again"
    try:
        record = TypeAdapter(Record).validate_json(file.read_bytes())
    except OSError:
        raise UserError("not found", file=file, expected=expected) from None
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError("damaged", file=file, key=key, expected=expected) from None
    if problem := _inconsistency(record):
        raise UserError("damaged", file=file, key=problem, expected=expected)
    return record


def _inconsistency(record: Record) -> str | None:
    """Return the key of what contradicts the rest of a record; None if nothing does."""
    numbers = {trial.number for trial in record.trials}
    for dimension in record.dimensions:
        if not _is_dimension(dimension):
            return f"dimensions.{dimension.key}"
    for trial in record.trials:
        if len(trial.values) != len(record.dimensions):
            return f"trials.{trial.number}"
        for dimension, value in zip(record.dimensions, trial.values, strict=True):
            if not _fits(dimension, value):
                return f"trials.{trial.number}.{dimension.key}"
    for final in record.finals:
        if not final.metrics or (final.trial is not None and final.trial not in numbers):
            return "finals"
    return None


def _is_dimension(dimension: RecordedDimension) -> bool:
    if dimension.scale == "choice":
        return bool(dimension.values)
    if len(dimension.values) != 2 or not all(map(_is_number, dimension.values)):
        return False
    low, high = map(float, dimension.values)
    return low < high and (dimension.scale != "log" or low > 0)


def _fits(dimension: RecordedDimension, value: str) -> bool:
    if dimension.scale == "choice":
        return value in dimension.values
    return _is_number(value) and (dimension.scale != "log" or float(value) > 0)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def sweep_names() -> list[str]:
    """List the names of the sweeps that have a record."""
    return sorted(file.parent.name for file in SWEEPS.glob(f"*/{RECORD}") if NAME.fullmatch(file.parent.name))
