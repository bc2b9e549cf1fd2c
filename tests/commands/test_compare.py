"""Comparisons of synthetic runs."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from factories import make_run
from rendered_markdown import referring, rendered
from reprise.commands.compare import (
    compare,
    compare_predictions,
    comparison,
    print_comparison,
    to_jsonable,
    to_markdown,
)
from reprise.core.display import printable
from reprise.core.errors import UserError
from reprise.results.reference import summarize_seeds
from reprise.results.run import RunResult, read_result
from reprise.results.runs import Run
from reprise.tasks.token_classification import find_words
from synthetic_runs import files
from tiny import tiny_recipe, write_params

LABELS = ["rotten", "fresh"]


class RunWithPredictions(Run):
    """A run with predictions in memory, or with none."""

    def predictions(self) -> pd.DataFrame | None:
        return self.read.predictions if hasattr(self.read, "predictions") else None


def run(
    name: str, *, constant: bool = False, edited: str = "", predictions: pd.DataFrame | None = None, **changes: Any
) -> Run:
    content = files(tiny_recipe(**changes), steps=10, rows=200, constant_prediction=constant)
    if edited:
        before, _, after = content[Path(edited)].rpartition(b"1")
        content[Path(edited)] = before + b"2" + after

    def read(file: Any) -> bytes | None:
        return content.get(file)

    if predictions is not None:
        read.predictions = predictions  # type: ignore[attr-defined]
    commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return RunWithPredictions(name, "experiment", commit, None, read_result(read, name), read)


def group(name: str, **changes: Any) -> list[Run]:
    return [run(f"{name}-{seed}", seed=seed, **changes) for seed in (1, 2, 3)]


def table(predictions: list[str], labels: list[str]) -> pd.DataFrame:
    texts = [f"text {number} | with a bar" for number in range(len(labels))]
    confidence = np.linspace(0.6, 0.9, len(labels))  # increases from row to row
    probabilities = [
        [1 - p, p] if label == "fresh" else [p, 1 - p] for label, p in zip(predictions, confidence, strict=True)
    ]
    return pd.DataFrame({"text": texts, "label": labels, "prediction": predictions, "probabilities": probabilities})


def test_every_metric_has_a_test_and_a_verdict_with_evaluation_first() -> None:
    result = comparison(("seeds:a", group("a")), ("seeds:b", group("b", **{"train.learning_rate": 1e-4})), [], 0)
    assert [(each.stage, each.name) for each in result.metrics][:2] == [("evaluate", "accuracy"), ("evaluate", "f1")]
    accuracy = result.metrics[0]
    assert accuracy.test is not None
    assert accuracy.test.difference > 0.1
    assert accuracy.verdict.startswith("better, p<")
    assert accuracy.verdict.endswith("n=3 and 3")
    assert result.warnings == []


@pytest.mark.parametrize("path", ["metrics/evaluate.json", "plots/train.csv", "metrics/provenance.json"])
def test_a_metric_or_plot_that_was_edited_after_the_run_is_named(path: str) -> None:
    edited = run("b", edited=path)
    assert edited.result.edited == [path]
    warnings = comparison(("a", [run("a", seed=7)]), ("b", [edited]), [], 0).warnings
    (warning,) = (each for each in warnings if path in each)
    assert warning.startswith(f"b: {path} is not as {'its run wrote' if 'prov' in path else 'dvc.lock records'} it")


def test_a_metric_of_one_group_only_is_reported() -> None:
    after = run("b", **{"task.metrics": ["accuracy"]})
    after = replace(after, result=without(after.result, "f1"))
    result = comparison(("a", [run("a")]), ("b", [after]), [], 0)
    (f1,) = [each for each in result.metrics if (each.stage, each.name) == ("evaluate", "f1")]
    assert f1.test is None
    assert f1.verdict.startswith("only in the first group: 0.")


def without(result: RunResult, name: str) -> RunResult:
    return replace(
        result,
        metrics={
            stage: {key: value for key, value in metrics.items() if key != name}
            for stage, metrics in result.metrics.items()
        },
    )


def test_single_seeds_are_compared_with_the_measured_standard_deviation() -> None:
    reference = summarize_seeds({each.result.recipe["seed"]: each.result for each in group("r")})
    sd = reference.metrics["evaluate"]["accuracy"].sd
    after = run("b", **{"train.epochs": 3})
    for kind, expected in (("cpu", f"; the known standard deviation over seeds is {sd:.2g}"), ("cuda", "")):
        result = comparison(("a", [run("a")]), ("b", [after]), [(kind, reference)], 0)
        assert result.metrics[0].verdict == f"inconclusive: one seed per group{expected}"
    elsewhere = [run(name, **{"model.source.path": "data/own/another"}) for name in ("a", "b")]
    result = comparison(("a", elsewhere[:1]), ("b", elsewhere[1:]), [("cpu", reference)], 0)
    assert result.metrics[0].verdict == "inconclusive: one seed per group"


def test_one_seed_against_several_names_the_test_and_its_assumption() -> None:
    result = comparison(("seeds:a", group("a")), ("b", [run("b", **{"train.learning_rate": 1e-4})]), [], 0)
    assert result.metrics[0].verdict == "within seed noise of the other group, n=3 and 1"
    text = to_markdown(result)
    assert "Student's t-test" in text
    assert "assuming equal variances" in text
    assert "Welch" not in text


def test_warns_of_a_constant_prediction_and_of_a_run_in_both_groups() -> None:
    result = comparison(("a", [run("a")]), ("b", [run("a"), run("b", constant=True, seed=7)]), [], 0)
    assert result.warnings == [
        "b is a constant prediction: every example got the same prediction",
        "a run is in both groups",
    ]
    again = replace(run("a"), name="another selector")
    assert comparison(("a", [run("a")]), ("b", [again]), [], 0).warnings[0] == "a run is in both groups"


def test_warns_of_f1_of_different_labels() -> None:
    runs = [run("a"), run("b", **{"task.positive_label": "rotten"})]
    result = comparison(("a", runs[:1]), ("b", runs[1:]), [], 0)
    assert "not all runs have the same label in f1 (fresh) and f1 (rotten)" in result.warnings


def test_warns_of_a_workspace_whose_params_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, content in files(tiny_recipe(), steps=10, rows=200).items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    write_params(tmp_path, **{"task.name": "other", "train.epochs": 9})
    monkeypatch.chdir(tmp_path)
    compare("workspace", "workspace", 0, "text")
    shown = " ".join(capsys.readouterr().out.split())
    assert "params.yaml has changed since the workspace's results were made: task.name, train.epochs" in shown
    assert "train.epochs: 9" not in shown


def test_warns_of_runs_evaluated_on_other_examples() -> None:
    result = comparison(("a", [run("a")]), ("b", [run("b", **{"evaluate.split": "validation"})]), [], 0)
    assert result.warnings[0].startswith("not all runs were evaluated on the same examples")


def test_changed_examples_are_counted_and_the_most_confident_listed() -> None:
    labels = ["fresh"] * 10 + ["rotten"] * 10
    first, second = list(labels), list(labels)
    second[0], second[12], first[15] = "rotten", "fresh", "fresh"
    groups = [run(name, predictions=table(predicted, labels)) for name, predicted in (("a", first), ("b", second))]
    result = comparison(("a", groups[:1]), ("b", groups[1:]), [], 2)
    assert result.paired is not None
    assert (result.paired.num_examples, result.paired.changed) == (20, 3)
    # Probability of at most one head or at most one tail in three coin flips: 2 · (1 + 3) / 8.
    assert result.paired.mcnemar is not None
    assert (result.paired.mcnemar.only_before, result.paired.mcnemar.only_after) == (2, 1)
    assert result.paired.mcnemar.p == pytest.approx(1.0)
    # The two most confident of rows 0, 12 and 15.
    assert result.paired.examples == [
        {"id": 15, "text": "text 15 | with a bar", "label": "rotten", "first": "fresh", "second": "rotten"},
        {"id": 12, "text": "text 12 | with a bar", "label": "rotten", "first": "rotten", "second": "fresh"},
    ]
    assert "text 12 \\| with a bar" in to_markdown(result)


def test_predictions_of_other_examples_or_labels_are_not_compared() -> None:
    labels = ["fresh"] * 4
    other = table(labels, labels).assign(text="another")
    assert compare_predictions(table(labels, labels), other, run("a").result, 3) is None
    newer = table(labels, labels).assign(prediction=["fresh", "fresh", "mixed", "fresh"])
    assert compare_predictions(table(labels, labels), newer, run("a").result, 3) is None


def test_regression_is_compared_by_its_metrics_and_lists_the_largest_changes() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=60)
    first, second = truth + draw.normal(0, 1.0, 60), truth + draw.normal(0, 0.1, 60)
    result = run("a").result
    result = replace(result, recipe=result.recipe | {"task.labels": [], "task.metrics": ["pearson"]})
    frames = [pd.DataFrame({"id": range(60), "label": truth, "prediction": values}) for values in (first, second)]
    paired = compare_predictions(frames[0], frames[1], result, 1)
    assert paired is not None
    assert paired.mcnemar is None
    assert paired.intervals["pearson"] is not None
    assert paired.intervals["pearson"][0] > 0
    assert paired.examples[0]["id"] == int(np.abs(first - second).argmax())


def test_examples_with_any_number_of_labels_are_compared_by_all_of_them() -> None:
    draw, labels = np.random.default_rng(0), ["action", "comedy"]
    truth = draw.random((60, 2)) < 0.5
    right, wrong = truth * 0.8 + 0.1, np.where(draw.random((60, 2)) < 0.3, ~truth, truth) * 0.8 + 0.1
    result = run("a").result
    recipe = {"task.labels": labels, "task.metrics": ["f1_micro", "average_precision"], "task.positive_label": None}
    recipe |= {"task.multi_label.separator": None, "task.multi_label.thresholds": "tuned"}
    result = replace(result, recipe=result.recipe | recipe)
    frames = [
        pd.DataFrame(
            {
                "id": range(60),
                "label": [np.array(labels)[row] for row in truth],
                "prediction": [np.array(labels)[row >= 0.5] for row in scores],
                "probabilities": list(scores),
            }
        )
        for scores in (wrong, right)
    ]
    paired = compare_predictions(frames[0], frames[1], result, 1)
    assert paired is not None
    assert paired.mcnemar is not None
    assert paired.changed == int(((wrong >= 0.5) != truth).any(axis=1).sum())
    for name in ("f1_micro", "average_precision"):
        interval = paired.intervals[name]
        assert interval is not None
        assert interval[0] > 0


def test_texts_with_entities_are_compared_as_a_whole() -> None:
    recipe = {"task.labels": ["person", "place"], "task.metrics": ["entity_f1"], "task.positive_label": None}
    result = run("a").result
    result = replace(result, recipe=result.recipe | recipe | {"task.token_classification.subwords": "first"})
    words = find_words("Ada left London")
    shared = {"text": words.text, "word_starts": words.starts, "word_ends": words.ends}
    tags = [np.array(["B-person", "O", "B-place"]), np.array(["B-person", "O", "O"])]
    before, after = (
        pd.DataFrame(
            [shared | {"id": row, "label": tags[0], "prediction": tags[int(row < wrong)]} for row in range(30)]
        )
        for wrong in (10, 2)
    )
    paired = compare_predictions(before, after, result, 1)
    assert paired is not None
    assert paired.mcnemar is not None
    assert (paired.changed, paired.mcnemar.only_after) == (8, 8)
    interval = paired.intervals["entity_f1"]
    assert interval is not None
    assert 0 < interval[0] < interval[1] < 0.3
    (example,) = paired.examples
    assert (example["label"], example["first"]) == ("Ada (person), London (place)", "Ada (person)")


def test_json_has_null_for_numbers_that_are_not_finite() -> None:
    assert to_jsonable({"a": [float("nan"), 1.0], "b": (float("inf"),)}) == {"a": [None, 1.0], "b": [None]}


def test_equal_groups_are_within_seed_noise() -> None:
    result = comparison(("seeds:a", group("a")), ("seeds:b", group("b")), [], 0)
    assert {each.verdict for each in result.metrics} == {"within seed noise, n=3 and 3"}
    assert result.differences == []
    assert make_run().result.recipe == run("a").result.recipe


def test_names_and_texts_of_a_comparison_are_text_on_the_terminal_and_in_markdown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = "[red]@team #12\x1b[31m | <img src=x>"
    labels = ["fresh", "rotten"]
    first, second = table(["fresh", "fresh"], labels), table(["rotten", "rotten"], labels)
    first["text"] = second["text"] = [hostile, "plain"]
    names = ("[bold]one", "https://example.org/two")
    before, after = run(names[0], predictions=first), run(names[1], predictions=second, constant=True)
    result = comparison((names[0], [before]), (names[1], [after]), [], 5)
    print_comparison(result)
    printed = capsys.readouterr().out
    assert {char for char in printed if not char.isprintable()} == {"\n"}
    assert "first: [bold]one (seed 42)" in printed
    shown = rendered(to_markdown(result))
    assert {"a", "img"} & set(shown.elements) == set()
    assert referring(shown) == []
    assert printable(hostile) in shown.text
    assert "https://example.org/two (seed 42)" in shown.text


def folds(name: str, numbers: tuple[int, ...] = (0, 1, 2), **changes: Any) -> list[Run]:
    divided: dict[str, Any] = {"task.split.validation": None, "task.split.folds": 3, "evaluate.split": "validation"}
    # The seed stands for the examples of the fold, from which the synthetic metrics are drawn.
    return [run(f"{name}-{number}", seed=number, **{**divided, "train.fold": number, **changes}) for number in numbers]


def test_folds_are_compared_one_by_one() -> None:
    after = folds("b", **{"train.learning_rate": 1e-4})
    result = comparison(("folds:a", folds("a")), ("folds:b", after), [], 0)
    accuracy = result.metrics[0]
    assert accuracy.test is not None
    assert accuracy.test.low is not None
    assert accuracy.verdict.startswith(("better, p<", "within fold noise"))
    assert accuracy.verdict.endswith("n=3 and 3")
    assert result.first.folds == result.second.folds == ["0", "1", "2"]
    assert result.warnings == []
    text = to_markdown(result)
    assert "(folds 0, 1, 2: b-0, b-1, b-2)" in text
    assert "fold by fold" in text


@pytest.mark.parametrize(
    ("selectors", "groups", "key", "problem"),
    [
        (("folds:a", "seeds:b"), (folds("a"), group("b")), "seeds:b", "is compared with folds"),
        (("folds:a", "folds:b"), (folds("a"), folds("b", (0, 1))), "folds:b", "folds 0, 1, 2 and 0, 1"),
        (("folds:a", "folds:b"), (folds("a", (1,)), folds("b", (1,))), "folds:a", "has one fold"),
        (
            ("folds:a", "folds:b"),
            (folds("a"), folds("b", **{"task.split.stratify": True})),
            "folds:b",
            "the data was divided in another way",
        ),
    ],
)
def test_only_the_same_folds_are_compared(
    selectors: tuple[str, str], groups: tuple[list[Run], list[Run]], key: str, problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as refused:
        comparison((selectors[0], groups[0]), (selectors[1], groups[1]), [], 0)
    assert refused.value.key == key
