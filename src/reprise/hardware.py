"""Describe the installed software and check it against the hash-locked requirements.

`environment.json` holds only what two machines with the same lock and the same hardware type share: no host name, no
processor model, no time. The stages train and evaluate depend on it, so another image retrains and the same image does
not.
"""

import base64
import csv
import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tqdm import tqdm

from reprise.core.errors import UserError
from reprise.core.files import atomic_file
from reprise.gpus import Driver, check_architecture, check_driver, check_selection, read_driver

ENVIRONMENT = Path("environment.json")
HARDWARE_DIR = Path("docker")
LOCKS = ("torch.txt", "requirements.txt")
DEVICES = ("cpu", "cuda", "xla")
# Sizes and times of the installed files at the last complete check.
STAMP = ".reprise-installed"
# The list of certificate authorities, to which companies add their own. What is downloaded is checked by its digest.
MAY_DIFFER = "certifi/cacert.pem"


class InstalledFile(NamedTuple):
    """A file of an installed package, and its digest in the package's RECORD: `sha256=` and unpadded base64."""

    package: str
    path: str
    digest: str


def read_facts(hardware: str, hardware_dir: Path = HARDWARE_DIR) -> dict[str, Any]:
    """Read in what this hardware differs from others; docker/run and make read the same file.

    Returns:
        The content of docker/<hardware>/hardware.yaml; docker/README.md lists its keys.

    Raises:
        UserError: If the file is missing, is not YAML, or has no valid device.
    """
    file = hardware_dir / hardware / "hardware.yaml"
    try:
        facts = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("not found", file=file, expected="the repository's root as the current folder") from None
    except YAMLError:
        facts = None
    if not isinstance(facts, dict) or facts.get("device") not in DEVICES:
        raise UserError(file=file, key="device", expected=f"one of {', '.join(DEVICES)}")
    return facts


def current_hardware(hardware_dir: Path = HARDWARE_DIR) -> str:
    """Return the hardware type that this software was installed for.

    Returns:
        The value of `REPRISE_HARDWARE`, which the images set, or "cpu".

    Raises:
        UserError: If `hardware_dir` has no locks for that hardware type.
    """
    hardware = os.environ.get("REPRISE_HARDWARE", "cpu")
    for lock in LOCKS:
        if not (hardware_dir / hardware / lock).is_file():
            known = ", ".join(sorted(found.parent.name for found in hardware_dir.glob(f"*/{lock}")))
            missing = hardware_dir / hardware / lock
            raise UserError(f"no lock {missing}", key="REPRISE_HARDWARE", expected=f"one of {known}")
    return hardware


