"""The trials of a sweep, which Optuna proposes and keeps in a journal.

The sampler of a trial is seeded by the sweep's seed and the trial's number, so a proposal is a function of these and of
the earlier results. A sweep that was killed therefore proposes the same again.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from reprise.core.errors import UserError
from reprise.sweep.space import Dimension, Range, Space

Sampler = Literal["tpe", "random", "grid"]
STUDY = "sweep"  # the only one of its journal
IDENTITY = "identity"  # attribute of the study: what makes its trials
FAILED = "failed"  # attribute of a trial whose pipeline failed; without it, the trial was interrupted
MIN_TRIALS = 10  # with a metric, for the importance of the parameters


@dataclass(frozen=True)
class Finished:
    """A trial that has ended.

    Attributes:
        number: from 1.
        overrides: of params.yaml.
        metric: None if the pipeline failed.
    """

    number: int
    overrides: tuple[str, ...]
    metric: float | None


class Study:
    """The trials of one sweep, in the order in which they were proposed."""

    def __init__(
        self, file: Path, space: Space, sampler: Sampler, seed: int, recipe: str, *, greater_is_better: bool
    ) -> None:
        """Open the journal of a sweep, or begin one. No other process may have it open.

        Args:
            file: the journal.
            space: what is searched.
            sampler: what proposes the trials.
            seed: of the proposals.
            recipe: text that is equal for the same recipe, code and software.
            greater_is_better: direction of the metric.

        Raises:
            UserError: the journal is of another sweep, or damaged.
        """
        self.space, self._sampler, self._seed = space, sampler, seed
        self._grid = space.grid() if sampler == "grid" else None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _settle(file)
        try:
            storage = JournalStorage(JournalFileBackend(str(file)))
            if storage.get_all_studies():
                self._study = optuna.load_study(study_name=STUDY, storage=storage)
            else:
                direction = "maximize" if greater_is_better else "minimize"
                self._study = optuna.create_study(study_name=STUDY, storage=storage, direction=direction)
        except (ValueError, LookupError, TypeError) as error:
            raise UserError("damaged", file=file, expected="a journal of Optuna; another --name begins one") from error
        self._check_identity(
            file,
            {"space": space.to_lines(), "sampler": sampler, "sweep seed": seed, "recipe, code or software": recipe},
        )
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)  # of a killed sweep

    def _check_identity(self, file: Path, identity: Mapping[str, Any]) -> None:
        earlier = self._study.user_attrs.get(IDENTITY)
        if earlier is None:
            self._study.set_user_attr(IDENTITY, identity)
            return
        changed = [name for name, value in json.loads(json.dumps(identity)).items() if earlier.get(name) != value]
        if changed:
            expected = "the same as before to resume it, or another --name"
            raise UserError(f"a sweep with another {changed[0]}", file=file.parent, expected=expected)

    @property
    def size(self) -> int | None:
        """The number of points of the grid; None for other samplers, which end never."""
        return None if self._grid is None else len(self._grid)

    def finished(self) -> list[Finished]:
        """Return the trials that have ended, without interrupted ones."""
        states = (TrialState.COMPLETE, TrialState.FAIL)
        ended = [
            trial
            for trial in self._study.get_trials(deepcopy=False, states=states)
            if trial.state == TrialState.COMPLETE or FAILED in trial.user_attrs
        ]
        return [
            Finished(number, self.space.overrides(trial.params), trial.value)
            for number, trial in enumerate(ended, start=1)
        ]

    def ask(self) -> tuple["optuna.Trial", Finished]:
        """Propose the next trial.

        Returns:
            Optuna's trial for `tell`, and ours without a metric.
        """
        index = len(self.finished())
        self._study.sampler = self._sampler_of(index)
        trial = self._study.ask({each.key: _distribution(each) for each in self.space.dimensions})
        return trial, Finished(index + 1, self.space.overrides(trial.params), None)

    def _sampler_of(self, index: int) -> BaseSampler:
        seed = int.from_bytes(hashlib.sha256(f"{self._seed} {index}".encode()).digest()[:4])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if self._grid is not None:
                return PartialFixedSampler(self._grid[index], RandomSampler(seed=seed))
            if self._sampler == "random":
                return RandomSampler(seed=seed)
            return TPESampler(seed=seed, multivariate=True, constant_liar=False)

    def tell(self, trial: "optuna.Trial", metric: float | None) -> None:
        """Record the metric of a trial; None if its pipeline failed."""
        if metric is None:
            trial.set_user_attr(FAILED, True)
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, metric)

    def importance(self) -> dict[str, float] | None:
        """Return the fraction of the metric's variance that each dimension explains alone; the fractions add up to 1.

        By fANOVA: a random forest predicts the metric, and its variance over the space is divided among the dimensions
        (Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014).

        Returns:
            The fractions by key, largest first; None for fewer than MIN_TRIALS trials, a single dimension, or a metric
            that does not vary.
        """
        values = [trial.value for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
        if len(values) < MIN_TRIALS or len(self.space.dimensions) < 2 or len(set(values)) < 2:
            return None
        try:
            found = get_param_importances(self._study, evaluator=FanovaImportanceEvaluator(seed=self._seed))
        except RuntimeError:  # no tree of the forest varies
            return None
        return {key: float(value) for key, value in found.items()}


def _distribution(dimension: Dimension) -> "optuna.distributions.BaseDistribution":
    if not isinstance(dimension, Range):
        return optuna.distributions.CategoricalDistribution(dimension.values)
    if dimension.scale == "int":
        return optuna.distributions.IntDistribution(int(dimension.low), int(dimension.high))
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.scale == "log")


def _settle(file: Path) -> None:
    """Remove what a killed process left: a lock, and half a line, to which Optuna would append."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
    if file.exists() and not (content := file.read_bytes()).endswith(b"\n"):
        with file.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)
