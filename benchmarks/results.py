"""The file of results. Each part of the benchmark has keys of its own in it and leaves the others alone."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from reprise.core.files import write_json

RESULTS = Path(__file__).with_name("results.json")


def machine() -> dict[str, Any]:
    """What computed: the processor as Linux names it, the cores that this process may use, the memory, PyTorch."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].split(":")[1].strip() if names else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "torch": torch.__version__,
    }


def read() -> dict[str, Any]:
    """All parts that were written so far, by name."""
    content: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return content


def write(part: str, content: Any) -> None:
    """Write what a part gave, in the place of what it gave before."""
    write_json(RESULTS, read() | {part: content})
