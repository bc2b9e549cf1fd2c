"""Compose params.yaml from the recipe catalog: recipes/, a folder of Hydra config groups."""

import difflib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.representer import RoundTripRepresenter

from reprise.core.config import MAX_INTERPOLATIONS, MAX_RECIPE_BYTES, to_dict
from reprise.core.display import printable
from reprise.core.errors import UserError
from reprise.core.files import atomic_file
from reprise.core.validation import check_nodes, check_recipe, load_params, shorten
from reprise.results.run import flatten

RECIPES_DIR = Path("recipes")
# Functions that OmegaConf and Hydra offer in `${NAME:…}`.
RESOLVERS = (
    "oc.env", "oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.select",
    "hydra", "now", "python_version",
)  # fmt: skip
GROUPS = ("task", "model", "train")
MADE_BY = "# Made by: "  # begins the first line of params.yaml


def list_recipes(catalog: Path = RECIPES_DIR) -> dict[str, list[tuple[str, str]]]:
    """List the choices of each group.

    Returns:
        By group, name and title of each choice in alphabetical order. The title is the first comment line of the file.
    """
    return {group: [(file.stem, _title(file)) for file in sorted((catalog / group).glob("*.yaml"))] for group in GROUPS}


def _title(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @"):
            return line.removeprefix("# ").strip()
    return ""


def compose_recipe(overrides: Sequence[str], catalog: Path = RECIPES_DIR) -> dict[str, Any]:
    """Compose the catalog's defaults with overrides.

    Args:
        overrides: overrides in Hydra's grammar, such as `task=mrpc` or `train.learning_rate=3e-5`.
        catalog: folder of the config groups.

    Raises:
        UserError: an override has an unknown key or choice, or the composed recipe is invalid.
    """
    if not (catalog / "config.yaml").is_file():
        expected = "the repository's root as the current folder"
        raise UserError("not found", file=catalog / "config.yaml", expected=expected)
    for override in overrides:
        if not override.isprintable():  # the command is written to one line of params.yaml
            raise UserError(file="compose", key=repr(override), expected="GROUP=CHOICE or KEY=VALUE on one line")
        if ".." in override.partition("=")[2] and override.partition("=")[0] in GROUPS:
            raise UserError(file="compose", key=repr(override), expected="a choice of the catalog")
    for file in sorted(catalog.rglob("*.yaml")):
        _check_file(file)
    try:
        with initialize_config_dir(str(catalog.resolve()), version_base="1.3"):
            _remove_resolvers()
            config = compose("config", list(overrides))
            if str(OmegaConf.to_container(config, resolve=False)).count("${") > MAX_INTERPOLATIONS:
                problem = f"more than {MAX_INTERPOLATIONS} interpolations such as ${{train.max_length}}"
                raise UserError(problem, file="compose", expected="the values themselves")
            composed = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except UserError:
        raise
    except Exception as error:  # of Hydra, OmegaConf, and the parsers of both
        raise _user_error(error, catalog) from None
    # Converted to dataclasses and back, so that the recipe is validated and complete, with keys in a fixed order.
    return dict(to_dict(check_recipe(composed, "compose")))


def _check_file(file: Path) -> None:
    """Check that a file of the catalog is YAML of a recipe's size, since Hydra would expand any."""
    with file.open("rb") as stream:
        content = stream.read(MAX_RECIPE_BYTES + 1)
    if len(content) > MAX_RECIPE_BYTES:
        raise UserError("too long for a recipe", file=file, expected=f"at most {MAX_RECIPE_BYTES:,} bytes")
    try:
        check_nodes(yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader))
    except UnicodeDecodeError:
        raise UserError("not UTF-8; convert it, for example with iconv", file=file) from None
    except RecursionError:
        raise UserError("nested too deeply", file=file, expected="the sections of a recipe") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(filter(None, [error.context, error.problem]))
        raise UserError(f"not valid YAML: {problem[:200]}", file=file, key=where) from None
    except Exception as error:
        raise UserError(f"not valid YAML: {shorten(error)}", file=file) from None


def _remove_resolvers() -> None:
    """Leave `${key}` as the only interpolation: a recipe is data, and reads no variable such as a token."""
    for name in RESOLVERS:
        if OmegaConf.has_resolver(name):
            OmegaConf.clear_resolver(name)


