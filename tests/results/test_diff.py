"""Differences between results, and groups of seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from factories import make_run
from reprise.core.dvc_lock import Output
from reprise.results.diff import Difference, diff_runs, format_differences, replicate_key
from reprise.results.run import RunResult


def result(**changes: Any) -> RunResult:
    return make_run(**changes).result


def with_provenance(key: str, value: Any) -> Callable[[RunResult], RunResult]:
    return lambda run: replace(run, provenance=run.provenance | {key: value})


def test_results_that_differ_in_the_seed_are_one_group() -> None:
    assert replicate_key(result()) == replicate_key(result(seed=43))
    assert diff_runs([result()], [result(seed=43)]) == [Difference("parameter", "seed", "42", "43")]


@pytest.mark.parametrize(
    ("change", "same_group", "kind", "key"),
    [
        (lambda _: result(**{"train.epochs": 9}), False, "parameter", "train.epochs"),
        (lambda run: replace(run, code=run.code | {"src/reprise/train": "f" * 32}), False, "code",
         "src/reprise/train"),
        (lambda run: replace(run, code=run.code | {"data/own": "f" * 32}), False, "data", "data/own"),
        (lambda run: replace(run, code=run.code | {"data/own/a.csv": "f" * 64}), False, "data", "data/own/a.csv"),
        (lambda run: replace(run, outputs={**run.outputs, "data/raw": Output("fetch", "f" * 32)}), True,
         "data", "data/raw"),
        (lambda run: replace(run, outputs={**run.outputs, "data/prepared": Output("prepare", "f" * 32)}), True,
         "data", "data/prepared"),
        (with_provenance("environment.hardware", "tpu"), False, "environment", "environment.hardware"),
        (with_provenance("environment.locks.torch.txt", "f" * 64), False, "environment",
         "environment.locks.torch.txt"),
        (with_provenance("threads", 64), True, "environment", "threads"),
    ],
)  # fmt: skip
def test_differences_are_named_by_their_kind(
    change: Callable[[RunResult], RunResult], same_group: bool, kind: str, key: str
) -> None:
    before, after = result(), change(result())
    assert (replicate_key(before) == replicate_key(after)) == same_group
    assert [(each.kind, each.key) for each in diff_runs([before], [after])] == [(kind, key)]


@pytest.mark.parametrize(
    "key", ["started", "commit", "from_step", "weights.model.safetensors", "dirty", "data_order_sha256"]
)
def test_volatile_provenance_is_no_difference(key: str) -> None:
    before, after = (with_provenance(key, value)(result()) for value in ("a", "b"))
    assert diff_runs([before], [after]) == []


def test_each_difference_is_one_line_with_long_values_abbreviated() -> None:
    (image,) = format_differences(diff_runs([result()], [with_provenance("image", "sha256:" + "0" * 64)(result())]))
    assert image.endswith(" → sha256:00000…")
    assert format_differences(diff_runs([result()], [result(seed=43)])) == ["parameter: seed: 42 → 43"]
    assert format_differences([]) == ["nothing recorded in dvc.lock or provenance.json"]


def test_long_values_with_the_same_beginning_differ() -> None:
    before, after = (with_provenance("devices", ["NVIDIA H100 " * 8 + end])(result()) for end in ("a", "b"))
    assert [each.key for each in diff_runs([before], [after])] == ["devices"]


def test_a_group_with_several_values_lists_them() -> None:
    group = [result(seed=seed) for seed in (42, 43)]
    assert diff_runs(group, group) == []
    assert diff_runs(group, [result(seed=44)]) == [Difference("parameter", "seed", "42, 43", "44")]
