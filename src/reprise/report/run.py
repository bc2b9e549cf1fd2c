"""A run as the report tells of it: its committed files, read."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from reprise.core.config import PARAMS
from reprise.core.paths import METRICS, PLOTS
from reprise.results.fast_yaml import load_yaml
from reprise.results.renamed import RENAMED_FILES
from reprise.results.run import FileReader, RunResult, parse_metrics
from reprise.results.runs import Kind

PLOT_TABLES = ("train", "validation", "confusion", "precision_recall", "calibration")


@dataclass(frozen=True)
class MetricValue:
    """A number that says how a run went, and the ends of its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ReportRun:
    """What the report tells of a run.

    Attributes:
        name: what it is called.
        kind: where it lies.
        commit: its full hash; empty for the workspace.
        parent: the full hash of the commit before it.
        created: when, in ISO 8601 and UTC; empty where nobody knows.
        result: what was cooked from what.
        params: params.yaml, nested.
        evaluated: metrics/evaluate.json.
        trained: metrics/train.json.
        speed: metrics/speed.json.
        tables: the tables behind the plots, by name without `.csv`; empty ones where there are none.
    """

    name: str
    kind: Kind
    commit: str
    parent: str
    created: str
    result: RunResult
    params: dict[str, Any]
    evaluated: dict[str, Any]
    trained: dict[str, Any]
    speed: dict[str, Any]
    tables: dict[str, pd.DataFrame]

    @cached_property
    def metrics(self) -> dict[str, MetricValue]:
        """All its figures, by the name that people know them by, the most telling ones first."""
        ends = self.evaluated.get("ci95", {})
        told = {
            **{name: MetricValue(self.evaluated[name], each["low"], each["high"]) for name, each in ends.items()},
            **{f"validation {name}": MetricValue(value) for name, value in self.trained.get("validation", {}).items()},
            "training loss": MetricValue(self.result.metrics["train"]["loss"]),
        }
        for name, file, key in (
            ("calibration error", self.evaluated, "ece"),
            ("training seconds", self.speed, "train_seconds"),
            ("examples/s", self.speed, "examples_per_second"),
            ("peak MiB", self.speed, "peak_memory_mib"),
        ):
            if file.get(key) is not None:
                told[name] = MetricValue(file[key])
        return told

    @property
    def constant_prediction(self) -> bool:
        """Whether it says the same of every row."""
        return bool(self.evaluated.get("constant_prediction"))

    @property
    def model(self) -> str:
        """The name of the pretrained model, which no stage reads."""
        return str(self.params.get("model", {}).get("name", "?"))

    @property
    def recipe(self) -> dict[str, Any]:
        """What the stages read of its params.yaml, by dotted key, and the model's name."""
        return {"model.name": self.model, **self.result.recipe}


def read_run_files(read: FileReader) -> dict[str, Any]:
    """The fields of an Entry that are files of the run. What is not there is empty."""

    def read_metrics(file: Path) -> dict[str, Any]:
        content = read(file)
        return parse_metrics(file, content) if content else {}

    params = read(PARAMS)
    plots = {name: PLOTS / f"{name}.csv" for name in PLOT_TABLES}
    tables = {name: read(file) or read(RENAMED_FILES.get(file, file)) for name, file in plots.items()}
    return {
        "params": load_yaml(params) if params else {},
        "evaluated": read_metrics(METRICS / "evaluate.json"),
        "trained": read_metrics(METRICS / "train.json"),
        "speed": read_metrics(METRICS / "speed.json"),
        "tables": {name: parse_table(content) for name, content in tables.items() if content},
    }


def parse_table(content: bytes) -> pd.DataFrame:
    """A table behind a plot; a label that is called "NA" or 1 stays a text."""
    names = dict.fromkeys(("actual", "predicted", "label"), str)
    return pd.read_csv(
        io.BytesIO(content),
        dtype=names,
        keep_default_na=False,
        na_values={"loss": ["", "nan"], "grad_norm": ["", "nan"]},
    )
