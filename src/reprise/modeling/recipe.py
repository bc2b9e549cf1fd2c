"""What a model was trained for, and how to run it: `recipe.json`, beside its weights.

A model is asked by this file, not by params.yaml, which the user may have edited since.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reprise.core.config import Recipe, Train, Windows, to_dict
from reprise.core.errors import UserError
from reprise.core.files import read_json, write_json
from reprise.core.paths import FINAL_MODEL
from reprise.tasks.kind import TaskKind
from reprise.tasks.registry import task_kind

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class ModelTask:
    """The keys of `task` that training depends on."""

    name: str
    text_columns: list[str]
    labels: list[str]
    positive_label: str | None
    metrics: list[str]
    multi_label: dict[str, Any] | None = None
    token_classification: dict[str, Any] | None = None

    @property
    def kind(self) -> TaskKind:
        """What depends on the kind of task."""
        return task_kind(self.labels, self.positive_label, self.multi_label, self.token_classification)


@dataclass(frozen=True)
class ModelEvaluate:
    """The keys of `evaluate` that training depends on."""

    batch_size: int


@dataclass(frozen=True)
class ModelData:
    """The keys of `data` that training depends on."""

    windows: Windows | None = None


@dataclass(frozen=True)
class ModelRecipe:
    """The part of a recipe that training depends on: the parameters of the stage train in dvc.yaml, and no others."""

    seed: int
    task: ModelTask
    train: Train
    evaluate: ModelEvaluate
    data: ModelData = ModelData()  # earlier models have none
    thresholds: list[float] | None = None  # that training has chosen, for any number of labels
    temperatures: list[float] | None = None  # what the output layer was divided by, by `train.calibration`

    @property
    def kind(self) -> TaskKind:
        """The kind of task as the model decides it, with the thresholds."""
        if self.thresholds is None or self.task.multi_label is None:
            return self.task.kind
        chosen = self.task.multi_label | {"thresholds": self.thresholds}
        return task_kind(self.task.labels, self.task.positive_label, chosen)


def model_recipe(recipe: Recipe) -> ModelRecipe:
    """Take from a recipe what training depends on."""
    task = recipe.task
    multi_label = to_dict(task.multi_label)
    return ModelRecipe(
        recipe.seed,
        ModelTask(
            task.name,
            task.text_columns,
            task.labels,
            task.positive_label,
            task.metrics,
            multi_label,
            to_dict(task.token_classification),
        ),
        recipe.train,
        ModelEvaluate(recipe.evaluate.batch_size),
        ModelData(recipe.data.windows),
    )


def write_model_recipe(
    recipe: Recipe, folder: Path, thresholds: Sequence[float] | None = None, temperatures: list[float] | None = None
) -> None:
    """Write `recipe.json` beside the weights, with the thresholds and temperatures that training has found."""
    listed = None if thresholds is None else list(thresholds)
    content = replace(model_recipe(recipe), thresholds=listed, temperatures=temperatures)
    write_json(folder / RECIPE_FILE, to_dict(content))


def read_model_recipe(folder: Path = FINAL_MODEL) -> ModelRecipe:
    """Read what a model was trained for.

    Raises:
        UserError: there is no model, an earlier version trained it, or the file is damaged.
    """
    file, retrain = folder / RECIPE_FILE, "the model that `dvc repro` makes"
    if not (folder / "config.json").is_file():
        raise UserError("not found", file=folder, expected=retrain)
    if not file.is_file():
        raise UserError("not found, as an earlier version trained this model", file=file, expected=retrain)
    content: dict[str, Any] = read_json(file)
    try:
        return TypeAdapter(ModelRecipe).validate_python(content)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError("damaged", file=file, key=key, expected=retrain) from None
