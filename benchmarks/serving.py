"""Latency and throughput of `reprise serve`, beside a plain server of the same model; malformed requests; kill -9.

`make bench-serve MODEL=DIR` for a folder of `reprise export --format onnx` of a model of single texts.
"""

import asyncio
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import results
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.train.distributed.preemption import set_pdeathsig

CLIENTS = (1, 8, 32)
ROUNDS, SECONDS = 2, 4.0  # of load on each server with each number of clients
TEXTS = 500  # different ones
START_SECONDS = 120
MALFORMED, WARM_UP = 10_000, 1_000
HEAD = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
BAD_BODIES = (
    b"", b"{", b"[]", b"null", b'{"inputs": 1}', b'{"inputs": NaN}', b'{"inputs": []}', b'{"inputs": [["a", "b"]]}',
    b'{"inputs": "a", "x": 1}', b'{"inputs": "\xff"}', b'{"inputs": "\\ud800"}', b"[" * 5000, b'{"inputs": ["a", 1]}',
    b'{"inputs": "a", "parameters": {"top_k": -1}}', b'{"inputs": "' + b"a" * 150_000 + b'"}',
)  # fmt: skip


class Server:
    """A server in its own process, which dies with this one."""

    def __init__(self, name: str, command: list[str], port: int) -> None:
        """Start it, and wait until it is ready."""
        self.name, self.port, began = name, port, time.perf_counter()
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, preexec_fn=partial(set_pdeathsig, signal.SIGKILL)
        )
        while not asyncio.run(self._ready()):
            if self.process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                raise UserError("does not start, see above", key=name, expected="a folder with the model in ONNX")
            time.sleep(0.02)
        self.start_seconds = time.perf_counter() - began

    async def _ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status, _ = await read_answer(reader)
            writer.close()
        except OSError:
            return False
        return status == 200

    def rss_mb(self) -> float:
        """Return the memory of the process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read the status and the body of an answer.

    Raises:
        ConnectionError: the server closed the connection.
    """
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    except asyncio.IncompleteReadError:
        raise ConnectionError from None
    length = head.partition("content-length:")[2].split("\r\n")[0]
    return int(head.split()[1]), await reader.readexactly(int(length))


async def send_all(port: int, bodies: Iterable[bytes], clients: int) -> tuple[list[float], Counter[int], int]:
    """Send requests from some clients; each waits for its answer before the next.

    Returns:
        The seconds of each answer, the number of each status, and the connections that broke.
    """
    remaining = iter(bodies)
    seconds: list[float] = []
    statuses: Counter[int] = Counter()
    broken = 0

    async def client() -> None:
        nonlocal broken
        writer = None
        for body in remaining:
            try:
                if writer is None or writer.is_closing():
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                began = time.perf_counter()
                writer.write(HEAD.format(len(body)).encode() + body)
                status, _ = await read_answer(reader)
            except OSError:
                broken += 1
                writer = None
                await asyncio.sleep(0.01)
                continue
            seconds.append(time.perf_counter() - began)
            statuses[status] += 1
        if writer:
            writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, statuses, broken


def until(bodies: Iterable[bytes], seconds: float) -> Iterator[bytes]:
    """Yield bodies for some seconds."""
    ends = time.perf_counter() + seconds
    return itertools.takewhile(lambda _: time.perf_counter() < ends, bodies)


def make_bodies(folder: Path) -> Iterator[bytes]:
    """Return requests without end: texts of the tokenizer's words, as long as a sentence of a review."""
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    words = np.array(sorted(word for word in vocabulary if word.isascii() and word.isalpha()))
    draw = np.random.default_rng(0)
    sizes = draw.normal(22, 10, TEXTS).clip(2, 100).astype(int)
    texts = [" ".join(draw.choice(words, size).tolist()) for size in sizes]
    # Made before: the client has the same processors as the servers.
    return itertools.cycle([json.dumps({"inputs": text}).encode() for text in texts])


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def start(name: str, folder: Path) -> Server:
    """Start a server of a model: `reprise`, `reprise int8` or `naive`."""
    port = free_port()
    if name == "naive":
        program = [str(Path(__file__).with_name("naive_server.py")), str(folder), str(port)]
    else:
        path = folder / "onnx/model_quantized.onnx" if name.endswith("int8") else folder
        program = ["-m", "reprise", "serve", str(path), "--port", str(port)]
    return Server(name, [sys.executable, *program], port)


