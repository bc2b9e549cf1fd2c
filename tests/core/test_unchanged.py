"""A recipe that is edited while a stage runs is refused if the stage read what was edited."""

from pathlib import Path
from typing import Any

import pytest

from reprise.core.errors import UserError
from reprise.core.unchanged import InputChangedError, check_unchanged
from reprise.core.validation import read_recipe
from tiny import write_params

READ = [
    ("sources", "task.source.train", "data/own/other.csv"),
    ("fetch-data", "task.source.train", "data/own/other.csv"),
    ("fetch-model", "model.source.path", "data/own/other"),
    ("prepare", "task.filter", None),
    ("prepare", "train.max_length", 15),
    ("check-data", "task.metrics", ["f1"]),
    ("check-data", "data.checks.truncated.warn", 0.5),
    ("teacher", "train.threads", 3),
    ("preflight", "train.num_hidden_layers", 1),
    ("preflight", "seed", 1),
    ("train", "train.learning_rate", 1.0),
    ("train", "train.lora", {"rank": 1, "alpha": 1.0, "targets": "all-linear"}),
    ("train", "evaluate.batch_size", 1),
    ("evaluate", "evaluate.bootstrap_resamples", 101),
]
NOT_READ = [
    ("fetch-data", "model.source.path", "data/own/other"),
    ("prepare", "train.learning_rate", 1.0),
    ("teacher", "train.learning_rate", 1.0),
    ("train", "run.save_steps", 1),
    ("train", "data.checks.truncated.fail", 0.5),
    ("train", "evaluate.bootstrap_resamples", 101),
    ("evaluate", "train.learning_rate", 1.0),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tiny recipe into an empty folder, and go there."""
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("stage", "key", "value"), READ)
def test_edit_of_a_key_that_the_stage_read_is_refused(stage: str, key: str, value: Any) -> None:
    recipe = read_recipe()
    check_unchanged(recipe, stage)
    write_params(Path(), **{key: value})
    with pytest.raises(InputChangedError) as refused:
        check_unchanged(recipe, stage)
    assert (refused.value.file, refused.value.key) == ("params.yaml", key)


@pytest.mark.parametrize(("stage", "key", "value"), NOT_READ)
def test_edit_of_another_key_does_not_matter(stage: str, key: str, value: Any) -> None:
    recipe = read_recipe()
    write_params(Path(), **{key: value})
    check_unchanged(recipe, stage)


@pytest.mark.parametrize("text", ["", "seed: ["])
def test_recipe_that_is_half_edited_is_refused(text: str) -> None:
    recipe = read_recipe()
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        check_unchanged(recipe, "train")
    assert refused.value.file == "params.yaml"
