"""A model's own recipe holds what the stage train depends on, and is read back or refused."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.modeling.recipe import RECIPE_FILE, model_recipe, read_model_recipe, write_model_recipe
from tiny import ROOT, tiny_recipe

RECIPE = check_recipe(tiny_recipe(), "recipe")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with its recipe, without weights."""
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    write_model_recipe(RECIPE, tmp_path)
    return tmp_path


def test_the_file_holds_exactly_the_parameters_of_the_stage_train(folder: Path) -> None:
    content = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    sections = ("task", "evaluate", "data")
    written = {"seed", "train"} | {f"{section}.{key}" for section in sections for key in content[section]}
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert written == set(stages["train"]["params"])
    assert content["train"] == tiny_recipe()["train"]
    assert content.keys() == {"seed", "task", "train", "evaluate", "data", "thresholds", "temperatures"}


def test_the_thresholds_that_training_has_chosen_decide(folder: Path) -> None:
    changes = {"task.labels": ["a", "b"], "task.positive_label": None, "task.metrics": ["f1_micro"]}
    changes |= {"task.multi_label": {"separator": "|", "thresholds": "tuned"}}
    recipe = check_recipe(tiny_recipe(**changes), "recipe")
    write_model_recipe(recipe, folder, [0.25, 0.75])
    read = read_model_recipe(folder)
    assert read.kind.thresholds == (0.25, 0.75)
    assert read.task.kind.thresholds is None
    assert read.task == model_recipe(recipe).task


def test_what_is_written_is_read_back(folder: Path) -> None:
    assert read_model_recipe(folder) == model_recipe(RECIPE)
    assert read_model_recipe(folder).task.kind == RECIPE.task.kind


def test_a_model_without_its_recipe_is_refused(folder: Path) -> None:
    (folder / RECIPE_FILE).unlink()
    with pytest.raises(UserError) as refused:
        read_model_recipe(folder)
    assert refused.value.file == str(folder / RECIPE_FILE)


@pytest.mark.parametrize(
    ("content", "key"),
    [("{", ""), ("{}", "seed"), ('{"seed": "x"}', "seed"), ("[]", "")],
    ids=["no JSON", "empty", "wrong type", "a list"],
)
def test_a_damaged_recipe_is_refused(folder: Path, content: str, key: str) -> None:
    (folder / RECIPE_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        read_model_recipe(folder)
    assert str(refused.value).startswith(str(folder / RECIPE_FILE))
    assert refused.value.key == key
