"""What a comparison says of made-up runs."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factories import make_run
from made_up_runs import files
from reprise.commands.compare import compare_predictions, comparison, label_ids, to_jsonable, to_markdown
from reprise.results.reference import summarize_seeds
from reprise.results.run import RunResult, read_result
from reprise.results.runs import Run
from tiny import tiny_recipe

LABELS = ["rotten", "fresh"]


class Known(Run):
    """A run whose predictions are at hand, or known not to be."""

    def predictions(self) -> pd.DataFrame | None:
        return self.read.predictions if hasattr(self.read, "predictions") else None


def run(name: str, *, constant: bool = False, predictions: pd.DataFrame | None = None, **changes: Any) -> Run:
    made = files(tiny_recipe(**changes), steps=10, rows=200, constant_prediction=constant)

    def read(file: Any) -> bytes | None:
        return made.get(file)

    if predictions is not None:
        read.predictions = predictions  # type: ignore[attr-defined]
    commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return Known(name, "experiment", commit, None, read_result(read, name), read)


def group(name: str, **changes: Any) -> list[Run]:
    return [run(f"{name}-{seed}", seed=seed, **changes) for seed in (1, 2, 3)]


def table(predictions: list[str], labels: list[str]) -> pd.DataFrame:
    texts = [f"text {number} | with a bar" for number in range(len(labels))]
    surer = np.linspace(0.6, 0.9, len(labels))  # the further down, the surer
    sure = [[1 - p, p] if said == "fresh" else [p, 1 - p] for said, p in zip(predictions, surer, strict=True)]
    return pd.DataFrame({"text": texts, "label": labels, "prediction": predictions, "probabilities": sure})


def test_every_figure_has_a_contrast_and_words_and_evaluation_comes_first() -> None:
    told = comparison(("seeds:a", group("a")), ("seeds:b", group("b", **{"train.learning_rate": 1e-4})), [], 0)
    assert [(each.stage, each.name) for each in told.metrics][:2] == [("evaluate", "accuracy"), ("evaluate", "f1")]
    accuracy = told.metrics[0]
    assert accuracy.contrast is not None
    assert accuracy.contrast.difference > 0.1
    assert accuracy.verdict.startswith("better, p<")
    assert accuracy.verdict.endswith("n=3 and 3")
    assert told.warnings == []


def test_a_metric_that_a_side_lacks_is_told_as_such() -> None:
    after = run("b", **{"task.metrics": ["accuracy"]})
    after = replace(after, result=without(after.result, "f1"))
    told = comparison(("a", [run("a")]), ("b", [after]), [], 0)
    (f1,) = [each for each in told.metrics if (each.stage, each.name) == ("evaluate", "f1")]
    assert f1.contrast is None
    assert f1.verdict.startswith("only the first side has it: 0.")


def without(result: RunResult, name: str) -> RunResult:
    return replace(
        result,
        metrics={
            stage: {key: value for key, value in metrics.items() if key != name}
            for stage, metrics in result.metrics.items()
        },
    )


def test_of_one_seed_a_side_the_measured_spread_of_the_task_is_told() -> None:
    reference = summarize_seeds({each.result.recipe["seed"]: each.result for each in group("r")})
    sd = reference.metrics["evaluate"]["accuracy"].sd
    after = run("b", **{"train.epochs": 3})
    for kind, expected in (("cpu", f"; the task's known spread is ±{sd:.2g}"), ("cuda", "")):
        told = comparison(("a", [run("a")]), ("b", [after]), [(kind, reference)], 0)
        assert told.metrics[0].verdict == f"one seed a side: cannot tell{expected}"
    elsewhere = [run(name, **{"model.source.path": "data/own/another"}) for name in ("a", "b")]
    told = comparison(("a", elsewhere[:1]), ("b", elsewhere[1:]), [("cpu", reference)], 0)
    assert told.metrics[0].verdict == "one seed a side: cannot tell"


def test_one_seed_against_several_names_the_test_and_what_it_takes_for_granted() -> None:
    told = comparison(("seeds:a", group("a")), ("b", [run("b", **{"train.learning_rate": 1e-4})]), [], 0)
    assert told.metrics[0].verdict == "inside seed noise, as far as one seed tells, n=3 and 1"
    said = to_markdown(told)
    assert "Student's t-test" in said
    assert "judged by the other's spread" in said
    assert "Welch" not in said


def test_a_constant_prediction_and_a_run_on_both_sides_are_warned_of() -> None:
    told = comparison(("a", [run("a")]), ("b", [run("a"), run("b", constant=True, seed=7)]), [], 0)
    assert told.warnings == ["b is a constant prediction: one label for every example", "a run stands on both sides"]
    again = replace(run("a"), name="another word for it")
    assert comparison(("a", [run("a")]), ("b", [again]), [], 0).warnings[0] == "a run stands on both sides"


def test_runs_of_other_rows_are_warned_of() -> None:
    told = comparison(("a", [run("a")]), ("b", [run("b", **{"evaluate.split": "validation"})]), [], 0)
    assert told.warnings[0].startswith("not all runs were judged on the same rows")


def test_rows_that_changed_are_counted_and_named() -> None:
    labels = ["fresh"] * 10 + ["rotten"] * 10
    first, second = list(labels), list(labels)
    second[0], second[12], first[15] = "rotten", "fresh", "fresh"
    sides = [run(name, predictions=table(said, labels)) for name, said in (("a", first), ("b", second))]
    told = comparison(("a", sides[:1]), ("b", sides[1:]), [], 2)
    assert told.pairing is not None
    assert (told.pairing.rows, told.pairing.changed) == (20, 3)
    # Of three throws of a coin, one or fewer of a side: 2 · (1 + 3) / 8.
    assert told.pairing.discordance is not None
    assert (told.pairing.discordance.only_before, told.pairing.discordance.only_after) == (2, 1)
    assert told.pairing.discordance.p == pytest.approx(1.0)
    # Of rows 0, 12 and 15, the surest two.
    assert told.pairing.examples == [
        {"id": 15, "text": "text 15 | with a bar", "label": "rotten", "first": "fresh", "second": "rotten"},
        {"id": 12, "text": "text 12 | with a bar", "label": "rotten", "first": "rotten", "second": "fresh"},
    ]
    assert "text 12 \\| with a bar" in to_markdown(told)


def test_predictions_of_other_rows_or_labels_are_not_compared() -> None:
    labels = ["fresh"] * 4
    other = table(labels, labels).assign(text="another")
    assert compare_predictions(table(labels, labels), other, run("a").result, 3) is None
    newer = table(labels, labels).assign(prediction=["fresh", "fresh", "mixed", "fresh"])
    assert compare_predictions(table(labels, labels), newer, run("a").result, 3) is None


def test_a_regression_is_paired_by_its_metrics_and_names_the_rows_furthest_apart() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=60)
    first, second = truth + draw.normal(0, 1.0, 60), truth + draw.normal(0, 0.1, 60)
    result = run("a").result
    result = replace(result, recipe=result.recipe | {"task.labels": [], "task.metrics": ["pearson"]})
    frames = [pd.DataFrame({"id": range(60), "label": truth, "prediction": said}) for said in (first, second)]
    told = compare_predictions(frames[0], frames[1], result, 1)
    assert told is not None
    assert told.discordance is None
    assert told.intervals["pearson"] is not None
    assert told.intervals["pearson"][0] > 0
    assert told.examples[0]["id"] == int(np.abs(first - second).argmax())


def test_labels_become_their_numbers() -> None:
    assert label_ids(pd.Series(["fresh", "rotten", "fresh"]), LABELS).tolist() == [1, 0, 1]


def test_json_has_null_for_what_is_no_number() -> None:
    assert to_jsonable({"a": [float("nan"), 1.0], "b": (float("inf"),)}) == {"a": [None, 1.0], "b": [None]}


def test_a_group_against_itself_is_the_same_as_far_as_seeds_tell() -> None:
    told = comparison(("seeds:a", group("a")), ("seeds:b", group("b")), [], 0)
    assert {each.verdict for each in told.metrics} == {"inside seed noise, n=3 and 3"}
    assert told.differences == []
    assert make_run().result.recipe == run("a").result.recipe
