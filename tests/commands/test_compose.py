"""The recipe catalog in recipes/, and params.yaml composed from it."""

import itertools
import shlex
import shutil
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reprise.commands.compose import GROUPS, check_edits, compose_recipe, list_recipes, write_recipe
from reprise.core.config import Recipe, to_dict
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import PRETRAINED, RAW
from reprise.core.validation import check_recipe, read_recipe
from reprise.data.format import stats_path
from reprise.modeling.bucketing import resolve_buckets
from reprise.prepare.stage import prepare
from reprise.train.sampler import plan_epoch, resolve_micro_batch_size, total_steps
from tiny import ROOT

CATALOG = ROOT / "recipes"
CHOICES = {group: sorted(file.stem for file in (CATALOG / group).glob("*.yaml")) for group in GROUPS}


def write(overrides: list[str], file: Path) -> list[str]:
    """Compose and write a recipe like `reprise compose OVERRIDES`; return the differences."""
    return write_recipe(compose_recipe(overrides, CATALOG), overrides, file)


def refusal(*overrides: str) -> UserError:
    """Return the error for the overrides, which is one line that names the command."""
    with pytest.raises(UserError) as refused:
        compose_recipe(overrides, CATALOG)
    assert "\n" not in str(refused.value)
    assert refused.value.file == "compose"
    return refused.value


def test_writing_a_recipe_leaves_other_yaml_as_it_is(tmp_path: Path) -> None:
    def dumped() -> str:
        with (tmp_path / "other.yaml").open("w", encoding="utf-8") as file:
            YAML().dump({"key": None}, file)
        return (tmp_path / "other.yaml").read_text(encoding="utf-8")

    before = dumped()
    write([], tmp_path / "params.yaml")
    assert "null" in (tmp_path / "params.yaml").read_text(encoding="utf-8")
    assert dumped() == before == "key:\n"


# Each task and each model once; the other pairs are variants.
AXES = {*((task, "minilm") for task in CHOICES["task"]), *(("rotten-tomatoes", model) for model in CHOICES["model"])}
PAIRS = [
    pytest.param(*pair, marks=[] if pair in AXES else pytest.mark.full)
    for pair in itertools.product(CHOICES["task"], CHOICES["model"])
]


@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_every_task_composes_with_every_model(task: str, model: str) -> None:
    composed = compose_recipe([f"task={task}", f"model={model}"], CATALOG)
    recipe = check_recipe(composed, "recipe")
    assert isinstance(recipe, Recipe)
    assert (recipe.task.name, recipe.model.name) == (task, model)
    assert to_dict(recipe) == composed
    assert_an_epoch_can_be_planned(recipe)


def assert_an_epoch_can_be_planned(recipe: Recipe) -> None:
    """Plan an epoch and its bucket lengths for synthetic texts of every length that the recipe allows."""
    train, rows = recipe.train, 501
    lengths = np.random.default_rng(0).integers(3, train.max_length, rows, endpoint=True)
    for processes in 1, 3:
        size = resolve_micro_batch_size(train, processes)
        steps = plan_epoch(lengths, seed=recipe.seed, epoch=0, batch_size=train.batch_size, micro_batch_size=size)
        rows_of_epoch = [row for step in steps for micro_batch in step.micro_batches for row in micro_batch]
        assert sorted(rows_of_epoch) == list(range(rows))
        assert max(len(micro_batch) for step in steps for micro_batch in step.micro_batches) == size
        total = total_steps(rows, batch_size=train.batch_size, epochs=train.epochs, max_steps=train.max_steps)
        assert total == len(steps) * train.epochs
    assert max(resolve_buckets(train.bucket_lengths, lengths)) == lengths.max() <= train.max_length


@pytest.mark.parametrize("train", CHOICES["train"])
def test_every_training_choice_composes(train: str) -> None:
    assert compose_recipe([f"train={train}"], CATALOG)["train"]["epochs"] > 0


def test_an_override_wins_over_the_catalog() -> None:
    composed = compose_recipe(["task=mrpc", "model=minilm", "train.learning_rate=3e-5", "train.epochs=7"], CATALOG)
    assert composed["train"]["learning_rate"] == 3e-5
    assert composed["train"]["epochs"] == 7


def test_a_task_may_set_training_and_evaluation() -> None:
    default, mrpc = compose_recipe([], CATALOG), compose_recipe(["task=mrpc"], CATALOG)
    assert (default["train"]["keep_epoch"], default["evaluate"]["split"]) == ("best", "test")
    assert (mrpc["train"]["keep_epoch"], mrpc["evaluate"]["split"]) == ("last", "validation")


