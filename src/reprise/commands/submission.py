"""`reprise predict --submission`: predict the test splits of a benchmark, such as GLUE, in its format."""

from pathlib import Path

import pandas as pd

from reprise.core.config import PARAMS, Submission, to_dict
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_file, read_json
from reprise.core.validation import read_recipe
from reprise.data.format import split_file, split_shards, stats_path
from reprise.modeling.inference import load_predictor
from reprise.modeling.recipe import ModelRecipe, model_recipe
from reprise.modeling.splits import load_inputs, load_split
from reprise.results.workspace import changed_keys


def write_submission(recipe: ModelRecipe, folder: Path, *, cpu: bool) -> None:
    """Predict the test splits of a benchmark and write its submission files: tab-separated index and prediction.

    Args:
        recipe: what the final model was trained for.
        folder: folder for the files.
        cpu: use the CPU even if there is a GPU.

    Raises:
        UserError: the task has no submission, params.yaml or the prepared data are not those of the model, or a split
            is not prepared.
    """
    submission = read_submission(recipe)
    for split in submission.files:
        if not split_shards(split):
            raise UserError("not found", file=split_file(split), expected=f"the {split} split, prepared by `dvc repro`")
    forward = load_predictor(recipe, cpu=cpu)
    kind = recipe.kind
    for split, name in submission.files.items():
        file, rows = folder / name, load_split(split, recipe.train.fold)
        echo(f"predict: {len(rows)} examples of the {split} split")
        values = kind.decode(forward(load_inputs(split, recipe.train.fold)))
        predictions = kind.label_names(values) if submission.labels == "names" else values
        table = pd.DataFrame({"index": list(rows["id"]), "prediction": predictions})
        with atomic_file(file) as partial:
            table.to_csv(partial, sep="\t", index=False)
        echo(f"predict: {file}")


def read_submission(recipe: ModelRecipe) -> Submission:
    """Read the format of the benchmark's files from params.yaml; training does not depend on it.

    Raises:
        UserError: there is none, or params.yaml or the prepared data are of another task than the model.
    """
    current, stats = read_recipe(), read_json(stats_path())
    if keys := changed_keys(to_dict(recipe.task), to_dict(model_recipe(current).task)):
        raise UserError(
            "not what the model was trained for", file=PARAMS, key=f"task.{keys[0]}", expected="`dvc repro` first"
        )
    prepared = {"task": recipe.task.name, "labels": recipe.task.labels, "max_length": recipe.train.max_length}
    for key, value in prepared.items():
        if stats.get(key) != value:
            raise UserError(
                f"{stats.get(key)!r}, and the model was trained for {value!r}",
                file=stats_path(), key=key, expected="`dvc repro` first",
            )  # fmt: skip
    if current.task.submission is None:
        raise UserError(
            f"{current.task.name} has none",
            file=PARAMS, key="task.submission", expected="a benchmark task, such as those of GLUE",
        )  # fmt: skip
    return current.task.submission
