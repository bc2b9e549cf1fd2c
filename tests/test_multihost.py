"""Two hosts train together: network namespaces that a cable joins, each with a checkout and a disk of its own.

`make test-multihost`, as root on Linux. Host 0 has the address 10.77.0.1; each calls its end of the cable eth0.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest

import interrupts
from interrupts import Running, checkpoints, position, results
from reprise.train.checkpoint import verify_manifest
from tiny import Run, write_params

pytestmark = [
    pytest.mark.multihost,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces"),
]

STEPS = 180
LONG = {"train.epochs": 20, "run.save_steps": 5}
TIMEOUT = 40  # seconds for which the hosts wait for one another, also where a busy machine starts them


BEGINS = "train: tiny on 144 rows, cpu:0, fp32, processes: 2, threads: 1\n"
LOST = (
    "reprise train: one of 2 processes on 2 hosts failed or was lost; its error stands above, and the same command "
    "goes on from the last checkpoint"
)


@dataclass(frozen=True)
class Host:
    """One of the two: its rank, its network namespace, and the folder on its disk."""

    rank: int
    space: str
    folder: Path

    def type(self, *command: str, **env: str) -> Running:
        """Type a command on this host, which trains with the other one."""
        named = ("unshare", "--uts", "sh", "-c", f'hostname host-{self.rank} && exec "$@"', "sh")
        return Running(
            self.folder, "ip", "netns", "exec", self.space, *named, *command,
            env={
                "REPRISE_NODES": "2", "REPRISE_NODE_RANK": str(self.rank), "REPRISE_RENDEZVOUS": "10.77.0.1:29500",
                "REPRISE_TIMEOUT": str(TIMEOUT), "GLOO_SOCKET_IFNAME": "eth0", **env,
            },
        )  # fmt: skip

    def cable(self, state: str) -> None:
        """Plug in this end of the cable ("up"), or pull it out ("down")."""
        ip("-n", self.space, "link", "set", "eth0", state)

    def whole(self) -> list[tuple[int, int]]:
        """The steps and epochs of the checkpoints on this host's disk, each of which must be whole."""
        found = checkpoints(self.folder)
        assert [verify_manifest(checkpoint) for checkpoint in found] == [None] * len(found)
        return [position(checkpoint) for checkpoint in found]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six programs start for each training here; on a busy machine that takes minutes."""
    monkeypatch.setattr(interrupts, "TIMEOUT_S", 400.0)


@pytest.fixture(scope="module")
def spaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces, joined by a cable."""
    names = tuple(f"reprise-{os.getpid()}-{rank}" for rank in (0, 1))
    with ExitStack() as after:
        for name in names:
            ip("netns", "add", name)
            after.callback(ip, "netns", "delete", name)  # and the cable with it
        ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for rank, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.77.0.{rank + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names[0], names[1]


@pytest.fixture(scope="module")
def prepared(kitchen: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A longer training, committed, with everything that comes before train. Do not change."""
    folder = Path(shutil.copytree(kitchen, tmp_path_factory.mktemp("prepared") / "kitchen", symlinks=True))
    write_params(folder, **LONG)
    run(folder, "git", "commit", "-qam", "Train longer")
    run(folder, "dvc", "repro", "environment", "prepare")
    return folder


@pytest.fixture
def hosts(prepared: Path, spaces: tuple[str, str], tmp_path: Path) -> tuple[Host, Host]:
    """The two hosts before a training, the test's own."""
    first, second = (
        Host(rank, space, Path(shutil.copytree(prepared, tmp_path / f"disk-{rank}" / "kitchen", symlinks=True)))
        for rank, space in enumerate(spaces)
    )
    first.cable("up")
    return first, second


@pytest.fixture(scope="module")
def one_host(prepared: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> dict[str, bytes]:
    """The results of one host that trains in two processes, undisturbed."""
    folder = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("one-host") / "kitchen", symlinks=True))
    assert BEGINS in run(folder, "reprise", "train", env={"REPRISE_PROCESSES": "2"}).stdout
    return results(folder)


def process_of(host: Running) -> psutil.Process:
    """The process that trains on a host."""
    (found,) = (
        process
        for process in psutil.Process(host.process.pid).children(recursive=True)
        if process.cmdline()[1:] == ["-u", "-m", "reprise.train.worker"]
    )
    return found


def last_line(host: Running) -> str:
    """The last that a host said of what went wrong; all of it is printed."""
    print(f"\n{' '.join(host.command[-2:])} said:\n{host.stderr}", flush=True)
    return host.stderr.splitlines()[-1]


def test_two_hosts_give_the_bits_of_two_processes_on_one_and_the_second_one_writes_nothing(
    hosts: tuple[Host, Host], one_host: dict[str, bytes], run: Run
) -> None:
    first, second = hosts
    before = files_of(second)
    with second.type("reprise", "train") as other, first.type("dvc", "repro", "train") as cooking:
        said = cooking.end()
        assert other.end() == "train: host 1 of 2, they meet at 10.77.0.1:29500\n"
    assert BEGINS in said
    assert results(first.folder) == one_host
    assert files_of(second) == before


def files_of(host: Host) -> set[Path]:
    """Every file in a host's checkout; of Python's caches none."""
    return {path for path in host.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_a_host_with_another_commit_recipe_or_data_is_named_and_both_end_before_any_step(
    hosts: tuple[Host, Host], run: Run
) -> None:
    first, second = hosts
    write_params(second.folder, **LONG, seed=43)
    run(second.folder, "git", "commit", "-qam", "Another seed")
    with (second.folder / "data/prepared/stats.json").open("a") as card:
        card.write("\n")
    with second.type("reprise", "train") as other, first.type("reprise", "train") as training:
        for host in (other, training):
            assert "they meet at 10.77.0.1:29500\n" in host.end(2)
    commits = [run(host.folder, "git", "rev-parse", "HEAD").stdout[:12] for host in (second, first)]
    expected = (
        "reprise: error: train: host 1 (host-1) is unlike host 0 (host-0): "
        rf"commit {commits[0]} instead of {commits[1]}; seed 43 instead of 42; "
        r"data/prepared/stats.json [0-9a-f]{12} instead of [0-9a-f]{12}; "
        "expected the same commit, recipe, data and model on all hosts"
    )
    for line in {last_line(training), last_line(other)}:
        assert re.fullmatch(re.sub(r"([()])", r"\\\1", expected), line)
    assert training.stderr == other.stderr
    assert not checkpoints(first.folder)


def test_a_link_that_is_cut_ends_both_within_the_time_and_the_run_goes_on_once_it_is_mended(
    hosts: tuple[Host, Host], one_host: dict[str, bytes]
) -> None:
    first, second = hosts
    with second.type("reprise", "train") as other, first.type("reprise", "train") as training:
        training.until(lambda: checkpoints(first.folder))
        first.cable("down")
        cut = time.monotonic()
        ends = until_both_end(training, other)
    first.cable("up")
    print(f"\nmultihost: the cable was pulled; the hosts ended after {ends - cut:.0f} s, of {TIMEOUT}")
    assert [last_line(host) for host in (training, other)] == [LOST, LOST]
    (steps, _) = first.whole()[-1]
    assert 0 < steps < STEPS
    assert not checkpoints(second.folder)

    with second.type("reprise", "train") as other, first.type("reprise", "train") as training:
        said = training.end()
        other.end()
    assert f"train: goes on after step {steps}/{STEPS}" in said
    assert results(first.folder) == one_host


def until_both_end(*running: Running) -> float:
    """Wait until both have failed; return when."""
    for one in running:
        one.end(1)
    return time.monotonic()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_starts_again_and_ends_with_the_same_bits(
    hosts: tuple[Host, Host], one_host: dict[str, bytes], rank: int
) -> None:
    first, second = hosts
    again = {"REPRISE_MAX_RESTARTS": "1"}
    with second.type("reprise", "train", **again) as other, first.type("reprise", "train", **again) as training:
        training.until(lambda: checkpoints(first.folder))
        process_of((training, other)[rank]).send_signal(signal.SIGKILL)
        said = training.end()
        other.end()
    assert said.count(BEGINS) == 2
    assert re.search(rf"train: goes on after step \d+/{STEPS}", said)
    assert results(first.folder) == one_host


def test_a_process_that_is_killed_and_may_not_start_again_ends_both_hosts(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    with second.type("reprise", "train") as other, first.type("reprise", "train") as training:
        training.until(lambda: checkpoints(first.folder))
        process_of(other).send_signal(signal.SIGKILL)
        until_both_end(training, other)
    assert [last_line(host) for host in (training, other)] == [LOST, LOST]
    assert "train: process 1 ended with SIGKILL\n" in other.stderr
    assert "train: another process or its host is lost: " in training.stderr
    assert first.whole()


def test_a_signal_on_any_host_stops_both_and_one_process_of_one_host_goes_on_with_the_same_losses(
    hosts: tuple[Host, Host], one_host: dict[str, bytes]
) -> None:
    first, second = hosts
    with second.type("reprise", "train") as other, first.type("reprise", "train") as training:
        training.until(lambda: checkpoints(first.folder))
        other.send(signal.SIGTERM)
        training.end(143)
        other.end(143)
    (stopped,) = set(re.findall(rf"reprise train: stopped after step (\d+)/{STEPS}; ", training.stderr + other.stderr))
    with first.type("reprise", "train", REPRISE_NODES="1", REPRISE_NODE_RANK="0") as alone:
        said = alone.end()
    assert f"train: goes on after step {stopped}/{STEPS}" in said
    losses, expected = (
        pd.read_csv(io.BytesIO(found["plots/train.csv"]))["loss"] for found in (results(first.folder), one_host)
    )
    print(f"\nmultihost: after step {stopped} on one process, losses differ by {abs(losses - expected).max():.1e}")
    assert abs(losses - expected).max() < 1e-5
