"""Consistency between hosts: the comparison and its error message, and broadcasts from the main process.

Two real hosts are in tests/deploy/test_multihost.py.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from reprise.core.validation import check_recipe
from reprise.train.checkpoint import fingerprint
from reprise.train.distributed import consistency
from reprise.train.distributed.consistency import RankMismatchError, abbreviate, check_consistency, diff
from tiny import Run, tiny_recipe

COMMIT, OTHER = "1a2b3c4d5e6f" + "0" * 28, "f6e5d4c3b2a1" + "0" * 28


def as_host(monkeypatch: pytest.MonkeyPatch, others: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Make this process one of host 0, called a; the others report these contents."""
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setattr(consistency.platform, "node", lambda: "a")
    monkeypatch.setattr(consistency, "git_state", lambda: (COMMIT, False))
    monkeypatch.setattr(consistency, "gather_object", lambda mine: [*mine, *others])


def test_error_names_the_differing_host_and_both_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = {"commit": COMMIT, "seed": 42}
    as_host(monkeypatch, [(0, "a", same), (1, "b", same), (2, "c", {"commit": f"{OTHER} with changes", "seed": 43})])
    with pytest.raises(RankMismatchError) as refused:
        check_consistency({"seed": 42})
    assert refused.value.problem == (
        "host 2 (c) differs from host 0 (a): commit f6e5d4c3b2a1 with changes instead of 1a2b3c4d5e6f; "
        "seed 43 instead of 42"
    )


def test_error_lists_the_first_differences_and_counts_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    as_host(monkeypatch, [(1, "b", {"commit": COMMIT, **dict.fromkeys("vwxyz", 1)})])
    with pytest.raises(
        RankMismatchError, match=r"a\): v 1 instead of 0; w 1 instead of 0; x 1 instead of 0 and 2 more; expected"
    ):
        check_consistency(dict.fromkeys("vwxyz", 0))


def test_equal_hosts_pass_and_a_single_host_compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    as_host(monkeypatch, [(1, "b", {"commit": COMMIT, "seed": 42})])
    check_consistency({"seed": 42})
    monkeypatch.setattr(consistency, "gather_object", None)
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    check_consistency({"seed": 42})


def test_hosts_with_other_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    as_host(monkeypatch, [(1, "b", {"commit": COMMIT, "seed": 42, "GPU": "NVIDIA L4"})])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    with pytest.raises(RankMismatchError) as refused:
        check_consistency({"seed": 42})
    assert refused.value.problem.endswith("(a): GPU NVIDIA L4 instead of NVIDIA H100 80GB HBM3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data/prepared/stats.json", "data/prepared/stats.json {has} instead of {expected}"),
        ("environment.json", "environment.json {has} instead of none"),
        ("models/pretrained/model/config.json", "models/pretrained/model/config.json {has} instead of {expected}"),
    ],
)
def test_differing_file_is_listed_with_its_digests(workdir: Path, name: str, message: str) -> None:
    recipe = check_recipe(tiny_recipe(), "recipe")
    before = fingerprint(recipe)
    with (workdir / name).open("a") as file:
        file.write("\n")
    after = fingerprint(recipe)
    expected = message.format(has=after[name][:12], expected=str(before[name])[:12])
    assert diff(after, before) == [expected]
    assert diff(before, before) == []


def test_differing_recipe_key_is_listed_by_its_dotted_name() -> None:
    before, after = ({"train.epochs": 2, "task.labels": ["a"]}, {"train.epochs": 3, "task.labels": ["a", "b"]})
    assert diff(after, before) == [
        "train.epochs 3 instead of 2", 'task.labels ["a", "b"] instead of ["a"]'
    ]  # fmt: skip


def test_missing_value_is_listed_as_none() -> None:
    assert diff({"new.py": "0" * 64}, {"old.py": "f" * 64}) == [
        "old.py none instead of ffffffffffff", "new.py 000000000000 instead of none"
    ]  # fmt: skip
    assert abbreviate("bf16") == "bf16"


PROGRAM = """
import torch
from accelerate import PartialState
from reprise.train.distributed.consistency import broadcast_object, broadcast_tensors

world = PartialState(cpu=True)
first = world.is_main_process
torch.manual_seed(world.process_index)
given = {"a": torch.rand(3, 2), "b": torch.rand(()), "c": torch.rand(2).bfloat16()} if first else {}
received = broadcast_tensors(world, given)
content = broadcast_object({"folder": "here"} if first else None)
torch.manual_seed(0)
expected = {"a": torch.rand(3, 2), "b": torch.rand(()), "c": torch.rand(2).bfloat16()}
same = [(name, tensor.dtype) for name, tensor in received.items() if torch.equal(tensor, expected[name])]
print(f"{world.process_index} {content} {same}\\n", end="")  # in one piece: the other process prints, too
world.destroy_process_group()
"""


def test_broadcast_gives_every_rank_the_same_bits(tmp_path: Path, run: Run) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    two = ("python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "program.py")
    output = run(tmp_path, *two, env={"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}).stdout.splitlines()
    same = "{'folder': 'here'} [('a', torch.float32), ('b', torch.float32), ('c', torch.bfloat16)]"
    assert sorted(output) == [f"0 {same}", f"1 {same}"]
