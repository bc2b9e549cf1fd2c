"""Tests of training on two hosts: network namespaces joined by a link, each with its own checkout and disk.

`make test-multihost`, as root on Linux. Host 0 has the address 10.77.0.1; the link is eth0 on both hosts.
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
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

STEPS = 180
LONG = {"train.epochs": 20, "run.save_steps": 5}
TIMEOUT = 180  # seconds that hosts wait for each other; long enough for a slow start on a busy machine
LOST_AFTER = 60  # the same, where a test waits until it has passed


BEGINS = "train: tiny on 144 examples, cpu:0, fp32, processes: 2, threads: 1\n"
LOST = (
    "reprise train: one of 2 processes on 2 hosts failed or was lost; its error is printed above, and the same command "
    "resumes from the last checkpoint"
)


@dataclass(frozen=True)
class Host:
    """A host: its rank, its network namespace, and its checkout."""

    rank: int
    namespace: str
    folder: Path

    def start(self, *command: str, **env: str) -> Running:
        """Start a command on this host, which trains together with the other one."""
        set_hostname = ("unshare", "--uts", "sh", "-c", f'hostname host-{self.rank} && exec "$@"', "sh")
        return Running(
            self.folder, "ip", "netns", "exec", self.namespace, *set_hostname, *command,
            env={
                "REPRISE_NODES": "2", "REPRISE_NODE_RANK": str(self.rank), "REPRISE_RENDEZVOUS": "10.77.0.1:29500",
                "REPRISE_TIMEOUT": str(TIMEOUT), "GLOO_SOCKET_IFNAME": "eth0", **env,
            },
        )  # fmt: skip

    def set_link(self, state: str) -> None:
        """Set the link of this host "up" or "down"."""
        ip("-n", self.namespace, "link", "set", "eth0", state)

    def valid_checkpoints(self) -> list[tuple[int, int]]:
        """Assert that all checkpoints on the disk of this host are valid; return their steps and epochs."""
        found = checkpoints(self.folder)
        assert [verify_manifest(checkpoint) for checkpoint in found] == [None] * len(found)
        return [position(checkpoint) for checkpoint in found]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture(autouse=True)
def long_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each training starts six processes here, which takes minutes on a busy machine."""
    monkeypatch.setattr(interrupts, "TIMEOUT_S", 400.0)


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces, joined by a virtual Ethernet link."""
    names = tuple(f"reprise-{os.getpid()}-{rank}" for rank in (0, 1))
    with ExitStack() as after:
        for name in names:
            ip("netns", "add", name)
            after.callback(ip, "netns", "delete", name)  # and the link with it
        ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for rank, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.77.0.{rank + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names[0], names[1]


@pytest.fixture(scope="module")
def prepared(repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A repository with a longer training, run up to prepare. Read-only."""
    folder = Path(shutil.copytree(repo, tmp_path_factory.mktemp("prepared") / "repo", symlinks=True))
    write_params(folder, **LONG)
    run(folder, "git", "commit", "-qam", "Train longer")
    run(folder, "dvc", "repro", "environment", "prepare")
    return folder


@pytest.fixture
def hosts(prepared: Path, namespaces: tuple[str, str], tmp_path: Path) -> tuple[Host, Host]:
    """The two hosts before training, writable."""
    first, second = (
        Host(rank, namespace, Path(shutil.copytree(prepared, tmp_path / f"disk-{rank}" / "repo", symlinks=True)))
        for rank, namespace in enumerate(namespaces)
    )
    first.set_link("up")
    return first, second


@pytest.fixture(scope="module")
def one_host(prepared: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> dict[str, bytes]:
    """The results of one host with two processes, uninterrupted."""
    folder = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("one-host") / "repo", symlinks=True))
    assert BEGINS in run(folder, "reprise", "train", env={"REPRISE_PROCESSES": "2"}).stdout
    return results(folder)


def process_of(host: Running) -> psutil.Process:
    """Return the training process of a host."""
    (found,) = (
        process
        for process in psutil.Process(host.process.pid).children(recursive=True)
        if process.cmdline()[1:] == ["-u", "-m", "reprise.train.worker"]
    )
    return found


def last_line(host: Running) -> str:
    """Return the last line of stderr of a host; print all of it."""
    print(f"\n{' '.join(host.command[-2:])}:\n{host.stderr}", flush=True)
    return host.stderr.splitlines()[-1]


def test_two_hosts_give_the_bits_of_two_processes_on_one_and_host_1_writes_nothing(
    hosts: tuple[Host, Host], one_host: dict[str, bytes], run: Run
) -> None:
    first, second = hosts
    before = files_of(second)
    with second.start("reprise", "train") as other, first.start("dvc", "repro", "train") as training:
        output = training.end()
        assert other.end() == "train: host 1 of 2, rendezvous at 10.77.0.1:29500\n"
    assert BEGINS in output
    assert results(first.folder) == one_host
    assert files_of(second) == before


