"""Tests of deploy/slurm/train.sbatch on a real cluster of two nodes: interrupted in any way, it ends with equal bits.

`make test-slurm` starts the cluster (slurm_cluster.py); it needs root on Debian. The expected results are those of `dvc
repro` on this machine with the same number of processes.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interrupts import checkpoints, position, results
from slurm_cluster import Cluster, cluster, free_ports
from tiny import Run, write_params

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]

EPOCHS, STEPS = 40, 360
LONG = {"train.epochs": EPOCHS, "run.save_steps": 5}
SCRIPT = "deploy/slurm/train.sbatch"


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """A cluster of two nodes, removed afterwards."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="module")
def prepared(repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A repository with a training long enough to be interrupted, run up to prepare. Read-only."""
    folder = Path(shutil.copytree(repo, tmp_path_factory.mktemp("prepared") / "repo", symlinks=True))
    write_params(folder, **LONG)
    run(folder, "dvc", "repro", "prepare")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(prepared: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The same repository after an uninterrupted run with two processes on one machine. Read-only."""
    folder = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("uninterrupted") / "repo", symlinks=True))
    run(folder, "dvc", "repro", env={"REPRISE_PROCESSES": "2"})
    return folder


class Job:
    """A job of the script, submitted in a checkout like a user does; both nodes share the checkout."""

    def __init__(self, slurm: Cluster, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        self.trainings = 0  # sessions in which training was observed
        (port,) = free_ports(1)
        env = {"REPRISE_RENDEZVOUS": f"localhost:{port}"}  # the names of the nodes do not resolve here
        self.number = slurm.call("sbatch", "--parsable", SCRIPT, folder=folder, env=env).strip()

    @property
    def log(self) -> str:
        """The output of the job so far."""
        log = self.folder / f"slurm-{self.number}.out"
        return log.read_text() if log.exists() else ""

    @property
    def state(self) -> str:
        """The state of the job: RUNNING, PENDING, COMPLETED, FAILED, …"""
        return re.findall(r"JobState=(\w+)", self.slurm.call("scontrol", "show", "job", self.number))[0]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; fail if the job fails first."""

        def holds_or_failed() -> bool:
            return bool(condition()) or self.state in ("FAILED", "TIMEOUT")

        self.slurm.until(holds_or_failed, lambda: f"job {self.number}: {self.state}\n{self.log}")
        assert condition(), f"job {self.number}: {self.state}\n{self.log}"

    def train_some_steps(self) -> int:
        """Wait for checkpoints of this session; return the number of steps in the latest one."""
        self.until(lambda: self.log.count("processes: 2") > self.trainings)
        self.trainings += 1
        before = latest_step(self.folder)
        self.until(lambda: latest_step(self.folder) > before + 10)
        return latest_step(self.folder)


def latest_step(folder: Path) -> int:
    """Return the number of steps in the latest checkpoint."""
    return max((position(found)[0] for found in checkpoints(folder)), default=0)


def cancel(job: Job) -> Job:
    """Cancel the job and submit a new one, like a user does."""
    job.slurm.call("scancel", job.number)
    job.until(lambda: not job.slurm.call("squeue", "--noheader"))
    assert job.state == "CANCELLED"
    return Job(job.slurm, job.folder)


def requeue(job: Job) -> Job:
    """Requeue the job, like a pre-emption does: SIGTERM to all processes."""
    job.slurm.call("scontrol", "requeue", job.number)
    return job


def signal_steps(job: Job) -> Job:
    """Send SIGTERM to the steps only, like `--signal` and GraceTime do; the job keeps running."""
    job.slurm.call("scancel", "--signal=TERM", job.number)
    return job


def lose_a_node(job: Job) -> Job:
    """Kill all processes of the second node, like a power failure does, and start it again."""
    job.slurm.fail_node("node2")
    job.until(lambda: job.state == "PENDING")
    job.slurm.start_node("node2")
    return job


def test_interrupted_in_every_way_it_resumes_from_a_checkpoint_and_ends_with_the_bits_of_an_uninterrupted_run(
    slurm: Cluster, prepared: Path, uninterrupted: Path, tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "repo", symlinks=True))
    job, minimum_steps = Job(slurm, folder), []
    for stop in (cancel, requeue, signal_steps, lose_a_node):
        minimum_steps.append(job.train_some_steps())
        job = stop(job)
        print(f"slurm: {stop.__name__} at step {minimum_steps[-1]}/{STEPS}", flush=True)
    job.until(lambda: job.state == "COMPLETED")
    log = "".join(file.read_text() for file in sorted(folder.glob("slurm-*.out")))
    print(re.sub(r"train: epoch .*\n", "", log))
    sessions = re.findall(r"job (\d+), session (\d+) on node\[1-2\], ", log)
    assert sessions == [(sessions[0][0], "1"), *((job.number, session) for session in "1234")]
    assert log.count("processes: 2") == len(sessions)
    resumed_at = [int(step) for step in re.findall(rf"train: resuming from step (\d+)/{STEPS}", log)]
    assert all(minimum <= step < STEPS for minimum, step in zip(minimum_steps, resumed_at, strict=True)), (
        minimum_steps,
        resumed_at,
    )
    assert results(folder) == results(uninterrupted)
    assert re.findall(r"Running stage '([\w-]+)'", run(folder, "dvc", "repro").stdout) == ["environment"]


def test_a_recipe_that_was_trained_before_is_restored_without_training(
    slurm: Cluster, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "repo", symlinks=True))
    shutil.rmtree(folder / "models/final")
    (folder / "dvc.lock").unlink()
    job = Job(slurm, folder)
    job.until(lambda: job.state == "COMPLETED")
    assert "train.sbatch: train on" not in job.log
    assert results(folder) == results(uninterrupted)
