"""The recipe that made the results in this folder, and what has changed since.

Results speak of the recipe in dvc.lock, which DVC writes with them, and never of params.yaml, which may be newer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from reprise.core.config import PARAMS, Recipe, to_dict
from reprise.core.dvc_lock import LOCK, read_stages
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe, read_recipe
from reprise.results.renamed import with_current_params, with_implied_params
from reprise.results.run import flatten, stages_in_order

# A section that no stage reads, for a recipe whose params.yaml is not valid.
RUN_DEFAULTS = {"save_steps": 100, "trackers": []}


@dataclass(frozen=True)
class Made:
    """How the results of a folder were made.

    Attributes:
        recipe: the recipe of the results. Keys that no stage reads are those of params.yaml.
        changes: what differs from it now, one sentence each; empty if the results are up to date.
    """

    recipe: Recipe
    changes: list[str]


def read_made(what: str = "these results were made") -> Made:
    """Read the recipe of the results in the current folder, and compare it with params.yaml.

    Args:
        what: what happened by that recipe, for the sentence on changes.

    Raises:
        UserError: dvc.lock is missing, damaged, or of an earlier version.
    """
    stages = read_stages()
    try:
        locked = locked_params(stages)
        changes = outdated_inputs(stages)
    except (LookupError, TypeError, AttributeError):
        raise UserError("damaged", file=LOCK, expected="the result of `dvc repro`") from None
    try:
        current = read_recipe()
    except UserError as error:
        return Made(recipe_of(locked, None), [str(error), *changes])
    recipe = recipe_of(locked, current)
    if keys := changed_keys(to_dict(recipe), to_dict(current)):
        changes.insert(0, f"{PARAMS} has changed since {what}: {', '.join(keys)}")
    return Made(recipe, changes)


def locked_params(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in dvc.lock, nested as in params.yaml."""
    nested: dict[str, Any] = {}
    for stage in stages_in_order(stages):
        for name, value in stage.get("params", {}).get(str(PARAMS), {}).items():
            *sections, key = name.split(".")
            section = nested
            for each in sections:
                section = section.setdefault(each, {})
            section[key] = value
    task = nested["task"]
    task.setdefault("positive_label", with_implied_params({"task.labels": task["labels"]})["task.positive_label"])
    return nested


def outdated_inputs(stages: Mapping[str, Any]) -> list[str]:
    """Name the stages in dvc.lock that read an earlier version of another stage's output."""
    latest = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    return [
        f"{name} read another {dep['path']} than the one that is in {LOCK} now"
        for name, stage in stages.items()
        for dep in stage.get("deps", [])
        if latest.get(dep["path"], dep["md5"]) != dep["md5"]
    ]


def recipe_of(locked: Mapping[str, Any], current: Recipe | None) -> Recipe:
    """Complete the parameters in dvc.lock by the keys that no stage reads.

    Args:
        locked: from `locked_params`.
        current: params.yaml as it is now; None if it is not valid.
    """
    content = {key: dict(value) if isinstance(value, Mapping) else value for key, value in locked.items()}
    params = to_dict(current) if current else {}
    content["model"] = {"name": model_name(flatten(locked), params), **content.get("model", {})}
    content["task"] = {**content.get("task", {}), "submission": params.get("task", {}).get("submission")}
    content["run"] = params.get("run", RUN_DEFAULTS)
    return check_recipe(content, str(LOCK))


def model_name(recipe: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Return the name of a run's pretrained model.

    Args:
        recipe: parameters that the stages read, by dotted key. The name is not among them.
        params: params.yaml, nested. It has the name, unless it has another source now.

    Returns:
        The name in params.yaml, or the repository, distribution or folder of the source.
    """
    source = {key: value for key, value in recipe.items() if key.startswith("model.source.")}
    model = params.get("model")
    if isinstance(model, Mapping) and "name" in model:
        current = with_current_params(flatten({"model": model}))
        if {key: value for key, value in current.items() if key.startswith("model.source.")} == source:
            return str(model["name"])
    named = (source.get(f"model.source.{key}") for key in ("repo", "distribution", "path"))
    return PurePosixPath(next(filter(None, named), "?")).name


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the dotted keys of two nested recipes that differ, in the order of the first."""
    old, new = flatten(before, keep_empty=True), flatten(after, keep_empty=True)
    return [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]
