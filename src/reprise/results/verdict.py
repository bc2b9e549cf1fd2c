"""How much of a result came again, and why not all of it: pure functions of two results."""

import enum
from dataclasses import dataclass

import numpy as np

from reprise.core.paths import FINAL_MODEL
from reprise.results.reference import Reference
from reprise.results.run import RunResult

# How far the losses of a step may be apart where nothing but the rounding differs, as a share of the mean loss of all
# steps, by the precision that the recipe pins.
LOSS_TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}
# How far the metrics may then be apart.
METRIC_TOLERANCE = 0.01


class Verdict(enum.IntEnum):
    """What came of an output, from best to worst."""

    IDENTICAL = 0
    EQUIVALENT = 1
    WITHIN_SEED_NOISE = 2
    DIFFERENT = 3

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Divergence:
    """Where the losses of two runs part: the first step, from 1, and the largest distance, a share of the mean loss."""

    step: int
    largest: float


def judge_outputs(committed: RunResult, cooked: RunResult, reference: Reference | None) -> dict[str, Verdict]:
    """Judge every output of a commit by what cooking it again has made.

    Where the bits of an output differ, it is *equivalent* while the recipe is the same, and the loss of each step and
    the figures of its stage are within the tolerances; else *within seed noise* while those figures lie where the
    reference expects one more seed's; else *different*. Data and pretrained weights are *different* at once, and so is
    what was made of a model that came again to the bit: a figure that does not follow from it was made up.
    """
    verdicts = {}
    same_model = cooked.outputs.get(str(FINAL_MODEL)) == committed.outputs.get(str(FINAL_MODEL))
    for path, output in committed.outputs.items():
        again = cooked.outputs.get(path)
        if again == output:
            verdicts[path] = Verdict.IDENTICAL
        elif again is None or output.stage not in committed.metrics or same_model:
            verdicts[path] = Verdict.DIFFERENT
        elif is_equivalent(output.stage, committed, cooked):
            verdicts[path] = Verdict.EQUIVALENT
        elif reference and is_within_noise(output.stage, cooked, reference):
            verdicts[path] = Verdict.WITHIN_SEED_NOISE
        else:
            verdicts[path] = Verdict.DIFFERENT
    return verdicts


def is_equivalent(stage: str, committed: RunResult, cooked: RunResult) -> bool:
    """Whether the same recipe was computed up to rounding: loss by loss, and by the figures of a stage."""
    parting = first_divergence(committed, cooked)
    tolerance = LOSS_TOLERANCE[committed.recipe["train.precision"]]
    if committed.recipe != cooked.recipe or (parting and parting.largest > tolerance):
        return False
    expected, found = committed.metrics[stage], cooked.metrics[stage]
    return expected.keys() == found.keys() and all(
        abs(found[name] - expected[name]) <= METRIC_TOLERANCE for name in expected
    )


def is_within_noise(stage: str, cooked: RunResult, reference: Reference) -> bool:
    """Whether each figure of a stage lies where one more seed's would."""
    if cooked.metrics[stage].keys() != reference.metrics[stage].keys():
        return False
    for name, value in cooked.metrics[stage].items():
        low, high = reference.prediction_interval(stage, name)
        if not low <= value <= high:
            return False
    return True


def first_divergence(committed: RunResult, cooked: RunResult) -> Divergence | None:
    """Where the losses part; None where they have the same bits to the end."""
    expected, found = committed.losses, cooked.losses
    common = min(len(expected), len(found))
    apart = np.flatnonzero(expected[:common] != found[:common])
    first = int(apart[0]) if len(apart) else common
    if len(expected) != len(found):
        return Divergence(first + 1, np.inf)
    if not len(apart):
        return None
    return Divergence(first + 1, float(np.abs(found - expected).max() / np.abs(expected).mean()))