def files_of(host: Host) -> set[Path]:
    """Return all files in the checkout of a host, without Python's caches."""
    return {path for path in host.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_a_host_with_another_commit_recipe_or_data_is_reported_and_both_exit_before_any_step(
    hosts: tuple[Host, Host], run: Run
) -> None:
    first, second = hosts
    write_params(second.folder, **LONG, seed=43)
    run(second.folder, "git", "commit", "-qam", "Another seed")
    with (second.folder / "data/prepared/stats.json").open("a") as stats:
        stats.write("\n")
    with second.start("reprise", "train") as other, first.start("reprise", "train") as training:
        for host in (other, training):
            assert "rendezvous at 10.77.0.1:29500\n" in host.end(2)
    commits = [run(host.folder, "git", "rev-parse", "HEAD").stdout[:12] for host in (second, first)]
    expected = (
        "reprise: error: train: host 1 (host-1) differs from host 0 (host-0): "
        rf"commit {commits[0]} instead of {commits[1]}; seed 43 instead of 42; "
        r"data/prepared/stats.json [0-9a-f]{12} instead of [0-9a-f]{12}; "
        "expected the same commit, recipe, data, model and kind of GPU on all hosts"
    )
    for line in {last_line(training), last_line(other)}:
        assert re.fullmatch(re.sub(r"([()])", r"\\\1", expected), line)
    assert training.stderr == other.stderr
    assert not checkpoints(first.folder)


def test_a_lost_link_stops_both_within_the_timeout_and_the_run_resumes_after_it_is_restored(
    hosts: tuple[Host, Host], one_host: dict[str, bytes]
) -> None:
    first, second = hosts
    soon = {"REPRISE_TIMEOUT": str(LOST_AFTER)}
    with second.start("reprise", "train", **soon) as other, first.start("reprise", "train", **soon) as training:
        training.until(lambda: checkpoints(first.folder))
        first.set_link("down")
        down = time.monotonic()
        ends = until_both_end(training, other)
    first.set_link("up")
    print(f"\nmultihost: the link was set down; the hosts exited after {ends - down:.0f} s, of {LOST_AFTER}")
    assert [last_line(host) for host in (training, other)] == [LOST, LOST]
    (steps, _) = first.valid_checkpoints()[-1]
    assert 0 < steps < STEPS
    assert not checkpoints(second.folder)

    with second.start("reprise", "train") as other, first.start("reprise", "train") as training:
        output = training.end()
        other.end()
    assert f"train: resuming from step {steps}/{STEPS}" in output
    assert results(first.folder) == one_host


def until_both_end(*running: Running) -> float:
    """Wait until both have failed; return the time."""
    for one in running:
        one.end(1)
    return time.monotonic()


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_killed_process_restarts_and_ends_with_equal_bits(
    hosts: tuple[Host, Host], one_host: dict[str, bytes], rank: int
) -> None:
    first, second = hosts
    restarts = {"REPRISE_MAX_RESTARTS": "1"}
    with second.start("reprise", "train", **restarts) as other, first.start("reprise", "train", **restarts) as training:
        training.until(lambda: checkpoints(first.folder))
        process_of((training, other)[rank]).send_signal(signal.SIGKILL)
        output = training.end()
        other.end()
    assert output.count(BEGINS) == 2
    assert re.search(rf"train: resuming from step \d+/{STEPS}", output)
    assert results(first.folder) == one_host


def test_a_killed_process_without_restarts_stops_both_hosts(hosts: tuple[Host, Host]) -> None:
    first, second = hosts
    with second.start("reprise", "train") as other, first.start("reprise", "train") as training:
        training.until(lambda: checkpoints(first.folder))
        process_of(other).send_signal(signal.SIGKILL)
        until_both_end(training, other)
    assert [last_line(host) for host in (training, other)] == [LOST, LOST]
    assert "train: process 1 ended with SIGKILL\n" in other.stderr
    assert "train: another process or its host is lost: " in training.stderr
    assert first.valid_checkpoints()


def test_a_signal_on_any_host_stops_both_and_one_process_resumes_with_the_same_losses(
    hosts: tuple[Host, Host], one_host: dict[str, bytes]
) -> None:
    first, second = hosts
    with second.start("reprise", "train") as other, first.start("reprise", "train") as training:
        training.until(lambda: checkpoints(first.folder))
        other.send(signal.SIGTERM)
        training.end(143)
        other.end(143)
    (stopped,) = set(re.findall(rf"reprise train: stopped after step (\d+)/{STEPS}; ", training.stderr + other.stderr))
    with first.start("reprise", "train", REPRISE_NODES="1", REPRISE_NODE_RANK="0") as alone:
        output = alone.end()
    assert f"train: resuming from step {stopped}/{STEPS}" in output
    losses, expected = (
        pd.read_csv(io.BytesIO(found["plots/train.csv"]))["loss"] for found in (results(first.folder), one_host)
    )
    print(f"\nmultihost: after step {stopped} on one process, losses differ by {abs(losses - expected).max():.1e}")
    assert abs(losses - expected).max() < 1e-5
