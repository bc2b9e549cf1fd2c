"""Sentence pairs with three labels and with regression are prepared, trained and evaluated by the commands."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tiny import BAD, FILLER, GOOD, ROOT, Run, write_params

ROWS = 300
LABELS = ("rotten", "mixed", "fresh")


def write_rows(file: Path) -> None:
    """Write JSON lines of two sentences, with a label and a number that both depend on their sentiment."""
    draw = random.Random(1)
    lines = []
    for _ in range(ROWS):
        positive = [draw.random() < 0.5 for _ in range(2)]
        pair = [" ".join([*draw.choices(FILLER, k=4), *draw.choices(GOOD if p else BAD, k=2)]) for p in positive]
        row = {"first": pair[0], "second": pair[1], "label": LABELS[sum(positive)], "score": sum(positive) / 2}
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


def run_stages(folder: Path, run: Run, **task: Any) -> tuple[dict[str, Any], Any]:
    """Prepare, train and evaluate; return metrics/evaluate.json and the table of predictions."""
    changes = {
        "filter": None,
        "id_column": None,
        "split": {"validation": 0.2, "test": 0.2, "group_by": None, "seed": 0},
        **task,
    }
    write_params(folder, **{f"task.{key}": value for key, value in changes.items()}, **{"train.epochs": 4})
    for stage in ("prepare", "train", "evaluate"):
        run(folder, "reprise", stage)
    metrics = json.loads((folder / "metrics/evaluate.json").read_text())
    return metrics, pq.read_table(folder / "predictions/test.parquet")


@pytest.mark.full
def test_a_pair_of_sentences_with_three_labels_is_learned(folder: Path, run: Run) -> None:
    metrics, table = run_stages(
        folder,
        run,
        text_columns=["first", "second"],
        label_column="label",
        labels=list(LABELS),
        metrics=["accuracy", "f1", "matthews"],
    )
    assert metrics["accuracy"] > metrics["baseline"]["accuracy"] + 0.2
    assert metrics["baseline"]["matthews"] == 0.0
    assert table.column_names == ["id", "text", "text_pair", "label", "prediction", "probabilities"]
    assert {len(row) for row in table["probabilities"].to_pylist()} == {3}


def test_a_regression_is_learned(folder: Path, run: Run) -> None:
    metrics, table = run_stages(
        folder, run, text_columns=["first", "second"], label_column="score", labels=[], metrics=["pearson", "spearman"]
    )
    assert metrics["pearson"] > 0.5
    assert metrics["baseline"] == {"pearson": 0.0, "spearman": 0.0}
    assert metrics["constant_prediction"] is False
    assert table.column_names == ["id", "text", "text_pair", "label", "prediction"]
    assert set(table["label"].to_pylist()) == {0.0, 0.5, 1.0}
