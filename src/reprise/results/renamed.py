"""Earlier names of keys and files, and keys that came later, so that earlier runs can still be read and compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprise.core.config import RENAMED_KEYS, RENAMED_SOURCE_KINDS
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

    F1 of two labels was of the second.
    """
    if "task.labels" not in recipe:
        return dict(recipe)
    labels = recipe["task.labels"]
    return {"task.positive_label": labels[1] if len(labels) == 2 else None, **recipe}


def with_current_metrics(file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of a metrics file, one of `RENAMED_METRICS`, to their current names."""
    names = RENAMED_METRICS.get(file, {})
    return {names.get(key, key): value for key, value in content.items()}
