"""Tiny models in ONNX of each kind of task, in folders as `reprise export --format onnx` writes them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from reprise.core.files import sha256, write_json
from reprise.core.validation import check_recipe
from reprise.data.tokenization import load_tokenizer
from reprise.modeling.classifier import load_classifier
from reprise.modeling.recipe import write_model_recipe
from reprise.onnx.files import BESIDE, EVALUATION
from tiny import tiny_recipe

# Changes of the tiny recipe for each kind of task.
KINDS: dict[str, dict[str, Any]] = {
    "classification": {},
    "pairs": {"task.text_columns": ["first", "second"]},
    "multi_label": {
        "task.labels": ["long", "sequel", "none"],
        "task.label_column": None,
        "task.metrics": ["f1_micro"],
        "task.multi_label": {"separator": None, "thresholds": 0.5},
        "task.positive_label": None,
    },
    "regression": {"task.labels": [], "task.metrics": ["pearson"]},
    "entities": {
        "task.text_columns": ["words"],
        "task.labels": ["praise", "blame"],
        "task.positive_label": None,
        "task.metrics": ["entity_f1"],
        "task.token_classification": {"subwords": "first"},
        "train.max_length": 8,
        "data.windows": {"stride": 2, "pooling": None},
    },
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Callable[[str], Path]:
    """Return the folder of a kind of task, with an untrained model in fp32 and int8; the workers make each once."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    root.mkdir(exist_ok=True)

    def export(kind: str) -> Path:
        with FileLock(root / f"{kind}.lock"):
            if not (root / kind / EVALUATION).is_file():
                write_export(tiny_model, root / kind, kind)
        return root / kind

    return export


def write_export(tiny_model: Path, folder: Path, kind: str) -> None:
    """Write the folder of a kind of task."""
    from reprise.onnx.exporter import export_onnx  # a package that training does not install

    recipe = check_recipe(tiny_recipe(**KINDS[kind]), "test")
    torch.manual_seed(1)
    model = load_classifier(tiny_model, recipe.task.kind)
    with torch.no_grad():  # with a new head, all answers would be nearly the same
        model.classifier.weight *= 30
    model.save_pretrained(folder)
    load_tokenizer(tiny_model).save_pretrained(folder)
    write_model_recipe(recipe, folder, [0.5] * 3 if kind == "multi_label" else None)
    (folder / "onnx").mkdir()
    export_onnx(folder, folder / "onnx", ["fp32", "int8"])
    judge(folder)


def judge(folder: Path) -> None:
    """Write evaluation.json, with a metric from nowhere."""
    metrics = {"accuracy": 0.75, "ci95": {"accuracy": {"low": 0.5, "high": 0.875}}}
    files = {file.name: {"sha256": sha256(file), **metrics} for file in sorted((folder / "onnx").glob("*.onnx"))}
    beside = {name: sha256(folder / name) for name in BESIDE if (folder / name).is_file()}
    write_json(folder / EVALUATION, {"split": "test", "num_examples": 8, "beside": beside, "files": files})
