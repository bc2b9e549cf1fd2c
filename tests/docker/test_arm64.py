"""The tiny recipe on an emulated aarch64 machine.

`make test-arm64` needs root on Debian, 15 GB in /var/tmp and about three quarters of an hour.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reprise.core.dvc_lock import locked_outputs, read_stages
from reprise.results.run import folder_reader, read_result
from reprise.results.verdict import Verdict, first_divergence, grade_outputs
from tiny import ROOT, Run

pytestmark = [pytest.mark.arm64, pytest.mark.timeout(7200)]

WORK = Path(os.environ.get("ARM64_WORK", "/var/tmp/reprise-arm64"))  # kept after a failure: the next call continues
MACHINE = WORK / "root"
PROGRAMS = "/opt/reprise/.venv/bin"
# A processor of servers. qemu's default has SVE with vectors of 512 bits, for which oneDNN multiplies wrongly here:
# docker/README.md.
PROCESSOR = os.environ.get("ARM64_PROCESSOR", "neoverse-n1")
PRODUCTS = """
import torch
torch.manual_seed(0)
for rows, inner, columns in ((16, 32, 2), (16, 32, 8), (1, 384, 2), (16, 31, 3), (7, 64, 32)):
    x, weight = torch.randn(rows, inner), torch.randn(columns, inner)
    right = (x.double()[:, None] * weight.double()).sum(-1)
    print(rows, inner, columns, error := (x @ weight.T - right).abs().max().item())
    assert error < 1e-4
"""


def inside(folder: str, *command: str, hardware: str = "cpu") -> str:
    """Run a command in a folder of the emulated machine; return its output."""
    environment = f"HOME=/root PATH={PROGRAMS}:/usr/bin:/bin OMP_NUM_THREADS=1 REPRISE_HARDWARE={hardware}".split()
    environment.append(f"QEMU_CPU={PROCESSOR}")
    chroot = ("unshare", "--mount", "--pid", "--fork", f"--mount-proc={MACHINE}/proc", "chroot", str(MACHINE))
    started = time.monotonic()
    done = subprocess.run(
        [*chroot, "env", "-i", f"--chdir={folder}", *environment, *command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    print(f"arm64: {' '.join(command)}: {time.monotonic() - started:.0f} s", flush=True)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def hardware() -> str:
    """The machine; returns the folder in docker/ whose locks its software has."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.fail("make test-arm64 needs root on Debian: it makes a machine from Debian's packages for arm64")
    subprocess.run([ROOT / "docker/make-test-arm64", WORK], check=True, env={**os.environ, "PYTHON": sys.executable})
    return (MACHINE / "opt/reprise/.locks").read_text(encoding="utf-8").strip()


def prepare(repo: Path, name: str, hardware: str, run: Run) -> Path:
    """Clone the tiny repository into the machine; with CUDA's locks, a hardware of its own trains on the processor."""
    folder = MACHINE / "opt" / name
    shutil.rmtree(folder, ignore_errors=True)
    run(WORK, "git", "clone", "-q", str(repo), str(folder))
    if hardware != "cpu":
        shutil.copytree(folder / "docker/cpu", folder / "docker/arm64")
        for lock in ("torch.txt", "requirements.txt"):
            shutil.copy2(folder / "docker" / hardware / lock, folder / "docker/arm64" / lock)
    return folder


def test_products_of_matrices_are_right_on_the_emulated_processor(hardware: str) -> None:
    print(inside("/opt", "python", "-c", PRODUCTS, hardware=hardware))


def test_two_runs_on_aarch64_give_equal_bits_that_are_equivalent_to_those_of_x86_64(
    hardware: str, repo: Path, trained_repo: Path, run: Run
) -> None:
    name = "cpu" if hardware == "cpu" else "arm64"
    inside("/opt/reprise", "python", "-c", "import torch", hardware=name)
    folders = [prepare(repo, each, hardware, run) for each in ("one", "two")]
    with ThreadPoolExecutor() as pool:  # side by side, because a run under qemu uses one core
        list(pool.map(lambda folder: inside(f"/opt/{folder.name}", "dvc", "repro", hardware=name), folders))
    one, two = (locked_outputs(read_stages((folder / "dvc.lock").read_bytes())) for folder in folders)
    assert one == two
    environment = json.loads((folders[0] / "environment.json").read_text(encoding="utf-8"))
    assert (environment["machine"], environment["hardware"]) == ("aarch64", name)

    here = read_result(folder_reader(trained_repo), "x86-64")
    there = read_result(folder_reader(folders[0]), "aarch64")
    verdicts = grade_outputs(here, there, None)
    for path, verdict in verdicts.items():
        print(f"arm64: {path}: {verdict}")
    print(f"arm64: {len(here.losses)} losses: {first_divergence(here, there)}")
    print(f"arm64: metrics: {here.metrics} on x86-64, {there.metrics} on aarch64")
    print(f"arm64: processor: {there.provenance['devices']}, {there.provenance['cpu_capability']}")
    assert verdicts["data/prepared"] == verdicts["data/raw"] == Verdict.IDENTICAL
    assert max(verdicts.values()) <= Verdict.EQUIVALENT
    shutil.rmtree(MACHINE)
