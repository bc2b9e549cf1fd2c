"""A run of the report, with its committed files parsed."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reprise.core.config import PARAMS
from reprise.core.paths import METRICS, PLOTS, SPEED
from reprise.results.renamed import RENAMED_FILES, with_current_params
from reprise.results.run import FileReader, RunResult, flatten, parse_metrics, read_recorded
from reprise.results.runs import Kind
from reprise.results.workspace import model_name

PLOT_TABLES = ("train", "validation", "confusion", "per_class", "precision_recall", "calibration", "residuals")
LABEL_COLUMNS = {"confusion": ("actual", "predicted"), "per_class": ("label",), "precision_recall": ("label",)}


@dataclass(frozen=True)
class MetricValue:
    """A metric, with the bounds of its 95 % confidence interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ReportRun:
    """A run of the report.

    Attributes:
        name: an experiment's name, a commit as the user wrote it, or "workspace".
        kind: workspace, commit or experiment.
        commit: full hash; empty for the workspace.
        parent: full hash of the parent commit.
        created: time of the commit in ISO 8601 and UTC; empty for the workspace.
        result: inputs and outputs.
        params: content of params.yaml, nested.
        evaluated: content of metrics/evaluate.json.
        trained: content of metrics/train.json.
        speed: content of metrics/speed.json; empty if it is of another run.
        tables: tables in plots/, by name without `.csv`; missing ones are left out.
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
        """All metrics of the run by display name, the most important first."""
        intervals = self.evaluated.get("ci95", {})
        metrics = {
            **{name: MetricValue(self.evaluated[name], ci["low"], ci["high"]) for name, ci in intervals.items()},
            **{f"validation {name}": MetricValue(value) for name, value in self.trained.get("validation", {}).items()},
            "training loss": MetricValue(self.result.metrics["train"]["loss"]),
        }
        for name, file, key in (
            ("calibration error", self.evaluated, "ece"),
            ("uncalibrated error", self.evaluated, "ece_uncalibrated"),
            ("training seconds", self.speed, "train_seconds"),
            ("examples/s", self.speed, "examples_per_second"),
            ("peak MiB", self.speed, "peak_memory_mib"),
        ):
            if file.get(key) is not None:
                metrics[name] = MetricValue(file[key])
        return metrics

    @property
    def constant_prediction(self) -> bool:
        """Whether the model predicts the same for every example."""
        return bool(self.evaluated.get("constant_prediction"))

    @property
    def model(self) -> str:
        """Name of the pretrained model in params.yaml, which no stage reads; of its source if that has changed."""
        return model_name(self.result.recipe, self.params)

    @property
    def params_are_current(self) -> bool:
        """Whether params.yaml holds the recipe of the results; the workspace's may have been edited since."""
        params = with_current_params(flatten(self.params))
        return all(params.get(key) == value for key, value in self.result.recipe.items())

    @property
    def recipe(self) -> dict[str, Any]:
        """Parameters that the stages read and the model's name, by dotted key."""
        return {"model.name": self.model, **self.result.recipe}


def read_run_files(read: FileReader) -> dict[str, Any]:
    """Read the fields of `ReportRun` that are files; those of missing files are empty."""

    def read_metrics(file: Path) -> dict[str, Any]:
        content = read(file)
        return parse_metrics(file, content) if content else {}

    params = read(PARAMS)
    plots = {name: PLOTS / f"{name}.csv" for name in PLOT_TABLES}
    tables = {name: read(file) or read(RENAMED_FILES.get(file, file)) for name, file in plots.items()}
    return {
        "params": parse_params(params) if params else {},
        "evaluated": read_metrics(METRICS / "evaluate.json"),
        "trained": read_metrics(METRICS / "train.json"),
        "speed": read_recorded(read, SPEED) or {},
        "tables": {name: parse_table(content, name) for name, content in tables.items() if content},
    }


def parse_params(content: bytes) -> dict[str, Any]:
    """Parse params.yaml; {} if it is not valid YAML, which the workspace's may be while it is edited."""
    try:
        params = YAML(typ="safe").load(content)
    except YAMLError:
        params = None
    return params if isinstance(params, dict) else {}


def parse_table(content: bytes, name: str) -> pd.DataFrame:
    """Parse a table of plots/; label names such as "NA" or 1 stay strings."""
    return pd.read_csv(
        io.BytesIO(content),
        dtype=dict.fromkeys(LABEL_COLUMNS.get(name, ()), str),
        keep_default_na=False,
        na_values={"loss": ["", "nan"], "grad_norm": ["", "nan"], "precision": [""], "recall": [""], "f1": [""]},
    )
