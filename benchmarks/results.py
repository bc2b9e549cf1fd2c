"""Read and write results.json, which has one top-level key per benchmark."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from reprise.core.files import write_json

RESULTS = Path(__file__).with_name("results.json")


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores of this process, memory and PyTorch version."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].split(":")[1].strip() if names else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "torch": torch.__version__,
    }


def read() -> dict[str, Any]:
    """Return the results of all benchmarks by name; {} if there are none yet."""
    content: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return content


def write(benchmark: str, content: Any) -> None:
    """Replace the results of one benchmark."""
    write_json(RESULTS, read() | {benchmark: content})
