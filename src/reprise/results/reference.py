"""What the seed alone does to a recipe's figures: `reference/<task>-<model>-<hardware>.json`."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from reprise.core.errors import UserError
from reprise.core.files import write_json
from reprise.results.run import RunResult

REFERENCES = Path("reference")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class MeanStd:
    """A figure over the seeds: arithmetic mean, and standard deviation of the sample (n - 1)."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Reference:
    """The figures of several seeds of one recipe on one kind of hardware.

    Attributes:
        recipe: every key of the recipe but the seed, dotted.
        provenance: where and with what: commit, devices, threads, digests of the locks.
        metrics: by stage and name, as in `RunResult.metrics`.
        seeds: by seed, stage and name.
    """

    recipe: dict[str, Any]
    provenance: dict[str, Any]
    metrics: dict[str, dict[str, MeanStd]]
    seeds: dict[str, dict[str, dict[str, float]]]

    def matches(self, result: RunResult) -> bool:
        """Whether a result was cooked by this recipe, whatever its seed."""
        return recipe_of(result) == self.recipe

    def prediction_interval(self, stage: str, name: str) -> tuple[float, float]:
        """Between what a figure of one more seed lies, together with all other figures in 95 of 100 cases.

        The prediction interval for one further draw from a normal distribution, mean ± t(n-1) · sd · √(1 + 1/n)
        (Hahn & Meeker 1991, section 4.7), at a level divided by the number of figures (Bonferroni).
        """
        spread, seeds = self.metrics[stage][name], len(self.seeds)
        level = (1 - CONFIDENCE) / sum(len(metrics) for metrics in self.metrics.values())
        half = float(stats.t.ppf(1 - level / 2, seeds - 1)) * spread.sd * math.sqrt(1 + 1 / seeds)
        return spread.mean - half, spread.mean + half

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        write_json(file, asdict(self))


def read_reference(file: Path) -> Reference:
    """Read what `Reference.write` wrote.

    Raises:
        UserError: the file says something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        metrics = {
            stage: {name: MeanStd(**spread) for name, spread in names.items()}
            for stage, names in content.pop("metrics").items()
        }
        return Reference(metrics=metrics, **content)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: expected what `reprise seed-noise` writes; make it anew") from None


def read_references() -> list[tuple[str, Reference]]:
    """All that was measured here, each with the kind of hardware."""
    return [(file.stem.rpartition("-")[2], read_reference(file)) for file in sorted(REFERENCES.glob("*.json"))]


def find_reference(result: RunResult, hardware: str) -> Reference | None:
    """The reference of a result's recipe on this kind of hardware; None where nobody has made one."""
    fitting = (each for kind, each in read_references() if kind == hardware and each.matches(result))
    return next(fitting, None)


def summarize_seeds(results: dict[int, RunResult]) -> Reference:
    """Mean and standard deviation over seeds of one recipe."""
    seeds = {str(seed): result.metrics for seed, result in results.items()}
    first = next(iter(results.values()))
    metrics = {}
    for stage, names in first.metrics.items():
        values = {name: [result.metrics[stage][name] for result in results.values()] for name in names}
        metrics[stage] = {
            name: MeanStd(float(np.mean(drawn)), float(np.std(drawn, ddof=1))) for name, drawn in values.items()
        }
    told = ("commit", "dirty", "devices", "processes", "threads")
    provenance = {
        key: value for key, value in first.provenance.items() if key in told or key.startswith("environment.locks.")
    }
    return Reference(recipe_of(first), provenance, metrics, seeds)


def recipe_of(result: RunResult) -> dict[str, Any]:
    """What a result's recipe says, but for its seed."""
    return {key: value for key, value in result.recipe.items() if key != "seed"}
