"""Runs that cannot be combined are refused in one line that names the run."""

from dataclasses import replace
from typing import Any

import pytest

from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.ensemble.members import (
    check_examples,
    check_process,
    check_reading,
    check_runs,
    in_order,
)
from reprise.ensemble.model import joined_recipe
from reprise.modeling.recipe import ModelRecipe, model_recipe
from reprise.results.runs import Run
from stored_predictions import synthetic_run, table
from tiny import tiny_recipe


def with_model(run: Run, digest: str) -> Run:
    """Return a run with another final model."""
    outputs = run.result.outputs
    final = replace(outputs["models/final"], md5=digest)
    return replace(run, result=replace(run.result, outputs=outputs | {"models/final": final}))


@pytest.fixture
def runs() -> list[Run]:
    """Runs of the seeds 42, 43 and 44."""
    return [with_model(synthetic_run(f"run-{seed}", seed=seed), f"{seed:032x}.dir") for seed in (42, 43, 44)]


def recipe(**changes: Any) -> ModelRecipe:
    return model_recipe(check_recipe(tiny_recipe(**changes), "test"))


def test_runs_of_several_seeds_are_combined_in_the_order_of_the_seeds(runs: list[Run]) -> None:
    check_runs(runs)
    assert [run.name for run in in_order([runs[2], runs[0], runs[1]])] == ["run-42", "run-43", "run-44"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task.labels": ["fresh", "rotten"]}, "other: its task.labels is ['fresh', 'rotten']; expected ['rotten', 'f"),
        ({"task.positive_label": "rotten"}, "other: its task.positive_label is rotten; expected fresh, as of run-42"),
        ({"task.text_columns": ["film"]}, "other: its task.text_columns is ['film']; expected ['text'], as of run-42"),
    ],
)
def test_another_task_is_refused(runs: list[Run], changes: dict[str, Any], problem: str) -> None:
    other = with_model(synthetic_run("other", **changes), "f" * 32)
    with pytest.raises(UserError) as refused:
        check_runs([*runs, other])
    assert str(refused.value).startswith(problem)


def test_a_model_counts_once_and_a_single_one_is_no_ensemble(runs: list[Run]) -> None:
    again = replace(runs[0], name="again")
    with pytest.raises(UserError, match=r"^again: the same model as run-42; expected each model once$"):
        check_runs([*runs, again])
    with pytest.raises(UserError, match=r"^run-42: a single run; expected at least two runs"):
        check_runs(runs[:1])


def test_labels_of_words_are_refused() -> None:
    run = synthetic_run("run-42")
    recipe = run.result.recipe | {"task.token_classification.subwords": "first"}
    with pytest.raises(UserError, match=r"^run-42: a run of labels of words"):
        check_runs([replace(run, result=replace(run.result, recipe=recipe))])


def test_predictions_of_other_examples_or_labels_are_refused(runs: list[Run]) -> None:
    first, second = table("two labels", 1), table("two labels", 2)
    check_examples(runs[:2], [first, second])
    for other in (second[:-1], second[::-1], second.assign(label="fresh"), second.drop(columns="text")):
        with pytest.raises(UserError, match=r"^run-43: its predictions are of other examples"):
            check_examples(runs[:2], [first, other])


def test_thresholds_are_averaged_and_different_temperatures_are_left_out() -> None:
    first = replace(recipe(), thresholds=[0.1, 0.5], temperatures=[1.5])
    assert joined_recipe([first] * 3) == first
    joined = joined_recipe([first, replace(first, seed=43, thresholds=[0.3, 0.5], temperatures=[2.0])])
    assert (joined.seed, joined.thresholds, joined.temperatures) == (42, [0.2, 0.5], None)
    assert joined_recipe([recipe(), recipe(seed=43)]) == recipe()


def test_members_of_one_process_share_precision_and_threads() -> None:
    check_process(["a", "b"], [recipe(), recipe(**{"train.epochs": 5})])
    with pytest.raises(UserError, match=r"^b: its train.precision is bf16; expected fp32, as of a$"):
        check_process(["a", "b"], [recipe(), recipe(**{"train.precision": "bf16"})])


def test_models_of_a_soup_read_texts_alike() -> None:
    check_reading(["a", "b"], [recipe(), recipe(**{"train.learning_rate": 0.1})])
    with pytest.raises(UserError, match=r"^b: its train.max_length is 8; expected 16, as of a$"):
        check_reading(["a", "b"], [recipe(), recipe(**{"train.max_length": 8})])
