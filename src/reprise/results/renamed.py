"""Earlier names of keys and files, and keys that came later, so that earlier runs can still be read and compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprise.core.config import RENAMED_KEYS, RENAMED_SOURCE_KINDS, Checks, to_dict
from reprise.core.paths import METRICS, PLOTS

# Old and new names of keys, by file.
RENAMED_METRICS: dict[Path, dict[str, str]] = {
    METRICS / "evaluate.json": {
        "rows": "num_examples",
        "interval": "ci95",
        "collapsed": "constant_prediction",
        "calibration_error": "ece",
    },
    METRICS / "train.json": {"epoch": "best_epoch", "loss": "train_loss"},
    METRICS / "speed.json": {"padding_share": "padding_fraction", "shapes": "num_bucket_lengths"},
    METRICS / "provenance.json": {"instructions": "cpu_capability", "sample_order": "data_order_sha256"},
}
RENAMED_FILES = {PLOTS / "precision_recall.csv": PLOTS / "pr.csv"}  # by the new name

# Keys that came later, with the value that stands for what was done before.
ADDED_PARAMS = dict.fromkeys(
    (
        "train.threads", "train.loss", "train.calibration", "train.early_stopping", "train.freeze", "train.layer_decay",
        "train.dropout", "train.fold", "train.num_hidden_layers", "train.distill", "data.windows", "task.multi_label",
        "task.token_classification",
    )
)  # fmt: skip


def with_current_params(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of params.yaml, by dotted path, to their current names."""
    current = {}
    for key, value in recipe.items():
        for old, new in RENAMED_KEYS.items():
            if key == old or key.startswith(f"{old}."):
                key = new + key.removeprefix(old)
                break
        if key in ("task.source.kind", "model.source.kind"):
            value = RENAMED_SOURCE_KINDS.get(value, value)
        current[key] = value
    return current


def with_implied_params(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Add keys of params.yaml that earlier versions did not have, with the values that they stood for.

    F1 of two labels was of the second. Splits were cut at random. The data was not checked: the default thresholds come
    closest to that, since they fail nothing.
    """
    implied: dict[str, Any] = {}
    if "task.labels" in recipe:
        labels = recipe["task.labels"]
        implied |= {"task.positive_label": labels[1] if len(labels) == 2 else None, **ADDED_PARAMS}
        implied |= {
            f"data.checks.{check}.{level}": share
            for check, threshold in to_dict(Checks()).items()
            for level, share in threshold.items()
        }
    if "task.split.seed" in recipe:
        cut_at_random = {"group_texts": True, "stratify": False, "order_by": None, "folds": None}
        implied |= {f"task.split.{key}": value for key, value in cut_at_random.items()}
    return {**implied, **recipe}


def with_current_metrics(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of a metrics file, one of `RENAMED_METRICS`, to their current names."""
    names = RENAMED_METRICS.get(file, {})
    return {names.get(key, key): value for key, value in content.items()}
