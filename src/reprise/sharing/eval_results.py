"""`.eval_results/*.yaml`, which the Hub shows on a model's page (huggingface.co/docs/hub/eval-results)."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from reprise.core.config import HubDataset, Recipe
from reprise.tasks.metrics.registry import display_name


def eval_results(recipe: Recipe, evaluated: Mapping[str, Any], date: str, source: str) -> list[dict[str, Any]]:
    """Return the results as the Hub reads them; none for data that is not a dataset of the Hub.

    Args:
        recipe: recipe of the model.
        evaluated: content of metrics/evaluate.json.
        date: ISO 8601.
        source: URL of the repository; "" if it has none.
    """
    data = recipe.task.source
    if not isinstance(data, HubDataset):
        return []
    names = data.splits or {}
    split = names.get(evaluated["split"], evaluated["split"])
    return eval_result_entries_to_yaml(
        [
            EvalResultEntry(
                dataset_id=data.repo,
                task_id=data.config,
                dataset_revision=data.revision,
                value=evaluated[name],
                date=date,
                source_url=source or None,
                source_name="Reprise" if source else None,
                notes=f"{display_name(name, recipe.task.positive_label, len(recipe.task.labels))} on the {split} split",
            )
            for name in evaluated["ci95"]
        ]
    )
