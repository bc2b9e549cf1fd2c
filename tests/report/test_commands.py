"""The generated commands are parsed by DVC and Hydra's grammar."""

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reprise.report.commands import experiment_command
from tiny import TINY_RECIPE, tiny_recipe

TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="$"), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from([1e-5, 0.1, 5e-3, 1.0]) | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda each: st.lists(each, max_size=3) | st.fixed_dictionaries({"rank": each, "layers": each}),
    max_leaves=4,
)
RECIPES = st.fixed_dictionaries(
    {"seed": VALUES, "task": st.fixed_dictionaries({"name": VALUES, "split": VALUES}), "train": VALUES}
)


def settings_of(command: list[str]) -> list[str]:
    assert command[:3] == ["dvc", "exp", "run"]
    assert set(command[3::2]) <= {"-S"}
    return command[4::2]


def applied(settings: list[str], base: dict[str, Any], folder: Path) -> Any:
    """Apply overrides to a base recipe as `dvc exp run -S` does."""
    file = folder / "params.yaml"
    with file.open("w", encoding="utf-8") as opened:
        YAML().dump(base, opened)
    apply_overrides(file, settings)
    return YAML(typ="safe").load(file.read_text(encoding="utf-8"))


def clash(recipe: Any, base: Any) -> bool:
    """Return whether a list replaces a mapping or the reverse."""
    if isinstance(recipe, dict) and isinstance(base, dict):
        return any(clash(recipe[key], base[key]) for key in recipe)
    return {type(recipe), type(base)} == {list, dict}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=RECIPES, recipe=RECIPES)
def test_dvc_applies_the_command_to_the_base(tmp_path: Path, base: Any, recipe: Any) -> None:
    command = experiment_command(recipe, base)
    assert (command is None) is clash(recipe, base)
    if command is not None:
        assert applied(settings_of(command), base, tmp_path) == recipe


def test_a_change_is_written_as_a_user_would() -> None:
    changed = tiny_recipe(**{"train.learning_rate": 3e-5, "train.bucket_lengths": [8, 16], "train.lora": {"rank": 8}})
    assert experiment_command(changed, TINY_RECIPE) == shlex.split(
        "dvc exp run -S train.learning_rate=3e-05 -S train.bucket_lengths=[8,16] -S train.lora={rank:8}"
    )
    assert experiment_command(TINY_RECIPE, changed)[3:] == shlex.split(
        "-S train.learning_rate=0.005 -S train.bucket_lengths=auto -S train.lora=null"
    )


def test_an_integer_that_became_a_float_is_a_change() -> None:
    assert experiment_command({"warmup_ratio": 1.0}, {"warmup_ratio": 1}) == [
        "dvc",
        "exp",
        "run",
        "-S",
        "warmup_ratio=1.0",
    ]


@pytest.mark.parametrize(
    ("recipe", "base"), [({"a": 1}, {"b": 1}), ({"a": 1}, {}), ({"a": {}}, {"a": {"b": 1}}), ({"a": []}, {"a": {}})]
)
def test_added_or_removed_keys_have_no_command(recipe: dict[str, Any], base: dict[str, Any]) -> None:
    assert experiment_command(recipe, base) is None
    assert experiment_command(base, recipe) is None


def test_a_key_that_is_no_identifier_has_no_command() -> None:
    changed = copy.deepcopy(TINY_RECIPE)
    changed["task"]["filter"] = {"verdict.of the critic": ["rotten"]}
    assert experiment_command(changed, TINY_RECIPE) is None
    assert experiment_command(TINY_RECIPE, changed) is None
