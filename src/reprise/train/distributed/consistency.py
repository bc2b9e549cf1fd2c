"""What all ranks have in common: the inputs, a restored checkpoint, and when to stop.

Hosts need no common disk. Each has its own checkout, data and pretrained model, which must equal those of host 0.
Checkpoints are on host 0, which broadcasts what it reads.
"""

import json
import os
import platform
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object, reduce

from reprise.core.errors import UserError
from reprise.train.provenance import git_state

T = TypeVar("T")

MAX_SHOWN = 3  # differences; another commit may cause many


class RankMismatchError(UserError):
    """Raised by every rank together, so that no rank blocks and torchrun does not restart."""


def is_single_node() -> bool:
    """Return whether all ranks are on this host and so read the same files."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1")) == 1


def check_consistency(fingerprint: Mapping[str, Any]) -> None:
    """Compare the commit, the kind of GPU and everything else that determines the weights between hosts.

    Raises:
        RankMismatchError: a host differs from host 0.
    """
    if is_single_node():
        return
    commit, dirty = git_state()
    content = {"commit": f"{commit} with changes" if dirty else commit, **fingerprint}
    if torch.cuda.is_available():
        content["GPU"] = torch.cuda.get_device_name()
    mine = (int(os.environ["GROUP_RANK"]), platform.node(), content)
    (_, first, expected), *others = gather_object([mine])
    for host, name, found in others:
        differences = diff(found, expected)
        if differences:
            more = f" and {len(differences) - MAX_SHOWN} more" if len(differences) > MAX_SHOWN else ""
            raise RankMismatchError(
                f"host {host} ({name}) differs from host 0 ({first}): {'; '.join(differences[:MAX_SHOWN])}{more}",
                key="train",
                expected="the same commit, recipe, data, model and kind of GPU on all hosts",
            )


def diff(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """List the differences, each with both values; "none" for a missing one."""
    names = [*expected, *(name for name in found if name not in expected)]
    return [
        f"{name} {abbreviate(found.get(name))} instead of {abbreviate(expected.get(name))}"
        for name in names
        if found.get(name) != expected.get(name)
    ]


def abbreviate(value: Any) -> str:
    """Format a value for people; digests and commits are cut to 12 digits."""
    if value is None:
        return "none"
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b", r"\1", value) if isinstance(value, str) else json.dumps(value)


def any_rank(world: PartialState, flag: bool) -> bool:
    """Return, on every rank, whether the flag is set on any."""
    return bool(reduce(torch.tensor(float(flag), device=world.device), "sum").item())


def broadcast_object(content: T) -> T:
    """Return the main process's object on every rank."""
    (received,) = broadcast_object_list([content])
    return received  # type: ignore[no-any-return]


def broadcast_tensors(world: PartialState, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the main process's tensors on every rank, in host memory.

    They are sent one at a time, so that a device holds only the largest.
    """
    received = {}
    for name, shape, dtype in broadcast_object(
        [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]
    ):
        mine = tensors[name] if world.is_main_process else torch.empty(shape, dtype=dtype)
        received[name] = broadcast(mine.to(world.device)).cpu()
    return received