def test_a_task_with_more_splits_may_be_evaluated_on_any_of_them() -> None:
    composed = compose_recipe(["task=mnli", "evaluate.split=validation_mismatched"], CATALOG)
    assert composed["task"] == compose_recipe(["task=mnli"], CATALOG)["task"]
    error = refusal("task=mnli", "evaluate.split=validation_matched")
    assert error.key == "evaluate.split"
    assert error.expected == "one of train, validation, validation_mismatched, test, test_mismatched"


def test_the_catalog_is_listed_with_the_title_of_each_file() -> None:
    listed = list_recipes(CATALOG)
    assert {group: [name for name, _ in choices] for group, choices in listed.items()} == CHOICES
    for group, choices in listed.items():
        for name, title in choices:
            assert title == next(line for line in head(group, name) if not line.startswith("@package"))
            assert title


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in ("task", "model") for name in CHOICES[group]])
def test_the_comment_of_a_choice_has_a_command_that_composes_it_and_a_reference(group: str, name: str) -> None:
    lines = head(group, name)
    commands = [shlex.split(line) for line in lines if line.startswith("  reprise compose ")]
    assert commands
    for _, _, *overrides in commands:
        assert f"{group}={name}" in overrides
        assert compose_recipe(overrides, CATALOG)[group]["name"] == name
    text = " ".join(lines)
    assert "Reference: " in text or "not measured here" in text.lower()


def head(group: str, name: str) -> list[str]:
    """Return the comment lines at the top of a catalog file, without `# `."""
    lines = (CATALOG / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return [line.removeprefix("#").removeprefix(" ") for line in comment]


def test_the_shipped_table_is_prepared_by_the_custom_task(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = compose_recipe(["task=custom"], CATALOG)
    assert composed["task"]["source"]["train"] == "data/own/example.csv"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    shutil.copytree(tiny_model, PRETRAINED / "tokenizer")
    (RAW / "all").mkdir(parents=True)
    shutil.copy(ROOT / "data/own/example.csv", RAW / "all")
    prepare(check_recipe(composed, "recipe").task, max_length=64)
    splits = read_json(stats_path())["splits"]
    assert sum(split["num_examples"] for split in splits.values()) == 120
    for split in splits.values():  # enough of each label to learn it and to see whether it was learned
        assert min(split["label_counts"].values()) >= 4


def test_a_new_file_in_the_catalog_is_listed_and_can_be_chosen(tmp_path: Path) -> None:
    catalog = Path(shutil.copytree(CATALOG, tmp_path / "recipes"))
    text = (catalog / "train/default.yaml").read_text(encoding="utf-8")
    (catalog / "train/long.yaml").write_text(
        "# Twenty epochs\n" + text.split("\n", 1)[1].replace("epochs: 2", "epochs: 20"), encoding="utf-8"
    )
    assert ("long", "Twenty epochs") in list_recipes(catalog)["train"]
    assert compose_recipe(["train=long"], catalog)["train"]["epochs"] == 20


@pytest.mark.parametrize("group", GROUPS)
def test_an_unknown_choice_is_refused_with_the_valid_ones(group: str) -> None:
    error = refusal(f"{group}=nothing")
    assert (error.key, error.expected) == (f"{group}=nothing", "one of " + ", ".join(CHOICES[group]))


@pytest.mark.parametrize(
    ("override", "key", "problem", "expected"),
    [
        ("train.lerning_rate=1e-4", "train.lerning_rate", "unknown key; did you mean train.learning_rate?", ""),
        ("learning_rate=1e-4", "learning_rate", "unknown key; did you mean train.learning_rate?", ""),
        ("bogus=1", "bogus", "unknown key", "one of params.yaml"),
        ("+train.epoch=1", "train.epoch", "unknown key; did you mean epochs?", ""),
        ("~train.epochs", "train.epochs", "missing", "every key of the recipe"),
        ("train.epochs=two", "train.epochs", "got 'two'", "a valid integer"),
        ("train.warmup_ratio=2", "train.warmup_ratio", "got 2", "less than 1"),
    ],
)
def test_an_invalid_override_is_refused_by_its_key(override: str, key: str, problem: str, expected: str) -> None:
    error = refusal(override)
    assert (error.key, error.problem, error.expected) == (key, problem, expected)


@pytest.mark.parametrize(
    "override",
    ["mrpc", "train.epochs==3", "=3", "train.epochs=1,2", "task.name=[x", "seed=${x}", "task.name='two\nlines'"],
)
def test_a_malformed_override_is_refused_in_one_line(override: str) -> None:
    error = refusal(override)
    assert error.key or error.problem


@pytest.mark.parametrize(
    ("slip", "key"),
    [
        ("  name: x\n   labels: [a, b]\n", "line 4, column 10"),
        ("  labels: [a, b}\n", "line 3, column 16"),
        ("\tname: x\n", "line 3, column 1"),
        ("  name: caf\xe9\n", ""),
    ],
    ids=["indentation", "bracket", "tab", "not UTF-8"],
)
def test_a_slip_in_a_file_of_the_catalog_is_refused_with_its_line(tmp_path: Path, slip: str, key: str) -> None:
    catalog = Path(shutil.copytree(CATALOG, tmp_path / "recipes"))
    (catalog / "task/mine.yaml").write_bytes(f"# @package _global_\ntask:\n{slip}".encode("latin-1"))
    with pytest.raises(UserError) as refused:
        compose_recipe(["task=mine"], catalog)
    assert (refused.value.file, refused.value.key) == (str(catalog / "task/mine.yaml"), key)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "quoted"), [("[no, yes]", '"no"'), ("[true, false]", '"true"'), ("[1.5, 2]", '"1.5"')]
)
def test_labels_that_yaml_reads_as_something_else_are_refused_with_the_quotes_they_need(
    tmp_path: Path, labels: str, quoted: str
) -> None:
    catalog = Path(shutil.copytree(CATALOG, tmp_path / "recipes"))
    custom = (catalog / "task/custom.yaml").read_text()
    (catalog / "task/mine.yaml").write_text(custom.replace("[question, complaint, praise]", labels))
    with pytest.raises(UserError) as refused:
        compose_recipe(["task=mine"], catalog)
    assert "task.labels.0" in str(refused.value)
    assert quoted in str(refused.value)


