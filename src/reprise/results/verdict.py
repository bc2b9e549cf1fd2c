"""Grade how closely a run reproduces a committed one: pure functions of two results."""

import enum
from dataclasses import dataclass

import numpy as np

from reprise.core.paths import FINAL_MODEL
from reprise.results.reference import Reference
from reprise.results.run import RunResult
from reprise.tasks.metrics.registry import METRICS

# Largest difference of a step's loss that rounding alone explains, as a fraction of the mean loss of all steps, by the
# recipe's precision.
LOSS_TOLERANCE = {"fp32-portable": 1e-3, "fp32": 1e-3, "bf16": 0.1}
# Largest difference of a metric that rounding alone explains; as a fraction of one that is in the unit of the labels.
METRIC_TOLERANCE = 0.01


class Verdict(enum.IntEnum):
    """Grade of an output, from best to worst."""

    IDENTICAL = 0
    EQUIVALENT = 1
    WITHIN_SEED_NOISE = 2
    DIFFERENT = 3

    def __str__(self) -> str:
        """Return the name in lower case, with spaces."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Divergence:
    """Where the losses of two runs diverge.

    Attributes:
        step: first step whose losses differ, counted from 1.
        largest: largest difference of any step, as a fraction of the mean loss.
    """

    step: int
    largest: float


def grade_outputs(committed: RunResult, reproduced: RunResult, reference: Reference | None) -> dict[str, Verdict]:
    """Grade every output of a committed run against its reproduction.

    An output whose bits differ is *equivalent* if the recipe is the same, and the loss of each step and the metrics of
    the output's stage are within the tolerances. It is *within seed noise* if those metrics are inside the reference's
    prediction intervals for one further seed, and *different* otherwise.

    Data and pretrained weights are *different* as soon as a bit differs. So are outputs of a model that was reproduced
    bit for bit: they follow from the model, so a committed value that differs was edited.

    Returns:
        Verdicts by path, one per output of the committed run.
    """
    verdicts = {}
    same_model = reproduced.outputs.get(str(FINAL_MODEL)) == committed.outputs.get(str(FINAL_MODEL))
    for path, output in committed.outputs.items():
        counterpart = reproduced.outputs.get(path)
        # What a teacher answers has no losses of its own; it is judged by those that were trained on it.
        stage = "train" if output.stage == "teacher" else output.stage
        if counterpart == output:
            verdicts[path] = Verdict.IDENTICAL
        elif counterpart is None or stage not in committed.metrics or same_model:
            verdicts[path] = Verdict.DIFFERENT
        elif is_equivalent(stage, committed, reproduced):
            verdicts[path] = Verdict.EQUIVALENT
        elif reference and is_within_noise(stage, reproduced, reference):
            verdicts[path] = Verdict.WITHIN_SEED_NOISE
        else:
            verdicts[path] = Verdict.DIFFERENT
    return verdicts


def is_equivalent(stage: str, committed: RunResult, reproduced: RunResult) -> bool:
    """Return whether two runs of the same recipe differ only by rounding, by their losses and a stage's metrics."""
    divergence = first_divergence(committed, reproduced)
    tolerance = LOSS_TOLERANCE[committed.recipe["train.precision"]]
    if committed.recipe != reproduced.recipe or (divergence and divergence.largest > tolerance):
        return False
    expected, actual = committed.metrics[stage], reproduced.metrics[stage]
    return expected.keys() == actual.keys() and all(
        abs(actual[name] - expected[name]) <= metric_tolerance(name, expected[name]) for name in expected
    )


def metric_tolerance(name: str, value: float) -> float:
    """Return the largest difference from a metric of this value that rounding alone explains."""
    has_unit = name in METRICS and METRICS[name].has_unit
    return METRIC_TOLERANCE * (abs(value) if has_unit else 1)


def is_within_noise(stage: str, reproduced: RunResult, reference: Reference) -> bool:
    """Return whether each metric of a stage is inside the prediction interval for one further seed."""
    if reproduced.metrics[stage].keys() != reference.metrics[stage].keys():
        return False
    for name, value in reproduced.metrics[stage].items():
        low, high = reference.prediction_interval(stage, name)
        if not low <= value <= high:
            return False
    return True


def first_divergence(committed: RunResult, reproduced: RunResult) -> Divergence | None:
    """Return where the losses of two runs diverge, None if they are bit-identical.

    A run with fewer steps diverges at the latest after its last step, by an infinite difference.
    """
    expected, actual = committed.losses, reproduced.losses
    common = min(len(expected), len(actual))
    differing = np.flatnonzero(expected[:common] != actual[:common])
    first = int(differing[0]) if len(differing) else common
    if len(expected) != len(actual):
        return Divergence(first + 1, np.inf)
    if not len(differing):
        return None
    return Divergence(first + 1, float(np.abs(actual - expected).max() / np.abs(expected).mean()))


def describe_verdict(verdict: Verdict, committed: RunResult, reproduced: RunResult) -> str:
    """Return the verdict of a commit in words; equal bits from another processor are named as that."""
    names = [", ".join(map(str, run.provenance.get("devices") or [])) for run in (committed, reproduced)]
    if verdict > Verdict.IDENTICAL or "" in names or names[0] == names[1]:
        return str(verdict)
    return f"{verdict} across processors: {names[0]}, and {names[1]}"