def _user_error(error: Exception, catalog: Path) -> UserError:
    """Reduce Hydra's message of many lines to one, with the nearest key or the valid choices."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if unknown := re.match(r"Could not override '([^']+)'", lines[0]):
        near = difflib.get_close_matches(unknown[1], flatten(compose_recipe([], catalog), keep_empty=True), n=1)
        if near:
            return UserError(f"unknown key; did you mean {near[0]}?", file="compose", key=unknown[1])
        return UserError("unknown key", file="compose", key=unknown[1], expected="one of params.yaml")
    if malformed := re.match(r"Error parsing override '(.*)'", lines[0]):
        return UserError(file="compose", key=repr(malformed[1]), expected="GROUP=CHOICE or KEY=VALUE")
    if unknown := re.match(r"In 'config': Could not find '(\w+)/([^']*)'", lines[0]):
        group, choice = unknown.groups()
        choices = ", ".join(name for name, _ in list_recipes(catalog).get(group, []))
        return UserError("unknown choice", file="compose", key=f"{group}={choice}", expected=f"one of {choices}")
    return UserError(lines[0][:300], file="compose")


def check_edits(recipe: dict[str, Any], overrides: Sequence[str], path: Path, catalog: Path = RECIPES_DIR) -> None:
    """Check that composing loses no edit of params.yaml by hand.

    Edits are found by composing again with the command in the file's first line. One is lost unless the new recipe has
    its value, or the command names its key or chooses its section anew.

    Args:
        recipe: the new recipe.
        overrides: the arguments that compose it.
        path: params.yaml; without the line of an earlier command, nothing is known about it.
        catalog: folder of the config groups.

    Raises:
        UserError: an edit would be lost; the error has the command that keeps it.
    """
    if not path.exists():
        return
    current, arguments = load_params(path), made_by(path)
    if arguments is None or not isinstance(current, dict):
        return
    try:
        made = compose_recipe(arguments, catalog)
    except UserError:  # the catalog has changed since
        return
    named = {override.lstrip("+~").partition("=")[0] for override in overrides}
    before, now, after = (_by_key(content) for content in (made, current, recipe))
    lost = [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in now.items()
        if value != before.get(key, value) and value != after.get(key)
        if key not in named and key.partition(".")[0] not in named
    ]
    if lost:
        command = compose_command([*overrides, *lost])
        raise UserError(
            f"edited by hand, which would be lost: {', '.join(lost)}",
            file=path, expected=f"`{command}` to keep it, or --force",
        )  # fmt: skip


def made_by(path: Path) -> list[str] | None:
    """Return the arguments of the command in the first line of params.yaml; None if there is no such line."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    try:
        return shlex.split(first.removeprefix(MADE_BY))[2:] if first.startswith(MADE_BY) else None
    except ValueError:  # edited by hand
        return None


def _by_key(content: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe by its keys of one or two parts, such as `seed` and `task.split`."""
    flat: dict[str, Any] = {}
    for section, keys in content.items():
        flat |= (
            {f"{section}.{key}": value for key, value in keys.items()} if isinstance(keys, dict) else {section: keys}
        )
    return flat


def _thresholds_on_a_line(data: dict[str, Any]) -> dict[str, Any]:
    """Return the section data as YAML that writes each check on a line, as a table."""
    checks = {name: CommentedMap(threshold) for name, threshold in data["checks"].items()}
    for threshold in checks.values():
        threshold.fa.set_flow_style()
    return {**data, "checks": checks}


class _NullRepresenter(RoundTripRepresenter):
    """Write None as `null`; a class of its own, because a representer is added for all of a class's dumpers."""


_NullRepresenter.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def write_recipe(
    recipe: dict[str, Any], overrides: Sequence[str] | None, path: Path, comment: str | None = None
) -> list[str]:
    """Write params.yaml with the command that composes it in a comment.

    Args:
        recipe: the content.
        overrides: the arguments that compose it; None if no command does.
        path: params.yaml.
        comment: one more line above the recipe.

    Returns:
        The differences from the previous file, one per key, such as `train.learning_rate: 5e-05 → 3e-05`.
    """
    dumper = YAML()
    dumper.width = 120
    dumper.Representer = _NullRepresenter
    before: Any = load_params(path) if path.exists() else {}
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        if overrides is not None:
            file.write(f"{MADE_BY}{compose_command(overrides)}\n")
        file.write(
            "# Edit by hand as you like, or use `dvc exp run -S KEY=VALUE`; what each key means: recipes/config.yaml\n"
        )
        if comment:
            file.write(f"# {printable(comment)}\n")
        dumper.dump({**recipe, "data": _thresholds_on_a_line(recipe["data"])}, file)
    old = flatten(before, keep_empty=True) if isinstance(before, dict) else {}
    new = flatten(recipe, keep_empty=True)
    return [
        f"{key}: {old.get(key, 'absent')} → {new.get(key, 'absent')}"
        for key in [*new, *(key for key in old if key not in new)]
        if old.get(key, "absent") != new.get(key, "absent")
    ]


def compose_command(overrides: Sequence[str]) -> str:
    """Return the command that composes a recipe again."""
    return shlex.join(["reprise", "compose", *(overrides or ["task=rotten-tomatoes"])])
