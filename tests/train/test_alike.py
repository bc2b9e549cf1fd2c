"""What hosts must have alike: how it is compared and told, and what the others take over from the first process.

Two real hosts are in tests/test_multihost.py.
"""

from pathlib import Path
from typing import Any

import pytest

from reprise.core.validation import check_recipe
from reprise.train.checkpoint import fingerprint
from reprise.train.distributed import consistency as alike
from reprise.train.distributed.consistency import RankMismatchError, abbreviate, check_consistency, diff
from tiny import Run, tiny_recipe

COMMIT, OTHER = "1a2b3c4d5e6f" + "0" * 28, "f6e5d4c3b2a1" + "0" * 28


def as_host(monkeypatch: pytest.MonkeyPatch, others: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Be a process of host 0, called a, among others that tell this of themselves."""
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setattr(alike.platform, "node", lambda: "a")
    monkeypatch.setattr(alike, "git_state", lambda: (COMMIT, False))
    monkeypatch.setattr(alike, "gather_object", lambda mine: [*mine, *others])


def test_a_host_that_is_unlike_the_first_is_named_with_what_differs_and_both_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = {"commit": COMMIT, "seed": 42}
    as_host(monkeypatch, [(0, "a", same), (1, "b", same), (2, "c", {"commit": f"{OTHER} with changes", "seed": 43})])
    with pytest.raises(RankMismatchError) as refused:
        check_consistency({"seed": 42})
    assert str(refused.value) == (
        "train: host 2 (c) differs from host 0 (a): commit f6e5d4c3b2a1 with changes instead of 1a2b3c4d5e6f; "
        "seed 43 instead of 42; expected the same commit, recipe, data and model on all hosts"
    )


def test_of_many_differences_the_first_are_told_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    as_host(monkeypatch, [(1, "b", {"commit": COMMIT, **dict.fromkeys("vwxyz", 1)})])
    with pytest.raises(
        RankMismatchError, match=r"a\): v 1 instead of 0; w 1 instead of 0; x 1 instead of 0 and 2 more; expected"
    ):
        check_consistency(dict.fromkeys("vwxyz", 0))


def test_hosts_that_have_the_same_train_and_one_host_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    as_host(monkeypatch, [(1, "b", {"commit": COMMIT, "seed": 42})])
    check_consistency({"seed": 42})
    monkeypatch.setattr(alike, "gather_object", None)
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    check_consistency({"seed": 42})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("data/prepared/card.json", "data/prepared/card.json {has} instead of {expected}"),
        ("environment.json", "environment.json {has} instead of none"),
        ("models/pretrained/model/config.json", "models/pretrained/model/config.json {has} instead of {expected}"),
    ],
)
def test_a_file_that_differs_is_named_with_its_digests(at: Path, name: str, words: str) -> None:
    recipe = check_recipe(tiny_recipe(), "recipe")
    before = fingerprint(recipe)
    with (at / name).open("a") as file:
        file.write("\n")
    after = fingerprint(recipe)
    expected = words.format(has=after[name][:12], expected=str(before[name])[:12])
    assert diff(after, before) == [expected]
    assert diff(before, before) == []


def test_a_key_of_the_recipe_is_named_as_params_yaml_has_it() -> None:
    before, after = ({"train.epochs": 2, "task.labels": ["a"]}, {"train.epochs": 3, "task.labels": ["a", "b"]})
    assert diff(after, before) == [
        "train.epochs 3 instead of 2", 'task.labels ["a", "b"] instead of ["a"]'
    ]  # fmt: skip


def test_what_one_side_lacks_is_none() -> None:
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
said = broadcast_object({"folder": "here"} if first else None)
torch.manual_seed(0)
expected = {"a": torch.rand(3, 2), "b": torch.rand(()), "c": torch.rand(2).bfloat16()}
same = [(name, tensor.dtype) for name, tensor in received.items() if torch.equal(tensor, expected[name])]
print(f"{world.process_index} {said} {same}\\n", end="")  # in one piece: the other process prints, too
world.destroy_process_group()
"""


def test_every_process_has_what_the_first_one_gives_bit_for_bit(tmp_path: Path, run: Run) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    two = ("python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "program.py")
    said = run(tmp_path, *two, env={"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}).stdout.splitlines()
    same = "{'folder': 'here'} [('a', torch.float32), ('b', torch.float32), ('c', torch.bfloat16)]"
    assert sorted(said) == [f"0 {same}", f"1 {same}"]
