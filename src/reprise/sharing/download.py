"""Download an exported folder from the Hub: `hub:OWNER/NAME@COMMIT`."""

import re
import shutil
from pathlib import Path, PurePosixPath

from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir
from reprise.hub.client import download
from reprise.sharing.folder import REPLACED, is_checked
from reprise.sharing.record import ATTESTATIONS, CARD, RECORD, read_record

PREFIX = "hub:"
DOWNLOADS = Path(".dvc/tmp/hub")


def download_export(target: str) -> Path:
    """Download an exported folder; nothing in it is run or loaded.

    Args:
        target: `hub:OWNER/NAME@COMMIT`.

    Returns:
        Where it is saved. Verdicts that were signed there earlier are kept.

    Raises:
        UserError: `target` has another form, or names no exported folder, or a file cannot be had; or this is no
            clone of a repository with recipes.
    """
    repo, at, commit = target.removeprefix(PREFIX).partition("@")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        problem = f"{commit!r} is not a full commit hash" if at else "no commit"
        raise UserError(problem, file=target, expected=f"{PREFIX}OWNER/NAME@COMMIT with its 40 hexadecimal digits")
    if not DOWNLOADS.parents[1].is_dir():
        raise UserError("not here", file=DOWNLOADS.parents[1], expected="a clone of the repository that made the model")
    cached, found = download(repo, commit, "model", lambda path: str(path) == str(RECORD), target)
    if not found:
        raise UserError(f"has no {RECORD}", file=target, expected="a model that `reprise export` wrote")
    record = read_record(cached)

    def wanted(path: PurePosixPath) -> bool:
        if is_checked(path) and str(path) not in record.files:  # before it is downloaded
            raise UserError(f"has {path}, which is not in its {RECORD}", file=target, expected=REPLACED)
        signed = str(path.parent) == str(ATTESTATIONS) and path.suffix == ".json"
        return is_checked(path) or signed or str(path) in (str(RECORD), str(CARD))

    cached, paths = download(repo, commit, "model", wanted, target)
    folder = DOWNLOADS / repo / commit
    earlier = {file.name: file.read_bytes() for file in (folder / ATTESTATIONS).glob("*.json")}
    with atomic_dir(folder) as partial:
        (partial / ATTESTATIONS).mkdir()
        for name, content in earlier.items():
            (partial / ATTESTATIONS / name).write_bytes(content)
        for path in paths:
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cached / path, partial / path)
    echo(f"hub: {target} is saved to {folder}")
    return folder