def test_a_folder_without_a_catalog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found") as refused:
        compose_recipe([], tmp_path / "recipes")
    assert refused.value.file == str(tmp_path / "recipes/config.yaml")


def test_writing_a_recipe_reports_the_differences_from_the_previous_file(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    assert "seed: absent → 42" in write([], file)
    assert write([], file) == []
    assert write(["train.learning_rate=3e-5", "task.labels=[sour,sweet]", "task.positive_label=sour"], file) == [
        "task.labels: ['rotten', 'fresh'] → ['sour', 'sweet']",
        "task.positive_label: fresh → sour",
        "train.learning_rate: 0.0001 → 3e-05",
    ]
    changed = write(["model=bert-base-uncased"], file)
    assert "model.source.sha256: " in " ".join(line for line in changed if line.endswith(" → absent"))
    assert "train.learning_rate: 3e-05 → 5e-05" in changed


OVERRIDES = [
    [],
    ["task=mrpc", "model=bert-base-uncased", "train.learning_rate=3e-5"],
    ["task.labels=[0,1]", "task.positive_label=1", "task.filter=null"],
    ["task.label_column='two words'"],
    ["task.label_column='a: \"b\" #c'"],
    ["task.label_column=$HOME/*"],
]


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_a_written_recipe_reads_back_equal(tmp_path: Path, overrides: list[str]) -> None:
    file = tmp_path / "params.yaml"
    write(overrides, file)
    assert to_dict(read_recipe(file)) == compose_recipe(overrides, CATALOG)


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_the_command_in_the_comment_writes_the_same_bytes(tmp_path: Path, overrides: list[str]) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    write(overrides, first)
    head = first.read_text(encoding="utf-8").splitlines()[0]
    command = shlex.split(head.removeprefix("# Made by: "))
    assert command[:2] == ["reprise", "compose"]
    write(command[2:], second)
    assert second.read_bytes() == first.read_bytes()


def test_the_comment_points_to_the_documentation_of_the_keys(tmp_path: Path) -> None:
    write([], tmp_path / "params.yaml")
    comments = [line for line in (tmp_path / "params.yaml").read_text().splitlines() if line.startswith("#")]
    assert len(comments) == 2
    assert "recipes/config.yaml" in comments[1]


@given(
    learning_rate=st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False),
    epochs=st.integers(min_value=1, max_value=10_000),
    seed=st.integers(min_value=0, max_value=2**63 - 1),
)
@settings(max_examples=25, deadline=None)
def test_any_number_survives_a_round_trip_through_the_file(
    tmp_path_factory: pytest.TempPathFactory, learning_rate: float, epochs: int, seed: int
) -> None:
    file = tmp_path_factory.mktemp("recipe") / "params.yaml"
    write([f"train.learning_rate={learning_rate!r}", f"train.epochs={epochs}", f"seed={seed}"], file)
    recipe = read_recipe(file)
    assert (recipe.train.learning_rate, recipe.train.epochs, recipe.seed) == (learning_rate, epochs, seed)


