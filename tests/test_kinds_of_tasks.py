"""Sentence pairs, several labels and regression, each through prepare, train and evaluate as a user types them."""

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
    """Write JSON lines of two sentences, a label that both decide, and the share of kind words as a number."""
    draw = random.Random(1)
    lines = []
    for _ in range(ROWS):
        kind = [draw.random() < 0.5 for _ in range(2)]
        pair = [" ".join([*draw.choices(FILLER, k=4), *draw.choices(GOOD if k else BAD, k=2)]) for k in kind]
        row = {"first": pair[0], "second": pair[1], "label": LABELS[sum(kind)], "share": sum(kind) / 2}
        lines.append(json.dumps(row))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """Raw rows, the tiny model and the launch profile, each where the stages look for it."""
    (tmp_path / "data/raw/all").mkdir(parents=True)
    write_rows(tmp_path / "data/raw/all/rows.jsonl")
    for part in ("model", "tokenizer"):
        shutil.copytree(tiny_model, tmp_path / "models/pretrained" / part)
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    return tmp_path


def cook(folder: Path, run: Run, **task: Any) -> tuple[dict[str, Any], Any]:
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
    judged = json.loads((folder / "metrics/evaluate.json").read_text())
    return judged, pq.read_table(folder / "predictions/test.parquet")


def test_a_pair_of_sentences_with_three_labels_is_learned(folder: Path, run: Run) -> None:
    judged, table = cook(
        folder,
        run,
        text_columns=["first", "second"],
        label_column="label",
        labels=list(LABELS),
        metrics=["accuracy", "f1", "matthews"],
    )
    assert judged["accuracy"] > judged["baseline"]["accuracy"] + 0.2
    assert judged["baseline"]["matthews"] == 0.0
    assert table.column_names == ["id", "text", "text_pair", "label", "prediction", "probabilities"]
    assert {len(row) for row in table["probabilities"].to_pylist()} == {3}


def test_a_regression_is_learned(folder: Path, run: Run) -> None:
    judged, table = cook(
        folder, run, text_columns=["first", "second"], label_column="share", labels=[], metrics=["pearson", "spearman"]
    )
    assert judged["pearson"] > 0.5
    assert judged["baseline"] == {"pearson": 0.0, "spearman": 0.0}
    assert judged["constant_prediction"] is False
    assert table.column_names == ["id", "text", "text_pair", "label", "prediction"]
    assert set(table["label"].to_pylist()) == {0.0, 0.5, 1.0}
