"""The software that runs, as a dependency of the pipeline.

`environment.json` holds what a colleague with the same lock on the same kind of hardware shares, nothing else: no host
name, no processor model, no time. Train and evaluate depend on it, so another image retrains and the same does not.
"""

import hashlib
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reprise.core.errors import UserError

ENVIRONMENT = Path("environment.json")
HARDWARE_DIR = Path("docker")
LOCKS = ("torch.txt", "requirements.txt")


def current_hardware(rooms: Path = HARDWARE_DIR) -> str:
    """The kind of hardware that this software was made for: `REPRISE_HARDWARE`, which images set, or cpu.

    Raises:
        UserError: docker/ has no room of that name.
    """
    kind = os.environ.get("REPRISE_HARDWARE", "cpu")
    for lock in LOCKS:
        if not (rooms / kind / lock).is_file():
            known = ", ".join(sorted(found.parent.name for found in rooms.glob(f"*/{lock}")))
            raise UserError(f"REPRISE_HARDWARE: no lock {rooms / kind / lock}; expected one of {known}")
    return kind


def locked_environment(kind: str, rooms: Path = HARDWARE_DIR) -> dict[str, Any]:
    """Describe the environment and check it against the lock of `kind`.

    Raises:
        UserError: an installed distribution is not the one that the lock names.
    """
    locks = [rooms / kind / name for name in LOCKS]
    locked = {name: pinned for lock in locks for name, pinned in pinned_versions(lock.read_text()).items()}
    for name, pinned in locked.items():
        installed = installed_version(name)
        if installed != pinned:
            raise UserError(
                f"{rooms / kind}: the lock says {name} {pinned}, installed is {installed or 'none'}; "
                "expected them to agree: run `make setup`, or build the image again"
            )
    return {
        "hardware": kind,
        "machine": platform.machine(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "locks": {lock.name: hashlib.sha256(lock.read_bytes()).hexdigest() for lock in locks},
        "packages": dict(sorted(locked.items())),
    }


def require_device(kind: str) -> None:
    """Find out whether the device that `kind` computes on is there, before a library fails with a page of its own.

    Raises:
        UserError: it is not.
    """
    if kind == "cuda":
        import torch  # not for `reprise environment`, which runs on every `dvc repro`

        if not torch.cuda.is_available():
            raise UserError("cuda: PyTorch sees no GPU; expected one with its driver, as `make train-gpu` hands it on")
    if kind == "tpu" and os.environ.get("PJRT_DEVICE", "TPU") == "TPU" and not tpu_available():
        raise UserError(
            "tpu: no TPU in /dev; expected one, as `make train-tpu` hands it on, or PJRT_DEVICE=CPU to try without"
        )


def tpu_available() -> bool:
    """Whether this machine has a TPU that a program can open."""
    return any(Path("/dev").glob("accel*")) or any(Path("/dev").glob("vfio/[0-9]*"))


def pinned_versions(lock: str) -> dict[str, str]:
    """The `name==version` lines of a lock file in pip's format, names as written there."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, flags=re.MULTILINE))


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
