"""`reprise export DIR --push OWNER/NAME`: upload an exported folder to the Hub, private unless it is public there."""

from collections.abc import Callable
from pathlib import Path

from reprise.core.display import echo
from reprise.sharing.download import PREFIX
from reprise.sharing.folder import exported_files, folder_problems
from reprise.sharing.record import ATTESTATIONS, CARD, RECORD, read_record
from reprise.sharing.upload import check_repository, find_destination, upload


def push(folder: Path, repo: str, export: Callable[[], None], confirm: Callable[[str], bool]) -> None:
    """Export a folder, unless it is exported already, and upload it after confirmation.

    Args:
        folder: as `export` takes it. One that is exported already is uploaded as it is, so that an interrupted upload
            can be repeated.
        repo: OWNER/NAME on the Hub.
        export: writes the folder.
        confirm: asks the user a yes-no question.

    Raises:
        UserError: as of `export`, a file of the folder changed since, or the upload fails.
    """
    check_repository(repo)
    if (folder / RECORD).is_file():
        echo(f"export: {folder} has the export of commit {read_record(folder).commit[:12]}, which is not made again")
    else:
        export()
    record = read_record(folder)
    for problem in folder_problems(folder, record):
        raise problem
    files = uploaded_files(folder)
    destination = find_destination(repo)
    size = sum((folder / name).stat().st_size for name in files)
    visible = "private" if destination.private else "public"
    there = "replaces an earlier export" if destination.exported else "empty" if destination.commit else "new"
    echo(f"export: push {len(files)} files, {size:,} bytes, to {repo} on the Hub: {visible}, {there}")
    if not confirm(f"Upload {folder} to {repo}?"):
        echo(f"export: nothing was uploaded; {folder} is kept")
        return
    commit = upload(folder, files, destination, f"Export of commit {record.commit[:12]}")
    target = f"{PREFIX}{repo}@{commit}"
    echo(f"export: pushed {target}; who has access checks it with `reprise verify {target}`")
    if destination.private:
        echo(f"export: only you see it; publish it with `hf repos settings {repo} --public`")


def uploaded_files(folder: Path) -> list[str]:
    """List the files of an exported folder, with its record, its card and what others have signed."""
    beside = (RECORD, CARD, Path("model.sig"))
    signed = (file.relative_to(folder) for file in (folder / ATTESTATIONS).glob("*.json"))
    return sorted({*exported_files(folder), *(str(name) for name in (*beside, *signed) if (folder / name).is_file())})
