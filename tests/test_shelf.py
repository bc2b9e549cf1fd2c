"""The shelf in recipes/, and params.yaml as it is composed from it."""

import itertools
import shlex
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.errors import InputError
from reprise.recipe import Recipe, as_plain, check_recipe, read_recipe
from reprise.shelf import GROUPS, compose_recipe, list_shelf, write_recipe
from tiny import ROOT

SHELF = ROOT / "recipes"
CHOICES = {group: sorted(file.stem for file in (SHELF / group).glob("*.yaml")) for group in GROUPS}


def write(overrides: list[str], file: Path) -> list[str]:
    """Compose and write as `reprise recipe OVERRIDES` does; return the differences."""
    return write_recipe(compose_recipe(overrides, SHELF), overrides, file)


def refusal(*overrides: str) -> str:
    """The message with which the overrides are refused."""
    with pytest.raises(InputError) as refused:
        compose_recipe(overrides, SHELF)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("task", "model"), itertools.product(CHOICES["task"], CHOICES["model"]))
def test_every_task_composes_with_every_model(task: str, model: str) -> None:
    composed = compose_recipe([f"task={task}", f"model={model}"], SHELF)
    recipe = check_recipe(composed, "recipe")
    assert isinstance(recipe, Recipe)
    assert (recipe.task.name, recipe.model.name) == (task, model)
    assert as_plain(recipe) == composed


@pytest.mark.parametrize("train", CHOICES["train"])
def test_every_way_to_train_composes(train: str) -> None:
    assert compose_recipe([f"train={train}"], SHELF)["train"]["epochs"] > 0


def test_a_value_given_by_hand_wins_over_what_the_shelf_says() -> None:
    composed = compose_recipe(["task=mrpc", "model=minilm", "train.learning_rate=3e-5", "train.epochs=7"], SHELF)
    assert composed["train"]["learning_rate"] == 3e-5
    assert composed["train"]["epochs"] == 7


def test_a_task_may_say_how_it_is_trained_and_judged() -> None:
    default, mrpc = compose_recipe([], SHELF), compose_recipe(["task=mrpc"], SHELF)
    assert (default["train"]["select"], default["evaluate"]["split"]) == ("best", "test")
    assert (mrpc["train"]["select"], mrpc["evaluate"]["split"]) == ("last", "validation")


def test_the_shelf_is_listed_with_the_headline_of_each_file() -> None:
    listed = list_shelf(SHELF)
    assert {group: [name for name, _ in choices] for group, choices in listed.items()} == CHOICES
    for group, choices in listed.items():
        for name, headline in choices:
            lines = (SHELF / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
            assert f"# {headline}" in lines[:2]
            assert headline
            assert "@package" not in headline


def test_what_is_put_on_the_shelf_is_listed_and_can_be_chosen(tmp_path: Path) -> None:
    shelf = Path(shutil.copytree(SHELF, tmp_path / "recipes"))
    text = (shelf / "train/default.yaml").read_text(encoding="utf-8")
    (shelf / "train/long.yaml").write_text(
        "# Twenty epochs\n" + text.split("\n", 1)[1].replace("epochs: 2", "epochs: 20"), encoding="utf-8"
    )
    assert ("long", "Twenty epochs") in list_shelf(shelf)["train"]
    assert compose_recipe(["train=long"], shelf)["train"]["epochs"] == 20


@pytest.mark.parametrize("group", GROUPS)
def test_a_choice_that_is_not_on_the_shelf_is_told_which_ones_are(group: str) -> None:
    expected = ", ".join(CHOICES[group])
    assert refusal(f"{group}=nothing") == f"recipe: {group}=nothing: not on the shelf; expected one of {expected}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lerning_rate=1e-4", "recipe: train.lerning_rate: unknown key; did you mean train.learning_rate?"),
        ("learning_rate=1e-4", "recipe: learning_rate: unknown key; did you mean train.learning_rate?"),
        ("bogus=1", "recipe: bogus: unknown key; params.yaml lists them all"),
        ("+train.epoch=1", "recipe: train.epoch: unknown key; did you mean epochs?"),
        ("~train.epochs", "recipe: train.epochs: missing; every key of a recipe is written out"),
        ("train.epochs=two", "recipe: train.epochs: expected a valid integer, got 'two'"),
        ("train.warmup=2", "recipe: train.warmup: expected less than 1, got 2"),
    ],
)
def test_an_override_that_makes_no_recipe_is_told_by_its_key(override: str, message: str) -> None:
    assert refusal(override) == message


