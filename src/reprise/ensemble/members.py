"""Which runs can be combined: checked before any work, one clear line naming the run that does not fit."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.paths import FINAL_MODEL
from reprise.ensemble.folder import Member
from reprise.modeling.recipe import ModelRecipe
from reprise.results.runs import Run, same_examples

# What decides which answers there are, and what they are answers to.
TASK_KEYS = ("task.text_columns", "task.labels", "task.positive_label", "task.multi_label.")
# What is set for a whole process, so that members of one process share it.
PROCESS_KEYS = ("precision", "threads")
# What decides how a model reads a text.
READING_KEYS = ("train.max_length", "data.windows")


def check_runs(runs: Sequence[Run]) -> None:
    """Check that there are several models, which predict the same labels of the same columns.

    Raises:
        UserError: they do not, two are the same model, or the labels are of words.
    """
    first = runs[0]
    if first.result.task_kind.per_token:
        problem = "a run of labels of words, whose predictions/ have no probability of each label"
        raise UserError(problem, key=first.name, expected="runs of labels of texts, or of numbers")
    models: dict[str, Run] = {}
    for run in runs:
        for key in sorted({*first.result.recipe, *run.result.recipe}):
            values = [each.result.recipe.get(key) for each in (first, run)]
            if key.startswith(TASK_KEYS) and values[0] != values[1]:
                raise UserError(f"its {key} is {values[1]}", key=run.name, expected=f"{values[0]}, as of {first.name}")
        digest = run.result.outputs[str(FINAL_MODEL)].md5
        if digest in models:
            raise UserError(f"the same model as {models[digest].name}", key=run.name, expected="each model once")
        models[digest] = run
    if len(runs) < 2:
        expected = "at least two runs: `reprise seeds` makes more, and seeds:HEAD names them"
        raise UserError("a single run", key=first.name, expected=expected)


def check_examples(runs: Sequence[Run], tables: Sequence[pd.DataFrame]) -> None:
    """Check that the predictions of all runs are of the same examples with the same labels.

    Raises:
        UserError: they are not.
    """
    for run, table in zip(runs, tables, strict=True):
        if not same_examples(tables[0], table):
            problem = "its predictions are of other examples, or of other labels"
            raise UserError(problem, key=run.name, expected=f"those of {runs[0].name}: the same data and split")


def in_order(runs: Sequence[Run]) -> list[Run]:
    """Return the runs by seed, and by the digest of the model: the order of the selectors changes no bit."""
    return sorted(runs, key=lambda run: (run.seed, run.result.outputs[str(FINAL_MODEL)].md5))


def describe_member(run: Run, folder: Path) -> Member:
    """Describe the final model of a run, which is in a folder."""
    files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
    return Member(run.name, run.commit, run.seed, run.result.outputs[str(FINAL_MODEL)].md5, files)


def check_process(names: Sequence[str], recipes: Sequence[ModelRecipe]) -> None:
    """Check that members can be asked in one process.

    Args:
        names: of the members.
        recipes: of the members.

    Raises:
        UserError: they differ in what is set for a process.
    """
    for name, recipe in zip(names, recipes, strict=True):
        for key in PROCESS_KEYS:
            found, expected = (getattr(each.train, key) for each in (recipe, recipes[0]))
            if found != expected:
                raise UserError(f"its train.{key} is {found}", key=name, expected=f"{expected}, as of {names[0]}")


def check_reading(names: Sequence[str], recipes: Sequence[ModelRecipe]) -> None:
    """Check that models read the same text in the same way, as those of a soup must.

    Raises:
        UserError: they do not.
    """
    for name, recipe in zip(names, recipes, strict=True):
        values = [(each.train.max_length, each.data.windows) for each in (recipe, recipes[0])]
        for key, found, expected in zip(READING_KEYS, *values, strict=True):
            if found != expected:
                raise UserError(f"its {key} is {found}", key=name, expected=f"{expected}, as of {names[0]}")
