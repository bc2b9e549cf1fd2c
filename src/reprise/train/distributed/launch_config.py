"""A host's share of a training, as the command line says it, and what torchrun is told of it."""

import re
from dataclasses import dataclass

from reprise.core.errors import UserError


@dataclass(frozen=True)
class LaunchConfig:
    """How many processes this host starts, and with which other hosts it trains."""

    processes: int | None = None  # None: as many as the profile of the hardware says
    nodes: int = 1
    node_rank: int = 0  # of this host among them; only the first, 0, writes
    rendezvous: str | None = None  # HOST:PORT of host 0, where they meet
    max_restarts: int = 0
    profile: str = "accelerate"  # the file in docker/<hardware>/
    timeout: int = 600  # seconds for which the others are waited for: they may have to while host 0 writes


def validate(share: LaunchConfig, hardware: str) -> None:
    """Raise an UserError where the options do not fit together, or not this hardware."""
    nodes, rank = share.nodes, share.node_rank
    if rank >= nodes:
        raise UserError(f"--node-rank: expected one of 0 to {nodes - 1}, for --nodes {nodes}; got {rank}")
    if nodes > 1 and not share.rendezvous:
        raise UserError(f"--rendezvous: expected HOST:PORT of host 0, for --nodes {nodes}; got none")
    if share.rendezvous:
        parse_endpoint(share.rendezvous)
    if hardware == "tpu" and (nodes > 1 or share.max_restarts):
        option = "--nodes" if nodes > 1 else "--max-restarts"
        raise UserError(f"{option}: a TPU trains on one host, and its processes start once; expected none")


def parse_endpoint(rendezvous: str) -> tuple[str, int]:
    """The host and the port of HOST:PORT; an IPv6 address stands in brackets there.

    Raises:
        UserError: it is not of that form.
    """
    found = re.fullmatch(r"([^\s:/]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", rendezvous)
    if not found or not 0 < int(found[2]) < 2**16:
        raise UserError(f"--rendezvous: expected HOST:PORT, such as 10.0.0.1:29500; got {rendezvous!r}")
    return found[1].strip("[]"), int(found[2])


def torchrun_args(processes: int, share: LaunchConfig) -> list[str]:
    """The module and the arguments with which Python starts this host's processes.

    torchrun numbers hosts in the order of their addresses, whatever their rank. So each gives one that sorts in its
    place: host 0 where they meet, which is the only one that anybody calls, and the others what follows upon it.
    """
    started = [
        "reprise.train.distributed.torchrun",
        f"--nproc-per-node={processes}",
        f"--max-restarts={share.max_restarts}",
    ]
    if not share.rendezvous or share.nodes == 1:
        return [*started, "--standalone"]
    first, _ = parse_endpoint(share.rendezvous)
    return [
        *started,
        f"--nnodes={share.nodes}",
        "--rdzv-backend=c10d",
        # Not the run's fingerprint: hosts with other recipes must meet, to be told that they have.
        "--rdzv-id=reprise",
        f"--rdzv-endpoint={share.rendezvous}",
        f"--rdzv-conf=is_host={int(share.node_rank == 0)},join_timeout={share.timeout},read_timeout={share.timeout}",
        f"--local-addr={f'{first}~{share.node_rank:06d}' if share.node_rank else first}",
    ]
