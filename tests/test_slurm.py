"""deploy/slurm/train.sbatch on a real cluster of two nodes: stopped by any means, it ends with the same bits.

`make test-slurm` brings the cluster up (slurm_cluster.py); root on a Debian is needed. What the job has to end with is
what `dvc repro` makes here in as many processes.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interrupting import checkpoints, place, results
from slurm_cluster import Cluster, cluster, free_ports, logs
from tiny import Run, write_params

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

EPOCHS, STEPS = 60, 540
LONG = {"train.epochs": EPOCHS, "train.checkpoint_every": 4}
SCRIPT = "deploy/slurm/train.sbatch"


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """A cluster of two nodes, gone afterwards."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="module")
def unbroken(kitchen: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> dict[str, bytes]:
    """The results of two processes on one machine that nobody stopped."""
    folder = Path(shutil.copytree(kitchen, tmp_path_factory.mktemp("unbroken") / "kitchen", symlinks=True))
    write_params(folder, **LONG)
    run(folder, "dvc", "repro", env={"REPRISE_PROCESSES": "2"})
    return results(folder)


class Job:
    """A job of the script, submitted in a checkout as a user does."""

    def __init__(self, slurm: Cluster, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        (port,) = free_ports(1)
        # The nodes' names lead nowhere here.
        env = {"REPRISE_RENDEZVOUS": f"localhost:{port}"}
        self.number = slurm.call("sbatch", "--parsable", SCRIPT, folder=folder, env=env).strip()

    @property
    def log(self) -> str:
        """All that the job has said."""
        log = self.folder / f"slurm-{self.number}.out"
        return log.read_text() if log.exists() else ""

    @property
    def state(self) -> str:
        """RUNNING, PENDING, COMPLETED, FAILED, …"""
        shown = self.slurm.call("scontrol", "--oneliner", "show", "job", self.number)
        return re.findall(r"JobState=(\w+)", shown)[0]

    def until(self, seen: Callable[[], object]) -> None:
        """Wait until something is to be seen, and fail if the job ends otherwise."""

        def seen_or_over() -> bool:
            assert self.state not in ("FAILED", "TIMEOUT", "NODE_FAIL"), f"{self.state}\n{self.log}"
            return bool(seen())

        self.slurm.until(seen_or_over, lambda: f"{self.state}\n{self.log}\n{logs(self.slurm.folder)}")

    def in_the_middle(self) -> int:
        """Wait until it has trained for some steps, and return of how many there is a checkpoint."""
        before = max((place(found)[0] for found in checkpoints(self.folder)), default=0)
        self.until(lambda: any(place(found)[0] > before + 20 for found in checkpoints(self.folder)))
        return place(checkpoints(self.folder)[-1])[0]

    def end(self) -> str:
        """Wait for its end and return its log."""
        self.until(lambda: self.state == "COMPLETED")
        return self.log


@pytest.fixture
def folder(kitchen: Path, tmp_path: Path) -> Path:
    """The shared checkout, with a training that is long enough to be stopped."""
    folder = Path(shutil.copytree(kitchen, tmp_path / "kitchen", symlinks=True))
    write_params(folder, **LONG)
    return folder


def requeue(job: Job) -> None:
    """As a pre-emption does: SIGTERM to everything, and the job is queued again."""
    job.slurm.call("scontrol", "requeue", job.number)


def tell_that_time_is_up(job: Job) -> None:
    """As `--signal` and GraceTime do: SIGTERM to the steps alone, and the job runs on."""
    job.slurm.call("scancel", "--signal=TERM", job.number)


def lose_a_node(job: Job) -> None:
    """As a power cut does: nothing on the second node is left. It comes back."""
    job.slurm.fail_node("node2")
    job.until(lambda: job.state != "RUNNING")
    job.slurm.start_node("node2")


@pytest.mark.parametrize("stop", [requeue, tell_that_time_is_up, lose_a_node])
def test_a_job_that_is_stopped_in_the_middle_is_queued_again_and_ends_with_the_bits_of_an_unbroken_run(
    slurm: Cluster, folder: Path, unbroken: dict[str, bytes], run: Run, stop: Callable[[Job], None]
) -> None:
    job = Job(slurm, folder)
    kept = job.in_the_middle()
    stop(job)
    log = job.end()
    print(log)
    assert re.findall(r"session (\d+), nodes: (.*)", log) == [("1", "node[1-2]"), ("2", "node[1-2]")]
    assert log.count("processes: 2") == 2
    (step,) = re.findall(r"goes on after step (\d+)/540", log)
    assert kept <= int(step) < STEPS
    assert results(folder) == unbroken
    assert not checkpoints(folder)
    assert re.findall(r"Running stage '(\w+)'", run(folder, "dvc", "repro").stdout) == ["environment"]


def test_a_recipe_that_was_cooked_before_is_restored_and_no_node_waits_for_another(
    slurm: Cluster, kitchen: Path, tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(kitchen, tmp_path / "kitchen", symlinks=True))
    assert "which meet at localhost:" in Job(slurm, folder).end()
    before = results(folder)
    shutil.rmtree(folder / "models/final")
    (folder / "dvc.lock").unlink()
    log = Job(slurm, folder).end()
    assert "which meet at" not in log
    assert results(folder) == before


def test_a_cancelled_job_keeps_a_checkpoint_and_is_not_queued_again(slurm: Cluster, folder: Path) -> None:
    job = Job(slurm, folder)
    kept = job.in_the_middle()
    slurm.call("scancel", job.number)
    job.until(lambda: "stopped after step" in job.log and not slurm.call("squeue", "--noheader"))
    assert job.state == "CANCELLED"
    assert place(checkpoints(folder)[-1])[0] >= kept
