"""Check an exported folder: its files against its record, and both against the commit that the record names."""

from collections.abc import Iterator
from pathlib import Path, PurePath

from reprise.core.config import PARAMS, to_dict
from reprise.core.dvc_lock import LOCK, file_md5s, folder_md5, locked_outputs, read_stages
from reprise.core.errors import UserError
from reprise.core.paths import FINAL_MODEL
from reprise.core.validation import read_recipe
from reprise.results.reference import REFERENCES
from reprise.results.run import FileReader, RunResult
from reprise.results.workspace import changed_keys, locked_params, recipe_of
from reprise.sharing.record import (
    ATTESTATIONS,
    CARD,
    COPIED,
    EVAL_RESULTS,
    ONNX_FILES,
    RECORD,
    STANDARD_FORMS,
    Record,
    describe_run,
    differences,
    file_digests,
    lock_digests,
    reference_content,
)

REPLACED = "what `reprise export` wrote: get the folder again from its owner"


def folder_problems(folder: Path, record: Record) -> Iterator[UserError]:
    """Check the files of a folder against its record, its recipe and its dvc.lock, without a repository."""
    known = {*record.model, *COPIED, *STANDARD_FORMS, *ONNX_FILES}
    for name in sorted(record.files.keys() - known | {name for name in record.model if "/" in name}):
        yield UserError("not a file of an exported model", file=folder / RECORD, key=f"files.{name}")
    present = set(exported_files(folder))
    for name in sorted(present - record.files.keys()):
        yield UserError("in the folder, but not in its record", file=folder / name, expected=REPLACED)
    for name in sorted(record.files.keys() - present):
        yield UserError("not found", file=folder / name, expected=REPLACED)
    found = file_digests(folder, present & record.files.keys())
    damaged = sorted(name for name in found if found[name] != record.files[name])
    for name in damaged:
        yield UserError(f"not as {RECORD} records it: changed or damaged", file=folder / name, expected=REPLACED)
    if not {*COPIED, *record.model} <= present or damaged:
        return
    try:
        stages = read_stages((folder / LOCK).read_bytes())
        locked = locked_outputs(stages)
        recipe, current = recipe_of(locked_params(stages), None), read_recipe(folder / PARAMS)
    except (UserError, LookupError, TypeError, AttributeError) as error:
        line = error if isinstance(error, UserError) else UserError("damaged", file=LOCK)
        expected = f"a run of this version; else check out commit {record.commit[:12]}, which has its own `reprise`"
        yield UserError(str(line), file=folder, expected=expected)
        return
    md5s = file_md5s(folder)
    model = locked.get(str(FINAL_MODEL))
    if not model or folder_md5({name: md5s.get(name, "") for name in record.model}) != model.md5:
        yield UserError(
            f"not the files of {FINAL_MODEL} that its {LOCK} records",
            file=folder,
            key=", ".join(record.model),
            expected=REPLACED,
        )
    if keys := [key for key in changed_keys(to_dict(recipe), to_dict(current)) if not unread(key)]:
        expected = f"the recipe of the run, as {LOCK} beside it has it"
        yield UserError(file=folder / PARAMS, key=", ".join(keys), expected=expected)


def unread(key: str) -> bool:
    """Return whether no stage reads a key of the recipe, so that dvc.lock has no value for it."""
    return key in ("model.name", "task.submission") or key.startswith("run.")


def exported_files(folder: Path) -> Iterator[str]:
    """Yield the files of a folder that verify checks: all but the record, the card, attestations and signatures.

    Of hidden files, which git and the Hub's clients add, only that of the results is ours.
    """
    for file in folder.rglob("*"):
        if is_checked(path := file.relative_to(folder)) and file.is_file():
            yield path.as_posix()


def is_checked(path: PurePath) -> bool:
    """Return whether verify checks a file, by its path in the folder."""
    ours = not path.parts[0].startswith(".") or path.as_posix() == EVAL_RESULTS
    return ours and path not in (RECORD, CARD, Path("model.sig")) and path.parts[0] != str(ATTESTATIONS)


def commit_problems(folder: Path, record: Record, committed: RunResult, read: FileReader) -> Iterator[UserError]:
    """Check a folder and its record against the commit that the record names.

    Args:
        folder: what `folder_problems` found nothing in.
        record: of the folder.
        committed: result of the commit.
        read: returns the content of a file of the commit.
    """
    commit = record.commit[:12]
    claimed = record.run.get("reference")
    file = Path(str(claimed.get("file"))) if isinstance(claimed, dict) else None
    reference = reference_content(file, read(file)) if file and file.parent == REFERENCES else None
    found = describe_run(committed, reference)
    for key in differences(record.run, found):
        yield UserError(file=folder / RECORD, key=f"run.{key}", expected=f"the value of commit {commit}")
    hardware = str(found["environment"]["hardware"])
    for lock in differences(found["environment"]["locks"], lock_digests(hardware, read)):
        yield UserError(file=folder / RECORD, key=f"run.environment.locks.{lock}", expected=f"that of commit {commit}")
    for name, path in COPIED.items():
        if (folder / name).read_bytes() != read(path):
            yield UserError(f"not the {path} of commit {commit}", file=folder / name, expected=REPLACED)
