"""Groups of runs that differ in nothing but the seed: how far figures move by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

from reprise.report.run import MetricValue, ReportRun
from reprise.results.diff import replicate_key
from reprise.results.reference import Reference
from reprise.results.statistics import summarize


@dataclass(frozen=True)
class SeedRun:
    """A seed of a group: the number of its run, None where only the reference knows it."""

    seed: int
    run: int | None
    metrics: dict[str, MetricValue]


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one recipe and several seeds: what sets the recipe apart from the other groups, and the seeds."""

    label: str
    seeds: list[SeedRun]

    def spread(self, name: str) -> tuple[float, float]:
        """A figure's arithmetic mean over the seeds that have it, and the standard deviation of the sample (n - 1)."""
        told = summarize([each.metrics[name].value for each in self.seeds if name in each.metrics])
        return told.mean, told.sd or 0.0


def seed_groups(
    entries: Sequence[ReportRun], references: Sequence[tuple[str, Reference]], keys: Sequence[str]
) -> list[SeedGroup]:
    """The groups with two seeds or more, as their first runs come.

    Of one group are runs with the same recipe but for the seed, code, locks and kind of hardware. The seeds that
    `reprise seed-noise` measured of a recipe join the group of its first run.

    Args:
        entries: the runs.
        references: what was measured, each with the kind of hardware.
        keys: what differs over all runs; it names the groups.
    """
    alike: dict[str, dict[int, SeedRun]] = {}
    labels: dict[str, str] = {}
    for number, entry in enumerate(entries):
        group, own = replicate_key(entry.result), entry.result.recipe["seed"]
        seeds = alike.setdefault(group, {})
        if group not in labels:
            name = label(entry, keys)
            others = sum(given == name or given.startswith(f"{name} (other") for given in labels.values())
            labels[group] = f"{name} (other code or hardware, {others})" if others else name
        seeds.setdefault(own, SeedRun(own, number, entry.metrics))
    for hardware, reference in references:
        measured = (
            entry
            for entry in entries
            if reference.matches(entry.result) and hardware == entry.result.provenance.get("environment.hardware")
        )
        if (first := next(measured, None)) is not None:
            for seed, metrics in reference.seeds.items():
                alike[replicate_key(first.result)].setdefault(
                    int(seed), SeedRun(int(seed), None, reference_metrics(metrics))
                )
    return [
        SeedGroup(labels[group], sorted(seeds.values(), key=lambda each: each.seed))
        for group, seeds in alike.items()
        if len(seeds) > 1
    ]


def label(entry: ReportRun, keys: Sequence[str]) -> str:
    """What a group is called: its values of the keys that differ."""
    told = [f"{key.rpartition('.')[2]}={entry.recipe.get(key)}" for key in keys if key != "seed"]
    return ", ".join(told) or f"{entry.model} on {entry.result.recipe['task.name']}"


def reference_metrics(metrics: dict[str, dict[str, float]]) -> dict[str, MetricValue]:
    """A reference's figures by the names that an entry's have."""
    trained = {
        "training loss" if name == "loss" else f"validation {name}": value for name, value in metrics["train"].items()
    }
    return {name: MetricValue(value) for name, value in (metrics["evaluate"] | trained).items()}
