"""Precision fp32-portable: every output has the same bits on this processor and on emulated ones.

qemu's user mode runs a program on another processor: one with other instructions, whose libraries choose other kernels.
"""

import os
import shutil
import site
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reprise.core.config import to_dict
from reprise.core.files import sha256
from reprise.core.validation import read_recipe
from reprise.modeling.portable import library_caps
from tiny import ROOT, write_params

pytestmark = [pytest.mark.portable, pytest.mark.timeout(3000)]

# Outputs of the stages that are pinned; speed and provenance are of the machine.
PINNED = ("data/prepared", "data/checks", "models/final", "metrics", "plots", "predictions")
OF_THE_MACHINE = {"speed.json", "provenance.json"}
THREADS = 2
LORA = {"train.lora": {"rank": 2, "alpha": 4.0, "targets": "all-linear"}, "train.gradient_checkpointing": True}
PROCESSORS = ("Haswell-v4", "Broadwell-v4", "Skylake-Client-v4", "EPYC-v3", "EPYC-Rome-v2", "EPYC-Milan-v1")
STAGES = ("prepare", "check-data", "preflight", "train", "evaluate")


def run_stages(
    folder: Path, inputs: Path, prefix: tuple[str, ...] = (), stages: tuple[str, ...] = STAGES, **changes: object
) -> dict[str, str]:
    """Run stages in a new folder, each behind a prefix; return the SHA-256 of each pinned output."""
    for name in ("data/raw", "models/pretrained", "docker", *(["data/prepared"] if "prepare" not in stages else [])):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(inputs / name)
    write_params(folder, **{"train.precision": "fp32-portable", "train.threads": THREADS, **changes})
    path = f"{ROOT / 'src'}:{site.getsitepackages()[0]}"
    # An emulated process that starts another leaves the emulator, so `reprise` must not set the caps itself.
    environment = {**os.environ, **library_caps(THREADS), "PYTHONPATH": path, "LD_BIND_NOW": "1"}
    for stage in stages:
        command = [*prefix, os.path.realpath(sys.executable), "-m", "reprise", stage]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    files = [file for name in PINNED for file in sorted((folder / name).rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): sha256(file) for file in files if file.name not in OF_THE_MACHINE}


def emulator(processor: str) -> tuple[str, ...]:
    """Return the prefix of a command that runs it on an emulated processor."""
    assert shutil.which("qemu-x86_64"), "install qemu-user"
    return "qemu-x86_64", "-cpu", processor


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, prepared_dir: Path) -> dict[str, str]:
    """The digests of a run on this processor."""
    return run_stages(tmp_path_factory.mktemp("here"), prepared_dir)


def test_a_short_run_is_the_same_on_an_emulated_processor(tmp_path: Path, prepared_dir: Path) -> None:
    runs = [
        run_stages(tmp_path / name, prepared_dir, prefix, ("train", "evaluate"), **{"train.epochs": 1})
        for name, prefix in (("native", ()), ("emulated", emulator("Haswell-v4")))
    ]
    assert runs[0] == runs[1]


@pytest.mark.full
@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_output_is_the_same_on_an_emulated_processor(
    tmp_path: Path, here: dict[str, str], prepared_dir: Path, processor: str
) -> None:
    assert run_stages(tmp_path, prepared_dir, emulator(processor)) == here


@pytest.mark.full
def test_one_core_gives_the_bits_of_several(tmp_path: Path, here: dict[str, str], prepared_dir: Path) -> None:
    core = str(min(os.sched_getaffinity(0)))
    assert run_stages(tmp_path, prepared_dir, ("taskset", "-c", core)) == here


@pytest.mark.full
@pytest.mark.parametrize("changes", [{"train.engine": "trainer"}, {"train.engine": "pytorch"}, LORA])
def test_every_engine_and_lora_are_portable(tmp_path: Path, prepared_dir: Path, changes: dict[str, object]) -> None:
    native = run_stages(tmp_path / "native", prepared_dir, **changes)
    assert run_stages(tmp_path / "emulated", prepared_dir, emulator("Haswell-v4"), **changes) == native


@pytest.mark.full
@pytest.mark.parametrize("processor", ["Haswell-v4", "EPYC-Rome-v2"])
def test_steps_of_the_default_recipe_are_the_same(tmp_path: Path, processor: str) -> None:
    """Two steps of a batch of four, of a few examples: emulation takes hours for all of them."""
    assert (ROOT / "data/raw").is_dir(), "run `dvc repro preflight`"
    default = read_recipe(ROOT / "params.yaml")
    train = replace(default.train, batch_size=4, max_steps=2, warmup_ratio=0.0)
    small = replace(default, train=train, task=replace(default.task, max_examples=24))
    changes = {name: section for name, section in to_dict(small).items() if name in ("seed", "task", "model")}
    portable = to_dict(small.train) | {"precision": "fp32-portable", "threads": THREADS}
    # Prepared natively: qemu 7.2 sorts 64-bit numbers wrongly by the kernel for AVX2 of NumPy, and prepare needs it.
    run_stages(tmp_path / "prepared", ROOT, (), ("prepare",), **changes, train=portable)
    runs = [
        run_stages(tmp_path / name, tmp_path / "prepared", prefix, ("train",), **changes, train=portable)
        for name, prefix in (("native", ()), ("emulated", emulator(processor)))
    ]
    assert runs[0] == runs[1]
