"""Verdicts as pure functions of two results and a reference."""

import dataclasses
import math

import numpy as np
import pytest

from reprise.core.dvc_lock import Output
from reprise.results.reference import MeanStd, Reference
from reprise.results.run import RunResult
from reprise.results.verdict import (
    LOSS_TOLERANCE,
    METRIC_TOLERANCE,
    Divergence,
    Verdict,
    describe_verdict,
    first_divergence,
    grade_outputs,
)

OUTPUTS = {
    "data/prepared": Output("prepare", "1"),
    "models/final": Output("train", "2"),
    "metrics/train.json": Output("train", "3"),
    "metrics/evaluate.json": Output("evaluate", "4"),
    "predictions": Output("evaluate", "5"),
}
RESULT = RunResult(
    outputs=OUTPUTS,
    recipe={"seed": 42, "train.precision": "fp32", "train.learning_rate": 1e-4},
    code={"src/reprise/train": "a"},
    losses=np.array([0.5, 1.5, 1.0]),  # 1 on average
    metrics={"train": {"loss": 0.3, "accuracy": 0.8}, "evaluate": {"accuracy": 0.7}},
    provenance={"threads": 2, "commit": "c", "started": "now", "from_step": 0, "weights.model.safetensors": "w"},
)
# Seed noise that covers the metrics above, but not an accuracy of 0.9.
REFERENCE = Reference(
    recipe={"train.precision": "fp32", "train.learning_rate": 1e-4},
    provenance={},
    metrics={
        "train": {"loss": MeanStd(0.3, 0.01), "accuracy": MeanStd(0.8, 0.01)},
        "evaluate": {"accuracy": MeanStd(0.7, 0.01)},
    },
    seeds={str(seed): {} for seed in range(5)},
)


def rounded(result: RunResult, *names: str) -> RunResult:
    """Change the bits of the named outputs, by default of all outputs of training and evaluation."""
    names = names or tuple(name for name, output in OUTPUTS.items() if output.stage != "prepare")
    return dataclasses.replace(
        result, outputs=OUTPUTS | {name: dataclasses.replace(OUTPUTS[name], md5="other") for name in names}
    )


def worst(reproduced: RunResult, reference: Reference | None = None) -> Verdict:
    return max(grade_outputs(RESULT, reproduced, reference).values())


def with_losses(*losses: float) -> RunResult:
    return dataclasses.replace(rounded(RESULT), losses=np.array(losses))


def with_accuracy(accuracy: float) -> RunResult:
    return dataclasses.replace(
        rounded(RESULT),
        losses=np.array([0.5, 1.5, 9.0]),
        metrics=RESULT.metrics | {"evaluate": {"accuracy": accuracy}},
    )


def test_equal_bits_are_identical() -> None:
    assert set(grade_outputs(RESULT, RESULT, None).values()) == {Verdict.IDENTICAL}
    assert grade_outputs(RESULT, RESULT, None).keys() == OUTPUTS.keys()


def test_only_outputs_whose_bits_differ_get_another_verdict() -> None:
    verdicts = grade_outputs(RESULT, rounded(RESULT, "models/final", "predictions"), None)
    assert (verdicts.pop("models/final"), verdicts.pop("predictions")) == (Verdict.EQUIVALENT, Verdict.EQUIVALENT)
    assert set(verdicts.values()) == {Verdict.IDENTICAL}


def test_any_change_in_an_output_of_the_same_model_is_different() -> None:
    verdicts = grade_outputs(RESULT, rounded(RESULT, "metrics/evaluate.json"), REFERENCE)
    assert verdicts.pop("metrics/evaluate.json") == Verdict.DIFFERENT
    assert set(verdicts.values()) == {Verdict.IDENTICAL}


@pytest.mark.parametrize("precision", LOSS_TOLERANCE)
def test_losses_are_equivalent_up_to_a_fraction_of_their_mean(precision: str) -> None:
    recipe = RESULT.recipe | {"train.precision": precision}
    committed = dataclasses.replace(RESULT, recipe=recipe)
    for fraction, verdict in ((0.99, Verdict.EQUIVALENT), (1.01, Verdict.DIFFERENT)):
        losses = np.array([0.5, 1.5 - fraction * LOSS_TOLERANCE[precision], 1.0])
        reproduced = dataclasses.replace(rounded(RESULT), recipe=recipe, losses=losses)
        assert max(grade_outputs(committed, reproduced, None).values()) == verdict


