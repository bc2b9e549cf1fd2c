"""deploy/slurm/train.sbatch on a real cluster of two nodes: stopped by any means, it ends with the same bits.

`make test-slurm` brings the cluster up (slurm_cluster.py); root on a Debian is needed. What the job has to end with is
what `dvc repro` makes here in as many processes.
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
    """A cluster of two nodes, gone afterwards."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="module")
def prepared(kitchen: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The kitchen with a training that is long enough to be stopped, up to train. Do not change."""
    folder = Path(shutil.copytree(kitchen, tmp_path_factory.mktemp("prepared") / "kitchen", symlinks=True))
    write_params(folder, **LONG)
    run(folder, "dvc", "repro", "prepare")
    return folder


@pytest.fixture(scope="module")
def unbroken(prepared: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The same, cooked by two processes of one machine that nobody stopped. Do not change."""
    folder = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("unbroken") / "kitchen", symlinks=True))
    run(folder, "dvc", "repro", env={"REPRISE_PROCESSES": "2"})
    return folder


class Job:
    """A job of the script, submitted in a checkout as a user does; both nodes see the checkout."""

    def __init__(self, slurm: Cluster, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        self.trainings = 0  # of the sessions that were seen to train
        (port,) = free_ports(1)
        env = {"REPRISE_RENDEZVOUS": f"localhost:{port}"}  # the nodes' names lead nowhere here
        self.number = slurm.call("sbatch", "--parsable", SCRIPT, folder=folder, env=env).strip()

    @property
    def log(self) -> str:
        """All that the job has said."""
        log = self.folder / f"slurm-{self.number}.out"
        return log.read_text() if log.exists() else ""

    @property
    def state(self) -> str:
        """RUNNING, PENDING, COMPLETED, FAILED, …"""
        return re.findall(r"JobState=(\w+)", self.slurm.call("scontrol", "show", "job", self.number))[0]

    def until(self, seen: Callable[[], object]) -> None:
        """Wait until something is to be seen, and fail if the job fails before."""

        def seen_or_failed() -> bool:
            return bool(seen()) or self.state in ("FAILED", "TIMEOUT")

        self.slurm.until(seen_or_failed, lambda: f"job {self.number}: {self.state}\n{self.log}")
        assert seen(), f"job {self.number}: {self.state}\n{self.log}"

    def in_the_middle(self) -> int:
        """Wait until it trains and has kept some steps more than the session before, and return how many in all."""
        self.until(lambda: self.log.count("processes: 2") > self.trainings)
        self.trainings += 1
        before = kept(self.folder)
        self.until(lambda: kept(self.folder) > before + 10)
        return kept(self.folder)


def kept(folder: Path) -> int:
    """The steps of the newest checkpoint."""
    return max((position(found)[0] for found in checkpoints(folder)), default=0)


def cancel(job: Job) -> Job:
    """As a user does, who then thinks better of it and submits the job anew."""
    job.slurm.call("scancel", job.number)
    job.until(lambda: not job.slurm.call("squeue", "--noheader"))
    assert job.state == "CANCELLED"
    return Job(job.slurm, job.folder)


def requeue(job: Job) -> Job:
    """As a pre-emption does: SIGTERM to everything, and the job is queued again."""
    job.slurm.call("scontrol", "requeue", job.number)
    return job


def say_that_time_is_up(job: Job) -> Job:
    """As `--signal` and GraceTime do: SIGTERM to the steps alone, and the job runs on."""
    job.slurm.call("scancel", "--signal=TERM", job.number)
    return job


def lose_a_node(job: Job) -> Job:
    """As a power cut does: nothing on the second node is left. Then it comes back."""
    job.slurm.fail_node("node2")
    job.until(lambda: job.state == "PENDING")
    job.slurm.start_node("node2")
    return job


def test_stopped_in_every_way_it_goes_on_from_a_checkpoint_and_ends_with_the_bits_of_an_unbroken_run(
    slurm: Cluster, prepared: Path, unbroken: Path, tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(prepared, tmp_path / "kitchen", symlinks=True))
    job, at_least = Job(slurm, folder), []
    for stop in (cancel, requeue, say_that_time_is_up, lose_a_node):
        at_least.append(job.in_the_middle())
        job = stop(job)
        print(f"slurm: {stop.__name__} at step {at_least[-1]}/{STEPS}", flush=True)
    job.until(lambda: job.state == "COMPLETED")
    log = "".join(file.read_text() for file in sorted(folder.glob("slurm-*.out")))
    print(re.sub(r"train: epoch .*\n", "", log))
    sessions = re.findall(r"job (\d+), session (\d+) on node\[1-2\], ", log)
    assert sessions == [(sessions[0][0], "1"), *((job.number, session) for session in "1234")]
    assert log.count("processes: 2") == len(sessions)
    gone_on = [int(step) for step in re.findall(rf"train: goes on after step (\d+)/{STEPS}", log)]
    assert all(least <= step < STEPS for least, step in zip(at_least, gone_on, strict=True)), (at_least, gone_on)
    assert results(folder) == results(unbroken)
    assert re.findall(r"Running stage '(\w+)'", run(folder, "dvc", "repro").stdout) == ["environment"]


def test_a_recipe_that_was_cooked_before_is_restored_and_no_node_waits_for_another(
    slurm: Cluster, unbroken: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "kitchen", symlinks=True))
    shutil.rmtree(folder / "models/final")
    (folder / "dvc.lock").unlink()
    job = Job(slurm, folder)
    job.until(lambda: job.state == "COMPLETED")
    assert "train on 2 nodes" not in job.log
    assert results(folder) == results(unbroken)
