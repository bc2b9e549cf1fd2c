"""A Slurm cluster of two nodes on this machine: Slurm's own daemons and commands, in a temporary folder.

Needs root and Debian's packages, but neither systemd nor cgroups. Both nodes are this machine under two names, so they
share its file system and communicate over localhost.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PACKAGES = {"munged": "munge", "sbatch": "slurm-client", "slurmctld": "slurmctld", "slurmd": "slurmd"}
NODES = ("node1", "node2")
TIMEOUT_S = 600.0  # for any single event

# Shorter than the defaults, which are minutes: cred_expire and the scheduler interval delay a requeued job,
# SlurmdTimeout the detection of a lost node.
CONFIGURATION = """\
ClusterName=reprise
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdTimeout=10
ReturnToService=2
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@dataclass
class Cluster:
    """A running cluster, with its daemons by name (munged, slurmctld and the nodes)."""

    folder: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        """Start a daemon in the foreground of its own session, with its output in a file."""
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        self.start(name, "slurmd", "-D", "-N", name)

    def fail_node(self, name: str) -> None:
        """Send SIGKILL to all processes of a node, its daemon first, like a power failure."""
        lost = [psutil.Process(self.daemons[name].pid)]
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                environment = process.environ()  # tasks have the name of their node, and their children inherit it
                node = (environment.get("SLURM_CONF"), environment.get("SLURMD_NODENAME"))
                if node == (self.environment["SLURM_CONF"], name):
                    lost += [*(one for one in process.parents() if one.name() == "slurmstepd"), process]
        for process in lost:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.daemons[name].wait()

    def call(self, *command: str, folder: Path | None = None, env: dict[str, str] | None = None) -> str:
        """Run one of Slurm's commands; return its output."""
        environment = {**self.environment, **(env or {})}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def until(self, condition: Callable[[], object], describe: Callable[[], str]) -> None:
        """Wait until a condition holds; on timeout, fail with the text of `describe` and the logs."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"timeout\n{describe()}\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """Return the last lines of the output of each daemon."""
        return "\n".join(
            f"{log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            for log in sorted((*self.folder.glob("*.log"), *self.folder.glob("*.out")))
        )

    def stop(self) -> None:
        """Stop all daemons, the nodes with their jobs first."""
        for name in reversed(self.daemons):
            daemon = self.daemons[name]
            daemon.terminate()
            try:
                daemon.wait(timeout=30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def install() -> None:
    """Install the missing packages of Slurm from Debian.

    Raises:
        RuntimeError: this is not Debian, or the user is not root.
    """
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError("make test-slurm needs root on Debian: it starts a cluster from Debian's packages")
    if missing:
        print(f"slurm: install {' '.join(missing)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-qq", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", *command], env=environment, check=True, stdout=subprocess.DEVNULL)


def free_ports(number: int) -> list[int]:
    """Return unused ports of this machine."""
    with_port = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in with_port]
    for one in with_port:
        one.close()
    return ports


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster; stop it afterwards with all its jobs."""
    install()
    # Not in pytest's folders: munge needs a world-accessible folder, and socket paths must be short.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        port, *ports = free_ports(1 + len(NODES))
        host = socket.gethostname()
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8"
            for node, port in zip(NODES, ports, strict=True)
        )
        configuration = folder / "slurm.conf"
        configuration.write_text(CONFIGURATION.format(host=host, port=port, folder=folder, nodes=nodes))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        running = Cluster(folder, {**os.environ, "PATH": path, "SLURM_CONF": str(configuration)})
        try:
            files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "seed"}
            options = [f"--{option}={folder / name}" for option, name in files.items()]
            running.start("munged", "munged", "--foreground", f"--key-file={key}", *options)
            running.until((folder / "munge.socket").exists, lambda: "no munge.socket")
            running.start("slurmctld", "slurmctld", "-D")
            for node in NODES:
                running.start_node(node)
            running.until(lambda: idle(running) == list(NODES), lambda: f"idle: {idle(running)}")
            yield running
        finally:
            running.stop()


def idle(running: Cluster) -> list[str]:
    """Return the idle nodes."""
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"],
        env=running.environment,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()
