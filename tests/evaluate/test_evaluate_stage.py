"""Metrics, plots and predictions of the evaluate stage agree with each other and with the prepared data."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score

from reprise.core.config import Recipe, Task
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import FINAL_MODEL, METRICS, PLOTS, PREDICTIONS, PRETRAINED, RAW
from reprise.core.validation import check_recipe
from reprise.data.format import split_file
from reprise.data.tokenization import load_tokenizer
from reprise.evaluate.stage import evaluate
from reprise.modeling.classifier import load_classifier
from reprise.modeling.recipe import write_model_recipe
from reprise.prepare.stage import prepare
from reprise.tasks.registry import task_kind
from tiny import tiny_recipe, write_reviews

RESULT = METRICS / "evaluate.json"
# A task on the rows of `write_raw`, which have the columns text, pair and label and separate splits.
SEPARATE_SPLITS: dict[str, Any] = {"label_column": "label", "id_column": None, "filter": None, "split": None}
REGRESSION: dict[str, Any] = SEPARATE_SPLITS | {"labels": [], "metrics": ["pearson", "spearman"]}
TEXTS = ["dull and empty", "a bright film", "the film is funny", "a very hollow plot", "warm but lazy"]


def recipe(on: str = "test", batch_size: int = 8, buckets: str | list[int] = "auto", **changes: Any) -> Recipe:
    """Return the tiny recipe with this split, batch size and bucket lengths, and changes by key of its task."""
    changes = {f"task.{key}": value for key, value in changes.items()}
    changes |= {"evaluate.split": on, "evaluate.batch_size": batch_size, "train.bucket_lengths": buckets}
    return check_recipe(tiny_recipe(**changes), "recipe")


def task(**changes: Any) -> Task:
    return recipe(**changes).task


def write_raw(**labels: list[Any]) -> None:
    """Write a raw table per split with these labels and alternating texts."""
    for split, values in labels.items():
        (RAW / split).mkdir(parents=True)
        rows = [
            {"text": TEXTS[number % 5], "pair": TEXTS[number % 3], "label": value}
            for number, value in enumerate(values)
        ]
        (RAW / split / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_final_model(labels: list[str], weights: float | None = None, biases: list[float] | None = None) -> None:
    """Write a final model like train does, with scaled weights so that its logits differ clearly between texts.

    Args:
        labels: names of the labels; empty for regression.
        weights: the value of all weights of the head.
        biases: biases of the head; None keeps the initial head.
    """
    torch.manual_seed(0)
    model = load_classifier(PRETRAINED / "model", task_kind(labels))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embeddings" not in name:
                parameter *= 10
        if biases is not None:
            model.classifier.weight.fill_(weights)
            model.classifier.bias.copy_(torch.tensor(biases))
    model.save_pretrained(FINAL_MODEL)
    load_tokenizer(PRETRAINED / "tokenizer").save_pretrained(FINAL_MODEL)
    write_model_recipe(recipe(labels=labels, metrics=["f1" if labels else "rmse"]), FINAL_MODEL)


def plots() -> dict[str, list[list[str]]]:
    """Return the rows of every plot's CSV file by its name."""
    return {file.name: list(csv.reader(file.read_text().splitlines())) for file in sorted(PLOTS.iterdir())}


def predictions(split: str = "test") -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(PREDICTIONS / f"{split}.parquet").to_pydict()
    return columns


