"""The scores of each label and the kinds of errors of the last run, as tables of `reprise summary` and model cards."""

from pathlib import Path

import pandas as pd

from reprise.core.paths import PLOTS
from reprise.tasks.curves import PLOT_COLUMNS, worst_confusions

CLASS_HEADINGS = ("label", "F1", "precision", "recall", "examples")
ERROR_HEADINGS = ("actual", "predicted", "examples", "share of actual")


def read_classes(plots: Path = PLOTS) -> pd.DataFrame:
    """Read per_class.csv; without rows for a regression, and for a run of an earlier version, which lacks the file."""
    return _read(plots / "per_class.csv", ["label"])


def read_confusions(plots: Path = PLOTS) -> pd.DataFrame:
    """Read confusion.csv and return its kinds of errors, the most frequent first."""
    pairs = _read(plots / "confusion.csv", ["actual", "predicted"])
    return worst_confusions(pairs) if len(pairs) else pairs


def class_rows(classes: pd.DataFrame) -> list[list[str]]:
    """Format scores of labels as rows under CLASS_HEADINGS; a dash for a score that is not defined."""
    return [
        [row["label"], *("–" if pd.isna(row[name]) else f"{row[name]:.3f}" for name in ("f1", "precision", "recall")),
         f"{row['support']}"]
        for row in classes.to_dict("records")
    ]  # fmt: skip


def error_rows(confusions: pd.DataFrame) -> list[list[str]]:
    """Format kinds of errors as rows under ERROR_HEADINGS."""
    return [
        [row["actual"], row["predicted"], f"{row['count']}", f"{100 * row['share']:.1f} %"]
        for row in confusions.to_dict("records")
    ]


def _read(file: Path, labels: list[str]) -> pd.DataFrame:
    if not file.is_file():
        return pd.DataFrame(columns=PLOT_COLUMNS[file.name])
    numbers = {name: [""] for name in PLOT_COLUMNS[file.name] if name not in labels}
    return pd.read_csv(file, dtype=dict.fromkeys(labels, str), keep_default_na=False, na_values=numbers)
