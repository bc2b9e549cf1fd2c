"""The train stage, in this process or beside it, on a copy of the bench."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

import tiny
from reprise.core.config import Recipe
from reprise.core.validation import check_recipe
from reprise.prepare import stage as preparing
from reprise.train import dataset as shards
from reprise.train import sampler as plan


@pytest.fixture
def at(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bench, the test's own, as the working directory."""
    folder = Path(shutil.copytree(bench, tmp_path / "bench"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def in_shards(at: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The data of the bench prepared again, in shards of so many rows."""
    rows = 16
    monkeypatch.setattr(preparing, "SHARD_ROWS", rows)
    monkeypatch.setattr(shards, "SHARD_ROWS", rows)
    monkeypatch.setattr(plan, "plan_epoch", partial(plan.plan_epoch, shard=rows))
    recipe = check_recipe(tiny.tiny_recipe(), "test")
    preparing.prepare(recipe.task, max_length=recipe.train.max_length)
    return rows


@pytest.fixture
def cook(at: Path) -> Iterator[Callable[..., Recipe]]:
    """Train in this process: `cook(**{"train.epochs": 1})` changes the tiny recipe."""
    from reprise.train.stage import launch

    def cook(**changes: Any) -> Recipe:
        AcceleratorState._reset_state(reset_partial_state=True)  # one process trains once; here it trains often
        recipe = check_recipe(tiny.tiny_recipe(**changes), "params.yaml")
        launch(recipe, "cpu")
        return recipe

    yield cook
    AcceleratorState._reset_state(reset_partial_state=True)
