"""Is a finalist better than the committed recipe, or only luckier? Pure functions of numbers.

The finalists and the committed recipe, the control, run with the same fresh seeds, one more for all at each look. At a
look, each finalist has a paired t-test: the differences over the seeds, two-sided, with n - 1 degrees of freedom. A
claim is made where its p-value is below a nominal level, the same at every look and for every finalist (Pocock, "Group
sequential methods in the design and analysis of clinical trials", Biometrika 64, 1977). The level is set so that any
claim, at any look and about any finalist, has a probability of at most 5 % when nothing differs. Finalists share the
control (Dunnett, "A Multiple Comparison Procedure for Comparing Several Treatments with a Control", JASA 50, 1955) and
looks share seeds, so the level comes from a simulation with both, which needs no variance: t is free of scale.

Assumed is that a metric over seeds is normally distributed with the same variance for all recipes. The seeds are fresh,
so the search, which kept the luckiest trials, does not bias the comparison.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.05  # probability of any claim when nothing differs
FIRST_LOOK = 3  # seeds
FINALISTS = 3
SIMULATED = 200_000  # sweeps without a difference
GENERATOR = 0  # seed of the simulation, so that every sweep has the same level


@dataclass(frozen=True)
class Comparison:
    """A finalist against the control, over the same seeds.

    Attributes:
        seeds: number of seeds.
        difference: mean of the differences; above 0 if the finalist is better, whatever the metric's direction.
        half_width: of its interval, at the level of a claim: it excludes 0 exactly if there is a claim. None if the
            differences do not vary.
        p: adjusted for all looks and finalists; a claim is below `LEVEL`. 1 if the differences do not vary.
    """

    seeds: int
    difference: float
    half_width: float | None
    p: float

    @property
    def is_better(self) -> bool:
        """Whether the finalist is claimed to be better."""
        return self.p < LEVEL and self.difference > 0

    @property
    def is_worse(self) -> bool:
        """Whether the finalist is claimed to be worse."""
        return self.p < LEVEL and self.difference < 0


def compare(
    control: Sequence[float], finalist: Sequence[float], *, finalists: int, looks: int, greater_is_better: bool
) -> Comparison:
    """Compare a finalist with the control.

    Args:
        control: its metric with each seed.
        finalist: the same, in the same order.
        finalists: number of finalists.
        looks: the largest number of seeds.
        greater_is_better: direction of the metric.
    """
    n = len(control)
    differences = np.subtract(finalist, control) * (1 if greater_is_better else -1)
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n)
    # A metric of few examples can differ by the same amount with every seed, up to rounding; that has no variance.
    if error <= 1e-12 * float(np.abs(control).max()):
        return Comparison(n, mean, None, 1.0)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    smallest = smallest_p_values(finalists, looks)
    adjusted = float(np.searchsorted(smallest, p, side="right")) / len(smallest)
    return Comparison(n, mean, error * float(stats.t.isf(nominal_level(finalists, looks) / 2, n - 1)), adjusted)


def is_settled(comparisons: Sequence[Comparison]) -> bool:
    """Return whether more seeds cannot change the answer: a finalist is better, or all are worse."""
    return any(each.is_better for each in comparisons) or all(each.is_worse for each in comparisons)


def nominal_level(finalists: int, looks: int) -> float:
    """Return the level of one test, so that any claim has a probability of at most `LEVEL` when nothing differs.

    Args:
        finalists: number of finalists.
        looks: the largest number of seeds; looks are taken from `FIRST_LOOK` seeds on.
    """
    smallest = smallest_p_values(finalists, looks)
    # `compare` counts the simulated p-values up to its own, so this one is the largest that is no claim.
    return float(smallest[math.ceil(LEVEL * len(smallest)) - 1])


@functools.cache
def smallest_p_values(finalists: int, looks: int) -> npt.NDArray[np.float64]:
    """Return the smallest p-value of each simulated sweep without a difference, ascending."""
    draw = np.random.default_rng(GENERATOR).standard_normal((SIMULATED, finalists + 1, looks))
    differences = draw[:, 1:] - draw[:, :1]
    smallest = np.ones(SIMULATED)
    for n in range(FIRST_LOOK, looks + 1):
        seen = differences[:, :, :n]
        t = np.abs(seen.mean(axis=2)) / (seen.std(axis=2, ddof=1) / math.sqrt(n))
        smallest = np.minimum(smallest, 2 * stats.t.sf(t.max(axis=1), n - 1))
    return np.sort(smallest)


def winner_of(comparisons: Mapping[int, Comparison]) -> int | None:
    """Return the key of the best of the finalists that are claimed to be better; None if there is none."""
    better = [key for key, each in comparisons.items() if each.is_better]
    return max(better, key=lambda key: comparisons[key].difference, default=None)
