"""Groups of runs that differ only in the seed, which show the noise of each metric."""

from collections.abc import Sequence
from dataclasses import dataclass

from reprise.report.run import MetricValue, ReportRun
from reprise.results.diff import replicate_key
from reprise.results.reference import Reference
from reprise.results.statistics import summarize


@dataclass(frozen=True)
class SeedRun:
    """A seed of a group.

    Attributes:
        seed: the seed.
        run: index of its run in the report, None if only the reference has it.
        metrics: metrics by name.
    """

    seed: int
    run: int | None
    metrics: dict[str, MetricValue]


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one recipe with several seeds.

    Attributes:
        label: parameters that distinguish the recipe from those of other groups.
        seeds: the seeds, in ascending order.
    """

    label: str
    seeds: list[SeedRun]

    def spread(self, name: str) -> tuple[float, float]:
        """Return mean and sample standard deviation (n - 1) of a metric over the seeds that have it."""
        summary = summarize([each.metrics[name].value for each in self.seeds if name in each.metrics])
        return summary.mean, summary.sd or 0.0


def seed_groups(
    runs: Sequence[ReportRun], references: Sequence[tuple[str, Reference]], keys: Sequence[str]
) -> list[SeedGroup]:
    """Group the runs that share recipe, code, lock files and hardware, and differ only in the seed.

    The seeds that `reprise seed-noise` measured for a recipe join the group of its first run.

    Args:
        runs: runs of the report.
        references: measured seed noise, each with its hardware.
        keys: keys that differ over all runs; they label the groups.

    Returns:
        Groups of at least two seeds, in the order of their first runs.
    """
    groups: dict[str, dict[int, SeedRun]] = {}
    labels: dict[str, str] = {}
    for index, run in enumerate(runs):
        group, seed = replicate_key(run.result), run.result.recipe["seed"]
        seeds = groups.setdefault(group, {})
        if group not in labels:
            name = label(run, keys)
            others = sum(given == name or given.startswith(f"{name} (other") for given in labels.values())
            labels[group] = f"{name} (other code or hardware, {others})" if others else name
        seeds.setdefault(seed, SeedRun(seed, index, run.metrics))
    for hardware, reference in references:
        matching = (
            run
            for run in runs
            if reference.matches(run.result) and hardware == run.result.provenance.get("environment.hardware")
        )
        if (first := next(matching, None)) is not None:
            for number, metrics in reference.seeds.items():
                seed = int(number)
                groups[replicate_key(first.result)].setdefault(seed, SeedRun(seed, None, reference_metrics(metrics)))
    return [
        SeedGroup(labels[group], sorted(seeds.values(), key=lambda each: each.seed))
        for group, seeds in groups.items()
        if len(seeds) > 1
    ]


def label(run: ReportRun, keys: Sequence[str]) -> str:
    """Return the label of a group: the run's values of the keys that differ."""
    values = [f"{key.rpartition('.')[2]}={run.recipe.get(key)}" for key in keys if key != "seed"]
    return ", ".join(values) or f"{run.model} on {run.result.recipe['task.name']}"


def reference_metrics(metrics: dict[str, dict[str, float]]) -> dict[str, MetricValue]:
    """Convert a reference's metrics of a seed to the names of `ReportRun.metrics`."""
    training = {
        "training loss" if name == "loss" else f"validation {name}": value for name, value in metrics["train"].items()
    }
    return {name: MetricValue(value) for name, value in (metrics["evaluate"] | training).items()}
