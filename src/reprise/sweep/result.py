"""The result of a sweep: one sentence, and a file from which its winner is adopted."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reprise.core.errors import UserError
from reprise.core.files import read_json, write_json
from reprise.results.statistics import format_p
from reprise.sweep.selection import LEVEL, Comparison, compare, winner_of

SWEEPS = Path("sweeps")  # git ignores it: the results are DVC's experiments
NAME = re.compile(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Finals:
    """The metrics of the finalists and of the committed recipe with the same seeds.

    Attributes:
        control: of the committed recipe, one for each seed.
        finalists: of each finalist, by the number of its trial, in the same order.
        looks: the largest number of seeds.
        greater_is_better: direction of the metric.
    """

    control: Sequence[float]
    finalists: Mapping[int, Sequence[float]]
    looks: int
    greater_is_better: bool

    def comparisons(self) -> dict[int, Comparison]:
        """Compare each finalist with the committed recipe."""
        return {number: self._compare(self.control, values) for number, values in self.finalists.items()}

    def ties(self, winner: int) -> list[int]:
        """Return the finalists that cannot be distinguished from the winner, by the same test."""
        return [
            number
            for number, values in self.finalists.items()
            if number != winner and self._compare(self.finalists[winner], values).p >= LEVEL
        ]

    def _compare(self, control: Sequence[float], finalist: Sequence[float]) -> Comparison:
        return compare(
            control,
            finalist,
            finalists=len(self.finalists),
            looks=self.looks,
            greater_is_better=self.greater_is_better,
        )


def describe(finals: Finals, trials: Mapping[int, Sequence[str]], recipe: Mapping[str, Any], metric: str) -> str:
    """Return the answer of a sweep as one sentence.

    Args:
        finals: the final comparison.
        trials: overrides by the number of the trial.
        recipe: content of params.yaml.
        metric: its name.
    """
    comparisons, seeds = finals.comparisons(), len(finals.control)
    if not comparisons:
        return "Every trial is the committed recipe, so there is no candidate."
    winner = winner_of(comparisons)
    if winner is not None:
        best, overrides = comparisons[winner], trials[winner]
        committed = " ".join(f"{key}={format_value(recipe, key)}" for key in map(key_of, overrides))
        tied = " and ".join(f"{' '.join(trials[number])} (trial {number})" for number in finals.ties(winner))
        return (
            f"{' '.join(overrides)} (trial {winner}) is better than the committed {committed} on validation by "
            f"{metric} {best.difference:.4f} ± {best.half_width:.4f} ({seeds} seeds), {format_p(best.p)}"
            f"{f'; not distinguishable from {tied}' if tied else ''}."
        )
    if all(each.is_worse for each in comparisons.values()):
        return f"The committed recipe is better than every candidate on validation ({seeds} seeds)."
    if all(each.difference <= 0 for each in comparisons.values()):
        return f"The committed recipe is itself the best on validation: no candidate has a better mean ({seeds} seeds)."
    if any(each.is_worse for each in comparisons.values()):
        return f"No candidate is distinguishably better than the committed recipe after {seeds} seeds."
    return f"No candidate is distinguishable from the committed recipe after {seeds} seeds."


def key_of(override: str) -> str:
    """Return the dotted key of an override."""
    return override.partition("=")[0].lstrip("+~")


def format_value(recipe: Mapping[str, Any], key: str) -> str:
    """Return the value of a dotted key as in an override."""
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "null" if value is None else str(value)


@dataclass(frozen=True)
class Result:
    """What `reprise sweep --adopt` needs of a finished sweep.

    Attributes:
        sentence: the answer.
        winner: number of the trial that is better than the committed recipe; None if none is.
        metric: name of the metric.
        recipe: content of params.yaml during the sweep.
        trials: overrides by the number of the trial, as a text.
    """

    sentence: str
    winner: int | None
    metric: str
    recipe: dict[str, Any]
    trials: dict[str, list[str]]


def folder_of(name: str) -> Path:
    """Return the folder of a sweep.

    Raises:
        UserError: the name is none of a file and an experiment.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"got {name!r}", key="--name", expected="letters and digits, with - or _ between them")
    return SWEEPS / name


def write_result(folder: Path, result: Result) -> None:
    """Write the result of a finished sweep to its folder."""
    write_json(folder / "result.json", asdict(result))


def read_result(folder: Path) -> Result:
    """Read the result of a finished sweep.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = folder / "result.json"
    if not file.is_file():
        raise UserError("not found", file=file, expected="the name of a sweep that has finished")
    try:
        return Result(**read_json(file))
    except TypeError:
        raise UserError("damaged", file=file, expected="the result of `reprise sweep`, which writes it again") from None
