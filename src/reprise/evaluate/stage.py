"""From models/final/ and data/prepared/ to metrics/evaluate.json, plots/ and predictions/.

The model is evaluated in fp32, as whoever loads it gets it, whatever precision it was trained in.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from reprise.core.config import Recipe, Task
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, atomic_file, read_json, write_json
from reprise.core.paths import METRICS, PLOTS, PREDICTIONS
from reprise.data.format import split_shards, stats_path
from reprise.evaluate.bootstrap import bootstrap_ci
from reprise.evaluate.curves import (
    calibration_table,
    confusion_pairs,
    expected_calibration_error,
    precision_recall_table,
)
from reprise.metrics import compute, score_function
from reprise.modeling.inference import decode_logits, drop_text_columns, load_predictor, load_split, softmax

# What a picture of a regression has instead of rows: DVC expects the file, and its columns say what would stand there.
PLOT_COLUMNS = {
    "confusion.csv": ["actual", "predicted"],
    "precision_recall.csv": ["label", "recall", "precision", "threshold"],
    "calibration.csv": ["confidence", "accuracy", "rows"],
}


def evaluate(recipe: Recipe, *, cpu: bool) -> None:
    """Judge the final model on the recipe's evaluation split.

    Raises:
        UserError: the split is not there, or its labels are hidden.
    """
    task, settings = recipe.task, recipe.evaluate
    rows = _load_labeled_split(settings.split)
    torch.use_deterministic_algorithms(True)
    print(f"evaluate: predict {len(rows)} rows of the {settings.split} split", flush=True)
    logits = load_predictor(recipe, cpu=cpu)(drop_text_columns(rows))

    predictions = decode_logits(logits, regression=task.regression)
    references = np.asarray(rows["label"])
    metrics = {
        "split": settings.split,
        "num_examples": len(rows),
        **metrics_with_ci(
            task.metrics, predictions, references, labels=len(task.labels), resamples=settings.bootstrap_resamples
        ),
        "baseline": majority_baseline(task, read_json(stats_path())["splits"]["train"], references),
        "constant_prediction": bool(np.ptp(predictions) == 0),
    }
    pictures = {name: pd.DataFrame(columns=columns) for name, columns in PLOT_COLUMNS.items()}
    probabilities = None
    if not task.regression:
        probabilities = softmax(logits)
        pictures["confusion.csv"] = confusion_pairs(predictions, references, task.labels)
        pictures["precision_recall.csv"] = precision_recall_table(probabilities, references, task.labels)
        pictures["calibration.csv"] = calibration_table(probabilities, references)
        metrics["ece"] = expected_calibration_error(pictures["calibration.csv"])

    with atomic_dir(PREDICTIONS) as folder:
        table = predictions_table(rows, task.labels, predictions, probabilities)
        pq.write_table(table, folder / f"{settings.split}.parquet")
    for name, picture in pictures.items():
        with atomic_file(PLOTS / name) as partial:
            picture.to_csv(partial, index=False)
    write_json(METRICS / "evaluate.json", metrics)


def _load_labeled_split(split: str) -> Dataset:
    if not split_shards(split):
        there = ", ".join(sorted(read_json(stats_path())["splits"]))
        raise UserError(f"params.yaml: evaluate.split: no {split} split was prepared; expected one of {there}")
    rows = load_split(split)
    hidden = np.asarray(rows["label"]) == -1
    # One such number of a regression may be meant, a column of nothing else is not.
    if hidden.any() if rows.features["label"].dtype == "int64" else hidden.all():
        raise UserError(f"params.yaml: evaluate.split: the labels of the {split} split are hidden; expected validation")
    return rows


def metrics_with_ci(
    names: Sequence[str], predictions: npt.NDArray[Any], references: npt.NDArray[Any], *, labels: int, resamples: int
) -> dict[str, Any]:
    """Each metric, and under `ci95` the low and high end of its 95 % bootstrap interval."""
    ends = {}
    for name in names:
        print(f"evaluate: {name}, with {resamples} resamples for its interval", flush=True)
        low, high = bootstrap_ci(score_function(name, labels=labels), predictions, references, resamples)
        ends[name] = {"low": low, "high": high}
    return {**compute(names, predictions, references, labels=labels), "ci95": ends}


def majority_baseline(task: Task, train: dict[str, Any], references: npt.NDArray[Any]) -> dict[str, float]:
    """What the metrics say of always predicting the commonest training label (in regression: the mean).

    `train` is what the card of the prepared data says of the training split.
    """
    constant = train["label_mean"] if task.regression else np.argmax(list(train["label_counts"].values()))
    return compute(task.metrics, np.full(len(references), constant), references, labels=len(task.labels))


def predictions_table(
    rows: Dataset, labels: list[str], predictions: npt.NDArray[Any], probabilities: npt.NDArray[np.float64] | None
) -> pa.Table:
    """Every row with its id, its text, its label, what was predicted and how sure the model was of each label.

    Columns: id, text, text_pair (of sentence pairs), label and prediction (names, or fp64 in regression), and, for
    labels, probabilities (a list of fp32 in the order of `labels`).
    """
    columns = {name: list(rows[name]) for name in ("id", "text", "text_pair") if name in rows.column_names}
    references = np.asarray(rows["label"])
    if probabilities is None:
        return pa.table({**columns, "label": references, "prediction": predictions.astype(np.float64)})
    names = np.array(labels)
    listed = pa.array(probabilities.astype(np.float32).tolist(), pa.list_(pa.float32()))
    return pa.table({**columns, "label": names[references], "prediction": names[predictions], "probabilities": listed})
