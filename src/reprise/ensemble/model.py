"""Ask the members of an ensemble as one model."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

from reprise.ensemble.average import averaged_logits, scores_of_logits
from reprise.modeling.inputs import TextModel, Texts
from reprise.modeling.recipe import ModelRecipe
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.token_classification import Words


def ensemble_model(members: Sequence[TextModel], kind: TaskKind) -> TextModel:
    """Return a model whose answers are the averages of its members'.

    Args:
        members: each tokenizes on its own.
        kind: of the task.
    """

    def text_model(texts: Sequence[Texts]) -> tuple[Logits, list[Words]]:
        return averaged_logits([scores_of_logits(member(texts)[0], kind) for member in members], kind), []

    return text_model


def joined_recipe(recipes: Sequence[ModelRecipe]) -> ModelRecipe:
    """Return the recipe that the members are asked by together: the first, with the means of their thresholds.

    A temperature is kept only if all members have the same.

    Args:
        recipes: of members for which `check_runs` has found nothing.
    """
    first = recipes[0]
    chosen = [recipe.thresholds for recipe in recipes if recipe.thresholds is not None]
    thresholds = [mean(column) for column in zip(*chosen, strict=True)] if len(chosen) == len(recipes) else None
    calibrated = all(recipe.temperatures == first.temperatures for recipe in recipes)
    return replace(first, thresholds=thresholds, temperatures=first.temperatures if calibrated else None)