def locked_environment(hardware: str, hardware_dir: Path = HARDWARE_DIR) -> dict[str, Any]:
    """Describe the environment after checking it against the locks of `hardware`.

    Returns:
        The content of `environment.json`.

    Raises:
        UserError: If an installed distribution differs from its lock, or one of its files from what was installed.
    """
    locks = [hardware_dir / hardware / name for name in LOCKS]
    locked = locked_versions(hardware, hardware_dir)
    for name, pinned in locked.items():
        installed = installed_version(name)
        if installed != pinned:
            raise UserError(
                f"the lock pins {pinned}, installed is {installed or 'none'}",
                file=hardware_dir / hardware,
                key=name,
                expected="them to agree: run `make setup`, or build the image again",
            )
    check_installed(locked)
    return {
        "hardware": hardware,
        "machine": platform.machine(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "locks": {lock.name: hashlib.sha256(lock.read_bytes()).hexdigest() for lock in locks},
        "packages": dict(sorted(locked.items())),
    }


def locked_versions(hardware: str, hardware_dir: Path = HARDWARE_DIR) -> dict[str, str]:
    """Return the version of each package in the locks of `hardware`."""
    locks = [hardware_dir / hardware / name for name in LOCKS]
    return {name: pinned for lock in locks for name, pinned in pinned_versions(lock.read_text()).items()}


def check_installed(packages: Iterable[str], *, complete: bool = False) -> None:
    """Check the installed files of packages against the digests in their RECORD.

    Hashing gigabytes takes seconds, so only a file whose size or time has changed since the last complete check makes
    the next one complete.

    Args:
        packages: names of installed packages.
        complete: hash every file, also where nothing seems to have changed.

    Raises:
        UserError: If a file is missing or has another content.
    """
    files = installed_files(packages)
    before = installed_stamp(files)
    folder = Path(sys.prefix) if os.access(sys.prefix, os.W_OK) else Path(".dvc/tmp")
    stamp = folder / STAMP
    if not complete and stamp.is_file() and stamp.read_text(encoding="utf-8") == before:
        return
    for file in damaged_files(files):
        raise UserError(
            "not as its package installed it",
            file=file.path,
            key=file.package,
            expected=f"the locked package: remove {sys.prefix} and run `make setup`, or build the image again",
        )
    if folder.is_dir():
        with atomic_file(stamp) as partial:
            partial.write_text(before, encoding="utf-8")


def installed_files(packages: Iterable[str]) -> list[InstalledFile]:
    """List the files with a digest in the RECORD of installed packages, except `MAY_DIFFER`; bytecode has none.

    Raises:
        UserError: If a package has no RECORD.
    """
    files = []
    for package in packages:
        found = distribution(package)
        folder, record = str(found.locate_file("")), found.read_text("RECORD")
        if record is None:
            raise UserError("installed without a RECORD", key=package, expected="a package that pip installed")
        rows = csv.reader(record.splitlines())
        files += [
            InstalledFile(package, f"{folder}/{path}", digest)
            for path, digest, _ in rows
            if digest and not path.endswith(MAY_DIFFER)
        ]
    return files


def installed_stamp(files: Iterable[InstalledFile]) -> str:
    """Return a digest of path, recorded digest, size and modification time of files."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(file.path)  # noqa: PTH116  # a Path for each of 30,000 files takes as long again
            digest.update(f"{file.path} {file.digest} {status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{file.path} missing\n".encode())
    return digest.hexdigest()


def damaged_files(files: Iterable[InstalledFile]) -> Iterator[InstalledFile]:
    """Yield the files that are missing or have another content than recorded; a bar shows after two seconds."""
    for file in tqdm(list(files), desc="installed files", unit=" files", delay=2, leave=False, disable=None):
        algorithm, _, recorded = file.digest.partition("=")
        try:
            with Path(file.path).open("rb") as stream:
                found = hashlib.file_digest(stream, algorithm).digest()
        except OSError:
            yield file
            continue
        if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != recorded:
            yield file


def check_device(hardware: str, hardware_dir: Path = HARDWARE_DIR) -> str:
    """Check that the device of `hardware` is present, without importing torch.

    Returns:
        torch's type of the device, one of `DEVICES`.

    Raises:
        UserError: If it is not.
    """
    facts = read_facts(hardware, hardware_dir)
    device: str = facts["device"]
    if facts.get("gpus") == "nvidia":
        require_driver(hardware, facts)
    elif "device_files" in facts and not has_device_files(facts):
        variable, _, value = facts.get("variable", "").partition("=")
        if os.environ.get(variable, value) == value:
            raise UserError(facts["no_device"], key=hardware)
    return device


def require_device(hardware: str, hardware_dir: Path = HARDWARE_DIR) -> str:
    """Check that torch can use the device of `hardware`, before it fails with a long traceback.

    Returns:
        torch's type of the device, one of `DEVICES`.

    Raises:
        UserError: If it cannot.
    """
    device = check_device(hardware, hardware_dir)
    if device == "cuda":
        import torch  # not at the top: `reprise environment` runs on every `dvc repro` and must start fast

        if not torch.cuda.is_available():
            build = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
            raise UserError(f"PyTorch for {build} cannot use the GPU", key=hardware, expected="a driver that fits it")
        if not torch.version.hip:
            for index in range(torch.cuda.device_count()):
                name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
                check_architecture(name, capability, torch.cuda.get_arch_list())
    return device


def require_driver(hardware: str, facts: dict[str, Any]) -> Driver:
    """Check that NVIDIA's driver is new enough and offers the selected GPUs.

    Returns:
        What it reports.

    Raises:
        UserError: it does not, or there is no GPU.
    """
    driver = read_driver()
    if driver:
        check_driver(driver, str(facts["cuda"]), str(facts["driver"]), hardware)
        check_selection(os.environ.get("CUDA_VISIBLE_DEVICES"), driver)
    if not driver or not driver.gpus:
        expected = f"one with its driver, as `make train-{facts['target']}` passes it on"
        raise UserError("no GPU", key=hardware, expected=expected)
    return driver


def processors() -> list[str]:
    """Return the names of the processors of this machine, or its architecture if Linux does not name them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return sorted({line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}) or [
        platform.machine()
    ]


def has_device_files(facts: dict[str, Any]) -> bool:
    """Return whether this machine has a device file of the hardware."""
    return any(any(Path("/").glob(pattern.lstrip("/"))) for pattern in facts["device_files"].split())


def pinned_versions(lock: str) -> dict[str, str]:
    """Parse the `name==version` lines of a lock file in pip's format."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, flags=re.MULTILINE))


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
