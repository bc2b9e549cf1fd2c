"""Where a run comes from: what was computed with, on what, from which commit. For metrics/provenance.json alone.

Whatever is compared bit for bit says nothing of this: commits, times and machines differ between runs that agree.
"""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from reprise.core.files import read_json, sha256
from reprise.core.paths import PREPARED, PRETRAINED
from reprise.data.format import stats_path
from reprise.hardware import ENVIRONMENT

# What a commit must hold for a run to be that commit's: code, recipe and locks; not what earlier stages have just made.
INPUTS = ("src", "docker", "dvc.yaml", "params.yaml")


def describe_session(world: PartialState, precision: str) -> dict[str, Any]:
    """Describe this process's share of a run: one that was interrupted has several, maybe on several machines."""
    commit, dirty = git_state()
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "image": os.environ.get("REPRISE_IMAGE"),  # docker/run says which
        "environment": read_json(ENVIRONMENT) if ENVIRONMENT.is_file() else None,
        "devices": devices(world.device),
        # A processor's instructions decide the order of its sums; its name often says little in a virtual machine.
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
    """The commit that is checked out, and whether INPUTS were changed since; (None, None) outside a repository."""
    commit = git("rev-parse", "--verify", "HEAD")
    return commit, bool(git("status", "--porcelain", "--", *INPUTS)) if commit else None


def input_digests() -> dict[str, Any]:
    """The SHA-256 of the prepared splits and of the pretrained weights."""
    splits = read_json(stats_path(PREPARED))["splits"]
    weights = sorted((PRETRAINED / "model").glob("*.safetensors"))
    return {
        "data": {name: split["sha256"] for name, split in splits.items()},
        "pretrained": {file.name: sha256(file) for file in weights},
    }


def devices(device: torch.device) -> list[str]:
    """The names of what computes: a GPU for each process, or the processor."""
    if device.type == "cuda":
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = sorted({line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")})
    return [f"{device.type}: {model}" for model in models or [platform.machine()]]


def git(*arguments: str) -> str | None:
    """What git says of this checkout; None where it says nothing, as outside a repository."""
    try:
        said = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def first_line(file: Path) -> str | None:
    """The first line of a text file, None where there is no such file."""
    try:
        return file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return None