@pytest.mark.parametrize(
    "value",
    ["${oc.env:HF_TOKEN}", "${oc.decode:${oc.env:HF_TOKEN}}", "${hydra:runtime.cwd}", "${oc.select:seed}", "${now:%Y}"],
)
@pytest.mark.parametrize("place", ["override", "catalog"])
def test_only_keys_of_the_recipe_are_interpolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, place: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    catalog, overrides = Path(shutil.copytree(ROOT / "recipes", tmp_path / "recipes")), [f"task.name='{value}'"]
    if place == "catalog":
        file = catalog / "task/custom.yaml"
        file.write_text(file.read_text().replace("name: custom", f"name: {value}"))
        overrides = ["task=custom"]
    with pytest.raises(UserError) as caught:
        compose_recipe(overrides, catalog)
    assert "hf_secret" not in str(caught.value)


def test_a_value_may_refer_to_another_key() -> None:
    assert (
        compose_recipe(["evaluate.batch_size=${train.batch_size}", "train.batch_size=24"])["evaluate"]["batch_size"]
        == 24
    )


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """A composed params.yaml with two edits by hand."""
    file = tmp_path / "params.yaml"
    write(["task=mrpc", "train.learning_rate=3e-05"], file)
    text = file.read_text(encoding="utf-8")
    for before, after in (("max_steps: null", "max_steps: 100"), ("save_steps: ", "save_steps: 7  # ")):
        assert text.count(before) == 1
        text = text.replace(before, after)
    file.write_text(text, encoding="utf-8")
    return file


def check(overrides: list[str], file: Path) -> None:
    check_edits(compose_recipe(overrides, CATALOG), overrides, file, CATALOG)


def test_edits_by_hand_that_composing_would_lose_are_shown_with_the_command_that_keeps_them(edited: Path) -> None:
    with pytest.raises(UserError) as refused:
        check(["task=sst2"], edited)
    assert refused.value.problem.endswith("train.max_steps=100, run.save_steps=7")
    keeping = "reprise compose task=sst2 train.max_steps=100 run.save_steps=7"
    assert refused.value.expected == f"`{keeping}` to keep it, or --force"
    check(shlex.split(keeping)[2:], edited)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.max_steps=5", "run.save_steps=9"],  # the command names them
        ["train=default", "run.save_steps=9"],  # and chooses the section anew
        ["train.max_steps=100", "run.save_steps=7"],  # the same values
    ],
)
def test_edits_that_the_command_replaces_are_not_lost(edited: Path, overrides: list[str]) -> None:
    check(overrides, edited)


def test_what_an_earlier_command_set_is_no_edit(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    write(["task=mrpc", "train.learning_rate=3e-05", "task.labels=[a, b]", "task.positive_label=a"], file)
    check(["task=sst2"], file)


def test_nothing_is_known_about_a_file_that_no_command_made(edited: Path) -> None:
    edited.write_text(edited.read_text(encoding="utf-8").replace("# Made by: ", "# By hand: "), encoding="utf-8")
    check(["task=sst2"], edited)
    edited.unlink()
    check(["task=sst2"], edited)


ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
DOUBLED = "name: " + "${x}" * 2 + "\n" + "".join(f"x{n}: ${{x{n + 1}}}${{x{n + 1}}}\n" for n in range(30))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (ALIASES.encode(), "aliases expand"),
        (b"a: " + b"x" * 10_000_000, "too long"),
        (b"a: " + b"[" * 50_000, "nested too deeply"),
        (b"seed: 2020-13-45", ""),
        (b"seed: " + b"9" * 5000, ""),
        (b"# @package _global_\n" + DOUBLED.encode(), "interpolations"),
        (b"# @package _global_\nseed: ${seed}", ""),
        (b"\xff", "not UTF-8"),
    ],
    ids=["aliases", "long", "deep", "date", "digits", "interpolations", "itself", "not UTF-8"],
)
def test_a_file_of_the_catalog_that_expands_or_cannot_be_read_is_one_line(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    catalog = Path(shutil.copytree(ROOT / "recipes", tmp_path / "recipes"))
    (catalog / "task/bomb.yaml").write_bytes(content)
    start = time.process_time()
    with pytest.raises(UserError) as refused:
        compose_recipe(["task=bomb"], catalog)
    assert problem in refused.value.problem
    assert len(str(refused.value)) < 500
    assert time.process_time() - start < 10


def test_a_choice_outside_of_the_catalog_is_refused(tmp_path: Path) -> None:
    catalog = Path(shutil.copytree(ROOT / "recipes", tmp_path / "recipes"))
    shutil.copyfile(catalog / "task/custom.yaml", tmp_path / "outside.yaml")
    for override in ("task=../../outside", "task=../custom"):
        with pytest.raises(UserError) as refused:
            compose_recipe([override], catalog)
        assert refused.value.key == repr(override)
