"""What a model was trained for, and how to run it: `recipe.json`, beside its weights.

A model is asked by this file, not by params.yaml, which the user may have edited since.
"""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reprise.core.config import Recipe, Train, to_dict
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

    @property
    def kind(self) -> TaskKind:
        """What depends on the kind of task."""
        return task_kind(self.labels, self.positive_label)


@dataclass(frozen=True)
class ModelEvaluate:
    """The keys of `evaluate` that training depends on."""

    batch_size: int


@dataclass(frozen=True)
class ModelRecipe:
    """The part of a recipe that training depends on: the parameters of the stage train in dvc.yaml, and no others."""

    seed: int
    task: ModelTask
    train: Train
    evaluate: ModelEvaluate


def model_recipe(recipe: Recipe) -> ModelRecipe:
    """Take from a recipe what training depends on."""
    task = recipe.task
    return ModelRecipe(
        recipe.seed,
        ModelTask(task.name, task.text_columns, task.labels, task.positive_label, task.metrics),
        recipe.train,
        ModelEvaluate(recipe.evaluate.batch_size),
    )


def write_model_recipe(recipe: Recipe, folder: Path) -> None:
    """Write `recipe.json` beside the weights."""
    write_json(folder / RECIPE_FILE, to_dict(model_recipe(recipe)))


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
