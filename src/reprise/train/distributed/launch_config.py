"""The launch options of one host, as the command line gives them, and torchrun's arguments."""

import re
from dataclasses import dataclass

from reprise.core.errors import UserError


@dataclass(frozen=True)
class LaunchConfig:
    """How many processes this host starts, and which other hosts it trains with."""

    processes: int | None = None  # None: the number in the hardware's launch profile
    nodes: int = 1
    node_rank: int = 0  # only rank 0 writes outputs
    rendezvous: str | None = None  # HOST:PORT of host 0
    max_restarts: int = 0
    profile: str = "accelerate"  # the file in docker/<hardware>/
    timeout: int = 600  # seconds to wait for other ranks, for example while host 0 writes


def validate(config: LaunchConfig, device: str) -> None:
    """Check the options against each other and against the type of device.

    Raises:
        UserError: they do not fit.
    """
    nodes, rank = config.nodes, config.node_rank
    if rank >= nodes:
        raise UserError(f"got {rank}", key="--node-rank", expected=f"one of 0 to {nodes - 1}, for --nodes {nodes}")
    if nodes > 1 and not config.rendezvous:
        raise UserError("got none", key="--rendezvous", expected=f"HOST:PORT of host 0, for --nodes {nodes}")
    if config.rendezvous:
        parse_endpoint(config.rendezvous)
    if device == "xla" and (nodes > 1 or config.max_restarts):
        option = "--nodes" if nodes > 1 else "--max-restarts"
        raise UserError("a TPU trains on one host, and its processes start once", key=option, expected="none")


def parse_endpoint(rendezvous: str) -> tuple[str, int]:
    """Split HOST:PORT into host and port; an IPv6 address is in brackets.

    Raises:
        UserError: the text has another form.
    """
    found = re.fullmatch(r"([^\s:/]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", rendezvous)
    if not found or not 0 < int(found[2]) < 2**16:
        raise UserError(f"got {rendezvous!r}", key="--rendezvous", expected="HOST:PORT, such as 10.0.0.1:29500")
    return found[1].strip("[]"), int(found[2])


def torchrun_args(processes: int, config: LaunchConfig) -> list[str]:
    """Return the module, and its arguments, with which Python starts this host's workers.

    torchrun ranks hosts by their sorted addresses and has no option for the rank. So each host passes an address that
    sorts by its rank: host 0 the rendezvous host, the only one that others connect to, and the others that name with a
    suffix.
    """
    arguments = [
        "reprise.train.distributed.torchrun",
        f"--nproc-per-node={processes}",
        f"--max-restarts={config.max_restarts}",
    ]
    if not config.rendezvous or config.nodes == 1:
        return [*arguments, "--standalone"]
    host, _ = parse_endpoint(config.rendezvous)
    return [
        *arguments,
        f"--nnodes={config.nodes}",
        "--rdzv-backend=c10d",
        # Not the run's fingerprint: hosts with different recipes must meet to report that they differ.
        "--rdzv-id=reprise",
        f"--rdzv-endpoint={config.rendezvous}",
        f"--rdzv-conf=is_host={int(config.node_rank == 0)},join_timeout={config.timeout},read_timeout={config.timeout}",
        f"--local-addr={f'{host}~{config.node_rank:06d}' if config.node_rank else host}",
    ]
