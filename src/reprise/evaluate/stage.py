"""From models/final/ and data/prepared/ to metrics/evaluate.json, plots/ and predictions/.

The model is evaluated in fp32, as everybody loads it, also after training in bf16.
"""

from collections.abc import Callable, Sequence
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
from reprise.data.labels import column_array
from reprise.modeling.inference import load_predictor
from reprise.modeling.recipe import read_model_recipe
from reprise.modeling.scoring import metrics_with_ci
from reprise.modeling.splits import load_inputs, load_split, train_stats
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.metrics.compute import compute


def evaluate(recipe: Recipe, *, cpu: bool, check: Callable[[], None] = lambda: None) -> None:
    """Evaluate the final model on the recipe's evaluation split.

    Args:
        recipe: what was run.
        cpu: compute on the CPU even where there is a GPU.
        check: called before an output is replaced; raises if none may be.

    Raises:
        UserError: the split is missing, or its labels are not published.
    """
    task, config, fold = recipe.task, recipe.evaluate, recipe.train.fold
    examples = _load_labeled_split(config.split, fold, task.kind)
    torch.use_deterministic_algorithms(True)
    echo(f"evaluate: predict {len(examples)} examples of the {config.split} split")
    logits = load_predictor(recipe, cpu=cpu)(load_inputs(config.split, fold))

    trained = read_model_recipe()
    kind = trained.kind if task.multi_label else task.kind  # with the thresholds that training has chosen
    references = column_array(examples)
    plots = kind.plots(logits, references)
    metrics = {
        "split": config.split,
        "num_examples": len(examples),
        **({"positive_label": task.positive_label} if task.positive_label is not None else {}),
        **metrics_with_ci(task.metrics, kind, logits, references, resamples=config.bootstrap_resamples),
        "baseline": baseline_metrics(task, train_stats(task.kind, fold), references),
        "constant_prediction": kind.is_constant(kind.decode(logits), references),
        **kind.extra_metrics(plots),
        **uncalibrated_metrics(kind, logits, references, trained.temperatures),
    }
    check()
    with atomic_dir(PREDICTIONS) as folder:
        pq.write_table(predictions_table(examples, kind, logits), folder / f"{config.split}.parquet")
    for name, plot in plots.items():
        with atomic_file(PLOTS / name) as partial:
            plot.to_csv(partial, index=False)
    write_json(METRICS / "evaluate.json", metrics)


def _load_labeled_split(split: str, fold: int | None, kind: TaskKind) -> Dataset:
    if not split_shards(split):
        prepared = ", ".join(sorted(read_json(stats_path())["splits"]))
        raise UserError(
            f"no {split} split was prepared", file=PARAMS, key="evaluate.split", expected=f"one of {prepared}"
        )
    examples = load_split(split, fold)
    if kind.is_unlabeled(column_array(examples)):
        raise UserError(
            f"the labels of the {split} split are hidden", file=PARAMS, key="evaluate.split", expected="validation"
        )
    return examples


def uncalibrated_metrics(
    kind: TaskKind, logits: Logits, references: npt.NDArray[Any], temperatures: Sequence[float] | None
) -> dict[str, float]:
    """Compute `ece_uncalibrated`: what `ece` would be without `train.calibration`.

    Args:
        kind: of the task.
        logits: of the calibrated model, shape [examples, outputs].
        references: the prepared labels, shape [examples] or [examples, labels].
        temperatures: what the model divides its logits by; None if it is not calibrated.
    """
    if temperatures is None:
        return {}
    before = kind.extra_metrics(kind.plots(logits * np.array(temperatures, np.float32), references))
    return {f"{name}_uncalibrated": value for name, value in before.items()}


def baseline_metrics(task: Task, train: dict[str, Any], references: npt.NDArray[Any]) -> dict[str, float]:
    """Compute the metrics of the baseline, which predicts the same for every example.

    Args:
        task: names the metrics and decides what the baseline predicts.
        train: from `train_stats`.
        references: the labels of the evaluation split, shape [examples] or [examples, labels].
    """
    constant = task.kind.constant_predictions(train, references)
    return compute(task.metrics, constant, references, positive=task.kind.positive, probabilities=constant)


def predictions_table(examples: Dataset, kind: TaskKind, logits: Logits) -> pa.Table:
    """Put each example's id, texts, label and prediction in one table.

    Columns: id, text, text_pair (of sentence pairs), word_starts and word_ends (of labels of words), and those of the
    kind of task: label and prediction (names, or fp64 in regression), and, for labels, probabilities (a list of fp32
    in the order of the labels).
    """
    names = ("id", "text", "text_pair", "word_starts", "word_ends")
    texts = {name: list(examples[name]) for name in names if name in examples.column_names}
    return pa.table({**texts, **kind.prediction_columns(logits, column_array(examples))})
