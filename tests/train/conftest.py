"""Fixtures for tests of training, besides those of tests/conftest.py that train in this process."""

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tiny
from reprise.core.validation import check_recipe
from reprise.prepare import stage as prepare_stage
from reprise.train import sampler


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
