"""The metrics as one `evaluate` module, a configuration each: `evaluate.load(path_of_this_file, "f1")`."""

import datasets
import evaluate
import numpy as np
import numpy.typing as npt

from reprise.tasks.metrics.registry import METRICS


class RepriseMetric(evaluate.Metric):
    """A metric of the registry, by the name of the configuration."""

    def _info(self) -> evaluate.MetricInfo:
        metric = METRICS[self.config_name]
        number = datasets.Value("int64" if metric.task_kind == "classification" else "float64")
        return evaluate.MetricInfo(
            description=str(metric.function.__doc__),
            citation="",
            inputs_description="predictions and references: one number per example",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(
        self, predictions: npt.ArrayLike, references: npt.ArrayLike, positive: int | None = None
    ) -> dict[str, float]:
        function = METRICS[self.config_name].function
        return {self.config_name: function(np.asarray(predictions), np.asarray(references), positive)}
