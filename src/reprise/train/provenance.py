"""Where a run comes from: software, devices and commit, for metrics/provenance.json only.

Files that are compared bit for bit hold none of this, because equal runs differ in it.
"""

import datetime
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reprise.core.dvc_lock import output_md5
from reprise.core.errors import UserError
from reprise.core.files import read_json, sha256
from reprise.core.paths import FINAL_MODEL, PREPARED, PRETRAINED
from reprise.data.format import stats_path
from reprise.hardware import ENVIRONMENT, processors

# A run is its commit's if these are unchanged: code, recipe and locks, but not the outputs of earlier stages.
INPUTS = ("src", "docker", "dvc.yaml", "params.yaml")
REPOSITORY = Path(__file__).resolve().parents[3]  # whose code runs


def describe_session(world: PartialState, precision: str) -> dict[str, Any]:
    """Describe where this process trains; an interrupted run has several sessions."""
    commit, dirty = git_state()
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "image": os.environ.get("REPRISE_IMAGE"),  # set by docker/run
        "environment": read_json(ENVIRONMENT) if ENVIRONMENT.is_file() else None,
        "devices": devices(world.device),
        # The instruction set determines the order of sums; the processor's name in a virtual machine may not show it.
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "driver": first_line(Path("/proc/driver/nvidia/version")),
        "processes": world.num_processes,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "deterministic": {
            "algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        },
    }


def git_state() -> tuple[str | None, bool | None]:
    """Return the checked-out commit and whether INPUTS have changed.

    Returns:
        The commit and the flag; (None, None) outside a repository.
    """
    commit = git("rev-parse", "--verify", "HEAD")
    return commit, bool(git("status", "--porcelain", "--", *INPUTS)) if commit else None


def input_digests() -> dict[str, Any]:
    """Return the SHA-256 of the prepared splits and of the pretrained weights."""
    splits = read_json(stats_path(PREPARED))["splits"]
    weights = sorted((PRETRAINED / "model").glob("*.safetensors"))
    return {
        "data": {name: split["sha256"] for name, split in splits.items()},
        "pretrained": {file.name: sha256(file) for file in weights},
    }


def run_digests() -> dict[str, str]:
    """Return the MD5 of the model, and of the environment and the code that made it, as dvc.lock will record them.

    They show later whether speed.json and provenance.json are of the run in dvc.lock: DVC restores neither of them.
    """
    paths = {str(path): path for path in (FINAL_MODEL, ENVIRONMENT)}
    paths |= {name: REPOSITORY / name for name in code_dependencies(REPOSITORY)}
    return {name: md5 for name, path in paths.items() if (md5 := output_md5(path))}


def code_dependencies(repo: Path) -> list[str]:
    """List the files and folders of code that the stage `train` depends on in a repository's dvc.yaml.

    Raises:
        UserError: dvc.yaml has no such stage.
    """
    pipeline = repo / "dvc.yaml"
    try:
        listed = YAML(typ="safe").load(pipeline)["stages"]["train"]["deps"]
    except (OSError, YAMLError, KeyError, TypeError):
        expected = "the code that training depends on"
        raise UserError("not found", file=pipeline, key="stages.train.deps", expected=expected) from None
    return [name for name in listed if name.startswith("src/")]


def devices(device: torch.device) -> list[str]:
    """List the names of the devices: the GPUs, or the processor."""
    if device.type == "cuda":
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [f"{device.type}: {model}" for model in processors()]


def git(*arguments: str) -> str | None:
    """Return the output of a git command; None if it fails, as outside a repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def first_line(file: Path) -> str | None:
    """Return the first line of a text file; None if there is no such file."""
    try:
        return file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return None
