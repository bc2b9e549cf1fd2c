"""A folder with prepared data and a pretrained model, in which the train stage runs in this process or beside it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from accelerate.state import AcceleratorState

import tiny
from reprise.prepare.stage import prepare
from reprise.recipe import Recipe, check_recipe


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Everything that train reads. Do not change; `at` gives a copy."""
    folder = tmp_path_factory.mktemp("bench")
    tiny.write_params(folder)
    (folder / "data/raw/all").mkdir(parents=True)
    tiny.write_reviews(folder / "data/raw/all/reviews.csv")
    for part in ("model", "tokenizer"):
        shutil.copytree(tiny_model, folder / "models/pretrained" / part)
    shutil.copytree(tiny.ROOT / "docker", folder / "docker")
    recipe = check_recipe(tiny.tiny_recipe(), "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        prepare(recipe.task, max_length=recipe.train.max_length)
    return folder


@pytest.fixture
def at(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bench, the test's own, as the working directory."""
    folder = Path(shutil.copytree(bench, tmp_path / "bench"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def cook(at: Path) -> Iterator[Callable[..., Recipe]]:
    """Train in this process: `cook(**{"train.epochs": 1})` changes the tiny recipe."""
    from reprise.train.launch import launch

    def cook(**changes: Any) -> Recipe:
        AcceleratorState._reset_state(reset_partial_state=True)  # one process trains once; here it trains often
        recipe = check_recipe(tiny.tiny_recipe(**changes), "params.yaml")
        launch(recipe, "cpu")
        return recipe

    yield cook
    AcceleratorState._reset_state(reset_partial_state=True)