@pytest.mark.parametrize(
    "override",
    ["mrpc", "train.epochs==3", "=3", "train.epochs=1,2", "task.name=[x", "seed=${x}", "task.name='two\nlines'"],
)
def test_an_override_that_cannot_be_read_is_refused_in_one_line(override: str) -> None:
    assert refusal(override).startswith("recipe: ")


def test_a_folder_without_a_shelf_is_told_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipes/config\.yaml: not found; run from the repository's root$"):
        compose_recipe([], tmp_path / "recipes")


def test_writing_a_recipe_reports_what_differs_from_the_file_before(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    assert "seed: absent → 42" in write([], file)
    assert write([], file) == []
    assert write(["train.learning_rate=3e-5", "task.labels=[sour,sweet]"], file) == [
        "task.labels: ['rotten', 'fresh'] → ['sour', 'sweet']",
        "train.learning_rate: 0.0001 → 3e-05",
    ]
    changed = write(["model=bert-base-uncased"], file)
    assert "model.source.sha256: " in " ".join(line for line in changed if line.endswith(" → absent"))
    assert "train.learning_rate: 3e-05 → 5e-05" in changed


OVERRIDES = [
    [],
    ["task=mrpc", "model=bert-base-uncased", "train.learning_rate=3e-5"],
    ["task.labels=[0,1]", "task.keep=null"],
    ["task.name='two words'"],
    ["task.name='a: \"b\" #c'"],
    ["task.name=$HOME/*"],
]


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_a_written_recipe_reads_back_as_it_was_composed(tmp_path: Path, overrides: list[str]) -> None:
    file = tmp_path / "params.yaml"
    write(overrides, file)
    assert as_plain(read_recipe(file)) == compose_recipe(overrides, SHELF)


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_the_command_at_the_head_of_the_file_makes_the_same_bytes_again(tmp_path: Path, overrides: list[str]) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    write(overrides, first)
    head = first.read_text(encoding="utf-8").splitlines()[0]
    command = shlex.split(head.removeprefix("# Made by: "))
    assert command[:2] == ["reprise", "recipe"]
    write(command[2:], second)
    assert second.read_bytes() == first.read_bytes()


def test_the_head_of_the_file_leads_to_what_the_keys_mean(tmp_path: Path) -> None:
    write([], tmp_path / "params.yaml")
    comments = [line for line in (tmp_path / "params.yaml").read_text().splitlines() if line.startswith("#")]
    assert len(comments) == 2
    assert "recipes/config.yaml" in comments[1]


@given(
    learning_rate=st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False),
    epochs=st.integers(min_value=1, max_value=10**9),
    seed=st.integers(min_value=0, max_value=2**63 - 1),
)
@settings(max_examples=25, deadline=None)
def test_any_number_survives_the_way_through_the_file(
    tmp_path_factory: pytest.TempPathFactory, learning_rate: float, epochs: int, seed: int
) -> None:
    file = tmp_path_factory.mktemp("recipe") / "params.yaml"
    write([f"train.learning_rate={learning_rate!r}", f"train.epochs={epochs}", f"seed={seed}"], file)
    recipe = read_recipe(file)
    assert (recipe.train.learning_rate, recipe.train.epochs, recipe.seed) == (learning_rate, epochs, seed)