def outputs() -> dict[str, bytes]:
    folders = METRICS, PLOTS, PREDICTIONS
    return {str(file): file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(autouse=True)
def restored_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set offline mode like the command, and restore the process-wide setting of torch."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def workdir(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, a folder with the pretrained model."""
    for part in "model", "tokenizer":
        shutil.copytree(tiny_model, tmp_path / PRETRAINED / part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def reviews(workdir: Path) -> Path:
    """The prepared synthetic reviews and a final model that predicts "fresh" for half of the test split."""
    (RAW / "all").mkdir(parents=True)
    write_reviews(RAW / "all/reviews.csv")
    prepare(task(), max_length=16)
    write_final_model(task().labels)
    model, tokenizer = load_classifier(FINAL_MODEL).eval(), load_tokenizer(FINAL_MODEL)
    texts = Dataset.from_file(str(split_file("test")))["text"][:]
    with torch.inference_mode():
        logits = model(**tokenizer(texts, truncation=True, max_length=16, padding=True, return_tensors="pt")).logits
        model.classifier.bias[0] += (logits[:, 1] - logits[:, 0]).quantile(0.5)
    model.save_pretrained(FINAL_MODEL)
    return workdir


def test_metrics_plots_and_predictions_are_written(reviews: Path) -> None:
    evaluate(recipe(), cpu=True)
    assert sorted(outputs()) == [
        "metrics/evaluate.json",
        "plots/calibration.csv",
        "plots/confusion.csv",
        "plots/per_class.csv",
        "plots/precision_recall.csv",
        "plots/residuals.csv",
        "predictions/test.parquet",
    ]
    assert list(read_json(RESULT)) == [
        "split", "num_examples", "positive_label", "accuracy", "f1", "ci95", "ci95_method", "baseline",
        "constant_prediction", "ece",
    ]  # fmt: skip
    assert {name: lines[0] for name, lines in plots().items()} == {
        "confusion.csv": ["actual", "predicted"],
        "per_class.csv": ["label", "precision", "recall", "f1", "support"],
        "precision_recall.csv": ["label", "recall", "precision", "threshold"],
        "calibration.csv": ["confidence", "accuracy", "rows"],
        "residuals.csv": ["actual", "predicted", "residual"],
    }


def test_a_model_of_other_labels_than_the_recipe_is_refused(reviews: Path) -> None:
    write_final_model(["fresh", "rotten"])
    with pytest.raises(UserError) as refused:
        evaluate(recipe(), cpu=True)
    assert (refused.value.file, refused.value.key) == (str(FINAL_MODEL / "config.json"), "id2label")
    assert outputs() == {}


def test_the_metrics_are_those_of_the_written_predictions(reviews: Path) -> None:
    evaluate(recipe(), cpu=True)
    result, rows = read_json(RESULT), predictions()
    assert (result["split"], result["num_examples"]) == ("test", 48)
    assert result["accuracy"] == pytest.approx(accuracy_score(rows["label"], rows["prediction"]))
    assert result["f1"] == pytest.approx(f1_score(rows["label"], rows["prediction"], pos_label="fresh"))
    for name in "accuracy", "f1":
        assert result["ci95"][name]["low"] <= result[name] <= result["ci95"][name]["high"]
        assert result["ci95"][name]["low"] < result["ci95"][name]["high"]
    assert result["ci95_method"] == {"accuracy": "Wilson", "f1": "Wilson"}
    assert result["positive_label"] == "fresh"
    assert result["constant_prediction"] is False
    assert rows["prediction"].count("fresh") == 24


def test_the_predictions_have_every_prepared_row(reviews: Path) -> None:
    evaluate(recipe(), cpu=True)
    rows = predictions()
    source = {line["number"]: line for line in csv.DictReader((RAW / "all/reviews.csv").open())}
    assert list(rows) == ["id", "text", "label", "prediction", "probabilities"]
    assert rows["text"] == [source[number]["text"] for number in rows["id"]]
    assert rows["label"] == [source[number]["verdict"] for number in rows["id"]]


def test_the_prediction_is_the_most_probable_label(reviews: Path) -> None:
    evaluate(recipe(), cpu=True)
    rows = predictions()
    probabilities = np.array(rows["probabilities"])
    assert np.array(["rotten", "fresh"])[probabilities.argmax(axis=1)].tolist() == rows["prediction"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert set(rows["prediction"]) == {"rotten", "fresh"}


def test_the_probabilities_equal_those_of_the_model_on_single_texts(reviews: Path) -> None:
    evaluate(recipe(), cpu=True)
    model, tokenizer = load_classifier(FINAL_MODEL).eval(), load_tokenizer(FINAL_MODEL)
    rows = predictions()
    for text, probabilities in zip(rows["text"], rows["probabilities"], strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(text, truncation=True, max_length=16, return_tensors="pt")).logits
        assert logits.softmax(dim=1)[0].tolist() == pytest.approx(probabilities, abs=1e-5)


def test_the_plots_agree_with_the_written_predictions(reviews: Path) -> None:
    evaluate(recipe(), cpu=True)
    rows, written = predictions(), plots()
    assert written["confusion.csv"][1:] == [list(pair) for pair in zip(rows["label"], rows["prediction"], strict=True)]
    assert sum(int(line[2]) for line in written["calibration.csv"][1:]) == 48
    assert [line[0] for line in written["per_class.csv"][1:]] == ["rotten", "fresh"]
    assert float(written["per_class.csv"][2][3]) == pytest.approx(read_json(RESULT)["f1"])
    assert [int(line[4]) for line in written["per_class.csv"][1:]] == [
        rows["label"].count(label) for label in ("rotten", "fresh")
    ]
    gaps = [
        abs(float(confidence) - float(right)) * int(n) / 48 for confidence, right, n in written["calibration.csv"][1:]
    ]
    assert read_json(RESULT)["ece"] == pytest.approx(sum(gaps))
    assert {line[0] for line in written["precision_recall.csv"][1:]} == {"fresh"}
    # At the first threshold, every row is predicted as fresh.
    recall, precision = map(float, written["precision_recall.csv"][1][1:3])
    assert (recall, precision) == (1, pytest.approx(rows["label"].count("fresh") / 48))


def test_two_runs_give_the_same_bytes(reviews: Path) -> None:
    evaluate(recipe(), cpu=True)
    first = outputs()
    evaluate(recipe(), cpu=True)
    assert outputs() == first


def test_the_batch_size_does_not_change_the_result(reviews: Path) -> None:
    evaluate(recipe(batch_size=1), cpu=True)
    alone, rows_alone = read_json(RESULT), predictions()
    evaluate(recipe(batch_size=100), cpu=True)
    together, rows_together = read_json(RESULT), predictions()
    assert together.pop("ece") == pytest.approx(alone.pop("ece"), abs=1e-5)
    assert together == alone
    np.testing.assert_allclose(rows_together.pop("probabilities"), rows_alone.pop("probabilities"), atol=1e-5)
    assert rows_together == rows_alone


@pytest.mark.parametrize("buckets", ["auto", [16]], ids=str)
def test_padding_to_buckets_does_not_change_the_result(
    reviews: Path, buckets: str | list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(recipe(batch_size=32), cpu=True)
    alone, rows_alone = read_json(RESULT), predictions()
    monkeypatch.setattr("reprise.modeling.inference.on_xla", lambda _: True)
    evaluate(recipe(batch_size=32, buckets=buckets), cpu=True)
    bucketed, rows_bucketed = read_json(RESULT), predictions()
    assert bucketed.pop("ece") == pytest.approx(alone.pop("ece"), abs=1e-5)
    assert bucketed == alone
    np.testing.assert_allclose(rows_bucketed.pop("probabilities"), rows_alone.pop("probabilities"), atol=1e-5)
    assert rows_bucketed == rows_alone


def test_another_split_is_evaluated_on_request_and_replaces_the_first(reviews: Path) -> None:
    evaluate(recipe("test"), cpu=True)
    evaluate(recipe("train"), cpu=True)
    assert (read_json(RESULT)["split"], read_json(RESULT)["num_examples"]) == ("train", 144)
    assert [file.name for file in PREDICTIONS.iterdir()] == ["train.parquet"]
    assert len(plots()["confusion.csv"]) == 1 + 144


def test_a_model_that_always_predicts_one_label_is_a_constant_prediction(workdir: Path) -> None:
    write_raw(train=["fresh"] * 3 + ["rotten"], validation=["fresh"], test=["rotten"] * 3 + ["fresh"] * 2)
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    write_final_model(["rotten", "fresh"], weights=0, biases=[1, 0])
    evaluate(recipe(**SEPARATE_SPLITS), cpu=True)
    result = read_json(RESULT)
    assert result["constant_prediction"] is True
    assert (result["accuracy"], result["f1"]) == (0.6, 0)
    np.testing.assert_allclose(predictions()["probabilities"], [[0.7310586, 0.2689414]] * 5, atol=1e-6)
    assert predictions()["prediction"] == ["rotten"] * 5
    ((confidence, right, rows),) = plots()["calibration.csv"][1:]
    assert (float(confidence), float(right), rows) == (pytest.approx(0.7310586), 0.6, "5")
    assert result["ece"] == pytest.approx(0.1310586)


def test_the_baseline_predicts_the_majority_class_of_the_training_data(workdir: Path) -> None:
    write_raw(train=["fresh"] * 3 + ["rotten"], validation=["fresh"], test=["rotten"] * 3 + ["fresh"] * 2)
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    write_final_model(["rotten", "fresh"])
    evaluate(recipe(**SEPARATE_SPLITS | {"metrics": ["accuracy", "f1", "matthews"]}), cpu=True)
    # "fresh" for all five: 2 true positives, 3 false positives.
    assert read_json(RESULT)["baseline"] == {"accuracy": 0.4, "f1": pytest.approx(4 / 7), "matthews": 0}


def test_each_of_three_labels_has_a_curve(workdir: Path) -> None:
    labels = ["bad", "fair", "good"]
    write_raw(train=labels, validation=labels, test=labels * 4)
    three = recipe(**SEPARATE_SPLITS | {"labels": labels})
    prepare(three.task, max_length=16)
    write_final_model(labels)
    evaluate(three, cpu=True)
    assert {line[0] for line in plots()["precision_recall.csv"][1:]} == set(labels)
    rows = predictions()
    assert {len(probabilities) for probabilities in rows["probabilities"]} == {3}
    assert read_json(RESULT)["f1"] == pytest.approx(f1_score(rows["label"], rows["prediction"], average="macro"))


def test_a_split_without_the_positive_label_is_evaluated(workdir: Path) -> None:
    write_raw(train=["fresh", "rotten"], validation=["fresh"], test=["rotten"] * 3)
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    write_final_model(["rotten", "fresh"], weights=0, biases=[1, 0])
    evaluate(recipe(**SEPARATE_SPLITS), cpu=True)
    assert (read_json(RESULT)["accuracy"], read_json(RESULT)["f1"]) == (1, 0)
    assert plots()["precision_recall.csv"] == [["label", "recall", "precision", "threshold"]]


def test_sentence_pairs_are_evaluated_with_both_texts(workdir: Path) -> None:
    write_raw(train=["fresh", "rotten"], validation=["fresh"], test=["rotten", "fresh"] * 6)
    pairs = recipe(**SEPARATE_SPLITS | {"text_columns": ["text", "pair"]})
    prepare(pairs.task, max_length=16)
    write_final_model(pairs.task.labels)
    evaluate(pairs, cpu=True)
    rows = predictions()
    assert list(rows) == ["id", "text", "text_pair", "label", "prediction", "probabilities"]
    assert rows["text_pair"] == [TEXTS[number % 3] for number in range(12)]
    # The same first text with another second one gets another probability.
    assert rows["text"][0] == rows["text"][5]
    assert rows["probabilities"][0] != pytest.approx(rows["probabilities"][5], abs=1e-3)


def test_regression_has_values_and_residuals(workdir: Path) -> None:
    write_raw(train=[1, 2.5, 4], validation=[1], test=[3, 1, 2, 5, 4])
    prepare(task(**REGRESSION), max_length=16)
    write_final_model([])
    evaluate(recipe(**REGRESSION), cpu=True)
    result, rows = read_json(RESULT), predictions()
    residuals = plots().pop("residuals.csv")[1:]
    assert [float(line[0]) for line in residuals] == [1, 2, 3, 4, 5]
    by_label = dict(zip(rows["label"], rows["prediction"], strict=True))
    for actual, predicted, residual in ([float(cell) for cell in line] for line in residuals):
        assert (predicted, residual) == (by_label[actual], predicted - actual)
    assert {name: lines for name, lines in plots().items() if name != "residuals.csv"} == {
        "calibration.csv": [["confidence", "accuracy", "rows"]],
        "confusion.csv": [["actual", "predicted"]],
        "per_class.csv": [["label", "precision", "recall", "f1", "support"]],
        "precision_recall.csv": [["label", "recall", "precision", "threshold"]],
    }
    assert list(rows) == ["id", "text", "label", "prediction"]
    assert rows["label"] == [3, 1, 2, 5, 4]
    assert result["pearson"] == pytest.approx(np.corrcoef(rows["prediction"], rows["label"])[0, 1], abs=1e-6)
    assert result["baseline"] == {"pearson": 0, "spearman": 0}
    assert result["constant_prediction"] is False
    assert "ece" not in result


def test_a_regression_that_always_predicts_one_number_is_a_constant_prediction(workdir: Path) -> None:
    write_raw(train=[1, 2.5, 4], validation=[1], test=[-3, 1, 2])
    prepare(task(**REGRESSION), max_length=16)
    write_final_model([], weights=0, biases=[2.5])
    evaluate(recipe(**REGRESSION), cpu=True)
    assert predictions()["prediction"] == [2.5] * 3
    assert predictions()["label"] == [-3, 1, 2]  # below zero and not hidden
    assert (read_json(RESULT)["pearson"], read_json(RESULT)["constant_prediction"]) == (0, True)


def test_errors_of_a_regression_have_intervals_and_the_baseline_of_the_mean(workdir: Path) -> None:
    numbers = REGRESSION | {"metrics": ["rmse", "mae", "r2"]}
    write_raw(train=[1, 2.5, 4], validation=[1], test=[3, 1, 2, 5, 4])
    prepare(task(**numbers), max_length=16)
    write_final_model([])
    evaluate(recipe(**numbers), cpu=True)
    result = read_json(RESULT)
    # The mean of the training labels is 2.5: errors of 0.5, 1.5, 0.5, 2.5 and 1.5; 3 is the mean of the test labels.
    assert result["baseline"] == pytest.approx({"rmse": (11.25 / 5) ** 0.5, "mae": 6.5 / 5, "r2": 1 - 11.25 / 10})
    for name in numbers["metrics"]:
        assert result["ci95"][name]["low"] <= result[name] <= result["ci95"][name]["high"]


def test_a_regression_that_hardly_varies_is_a_constant_prediction(workdir: Path) -> None:
    write_raw(train=[1, 2.5, 4], validation=[1], test=[3, 1, 2, 5, 4])
    prepare(task(**REGRESSION), max_length=16)
    write_final_model([], weights=1e-7, biases=[2.5])
    evaluate(recipe(**REGRESSION), cpu=True)
    assert 1 < len(set(predictions()["prediction"])) <= 5
    assert read_json(RESULT)["constant_prediction"] is True


def test_minus_one_is_a_label_of_a_regression_unless_the_split_has_no_other(workdir: Path) -> None:
    write_raw(train=[1, 2.5, 4], validation=[1], test=[-1.0, -1.0, 2], test_hidden=[-1.0, -1.0])
    prepare(task(**REGRESSION), max_length=16)
    write_final_model([])
    evaluate(recipe(**REGRESSION), cpu=True)
    assert predictions()["label"] == [-1, -1, 2]
    before = outputs()
    hidden = {"kind": "hub", "repo": "a/b", "config": "c", "revision": "0" * 40}
    hidden["splits"] = {"train": "train", "validation": "validation", "test_hidden": "test"}
    with pytest.raises(UserError) as caught:
        evaluate(recipe("test_hidden", **REGRESSION, source=hidden), cpu=True)
    assert str(caught.value) == (
        "params.yaml: evaluate.split: the labels of the test_hidden split are hidden; expected validation"
    )
    assert outputs() == before


def test_a_split_of_another_name_is_evaluated(workdir: Path) -> None:
    write_raw(train=["fresh", "rotten"], validation=["fresh"], validation_mismatched=["rotten", "fresh", "rotten"])
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    write_final_model(["rotten", "fresh"])
    source = {"kind": "hub", "repo": "a/b", "config": "c", "revision": "0" * 40}
    names = ("train", "validation", "validation_mismatched")
    evaluate(recipe(names[2], **SEPARATE_SPLITS, source={**source, "splits": {name: name for name in names}}), cpu=True)
    assert (read_json(RESULT)["split"], read_json(RESULT)["num_examples"]) == ("validation_mismatched", 3)
    assert predictions("validation_mismatched")["label"] == ["rotten", "fresh", "rotten"]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        pytest.param(
            ["-1", "fresh"],
            "params.yaml: evaluate.split: the labels of the test split are hidden; expected validation",
            id="a hidden label",
        ),
        pytest.param(
            None,
            "params.yaml: evaluate.split: no test split was prepared; expected one of train, validation",
            id="a missing split",
        ),
    ],
)
def test_a_split_that_cannot_be_evaluated_is_reported_and_keeps_the_earlier_results(
    workdir: Path, test: list[str] | None, message: str
) -> None:
    write_raw(train=["fresh", "rotten"], validation=["fresh"], **({"test": test} if test else {}))
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    write_final_model(["rotten", "fresh"])
    evaluate(recipe("validation", **SEPARATE_SPLITS), cpu=True)
    before = outputs()
    with pytest.raises(UserError) as caught:
        evaluate(recipe("test", **SEPARATE_SPLITS), cpu=True)
    assert str(caught.value) == message
    assert outputs() == before
