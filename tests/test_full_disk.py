"""A full disk or a read-only one is one line with exit code 2 in every command that writes, and changes no result."""

import hashlib
from pathlib import Path

import pytest

from tiny import OWNER, Run

# Each command that writes.
COMMANDS = (
    "environment",
    "sources",
    "fetch",
    "prepare",
    "check-data",
    "teacher",
    "preflight",
    "train",
    "evaluate",
    "compose seed=43 --force",
    "export exported",
    "report",
    "predict --file data/own/reviews.csv --out labels.jsonl",
)
CHEAP = {"prepare", "report"}
# A limit on the size of files fails every write, and in a mount of its own the folder is read-only.
FULL = 'ulimit -f 0; exec reprise "$@"'
READ_ONLY = 'mount --bind . . && mount -o remount,ro,bind . && cd . && cd "$PWD" && exec reprise "$@"'
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file except those of DVC and git."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not {".git", ".dvc", "__pycache__"} & set(file.parts)
    }


@pytest.mark.parametrize("disk", ["full", "read-only"])
@pytest.mark.parametrize(
    "command",
    [pytest.param(each, marks=[] if each in CHEAP else pytest.mark.full) for each in COMMANDS],
    ids=lambda command: command.split()[0],
)
def test_disk_without_space_is_one_line_and_changes_no_file(repo_copy: Path, run: Run, command: str, disk: str) -> None:
    before = digests(repo_copy)
    start = ("bash", "-c", FULL) if disk == "full" else (*UNSHARE, "bash", "-c", READ_ONLY)
    failed = run(repo_copy, *start, "reprise", *command.split(), code=None, env=OWNER)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("reprise: error: ")
    assert digests(repo_copy) == before
