"""Seed noise of a recipe's metrics: `reference/<task>-<model>-<hardware>.json`."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from reprise.core.errors import UserError
from reprise.core.files import write_json
from reprise.results.renamed import with_implied_params
from reprise.results.run import RunResult

REFERENCES = Path("reference")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class MeanStd:
    """Mean of a metric over seeds, and the sample standard deviation (n - 1)."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Reference:
    """Metrics of one recipe over several seeds, on one hardware.

    Attributes:
        recipe: every key of the recipe except the seed, dotted.
        provenance: commit, devices, threads and digests of the lock files of the first seed.
        metrics: mean and standard deviation by stage and name, as in `RunResult.metrics`.
        seeds: metrics by seed, stage and name.
    """

    recipe: dict[str, Any]
    provenance: dict[str, Any]
    metrics: dict[str, dict[str, MeanStd]]
    seeds: dict[str, dict[str, dict[str, float]]]

    def matches(self, result: RunResult) -> bool:
        """Return whether a run has this recipe, with any seed."""
        return recipe_of(result) == self.recipe

    def prediction_interval(self, stage: str, name: str) -> tuple[float, float]:
        """Return the prediction interval of a metric for one further seed.

        The interval for one further draw from a normal distribution is mean ± t(n-1) · sd · √(1 + 1/n) (Hahn & Meeker
        1991, section 4.7). Its level is divided by the number of metrics (Bonferroni), so that the intervals of all
        metrics hold together with 95 % probability.
        """
        spread, seeds = self.metrics[stage][name], len(self.seeds)
        level = (1 - CONFIDENCE) / sum(len(metrics) for metrics in self.metrics.values())
        half = float(stats.t.ppf(1 - level / 2, seeds - 1)) * spread.sd * math.sqrt(1 + 1 / seeds)
        return spread.mean - half, spread.mean + half

    def write(self, file: Path) -> None:
        """Write the reference as JSON."""
        write_json(file, asdict(self))


def read_reference(file: Path) -> Reference:
    """Read a reference that `Reference.write` wrote.

    Raises:
        UserError: the file has another format.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        metrics = {
            stage: {name: MeanStd(**spread) for name, spread in names.items()}
            for stage, names in content.pop("metrics").items()
        }
        recipe = with_implied_params(content.pop("recipe"))
        return Reference(recipe=recipe, metrics=metrics, **content)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(file=file, expected="the format of `reprise seed-noise`; run it again") from None


def read_references() -> list[tuple[str, Reference]]:
    """Read all references of this repository, each with its hardware."""
    return [(file.stem.rpartition("-")[2], read_reference(file)) for file in sorted(REFERENCES.glob("*.json"))]


def find_reference(result: RunResult, hardware: str) -> Reference | None:
    """Return the reference of a run's recipe on this hardware, None if there is none."""
    matching = (reference for name, reference in read_references() if name == hardware and reference.matches(result))
    return next(matching, None)


def summarize_seeds(results: dict[int, RunResult]) -> Reference:
    """Compute mean and standard deviation of each metric over the seeds of one recipe.

    Args:
        results: at least two runs, by seed.
    """
    seeds = {str(seed): result.metrics for seed, result in results.items()}
    first = next(iter(results.values()))
    metrics = {}
    for stage, names in first.metrics.items():
        values = {name: [result.metrics[stage][name] for result in results.values()] for name in names}
        metrics[stage] = {
            name: MeanStd(float(np.mean(sample)), float(np.std(sample, ddof=1))) for name, sample in values.items()
        }
    recorded = ("commit", "dirty", "devices", "processes", "threads")
    provenance = {
        key: value for key, value in first.provenance.items() if key in recorded or key.startswith("environment.locks.")
    }
    return Reference(recipe_of(first), provenance, metrics, seeds)


def recipe_of(result: RunResult) -> dict[str, Any]:
    """Return the recipe of a run without its seed."""
    return {key: value for key, value in result.recipe.items() if key != "seed"}