@contextmanager
def running(names: Iterable[str], folder: Path) -> Iterator[list[Server]]:
    """Start servers, and end them."""
    servers: list[Server] = []
    try:
        for name in names:
            print(f"bench: start {name}", flush=True)
            servers.append(start(name, folder))
        yield servers
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()


def measure(servers: list[Server], folder: Path) -> dict[str, Any]:
    """Load the servers in turn, with each number of clients, and return their latencies and rows per second."""
    seconds: dict[tuple[str, int], list[float]] = {}
    spent: Counter[tuple[str, int]] = Counter()
    bodies = make_bodies(folder)
    for server in servers:
        asyncio.run(send_all(server.port, itertools.islice(bodies, 32), 4))
    for number in range(ROUNDS):
        for clients in CLIENTS:
            for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
                print(f"bench: round {number + 1} of {ROUNDS}: {server.name}, {clients} clients", flush=True)
                began = time.perf_counter()
                found, statuses, broken = asyncio.run(send_all(server.port, until(bodies, SECONDS), clients))
                if set(statuses) != {200} or broken:
                    raise UserError(f"answered {dict(statuses)}", key=server.name, expected="200")
                spent[server.name, clients] += time.perf_counter() - began  # type: ignore[assignment]
                seconds.setdefault((server.name, clients), []).extend(found)
    return {
        server.name: {
            "start_seconds": server.start_seconds,
            "rss_mb": server.rss_mb(),
            "load": {
                str(clients): {
                    **{
                        f"p{percent}_ms": float(1000 * np.percentile(seconds[server.name, clients], percent))
                        for percent in (50, 95, 99)
                    },
                    "rows_per_second": len(seconds[server.name, clients]) / spent[server.name, clients],
                }
                for clients in CLIENTS
            },
        }
        for server in servers
    }


def send_malformed(server: Server) -> dict[str, Any]:
    """Send malformed requests, and return the answers by status, and the memory before and after."""
    asyncio.run(send_all(server.port, itertools.islice(itertools.cycle(BAD_BODIES), WARM_UP), 16))
    before = server.rss_mb()
    _, statuses, _ = asyncio.run(send_all(server.port, itertools.islice(itertools.cycle(BAD_BODIES), MALFORMED), 16))
    return {
        "requests": MALFORMED,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "rss_mb_before": before,
        "rss_mb_after": server.rss_mb(),
    }


def kill_under_load(folder: Path) -> dict[str, Any]:
    """Kill a server while 8 clients ask it, start it again, and return the seconds until it is ready."""
    server = start("reprise", folder)

    async def load_and_kill() -> tuple[Counter[int], int]:
        load = asyncio.create_task(send_all(server.port, until(make_bodies(folder), 2), 8))
        await asyncio.sleep(1)
        server.process.kill()
        _, statuses, broken = await load
        return statuses, broken

    statuses, broken = asyncio.run(load_and_kill())
    server.process.wait()
    again = start("reprise", folder)
    _, after, _ = asyncio.run(send_all(again.port, itertools.islice(make_bodies(folder), 50), 8))
    again.process.kill()
    again.process.wait()
    return {
        "answered_before": statuses[200],
        "failed_connections": broken,
        "ready_again_seconds": again.start_seconds,
        "answered_after": after[200],
    }


def show(console: Console, content: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table("server", "clients", "p50 ms", "p95 ms", "p99 ms", "rows/s", title="One text per request")
    for name, found in content["servers"].items():
        for clients, load in found["load"].items():
            times = [f"{load[f'p{percent}_ms']:.1f}" for percent in (50, 95, 99)]
            table.add_row(name, clients, *times, f"{load['rows_per_second']:.0f}")
    console.print(table)
    for name, found in content["servers"].items():
        console.print(f"{name}: ready after {found['start_seconds']:.1f} s, {found['rss_mb']:.0f} MB after the load")
    console.print(f"malformed requests: {content['malformed']}")
    console.print(f"kill -9 under load: {content['killed']}")


def main(folder: Path) -> None:
    """Measure, print the tables, and write the results."""
    with running(("reprise", "reprise int8", "naive"), folder) as servers:
        content: dict[str, Any] = {"machine": results.machine(), "servers": measure(servers, folder)}
        content["malformed"] = send_malformed(servers[0])
    content["killed"] = kill_under_load(folder)
    results.write("serving", content)
    show(Console(highlight=False), content)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
