"""The metrics as one `evaluate` module, a configuration each: `evaluate.load(path_of_this_file, "f1")`."""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from reprise.tasks.labels import ragged
from reprise.tasks.metrics.intervals import Values
from reprise.tasks.metrics.registry import METRICS, MULTI_LABEL, TOKENS


class RepriseMetric(evaluate.Metric):
    """A metric of the registry, by the name of the configuration."""

    def _info(self) -> evaluate.MetricInfo:
        metric = METRICS[self.config_name]
        number = datasets.Value("float64" if metric.task_kind == "regression" else "int64")
        value = datasets.List(number) if metric.task_kind in (MULTI_LABEL, TOKENS) else number
        given = datasets.List(datasets.Value("float64")) if metric.of_probabilities else value
        return evaluate.MetricInfo(
            description=str(metric.function.__doc__),
            citation="",
            inputs_description="predictions and references: one number per example, per example and label, or per word",
            features=datasets.Features({"predictions": given, "references": value}),
        )

    def _compute(
        self, predictions: Sequence[Any], references: Sequence[Any], positive: int | None = None
    ) -> dict[str, float]:
        metric = METRICS[self.config_name]
        array: Callable[[Sequence[Any]], Values] = ragged if metric.task_kind == TOKENS else np.asarray
        return {self.config_name: metric.function(array(predictions), array(references), positive)}
