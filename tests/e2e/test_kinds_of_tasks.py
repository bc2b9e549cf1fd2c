"""Pairs with one of three labels, with any number of labels and with a number go through the commands of the stages."""

import json
import random
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import pipeline

from reprise.core.validation import read_recipe
from reprise.onnx.evaluation import judge
from reprise.onnx.exporter import export_onnx
from tiny import BAD, FILLER, GOOD, ROOT, Run, write_params

ROWS = 300
TOPICS = ("good start", "good end")
LABELS = ("rotten", "mixed", "fresh")


def write_rows(file: Path) -> None:
    """Write JSON lines of two sentences, with a label and a number that both depend on their sentiment."""
    draw = random.Random(1)
    lines = []
    for _ in range(ROWS):
        positive = [draw.random() < 0.5 for _ in range(2)]
        pair = [" ".join([*draw.choices(FILLER, k=4), *draw.choices(GOOD if p else BAD, k=2)]) for p in positive]
        row = {"first": pair[0], "second": pair[1], "label": LABELS[sum(positive)], "score": sum(positive) / 2}
        row["topics"] = [topic for topic, given in zip(TOPICS, positive, strict=True) if given]
        row["listed"] = " | ".join(row["topics"])
        row |= {topic: int(topic in row["topics"]) for topic in TOPICS}
        lines.append(json.dumps(row))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with raw rows, the tiny model and the launch profile, as the stages expect them."""
    (tmp_path / "data/raw/all").mkdir(parents=True)
    write_rows(tmp_path / "data/raw/all/rows.jsonl")
    for part in ("model", "tokenizer"):
        shutil.copytree(tiny_model, tmp_path / "models/pretrained" / part)
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    return tmp_path


def write_entities(file: Path) -> None:
    """Write JSON lines of texts with names, by words and tags in IOB2 and IOBES, by one text each, and by spans."""
    draw = random.Random(1)
    lines = []
    for number in range(ROWS):
        words, tags = [], []
        for _ in range(draw.randint(3, 12)):
            if draw.random() < 0.25:
                label, names = draw.choice([("person", PEOPLE), ("place", PLACES)])
                name = draw.choice(names).split()
                words += name
                tags += [f"B-{label}", *[f"I-{label}"] * (len(name) - 1)]
            words.append(draw.choice(FILLER))
            tags.append("O")
        text = " ".join(words)
        starts = [len(" ".join([*words[:index], ""])) for index in range(len(words))]
        spans: list[dict[str, Any]] = []
        for start, word, tag in zip(starts, words, tags, strict=True):
            if tag.startswith("B-"):
                spans.append({"start": start, "end": start + len(word), "label": tag[2:]})
            elif tag.startswith("I-"):
                spans[-1]["end"] = start + len(word)
        row = {"number": number, "words": words, "tags": tags, "text": text, "spans": spans, "listed": " ".join(tags)}
        row["chunks"] = [to_iobes(tag, after) for tag, after in zip(tags, [*tags[1:], "O"], strict=True)]
        lines.append(json.dumps(row))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def to_iobes(tag: str, after: str) -> str:
    """Return an IOB2 tag in IOBES, given the one after it."""
    if tag == "O" or after.startswith("I-"):
        return tag
    return ("S-" if tag.startswith("B-") else "E-") + tag[2:]


PEOPLE, PLACES = ("bright tender", "clever warm", "funny"), ("dull hollow", "empty", "tired flat")
ENTITY_FORMS = {
    "tags": {"text_columns": ["words"], "label_column": "tags"},
    "IOBES": {"text_columns": ["words"], "label_column": "chunks"},
    "a text of tags": {"text_columns": ["text"], "label_column": "listed"},
    "spans": {"text_columns": ["text"], "label_column": "spans"},
}


def test_entities_are_learned_from_tags_and_spans_and_found_in_texts(folder: Path, reprise: Run) -> None:
    (folder / "data/raw/all/rows.jsonl").unlink()
    write_entities(folder / "data/raw/all/rows.jsonl")
    task: dict[str, Any] = {"filter": None, "id_column": "number", "labels": ["person", "place"]}
    task |= {"metrics": ["entity_f1", "entity_precision", "entity_recall", "token_accuracy"], "positive_label": None}
    task |= {"token_classification": {"subwords": "first"}, "split.group_by": None}
    prepared = set()
    for form in ENTITY_FORMS.values():
        options = {f"task.{key}": value for key, value in (task | form).items()}
        options |= {"train.max_length": 8, "data.windows": {"stride": 2, "pooling": None}, "train.epochs": 6}
        write_params(folder, **options)
        reprise(folder, "prepare")
        prepared.add((folder / "data/prepared/train.arrow").read_bytes())
    assert len(prepared) == 1
    for stage in ("check-data", "preflight", "train", "evaluate"):
        reprise(folder, stage)
    metrics = json.loads((folder / "metrics/evaluate.json").read_text())
    assert metrics["entity_f1"] > 0.9
    assert metrics["baseline"]["entity_f1"] == 0.0
    assert metrics["ci95"]["entity_f1"]["low"] < metrics["entity_f1"] <= metrics["ci95"]["entity_f1"]["high"]
    table = pq.read_table(folder / "predictions/test.parquet")
    assert table.column_names == ["id", "text", "word_starts", "word_ends", "label", "prediction", "scores"]

    text = "the film, bright tender, and dull hollow is the story of funny the scene the cast of bright tender"
    printed = json.loads(reprise(folder, "predict", text).stdout)
    names = [(text[each["start"] : each["end"]], each["label"]) for each in printed["entities"]]
    assert names == [
        ("bright tender", "person"),
        ("dull hollow", "place"),
        ("funny", "person"),
        ("bright tender", "person"),
    ]
    find = pipeline("token-classification", str(folder / "models/final"), aggregation_strategy="first", stride=2)
    for entity, expected in zip(printed["entities"], find(text), strict=True):
        assert (entity["start"], entity["end"], entity["label"]) == (
            expected["start"], expected["end"], expected["entity_group"],
        )  # fmt: skip
    short = "bright tender and funny"  # in one window, where the pipeline has the same scores
    for entity, expected in zip(
        json.loads(reprise(folder, "predict", short).stdout)["entities"], find(short), strict=True
    ):
        assert entity["score"] == pytest.approx(float(expected["score"]), abs=1e-5)
    (folder / "words.jsonl").write_text(json.dumps({"text": text.split()}) + "\n")
    in_file = json.loads(reprise(folder, "predict", "--file", "words.jsonl").stdout)
    assert [each["label"] for each in in_file["entities"]] == [label for _, label in names]
    check_onnx(folder)


@pytest.mark.full
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_long_texts_are_judged_by_all_of_their_windows(folder: Path, reprise: Run, pooling: str) -> None:
    draw = random.Random(1)
    rows = []
    for _ in range(ROWS):
        positive = draw.random() < 0.5
        text = " ".join([*draw.choices(FILLER, k=24), *draw.choices(GOOD if positive else BAD, k=4)])
        rows.append(json.dumps({"text": text, "label": LABELS[2 * positive]}))
    (folder / "data/raw/all/rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    accuracies = []
    for windows in (None, {"stride": 4, "pooling": pooling}):
        task: dict[str, Any] = {
            "filter": None,
            "id_column": None,
            "label_column": "label",
            "labels": ["rotten", "fresh"],
        }
        options = {f"task.{key}": value for key, value in task.items()} | {"task.split.group_by": None}
        write_params(folder, **options, **{"data.windows": windows, "train.epochs": 4})
        for stage in ("prepare", "check-data", "preflight", "train", "evaluate"):
            reprise(folder, stage)
        accuracies.append(json.loads((folder / "metrics/evaluate.json").read_text())["accuracy"])
    assert accuracies[0] < 0.75  # what decides is behind the first 16 tokens
    assert accuracies[1] > 0.9
    for row in pq.read_table(folder / "predictions/test.parquet").slice(0, 3).to_pylist():
        printed = json.loads(reprise(folder, "predict", row["text"]).stdout)
        assert printed["label"] == row["prediction"]
        assert printed["probabilities"]["fresh"] == pytest.approx(row["probabilities"][1], abs=1e-6)
    check_onnx(folder)


def check_onnx(folder: Path) -> None:
    """Check that the model in ONNX, from texts of the test split, has the predictions of the model."""
    target = Path(shutil.copytree(folder / "models/final", folder / "exported"))
    (target / "onnx").mkdir()
    with chdir(folder):
        export_onnx(target, target / "onnx", ["fp32"])
        recipe = read_recipe()
        judged = judge(target, recipe)
    evaluated = json.loads((folder / "metrics/evaluate.json").read_text())
    assert {name: judged[name] for name in recipe.task.metrics} == {
        name: evaluated[name] for name in recipe.task.metrics
    }
    found = judged["files"]["model.onnx"]
    assert found.get("changed", 0) == 0
    assert 0 < found["max_logit_difference"] < 1e-4
    shutil.rmtree(target)


def run_stages(folder: Path, reprise: Run, **task: Any) -> tuple[dict[str, Any], Any]:
    """Prepare, train and evaluate; return metrics/evaluate.json and the table of predictions."""
    changes = {
        "filter": None,
        "id_column": None,
        "split": {"validation": 0.2, "test": 0.2, "group_by": None, "seed": 0},
        **task,
    }
    write_params(folder, **{f"task.{key}": value for key, value in changes.items()}, **{"train.epochs": 4})
    for stage in ("prepare", "train", "evaluate"):
        reprise(folder, stage)
    check_onnx(folder)
    metrics = json.loads((folder / "metrics/evaluate.json").read_text())
    return metrics, pq.read_table(folder / "predictions/test.parquet")


@pytest.mark.full
def test_a_pair_of_sentences_with_three_labels_is_learned(folder: Path, reprise: Run) -> None:
    metrics, table = run_stages(
        folder,
        reprise,
        text_columns=["first", "second"],
        label_column="label",
        labels=list(LABELS),
        metrics=["accuracy", "f1", "matthews"],
    )
    assert metrics["accuracy"] > metrics["baseline"]["accuracy"] + 0.2
    assert metrics["baseline"]["matthews"] == 0.0
    assert table.column_names == ["id", "text", "text_pair", "label", "prediction", "probabilities"]
    assert {len(row) for row in table["probabilities"].to_pylist()} == {3}


@pytest.mark.full
def test_a_regression_is_learned(folder: Path, reprise: Run) -> None:
    metrics, table = run_stages(
        folder,
        reprise,
        text_columns=["first", "second"],
        label_column="score",
        labels=[],
        metrics=["pearson", "spearman"],
    )
    assert metrics["pearson"] > 0.5
    assert metrics["baseline"] == {"pearson": 0.0, "spearman": 0.0}
    assert metrics["constant_prediction"] is False
    assert table.column_names == ["id", "text", "text_pair", "label", "prediction"]
    assert set(table["label"].to_pylist()) == {0.0, 0.5, 1.0}


LABEL_FORMS = {
    "a list": {"label_column": "topics"},
    "a text": {"label_column": "listed", "multi_label": {"separator": "|", "thresholds": "tuned"}},
    "columns": {"label_column": None},
}


def test_any_number_of_labels_is_learned_from_a_list_a_text_or_columns(folder: Path, reprise: Run) -> None:
    prepared = set()
    for form in LABEL_FORMS.values():
        task = {"multi_label": {"separator": None, "thresholds": "tuned"}, "metrics": ["f1_micro"], **form}
        changes = {"filter": None, "id_column": None, "labels": list(TOPICS), "positive_label": None, **task}
        changes |= {"text_columns": ["first", "second"], "split.group_by": None}
        write_params(folder, **{f"task.{key}": value for key, value in changes.items()})
        reprise(folder, "prepare")
        prepared.add((folder / "data/prepared/train.arrow").read_bytes())
    assert len(prepared) == 1
    metrics, table = run_stages(
        folder,
        reprise,
        text_columns=["first", "second"],
        labels=list(TOPICS),
        positive_label=None,
        metrics=["f1_micro", "f1_macro", "f1_samples", "subset_accuracy", "average_precision"],
        multi_label={"separator": None, "thresholds": "tuned"},
        label_column="topics",
    )
    assert metrics["f1_micro"] > metrics["baseline"]["f1_micro"] + 0.1
    assert metrics["average_precision"] > metrics["baseline"]["average_precision"] + 0.2
    assert metrics["constant_prediction"] is False
    recipe = json.loads((folder / "models/final/recipe.json").read_text())
    thresholds = recipe["thresholds"]
    probabilities = table["probabilities"].to_pylist()
    for predicted, row in zip(table["prediction"].to_pylist(), probabilities, strict=True):
        expected = [topic for topic, p, t in zip(TOPICS, row, thresholds, strict=True) if p >= t]
        assert predicted == expected
    printed = json.loads(reprise(folder, "predict", "a text", "another").stdout)
    assert set(printed["probabilities"]) == set(TOPICS)
    reprise(folder, "check-data")
    checks = json.loads((folder / "data/checks/checks.json").read_text())
    assert checks["baseline"]["metrics"]["test"]["average_precision"] > 0.9  # a few words decide here
    assert checks["checks"]["give_away"]["share"] == 1.0  # by the columns of the other forms
