"""What the page says of runs: data, commands, provenance."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from factories import BASE, CARD, STEPS, make_run
from reprise.core.paths import PLOTS
from reprise.report.commands import run_commands
from reprise.report.context import build_context, confusion_counts, precision_recall, rounded
from reprise.report.downsample import MAX_BINS
from reprise.report.provenance import provenance_rows
from reprise.report.run import MetricValue, ReportRun


def as_regression(files: dict[Path, bytes]) -> None:
    """What the stages leave of a regression: no picture has rows."""
    for name, columns in (("confusion", "actual,predicted"), ("precision_recall", "label,recall,precision,threshold"),
                          ("calibration", "confidence,accuracy,rows")):  # fmt: skip
        files[PLOTS / f"{name}.csv"] = f"{columns}\n".encode()
    judged = json.loads(files[Path("metrics/evaluate.json")])
    del judged["ece"]
    judged |= {"pearson": 0.5, "ci95": {"pearson": {"low": 0.4, "high": 0.6}}, "baseline": {"pearson": 0.0}}
    files[Path("metrics/evaluate.json")] = json.dumps(judged).encode()


def test_the_figures_of_a_run_have_the_names_that_people_know() -> None:
    run = make_run()
    judged = run.evaluated
    assert list(run.metrics) == [
        "accuracy", "f1", "validation accuracy", "validation f1", "training loss", "calibration error",
        "training seconds", "examples/s", "peak MiB",
    ]  # fmt: skip
    ends = judged["ci95"]["accuracy"]
    assert run.metrics["accuracy"] == MetricValue(judged["accuracy"], ends["low"], ends["high"])
    assert run.metrics["training loss"] == MetricValue(float(run.result.losses.mean()))


def test_what_is_drawn_of_a_run_is_what_its_files_say() -> None:
    run = make_run()
    drawn = build_context([run]).data["runs"][0]
    curve = run.tables["train"]
    assert drawn["curve"]["step"] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(drawn["curve"]["loss"], curve["loss"], rtol=1e-3)
    np.testing.assert_allclose(drawn["curve"]["learning_rate"], curve["learning_rate"], rtol=1e-3)
    np.testing.assert_allclose(drawn["epochs"]["accuracy"], run.tables["validation"]["accuracy"], rtol=1e-3)
    np.testing.assert_allclose(drawn["calibration"]["accuracy"], run.tables["calibration"]["accuracy"], rtol=1e-3)
    assert sum(count for *_, count in drawn["confusion"]) == 200
    right = sum(count for actual, predicted, count in drawn["confusion"] if actual == predicted)
    assert right / 200 == run.evaluated["accuracy"]
    np.testing.assert_allclose(drawn["metrics"]["accuracy"], dataclasses.astuple(run.metrics["accuracy"]), rtol=1e-4)


def test_a_long_curve_is_thinned_and_its_largest_gradient_stays() -> None:
    run = make_run(how={"steps": 1000})
    drawn = build_context([run]).data["runs"][0]["curve"]
    assert {len(values) for values in drawn.values()} == {MAX_BINS}
    assert math.isclose(max(drawn["grad_norm"]), run.tables["train"]["grad_norm"].max(), rel_tol=1e-3)
    assert math.isclose(np.mean(drawn["loss"]), run.tables["train"]["loss"].mean(), rel_tol=1e-2)


def test_only_numbers_that_differ_are_swept_and_a_seed_is_not() -> None:
    runs = [
        make_run(),
        make_run("b", "experiment", **{"train.learning_rate": 1e-3, "seed": 1, "train.lora": None}),
        make_run("c", "experiment", **{"train.max_steps": 10, "train.bucket_lengths": [16], "train.epochs": 2}),
    ]
    made = build_context(runs)
    assert made.sweeps == ["train.learning_rate"]
    assert [run["params"] for run in made.data["runs"]] == [
        {"train.learning_rate": rate} for rate in (0.005, 0.001, 0.005)
    ]
    assert made.charts["sweep 0"]["layer"][0]["encoding"]["x"]["title"] == "train.learning_rate"


def test_a_sweep_over_a_power_of_ten_has_a_logarithmic_axis() -> None:
    def axis(*rates: float) -> str | None:
        made = build_context([make_run(f"{rate}", "experiment", **{"train.learning_rate": rate}) for rate in rates])
        kind: str | None = made.charts["sweep 0"]["layer"][0]["encoding"]["x"]["scale"].get("type")
        return kind

    assert axis(1e-4, 1e-3) == "log"
    assert axis(1e-4, 9e-4) is None


def test_numbers_are_rounded_and_what_is_none_is_null() -> None:
    assert rounded([0.123456, 1234567.0, 3.0, math.nan, math.inf, 1e-7]) == [0.1235, 1234567, 3, None, None, 1e-7]


def test_a_loss_that_is_no_number_is_a_gap() -> None:
    def spoil(files: dict[Path, bytes]) -> None:
        table = files[PLOTS / "train.csv"].decode().splitlines()
        cells = table[2].split(",")
        table[2] = ",".join([*cells[:3], "nan", cells[4]])
        files[PLOTS / "train.csv"] = "\n".join(table).encode()

    drawn = build_context([make_run(change=spoil)]).data["runs"][0]["curve"]
    assert [place for place, loss in enumerate(drawn["loss"]) if loss is None] == [1]


def test_labels_that_look_like_something_else_stay_labels() -> None:
    labels = {"task.labels": ["NA", "1", "true"]}
    run = make_run(**labels)
    drawn = build_context([run]).data["runs"][0]
    assert drawn["labels"] == ["NA", "1", "true"]
    assert {actual for actual, *_ in drawn["confusion"]} == {0, 1, 2}
    assert list(drawn["pr"]) == ["NA", "1", "true"]


def test_the_confusion_is_counted_in_the_order_of_the_labels() -> None:
    rows = pd.DataFrame({"actual": ["b", "a", "b", "b"], "predicted": ["a", "a", "b", "a"]})
    assert confusion_counts(rows, ["b", "a"]) == [[0, 0, 1], [0, 1, 2], [1, 1, 1]]


def test_precision_and_recall_share_their_points_among_the_labels() -> None:
    rows = pd.concat(
        [pd.DataFrame({"label": str(n), "recall": np.linspace(1, 0, 200), "precision": 0.5}) for n in range(8)]
    )
    drawn = precision_recall(rows)
    assert {len(each["recall"]) for each in drawn.values()} == {25}
    assert drawn["3"]["recall"][0] == 1
    assert drawn["3"]["recall"][-1] == 0


def test_a_regression_has_no_labels_and_nothing_of_them_to_draw() -> None:
    made = build_context([make_run(change=as_regression, **{"task.name": "similarity"})])
    drawn = made.data["runs"][0]
    assert (drawn["confusion"], drawn["pr"], drawn["calibration"]["confidence"]) == ([], {}, [])
    assert [each.name for each in made.headlines] == ["pearson"]


def test_the_data_s_lengths_and_labels_are_those_of_its_card() -> None:
    data = build_context([make_run()], card=CARD).data
    assert data["lengths"][0] == {
        "split": "train", "min": 3, "q25": 6, "q50": 9, "q75": 11, "q95": 14, "q99": 15, "max": 16,
    }  # fmt: skip
    assert [(row["split"], row["label"], row["count"], row["share"]) for row in data["balance"][:2]] == [
        ("train", "rotten", 36, 0.25),
        ("train", "fresh", 108, 0.75),
    ]
    assert build_context([make_run()]).data["lengths"] == []


def test_the_first_runs_are_chosen() -> None:
    assert build_context([make_run()]).data["chosen"] == [0]
    assert build_context([make_run(f"{n}", "experiment") for n in range(9)]).data["chosen"] == [0, 1, 2, 3]


def lines(run: ReportRun, *others: ReportRun) -> dict[str, list[str]]:
    return {each.purpose: each.lines for each in run_commands(run, {other.commit: other for other in others})}


def test_a_commit_is_checked_out_and_verified() -> None:
    assert lines(make_run()) == {
        "Get its results": [f"git checkout {BASE}", "dvc checkout"],
        "Cook it again and judge every output": [f"make verify REV={BASE}"],
    }


def test_an_experiment_is_the_dvc_exp_run_on_its_commit() -> None:
    run = make_run("gentler", "experiment", **{"train.learning_rate": 3e-5, "seed": 7})
    assert lines(run, make_run()) == {
        "Get its results": ["dvc exp apply gentler"],
        "Cook it anew": [f"git checkout {BASE}", "dvc exp run -S seed=7 -S train.learning_rate=3e-05"],
        "Cook it again and judge every output": [f"make verify REV={run.commit}"],
    }


@pytest.mark.parametrize("how", [{"code": "1" * 32}, {}], ids=["other code", "a commit that is not among the runs"])
def test_an_experiment_that_no_setting_can_say_is_checked_out(how: dict[str, str]) -> None:
    run = make_run("gentler", "experiment", how=how, seed=7)
    assert lines(run, *([make_run()] if how else []))["Cook it anew"] == [f"git checkout {run.commit}", "dvc repro"]


def test_the_workspace_is_said_as_an_experiment_on_head() -> None:
    assert lines(make_run("workspace", "workspace", seed=7), make_run()) == {
        "Cook it again": [f"git checkout {BASE}", "dvc exp run -S seed=7"]
    }


def test_what_was_cooked_on_other_hardware_is_cooked_in_its_image() -> None:
    run = make_run("big", "experiment", how={"hardware": "cuda"}, seed=7)
    assert lines(run, make_run())["Cook it anew"][1] == "docker/run cuda dvc exp run -S seed=7"


def test_the_provenance_has_the_commit_the_devices_and_every_digest() -> None:
    run = make_run()
    told = dict(provenance_rows(run))
    assert told["commit"] == BASE
    assert told["code"] == "c" * 40
    assert told["devices"] == "cpu: AMD EPYC"
    assert told["lock torch.txt"] == "7" * 64
    assert told["weights, model.safetensors"] == run.result.provenance["weights.model.safetensors"]
    assert told["data, test"] == "t" * 64
    assert "torch 2.13.0" in told["packages"]
    dirty = dataclasses.replace(run.result, provenance={**run.result.provenance, "dirty": True})
    assert dict(provenance_rows(dataclasses.replace(run, result=dirty)))["code"].endswith("were not committed")
