"""Fixtures that train in this process, on a copy of the prepared folder."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from accelerate.state import AcceleratorState

import tiny
from reprise.core.config import Recipe
from reprise.core.validation import check_recipe
from reprise.prepare import stage as prepare_stage
from reprise.train import sampler


@pytest.fixture
def workdir(prepared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, for this test only, as the working directory."""
    folder = Path(shutil.copytree(prepared_dir, tmp_path / "prepared"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shard_rows(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Prepare the data again in shards; return the number of rows per shard."""
    rows = 16
    monkeypatch.setattr(prepare_stage, "SHARD_ROWS", rows)
    monkeypatch.setattr(sampler, "plan_epoch", partial(sampler.plan_epoch, shard=rows))
    recipe = check_recipe(tiny.tiny_recipe(), "test")
    prepare_stage.prepare(recipe.task, max_length=recipe.train.max_length)
    return rows


@pytest.fixture
def train(workdir: Path) -> Iterator[Callable[..., Recipe]]:
    """Train in this process: `train(**{"train.epochs": 1})` changes the tiny recipe."""
    from reprise.train.stage import launch

    def train(**changes: Any) -> Recipe:
        AcceleratorState._reset_state(reset_partial_state=True)  # one process trains once; here it trains often
        recipe = check_recipe(tiny.tiny_recipe(**changes), "params.yaml")
        launch(recipe, "cpu")
        return recipe

    yield train
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def type_train(workdir: Path, run: tiny.Run, reprise: tiny.Run) -> Callable[[int], str]:
    """Type `reprise train` where the launch profile has this number of processes; one rank trains in this process."""
    return lambda processes: (reprise(workdir, "train") if processes == 1 else run(workdir, "reprise", "train")).stdout


@pytest.fixture
def load_kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Load a module of kernels anew: Triton reads where a kernel is defined whether its interpreter runs it."""

    def load_kernel(name: str, *, interpreted: bool) -> ModuleType:
        monkeypatch.setenv("TRITON_INTERPRET", str(int(interpreted)))
        if interpreted:
            from triton.runtime import interpreter

            def call(function: Any, *args: Any, **options: Any) -> Any:
                scope = interpreter._patch_lang(function.fn)
                try:
                    return function.rewrite()(*args, **options)
                finally:
                    scope.restore()  # Triton's own call leaves its language patched, with which nothing compiles

            monkeypatch.setattr(interpreter.InterpretedFunction, "__call__", call)
        spec = importlib.util.find_spec(f"reprise.train.{name}")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        monkeypatch.delattr(f"reprise.train.{name}", raising=False)
        spec.loader.exec_module(module)
        return module

    return load_kernel
