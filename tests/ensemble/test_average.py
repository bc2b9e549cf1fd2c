"""Averages of answers: of one model they are its own, in any order they are the same, and they are what is computed."""

import itertools

import numpy as np
import pytest

from reprise.ensemble.average import averaged_logits, scores_of_logits, stored_scores
from reprise.ensemble.judgement import answers_of_logits, as_evaluation, judge, stored_answers, verdict
from reprise.ensemble.model import ensemble_model
from reprise.modeling.scoring import metrics_with_ci
from reprise.results import statistics
from stored_predictions import KINDS, METRICS, logits, references, table


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scikit-learn's metrics take a millisecond, and each resample needs two of each."""
    monkeypatch.setattr(statistics, "RESAMPLES", 30)


@pytest.mark.parametrize("name", KINDS)
def test_the_stored_scores_are_those_of_the_logits_to_the_bit(name: str) -> None:
    stored, computed = stored_scores(table(name, 1), KINDS[name]), scores_of_logits(logits(name, 1), KINDS[name])
    assert stored.tobytes() == computed.tobytes()


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_an_ensemble_of_one_model_has_its_numbers_to_the_bit(name: str, members: int) -> None:
    kind, own = KINDS[name], stored_scores(table(name, 1), KINDS[name])
    averaged = averaged_logits([own] * members, kind)
    assert kind.decode(averaged).tolist() == kind.decode(logits(name, 1)).tolist()
    found = metrics_with_ci(METRICS[name], kind, averaged, references(name), resamples=50)
    expected = metrics_with_ci(METRICS[name], kind, logits(name, 1).astype(np.float64), references(name), resamples=50)
    assert found == expected
    answers = [stored_answers(table(name, 1), kind)] * members
    judged = judge(answers_of_logits(averaged, kind), answers, references(name), kind, METRICS[name], 50)
    assert {each.name: each.value for each in judged.metrics} == {each: expected[each] for each in METRICS[name]}
    assert [each.single - each.value for each in judged.metrics] == [0.0] * len(METRICS[name])
    assert as_evaluation(judged, "test")["ci95"] == expected["ci95"]
    assert "is not shown to differ from HEAD" in verdict(judged, "The ensemble", "HEAD", kind)


@pytest.mark.parametrize("name", KINDS)
def test_the_order_of_the_members_changes_no_bit(name: str) -> None:
    members = [stored_scores(table(name, seed), KINDS[name]) for seed in range(4)]
    found = {averaged_logits(order, KINDS[name]).tobytes() for order in itertools.permutations(members)}
    assert len(found) == 1


@pytest.mark.parametrize("name", KINDS)
def test_the_logits_stand_for_the_mean_of_the_probabilities(name: str) -> None:
    kind, members = KINDS[name], [stored_scores(table(name, seed), KINDS[name]) for seed in (1, 2, 3)]
    found = kind.probabilities(averaged_logits(members, kind))
    expected = np.mean(members, axis=0)
    np.testing.assert_allclose(averaged_logits(members, kind) if found is None else found, expected, rtol=1e-6)


def test_certain_probabilities_have_infinite_logits_that_decode() -> None:
    certain, kind = np.array([[1.0, 0.0], [0.0, 1.0]]), KINDS["two labels"]
    averaged = averaged_logits([certain, certain], kind)
    assert kind.decode(averaged).tolist() == [0, 1]
    assert kind.probabilities(averaged) is not None
    assert np.array_equal(np.asarray(kind.probabilities(averaged)), certain)
    many = KINDS["any number of labels"]
    averaged = averaged_logits([np.array([[1.0, 0.0, 0.5]])], many)
    assert np.asarray(many.probabilities(averaged)).tolist() == [[1.0, 0.0, 0.5]]
    assert many.decode(averaged).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("name", KINDS)
def test_the_members_of_an_ensemble_are_asked_and_averaged_as_the_stored_answers(name: str) -> None:
    kind = KINDS[name]
    model = ensemble_model([lambda _, seed=seed: (logits(name, seed), []) for seed in (1, 2)], kind)
    found, words = model([("a text",)])
    expected = averaged_logits([stored_scores(table(name, seed), kind) for seed in (2, 1)], kind)
    assert (found.tobytes(), words) == (expected.tobytes(), [])
    assert len(list(kind.predictions(found))) == len(expected)


def test_the_verdict_names_both_tests_and_the_direction() -> None:
    name, kind = "two labels", KINDS["two labels"]
    truth = references(name)
    right, wrong = logits(name, 1), logits(name, 1)
    right[:], wrong[:] = 0, 0
    right[np.arange(len(truth)), truth] = 3
    wrong[np.arange(len(truth)), truth] = 3
    wrong[:20] = wrong[:20, ::-1]  # the second half of the labels is right, the first 20 are not
    good, bad = answers_of_logits(right, kind), answers_of_logits(wrong, kind)
    judged = judge(good, [bad, good], truth, kind, ["accuracy"], 50)
    assert (judged.metrics[0].value, judged.metrics[0].single) == (1.0, pytest.approx(2 / 3))
    assert judged.metrics[0].members.mean == pytest.approx(5 / 6)
    assert not judged.constant
    line = verdict(judged, "The ensemble of 2 runs", "HEAD (seed 42)", kind)
    assert line.startswith("The ensemble of 2 runs is better than HEAD (seed 42): accuracy +0.3333 [+0.")
    assert line.endswith(", p<0.001 (McNemar, 20 examples against 0).")
    judged = judge(bad, [good], truth, kind, ["accuracy"], 50)
    assert "is worse than HEAD" in verdict(judged, "The ensemble", "HEAD", kind)


def test_a_constant_prediction_is_noticed() -> None:
    kind, same = (
        KINDS["two labels"],
        answers_of_logits(np.zeros((len(references("two labels")), 2)), KINDS["two labels"]),
    )
    assert judge(same, [same], references("two labels"), kind, ["accuracy"], 50).constant


def test_of_numbers_a_smaller_error_is_better() -> None:
    kind, truth = KINDS["numbers"], references("numbers")
    near, far = (answers_of_logits((truth + off)[:, None].astype(np.float32), kind) for off in (0.1, 1.0))
    noisy = answers_of_logits(logits("numbers", 3), kind)
    judged = judge(near, [noisy, far], truth, kind, ["rmse"], 50)
    assert judged.mcnemar is None
    line = verdict(judged, "The ensemble", "HEAD", kind)
    assert line.startswith("The ensemble is better than HEAD: rmse -1.")
    assert "McNemar" not in line
