"""What all processes of a training have alike, on however many hosts: what goes into it, and a checkpoint's content.

Hosts need not share a disk. Each brings its own checkout, data and pretrained model, which must be those of host 0; the
checkpoints are the first process's, which hands on what it has read.
"""

import json
import os
import platform
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object

from reprise.core.errors import UserError
from reprise.train.provenance import git_state

T = TypeVar("T")

MAX_SHOWN = 3  # differences; where the commit is another, much is


class RankMismatchError(UserError):
    """Bad input that every process finds alike: none of them waits for another, and none need start again."""


def is_single_node() -> bool:
    """Whether all processes of the training are on this host, and so read the same files."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1")) == 1


def check_consistency(ingredients: Mapping[str, Any]) -> None:
    """Compare the commit and everything that decides the weights between the hosts of a training.

    Raises:
        Unlike: a host has something else than host 0.
    """
    if is_single_node():
        return
    commit, dirty = git_state()
    told = {"commit": f"{commit} with changes" if dirty else commit, **ingredients}
    mine = (int(os.environ["GROUP_RANK"]), platform.node(), told)
    (_, first, expected), *others = gather_object([mine])
    for host, name, has in others:
        apart = diff(has, expected)
        if apart:
            more = f" and {len(apart) - MAX_SHOWN} more" if len(apart) > MAX_SHOWN else ""
            raise RankMismatchError(
                f"train: host {host} ({name}) is unlike host 0 ({first}): {'; '.join(apart[:MAX_SHOWN])}{more}; "
                "expected the same commit, recipe, data and model on all hosts"
            )


def diff(has: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What is not as expected, each in a few words with both values; "none" for what one side lacks."""
    names = [*expected, *(name for name in has if name not in expected)]
    return [
        f"{name} {abbreviate(has.get(name))} instead of {abbreviate(expected.get(name))}"
        for name in names
        if has.get(name) != expected.get(name)
    ]


def abbreviate(value: Any) -> str:
    """A value as people compare it: of a digest or a commit the first digits."""
    if value is None:
        return "none"
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b", r"\1", value) if isinstance(value, str) else json.dumps(value)


def broadcast_object(content: T) -> T:
    """What the first process gives, on every process; what the others give is left out."""
    (given,) = broadcast_object_list([content])
    return given  # type: ignore[no-any-return]


def broadcast_tensors(world: PartialState, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that the first process gives, in the memory of every process's host.

    They travel one at a time, so a device needs room for the largest alone.
    """
    received = {}
    for name, shape, dtype in broadcast_object(
        [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]
    ):
        mine = tensors[name] if world.is_main_process else torch.empty(shape, dtype=dtype)
        received[name] = broadcast(mine.to(world.device)).cpu()
    return received
