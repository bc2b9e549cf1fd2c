"""The shelf: recipes/ as Hydra config groups, composed into params.yaml."""

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from ruamel.yaml import YAML

from reprise.core.config import to_dict
from reprise.core.errors import UserError
from reprise.core.files import atomic_file
from reprise.core.validation import check_recipe, load_params

RECIPES_DIR = Path("recipes")
GROUPS = ("task", "model", "train")


def list_recipes(shelf: Path = RECIPES_DIR) -> dict[str, list[tuple[str, str]]]:
    """The choices of each group: name and the first line of the comment at the file's head, in alphabetical order."""
    return {group: [(file.stem, _title(file)) for file in sorted((shelf / group).glob("*.yaml"))] for group in GROUPS}


def _title(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @"):
            return line.removeprefix("# ").strip()
    return ""


def compose_recipe(overrides: Sequence[str], shelf: Path = RECIPES_DIR) -> dict[str, Any]:
    """Compose the shelf's defaults with `overrides` in Hydra's grammar (`task=mrpc train.learning_rate=3e-5`).

    Raises:
        UserError: an override names nothing on the shelf, or what was composed is no recipe.
    """
    if not (shelf / "config.yaml").is_file():
        raise UserError(f"{shelf}/config.yaml: not found; run from the repository's root")
    for override in overrides:
        if not override.isprintable():  # the head of the file takes one line
            raise UserError(f"compose: {override!r}: expected GROUP=CHOICE or KEY=VALUE in one line")
    try:
        with initialize_config_dir(str(shelf.resolve()), version_base="1.3"):
            composed = OmegaConf.to_container(compose("config", list(overrides)), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"compose: {_format_hydra_error(error, shelf)}") from None
    # Through the dataclasses and back: checked, every key written out, in their order.
    return dict(to_dict(check_recipe(composed, "compose")))


def _format_hydra_error(error: Exception, shelf: Path) -> str:
    """Hydra explains itself over many lines; one names the trouble, another the choices."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if unknown := re.match(r"Could not override '([^']+)'", lines[0]):
        near = difflib.get_close_matches(unknown[1], flatten(compose_recipe([], shelf)), n=1)
        return f"{unknown[1]}: unknown key" + (f"; did you mean {near[0]}?" if near else "; params.yaml lists them all")
    if malformed := re.match(r"Error parsing override '(.*)'", lines[0]):
        return f"{malformed[1]!r}: expected GROUP=CHOICE or KEY=VALUE"
    if unknown := re.match(r"In 'config': Could not find '(\w+)/([^']*)'", lines[0]):
        group, choice = unknown.groups()
        choices = ", ".join(name for name, _ in list_recipes(shelf).get(group, []))
        return f"{group}={choice}: not on the shelf; expected one of {choices}"
    return lines[0]


def write_recipe(recipe: dict[str, Any], overrides: Sequence[str], path: Path) -> list[str]:
    """Write params.yaml, headed with the command that made it; return what differs from the file it replaces.

    Each difference is a line such as `train.learning_rate: 5e-05 → 3e-05`.
    """
    yaml = YAML()
    yaml.width = 120
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    before: Any = load_params(path) if path.exists() else {}
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f"# Made by: {compose_command(overrides)}\n")
        file.write(
            "# Edit by hand as you like, or use `dvc exp run -S KEY=VALUE`; what each key means: recipes/config.yaml\n"
        )
        yaml.dump(recipe, file)
    old, new = flatten(before), flatten(recipe)
    return [
        f"{key}: {old.get(key, 'absent')} → {new.get(key, 'absent')}"
        for key in [*new, *(key for key in old if key not in new)]
        if old.get(key, "absent") != new.get(key, "absent")
    ]


def compose_command(overrides: Sequence[str]) -> str:
    """The command that composes this recipe again."""
    return shlex.join(["reprise", "compose", *(overrides or ["task=rotten-tomatoes"])])


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree} if prefix else {}
    return {
        k: v for key, value in tree.items() for k, v in flatten(value, f"{prefix}.{key}" if prefix else key).items()
    }
