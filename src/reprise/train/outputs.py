"""The files that a run writes: the model, and the metrics and curves beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError

from reprise.core.errors import UserError
from reprise.core.files import atomic_file, json_sha256, sha256, write_json
from reprise.core.paths import FINAL_MODEL, METRICS, PLOTS, PROVENANCE, SPEED, experiment_root
from reprise.train.fsdp import full_state_dict, is_sharded
from reprise.train.history import HISTORY_COLUMNS, TrainingHistory
from reprise.train.model import fold_label_scale, fold_temperatures, merge_adapters
from reprise.train.provenance import git, input_digests, run_digests


def save_model(
    model: torch.nn.Module, folder: Path, temperatures: list[float] | None = None, *, is_main_process: bool
) -> None:
    """Save a model and its configuration; every rank takes part, the main process writes.

    Args:
        model: the trained model.
        folder: for the files.
        temperatures: what the saved model divides its logits by.
        is_main_process: whether this rank writes.

    Raises:
        UserError: it cannot be written.
    """
    gathered = full_state_dict(model) if is_sharded(model) else {}
    if not is_main_process:
        return
    final = merge_adapters(model)
    # safetensors cannot write XLA tensors.
    weights = gathered or {name: tensor.cpu() for name, tensor in final.state_dict().items()}
    try:
        weights = fold_temperatures(final, fold_label_scale(final, weights), temperatures)
        final.save_pretrained(folder, state_dict=weights)
    except (OSError, SafetensorError) as error:
        problem = getattr(error, "strerror", None) or error
        expected = "space for the model; then `dvc repro` resumes"
        raise UserError(str(problem), file=FINAL_MODEL, expected=expected) from None


def write_outputs(history: TrainingHistory, speed: dict[str, Any]) -> None:
    """Write the JSON files of a run to metrics/ and its CSV files to plots/, those that DVC does not know last."""
    write_json(METRICS / "train.json", summary(history))
    for name, table in (("train.csv", step_table(history)), ("validation.csv", epoch_table(history))):
        with atomic_file(PLOTS / name) as partial:
            table.to_csv(partial, index=False)
    weights = {file.name: sha256(file) for file in sorted(FINAL_MODEL.glob("*.safetensors"))}
    result = input_digests() | {"data_order_sha256": history.order_digests, "weights": weights}
    run = run_digests()
    SPEED.unlink(missing_ok=True)  # an interruption leaves no speed rather than an earlier run's beside the provenance
    for file, content in ((PROVENANCE, {"sessions": history.sessions, "results": [result]}), (SPEED, speed)):
        content = {"run": run, **content}
        write_json(file, content | {"sha256": json_sha256(content)})
    if experiment_root(Path.cwd()):  # of a copy, DVC keeps what git knows; the user's own index is left alone
        git("add", "--", str(PROVENANCE), str(SPEED))


def summary(history: TrainingHistory) -> dict[str, Any]:
    """Return the metrics of the best epoch, as train.json holds them; `train_loss` is a mean over the examples."""
    best = history.epochs[history.best_epoch]
    scores = {name: value for name, value in best.items() if name not in ("epoch", "loss")}
    return {
        "best_epoch": best["epoch"],
        "steps": history.steps_done,
        "train_loss": best["loss"],
        "validation": scores,
    }


def step_table(history: TrainingHistory) -> pd.DataFrame:
    """Return the curve with one row per step."""
    index = np.arange(history.steps_done)
    table = pd.DataFrame({"step": index + 1, "epoch": index // history.steps_per_epoch + 1})
    table[list(HISTORY_COLUMNS)] = history.curve
    return table


def epoch_table(history: TrainingHistory) -> pd.DataFrame:
    """Return the validation metrics with one row per epoch."""
    table = pd.DataFrame(history.epochs)
    table[history.metric] = table.pop(history.metric)  # `dvc plots` draws the last column
    return table
