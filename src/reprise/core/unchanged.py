"""Refuse results of a recipe that was edited while a stage ran.

DVC reads params.yaml and hashes the dependencies once more when a stage has ended, and records what it finds then.
"""

from functools import reduce
from pathlib import Path

from ruamel.yaml import YAML

from reprise.core.config import PARAMS, Recipe, to_dict
from reprise.core.errors import UserError
from reprise.core.validation import read_recipe

PIPELINE = Path(__file__).resolve().parents[3] / "dvc.yaml"


class InputChangedError(UserError):
    """Raised before outputs are replaced; starting the same run again would not help."""


def check_unchanged(recipe: Recipe, stage: str) -> None:
    """Check that params.yaml still has the values that a stage read at its start; other stages' do not matter.

    Args:
        recipe: as the stage read it.
        stage: its name in dvc.yaml, which lists its parameters.

    Raises:
        InputChangedError: a value has changed.
        UserError: the file is no valid recipe any more.
    """
    listed = YAML(typ="safe").load(PIPELINE)["stages"][stage]["params"]
    before, now = to_dict(recipe), to_dict(read_recipe())
    for key in (key for key in listed if isinstance(key, str)):
        old, new = (reduce(lambda section, name: section[name], key.split("."), each) for each in (before, now))
        if old != new:
            raise InputChangedError(
                f"changed while {stage} ran; nothing was replaced",
                file=PARAMS,
                key=changed_key(key, old, new),
                expected="the value at its start, or `dvc repro` again with the new one",
            )


def changed_key(key: str, old: object, new: object) -> str:
    """Return the dotted key of the first value below `key` that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old:
            if name in new and old[name] != new[name]:
                return changed_key(f"{key}.{name}", old[name], new[name])
    return key
