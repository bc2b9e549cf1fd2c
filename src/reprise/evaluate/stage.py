"""From models/final/ and data/prepared/ to metrics/evaluate.json, plots/ and predictions/.

The model is evaluated in fp32, as everybody loads it, also after training in bf16.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset

from reprise.core.config import PARAMS, Recipe, Task
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, atomic_file, read_json, write_json
from reprise.core.paths import METRICS, PLOTS, PREDICTIONS
from reprise.data.format import split_shards, stats_path
from reprise.modeling.inference import drop_text_columns, load_predictor, load_split
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.metrics.compute import compute
from reprise.tasks.metrics.registry import confidence_interval


def evaluate(recipe: Recipe, *, cpu: bool, check: Callable[[], None] = lambda: None) -> None:
    """Evaluate the final model on the recipe's evaluation split.

    Args:
        recipe: what was run.
        cpu: compute on the CPU even where there is a GPU.
        check: called before an output is replaced; raises if none may be.

    Raises:
        UserError: the split is missing, or its labels are not published.
    """
    task, config = recipe.task, recipe.evaluate
    examples = _load_labeled_split(config.split, task.kind)
    torch.use_deterministic_algorithms(True)
    echo(f"evaluate: predict {len(examples)} examples of the {config.split} split")
    logits = load_predictor(recipe, cpu=cpu)(drop_text_columns(examples))

    predictions, references = task.kind.decode(logits), np.asarray(examples["label"])
    plots = task.kind.plots(logits, references)
    metrics = {
        "split": config.split,
        "num_examples": len(examples),
        **({"positive_label": task.positive_label} if task.positive_label is not None else {}),
        **metrics_with_ci(task, predictions, references, resamples=config.bootstrap_resamples),
        "baseline": baseline_metrics(task, read_json(stats_path())["splits"]["train"], references),
        "constant_prediction": bool(np.ptp(predictions) == 0),
        **task.kind.extra_metrics(plots),
    }
    check()
    with atomic_dir(PREDICTIONS) as folder:
        pq.write_table(predictions_table(examples, task.kind, logits), folder / f"{config.split}.parquet")
    for name, plot in plots.items():
        with atomic_file(PLOTS / name) as partial:
            plot.to_csv(partial, index=False)
    write_json(METRICS / "evaluate.json", metrics)


def _load_labeled_split(split: str, kind: TaskKind) -> Dataset:
    if not split_shards(split):
        prepared = ", ".join(sorted(read_json(stats_path())["splits"]))
        raise UserError(
            f"no {split} split was prepared", file=PARAMS, key="evaluate.split", expected=f"one of {prepared}"
        )
    examples = load_split(split)
    if kind.is_unlabeled(np.asarray(examples["label"])):
        raise UserError(
            f"the labels of the {split} split are hidden", file=PARAMS, key="evaluate.split", expected="validation"
        )
    return examples


def metrics_with_ci(
    task: Task, predictions: npt.NDArray[Any], references: npt.NDArray[Any], *, resamples: int
) -> dict[str, Any]:
    """Compute each metric, under `ci95` the bounds of its 95 % interval, and under `ci95_method` how these were found.

    Args:
        task: names the metrics.
        predictions: shape [examples], as the kind of task decodes them.
        references: the true ones, shape [examples].
        resamples: how often a bootstrap draws the examples.
    """
    positive = task.kind.positive
    metrics = compute(task.metrics, predictions, references, positive=positive)
    intervals = {
        name: confidence_interval(name, predictions, references, positive=positive, resamples=resamples)
        for name in task.metrics
    }
    return {
        **metrics,
        "ci95": {name: {"low": interval.low, "high": interval.high} for name, interval in intervals.items()},
        "ci95_method": {name: interval.method for name, interval in intervals.items()},
    }


def baseline_metrics(task: Task, train: dict[str, Any], references: npt.NDArray[Any]) -> dict[str, float]:
    """Compute the metrics of the baseline, which predicts the same for every example.

    Args:
        task: names the metrics and decides what the baseline predicts.
        train: the entry of the training split in stats.json.
        references: the labels of the evaluation split, shape [examples].
    """
    constant = np.full(len(references), task.kind.constant_prediction(train))
    return compute(task.metrics, constant, references, positive=task.kind.positive)


def predictions_table(examples: Dataset, kind: TaskKind, logits: Logits) -> pa.Table:
    """Put each example's id, texts, label and prediction in one table.

    Columns: id, text, text_pair (of sentence pairs), and those of the kind of task: label and prediction (names, or
    fp64 in regression), and, for labels, probabilities (a list of fp32 in the order of the labels).
    """
    texts = {name: list(examples[name]) for name in ("id", "text", "text_pair") if name in examples.column_names}
    return pa.table({**texts, **kind.prediction_columns(logits, np.asarray(examples["label"]))})
