"""Where the current recipe differs from that of the final model."""

from collections.abc import Iterator
from dataclasses import replace

from reprise.core.config import PARAMS, to_dict
from reprise.core.display import echo
from reprise.core.dvc_lock import LOCK
from reprise.core.errors import UserError
from reprise.core.paths import FINAL_MODEL
from reprise.core.validation import read_recipe
from reprise.modeling.recipe import ModelRecipe, model_recipe
from reprise.results.workspace import changed_keys, read_made


def print_changes(recipe: ModelRecipe) -> None:
    """Report on stderr, in a line each, where params.yaml and dvc.lock differ from what the model was trained for."""
    for line in changes(recipe):
        echo(f"predict: {line}", err=True)


def changes(recipe: ModelRecipe) -> Iterator[str]:
    """Yield where params.yaml and dvc.lock differ from the recipe of the final model; nothing for a missing file."""
    trained = to_dict(replace(recipe, thresholds=None, temperatures=None))
    try:
        made = read_made("this model was trained") if LOCK.is_file() else None
        foreign = changed_keys(trained, to_dict(model_recipe(made.recipe))) if made else []
        if made and not foreign:
            yield from made.changes
            return
    except UserError as error:
        yield str(error)
        foreign = []
    if foreign:
        yield f"{FINAL_MODEL} is not the model of {LOCK}: {', '.join(foreign)}; `dvc checkout` restores that one"
    if not PARAMS.is_file():
        return
    try:
        if keys := changed_keys(trained, to_dict(model_recipe(read_recipe()))):
            yield f"{PARAMS} has changed since this model was trained: {', '.join(keys)}"
    except UserError as error:
        yield str(error)
