"""The content of the page: data, commands, provenance."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from factories import BASE, STATS, STEPS, make_run
from reprise.core.paths import PLOTS
from reprise.report.commands import run_commands
from reprise.report.confusion import FEW_LABELS, MAX_LABELS, confusion_matrix
from reprise.report.context import build_context, class_scores, precision_recall, rounded
from reprise.report.downsample import MAX_BINS
from reprise.report.page import render
from reprise.report.provenance import provenance_rows
from reprise.report.run import MetricValue, ReportRun
from synthetic_runs import in_yaml
from tiny import tiny_recipe

NO_TABLE = pd.DataFrame()  # of an earlier version
HUB_MODEL = {"kind": "hub", "repo": "google-bert/bert-base-cased", "revision": "c" * 40}


def as_regression(files: dict[Path, bytes]) -> None:
    """Change the files of a run to those of a regression, whose plots are empty."""
    for name, columns in (("confusion", "actual,predicted"), ("precision_recall", "label,recall,precision,threshold"),
                          ("calibration", "confidence,accuracy,rows"),
                          ("per_class", "label,precision,recall,f1,support")):  # fmt: skip
        files[PLOTS / f"{name}.csv"] = f"{columns}\n".encode()
    files[PLOTS / "residuals.csv"] = b"actual,predicted,residual\n1.5,2.0,0.5\n3.0,2.5,-0.5\n"
    evaluated = json.loads(files[Path("metrics/evaluate.json")])
    del evaluated["ece"]
    evaluated |= {"pearson": 0.5, "ci95": {"pearson": {"low": 0.4, "high": 0.6}}, "baseline": {"pearson": 0.0}}
    files[Path("metrics/evaluate.json")] = json.dumps(evaluated).encode()


def test_metrics_have_display_names() -> None:
    run = make_run()
    evaluated = run.evaluated
    assert list(run.metrics) == [
        "accuracy", "f1", "validation accuracy", "validation f1", "training loss", "calibration error",
        "training seconds", "examples/s", "peak MiB",
    ]  # fmt: skip
    interval = evaluated["ci95"]["accuracy"]
    assert run.metrics["accuracy"] == MetricValue(evaluated["accuracy"], interval["low"], interval["high"])
    assert run.metrics["training loss"] == MetricValue(float(run.result.losses.mean()))
    calibrated = dataclasses.replace(run, evaluated=evaluated | {"ece_uncalibrated": 0.125})
    assert calibrated.metrics["uncalibrated error"] == MetricValue(0.125)


def test_chart_data_equals_the_files_of_the_run() -> None:
    run = make_run()
    data = build_context([run]).data["runs"][0]
    curve = run.tables["train"]
    assert data["curve"]["step"] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(data["curve"]["loss"], curve["loss"], rtol=1e-3)
    np.testing.assert_allclose(data["curve"]["learning_rate"], curve["learning_rate"], rtol=1e-3)
    np.testing.assert_allclose(data["epochs"]["accuracy"], run.tables["validation"]["accuracy"], rtol=1e-3)
    np.testing.assert_allclose(data["calibration"]["accuracy"], run.tables["calibration"]["accuracy"], rtol=1e-3)
    assert sum(count for *_, count in data["confusion"]) == 200
    correct = sum(count for actual, predicted, count in data["confusion"] if actual == predicted)
    assert correct / 200 == run.evaluated["accuracy"]
    np.testing.assert_allclose(data["metrics"]["accuracy"], dataclasses.astuple(run.metrics["accuracy"]), rtol=1e-4)


def test_a_long_curve_is_downsampled_and_its_largest_gradient_kept() -> None:
    run = make_run(how={"steps": 1000})
    data = build_context([run]).data["runs"][0]["curve"]
    assert {len(values) for values in data.values()} == {MAX_BINS}
    assert math.isclose(max(data["grad_norm"]), run.tables["train"]["grad_norm"].max(), rel_tol=1e-3)
    assert math.isclose(np.mean(data["loss"]), run.tables["train"]["loss"].mean(), rel_tol=1e-2)


def test_sweeps_are_differing_numbers_without_the_seed() -> None:
    runs = [
        make_run(),
        make_run("b", "experiment", **{"train.learning_rate": 1e-3, "seed": 1, "train.lora": None}),
        make_run("c", "experiment", **{"train.max_steps": 10, "train.bucket_lengths": [16], "train.epochs": 2}),
    ]
    context = build_context(runs)
    assert context.sweeps == ["train.learning_rate"]
    assert [run["params"] for run in context.data["runs"]] == [
        {"train.learning_rate": rate} for rate in (0.005, 0.001, 0.005)
    ]
    assert context.charts["sweep 0"]["layer"][0]["encoding"]["x"]["title"] == "train.learning_rate"


def test_a_sweep_over_a_power_of_ten_has_a_logarithmic_axis() -> None:
    def axis(*rates: float) -> str | None:
        context = build_context([make_run(f"{rate}", "experiment", **{"train.learning_rate": rate}) for rate in rates])
        kind: str | None = context.charts["sweep 0"]["layer"][0]["encoding"]["x"]["scale"].get("type")
        return kind

    assert axis(1e-4, 1e-3) == "log"
    assert axis(1e-4, 9e-4) is None


def test_numbers_are_rounded_and_non_finite_ones_are_none() -> None:
    assert rounded([0.123456, 1234567.0, 3.0, math.nan, math.inf, 1e-7]) == [0.1235, 1234567, 3, None, None, 1e-7]


def test_a_nan_loss_is_a_gap() -> None:
    def spoil(files: dict[Path, bytes]) -> None:
        table = files[PLOTS / "train.csv"].decode().splitlines()
        cells = table[2].split(",")
        table[2] = ",".join([*cells[:3], "nan", cells[4]])
        files[PLOTS / "train.csv"] = "\n".join(table).encode()

    data = build_context([make_run(change=spoil)]).data["runs"][0]["curve"]
    assert [place for place, loss in enumerate(data["loss"]) if loss is None] == [1]


def test_labels_that_look_like_other_types_stay_strings() -> None:
    labels = {"task.labels": ["NA", "1", "true"]}
    run = make_run(**labels)
    data = build_context([run]).data["runs"][0]
    assert data["labels"] == ["NA", "1", "true"]
    assert {actual for actual, *_ in data["confusion"]} == {0, 1, 2}
    assert list(data["pr"]) == ["NA", "1", "true"]


def test_the_confusion_is_counted_in_the_order_of_the_labels() -> None:
    rows = pd.DataFrame({"actual": ["b", "a", "b", "b"], "predicted": ["a", "a", "b", "a"]})
    matrix = confusion_matrix(rows, ["b", "a"])
    assert (matrix.labels, matrix.cells, matrix.note) == (["b", "a"], [[0, 0, 1], [0, 1, 2], [1, 1, 1]], "")


def test_labels_that_are_confused_with_each_other_are_side_by_side() -> None:
    labels = [f"{number}" for number in range(FEW_LABELS + 2)]
    twins = {"0": "7", "3": "11"}
    rows = pd.DataFrame({"actual": labels + list(twins), "predicted": labels + list(twins.values())})
    matrix = confusion_matrix(rows, labels)
    assert sorted(matrix.labels) == sorted(labels)
    for one, other in twins.items():
        assert abs(matrix.labels.index(one) - matrix.labels.index(other)) == 1
        assert [matrix.labels.index(one), matrix.labels.index(other), 1] in matrix.cells
    assert "side by side" in matrix.note


def test_of_very_many_labels_those_with_the_most_errors_are_shown_and_no_example_is_lost() -> None:
    labels = [f"{number}" for number in range(150)]
    random = np.random.default_rng(0)
    actual = random.integers(0, 150, 5000)
    predicted = np.where(random.random(5000) < 0.5, actual, (actual + 1) % 100)
    rows = pd.DataFrame({"actual": np.array(labels)[actual], "predicted": np.array(labels)[predicted]})
    matrix = confusion_matrix(rows, labels)
    assert len(matrix.labels) == MAX_LABELS + 1
    assert matrix.labels[-1] == "70 other labels"
    assert sum(count for *_, count in matrix.cells) == 5000
    wrong = rows[rows["actual"] != rows["predicted"]]
    errors = wrong["actual"].value_counts().add(wrong["predicted"].value_counts(), fill_value=0)
    shown = set(matrix.labels[:-1])
    assert (
        errors[[name for name in labels if name in shown]].min()
        >= errors[[name for name in labels if name not in shown]].max()
    )
    assert f"The {MAX_LABELS} labels with the most errors are shown; the other 70 share" in matrix.note
    same = build_context([make_run()]).charts["confusion"]
    assert "width" in same
    assert same["width"] == "container"


def test_the_labels_are_listed_from_the_lowest_f1_without_numbers_that_are_not_defined() -> None:
    rows = pd.DataFrame({"actual": ["a", "a", "b", "c"], "predicted": ["a", "a", "a", "c"]})
    assert class_scores(NO_TABLE, rows, ["a", "b", "c", "absent"]) == [
        {"label": "b", "precision": None, "recall": 0.0, "f1": 0.0, "support": 1},
        {"label": "a", "precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2},
        {"label": "c", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
    ]
    assert class_scores(NO_TABLE, rows.iloc[:0], ["a", "b"]) == []
    table = pd.DataFrame(
        {"label": ["a", "b"], "precision": [0.5, np.nan], "recall": 0.5, "f1": [0.5, 0.0], "support": 2}
    )
    assert [each["label"] for each in class_scores(table, rows.iloc[:0], ["a", "b"])] == ["b", "a"]


def test_many_labels_have_a_row_each_and_few_a_column_each() -> None:
    labels = [f"{number}" for number in range(77)]
    run = make_run(how={"rows": 2000}, **{"task.labels": labels, "task.positive_label": None})
    stats = json.loads(json.dumps(STATS)) | {"labels": labels}
    for content in stats["splits"].values():
        content["label_counts"] = dict.fromkeys(labels, 3)
    context = build_context([run], stats=stats)
    assert (context.many_labels, context.label_stats) == (True, {})
    assert context.label_counts == {label: [3, 3, 3] for label in labels}
    assert len(context.classes) == 77
    assert context.charts["confusion"]["width"] == {"step": 12}
    assert len(context.confusions) + context.other_confusions > len(context.confusions)
    page = render(context)
    assert page.count('<th scope="row">76</th>') >= 2
    few = build_context([make_run()], stats=STATS)
    assert (few.many_labels, few.label_counts) == (False, {})
    assert set(few.label_stats["train"]) == {"rotten", "fresh"}


def test_points_of_precision_and_recall_are_divided_among_the_labels() -> None:
    rows = pd.concat(
        [pd.DataFrame({"label": str(n), "recall": np.linspace(1, 0, 200), "precision": 0.5}) for n in range(8)]
    )
    data = precision_recall(rows)
    assert {len(each["recall"]) for each in data.values()} == {25}
    assert data["3"]["recall"][0] == 1
    assert data["3"]["recall"][-1] == 0


def test_a_regression_has_no_label_charts() -> None:
    context = build_context([make_run(change=as_regression, **{"task.name": "similarity"})])
    data = context.data["runs"][0]
    assert (data["confusion"], data["pr"], data["calibration"]["confidence"]) == ([], {}, [])
    assert data["residuals"] == {"actual": [1.5, 3], "predicted": [2, 2.5], "residual": [0.5, -0.5]}
    assert (context.has_residuals, context.classes) == (True, [])
    assert [each.name for each in context.headlines] == ["pearson"]


def test_lengths_and_labels_of_the_data_come_from_its_statistics() -> None:
    data = build_context([make_run()], stats=STATS).data
    assert data["lengths"][0] == {
        "split": "train", "min": 3, "q25": 6, "q50": 9, "q75": 11, "q95": 14, "q99": 15, "max": 16,
    }  # fmt: skip
    assert [(row["split"], row["label"], row["count"], row["fraction"]) for row in data["balance"][:2]] == [
        ("train", "rotten", 36, 0.25),
        ("train", "fresh", 108, 0.75),
    ]
    assert build_context([make_run()]).data["lengths"] == []


def test_the_first_runs_are_selected_initially() -> None:
    assert build_context([make_run()]).data["chosen"] == [0]
    assert build_context([make_run(f"{n}", "experiment") for n in range(9)]).data["chosen"] == [0, 1, 2, 3]


def lines(run: ReportRun, *others: ReportRun) -> dict[str, list[str]]:
    return {each.purpose: each.lines for each in run_commands(run, {other.commit: other for other in others})}


def test_a_commit_is_checked_out_and_verified() -> None:
    assert lines(make_run()) == {
        "Get its results": [f"git checkout {BASE}", "dvc checkout"],
        "Reproduce it and grade every output": [f"make verify REV={BASE}"],
    }


def test_an_experiment_is_the_dvc_exp_run_on_its_commit() -> None:
    run = make_run("gentler", "experiment", **{"train.learning_rate": 3e-5, "seed": 7})
    assert lines(run, make_run()) == {
        "Get its results": ["dvc exp apply gentler"],
        "Run it again": [f"git checkout {BASE}", "dvc exp run -S seed=7 -S train.learning_rate=3e-05"],
        "Reproduce it and grade every output": [f"make verify REV={run.commit}"],
    }


@pytest.mark.parametrize("how", [{"code": "1" * 32}, {}], ids=["other code", "a commit that is not among the runs"])
def test_an_experiment_without_a_command_is_checked_out(how: dict[str, str]) -> None:
    run = make_run("gentler", "experiment", how=how, seed=7)
    assert lines(run, *([make_run()] if how else []))["Run it again"] == [f"git checkout {run.commit}", "dvc repro"]


def test_the_workspace_is_reproduced_as_an_experiment_on_head() -> None:
    assert lines(make_run("workspace", "workspace", seed=7), make_run()) == {
        "Run it again": [f"git checkout {BASE}", "dvc exp run -S seed=7"]
    }


def test_a_workspace_with_edited_params_is_named_by_its_results_and_has_no_command() -> None:
    edited = tiny_recipe(**{"model.name": "bert", "model.source": HUB_MODEL, "train.epochs": 9})
    run = make_run(kind="workspace", change=lambda files: files.update({Path("params.yaml"): in_yaml(edited)}))
    context = build_context([run])
    assert context.title == "tiny on reviews"
    assert context.rows[0].commands == []
    broken = make_run(kind="workspace", change=lambda files: files.update({Path("params.yaml"): b"task: ["}))
    assert build_context([broken]).title == "tiny on reviews"


def test_f1_is_named_with_its_label_and_an_interval_that_is_not_determined_is_left_out() -> None:
    def without_interval(files: dict[Path, bytes]) -> None:
        evaluated = json.loads(files[Path("metrics/evaluate.json")])
        evaluated["ci95"]["f1"] = {"low": None, "high": None}
        files[Path("metrics/evaluate.json")] = json.dumps(evaluated).encode()

    context = build_context([make_run(change=without_interval)])
    assert [each.name for each in context.headlines] == ["accuracy", "f1 (fresh)"]
    assert context.headlines[1].low is None
    page = render(context)
    assert page.count("<span>95 % interval ") == 1


def test_a_run_on_other_hardware_is_reproduced_in_its_image() -> None:
    run = make_run("big", "experiment", how={"hardware": "cuda"}, seed=7)
    assert lines(run, make_run())["Run it again"][1] == "docker/run cuda dvc exp run -S seed=7"


def test_the_provenance_has_the_commit_the_devices_and_every_digest() -> None:
    run = make_run()
    provenance = dict(provenance_rows(run))
    assert provenance["commit"] == BASE
    assert provenance["code"] == "c" * 40
    assert provenance["devices"] == "cpu: AMD EPYC"
    assert provenance["lock torch.txt"] == "7" * 64
    assert provenance["weights, model.safetensors"] == run.result.provenance["weights.model.safetensors"]
    assert provenance["data, test"] == "t" * 64
    assert "torch 2.13.0" in provenance["packages"]
    dirty = dataclasses.replace(run.result, provenance={**run.result.provenance, "dirty": True})
    assert dict(provenance_rows(dataclasses.replace(run, result=dirty)))["code"].endswith("with uncommitted changes")