def test_metrics_are_equivalent_up_to_their_tolerance() -> None:
    for fraction, verdict in ((0.99, Verdict.EQUIVALENT), (1.01, Verdict.DIFFERENT)):
        metrics = RESULT.metrics | {"train": {"loss": 0.3, "accuracy": 0.8 - fraction * METRIC_TOLERANCE}}
        verdicts = grade_outputs(RESULT, dataclasses.replace(rounded(RESULT), metrics=metrics), None)
        assert verdicts["models/final"] == verdicts["metrics/train.json"] == verdict
        assert verdicts["predictions"] == Verdict.EQUIVALENT  # the metrics of its stage are the same


@pytest.mark.parametrize("name", ["rmse", "mae"])
def test_errors_in_the_unit_of_the_labels_are_equivalent_up_to_a_fraction(name: str) -> None:
    for value in (30_000.0, 0.003):
        committed = dataclasses.replace(RESULT, metrics=RESULT.metrics | {"train": {"loss": 0.3, name: value}})
        for fraction, verdict in ((0.99, Verdict.EQUIVALENT), (1.01, Verdict.DIFFERENT)):
            changed = RESULT.metrics | {"train": {"loss": 0.3, name: value * (1 - fraction * METRIC_TOLERANCE)}}
            verdicts = grade_outputs(committed, dataclasses.replace(rounded(RESULT), metrics=changed), None)
            assert verdicts["models/final"] == verdict


def test_another_recipe_is_never_equivalent() -> None:
    reproduced = dataclasses.replace(rounded(RESULT), recipe=RESULT.recipe | {"train.learning_rate": 1.01e-4})
    assert worst(reproduced) == Verdict.DIFFERENT
    assert worst(reproduced, REFERENCE) == Verdict.WITHIN_SEED_NOISE


def test_seed_noise_is_the_prediction_interval_of_the_reference() -> None:
    low, high = REFERENCE.prediction_interval("evaluate", "accuracy")
    assert worst(with_accuracy(low + 1e-9), REFERENCE) == Verdict.WITHIN_SEED_NOISE
    assert worst(with_accuracy(high - 1e-9), REFERENCE) == Verdict.WITHIN_SEED_NOISE
    assert worst(with_accuracy(low - 1e-9), REFERENCE) == Verdict.DIFFERENT
    assert worst(with_accuracy(high + 1e-9), REFERENCE) == Verdict.DIFFERENT


def test_without_a_reference_nothing_is_seed_noise() -> None:
    assert worst(with_accuracy(0.7)) == Verdict.DIFFERENT


def test_other_data_is_different() -> None:
    verdicts = grade_outputs(RESULT, rounded(RESULT, "data/prepared"), REFERENCE)
    assert verdicts["data/prepared"] == Verdict.DIFFERENT
    assert verdicts["models/final"] == Verdict.IDENTICAL


def test_a_missing_output_is_different() -> None:
    outputs = {name: output for name, output in OUTPUTS.items() if name != "predictions"}
    assert (
        grade_outputs(RESULT, dataclasses.replace(RESULT, outputs=outputs), REFERENCE)["predictions"]
        == Verdict.DIFFERENT
    )


def test_other_metrics_are_different() -> None:
    metrics = RESULT.metrics | {"evaluate": {"matthews": 0.7}}
    reproduced = dataclasses.replace(rounded(RESULT), metrics=metrics)
    assert grade_outputs(RESULT, reproduced, REFERENCE)["predictions"] == Verdict.DIFFERENT


def test_losses_diverge_at_the_first_step_that_differs() -> None:
    assert first_divergence(RESULT, RESULT) is None
    divergence = first_divergence(RESULT, with_losses(0.5, 1.5 + 2**-40, 0.75))
    assert divergence == Divergence(step=2, largest=0.25)


def test_a_run_of_another_length_diverges_at_the_end_of_the_shorter_one() -> None:
    assert first_divergence(RESULT, with_losses(0.5, 1.5)) == Divergence(step=3, largest=math.inf)
    assert first_divergence(RESULT, with_losses(0.5, 1.25, 1.0, 1.0)) == Divergence(step=2, largest=math.inf)


def test_equal_bits_from_another_processor_are_named_as_that() -> None:
    amd, intel = (
        dataclasses.replace(RESULT, provenance={"devices": [f"cpu: {name}"]}) for name in ("AMD EPYC", "Intel Xeon")
    )
    expected = "identical across processors: cpu: AMD EPYC, and cpu: Intel Xeon"
    assert describe_verdict(Verdict.IDENTICAL, amd, intel) == expected
    assert describe_verdict(Verdict.IDENTICAL, amd, amd) == "identical"
    assert describe_verdict(Verdict.EQUIVALENT, amd, intel) == "equivalent"
    assert describe_verdict(Verdict.IDENTICAL, RESULT, intel) == "identical"  # the processor was not recorded
