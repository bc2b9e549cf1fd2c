"""`reprise export`: export the final model to a folder for the Hub, with all that a stranger needs to check it."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from reprise.commands.classes import read_classes, read_confusions
from reprise.commands.empty_folder import empty_folder
from reprise.commands.export_onnx import add_onnx, check_onnx
from reprise.commands.model_card import model_card
from reprise.core.config import PARAMS, Recipe
from reprise.core.display import echo
from reprise.core.dvc_lock import LOCK, check_content
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, read_json, sha256, write_json
from reprise.core.paths import DATA_CHECKS, FINAL_MODEL, METRICS, PLOTS, PREPARED, PROVENANCE, SOURCES, TEACHER
from reprise.data.checks import read_checks
from reprise.data.format import split_shards, stats_path
from reprise.hardware import ENVIRONMENT
from reprise.onnx.files import Precision
from reprise.results.reference import REFERENCES, find_reference
from reprise.results.run import EVALUATION, NOT_RECORDED, folder_reader, read_recorded, read_result
from reprise.results.vcs import check_output, resolve_commit, try_output
from reprise.results.workspace import read_made
from reprise.sharing.croissant import croissant
from reprise.sharing.folder import exported_files
from reprise.sharing.forms import standard_forms
from reprise.sharing.image import current_image_sbom
from reprise.sharing.record import (
    CARD,
    COPIED,
    CRATE,
    CROISSANT,
    EVAL_RESULTS,
    IMAGE_SBOM,
    RECORD,
    SBOM,
    SCHEMA,
    SLSA,
    Record,
    describe_reference,
    describe_run,
    file_digests,
    redact_url,
)

# What git keeps of a run; a stranger needs all of it as it is here.
IN_GIT = ("src", "docker", "dvc.yaml", PARAMS, LOCK, METRICS, PLOTS, SOURCES, ENVIRONMENT, REFERENCES)


def export(folder: Path, onnx: Sequence[Precision] = (), tolerance: float = 0.0) -> None:
    """Write model, tokenizer, model card, recipe, provenance and the record for `reprise verify` to a folder.

    Args:
        folder: folder that is empty or does not exist.
        onnx: precisions in which the model is written as ONNX, too.
        tolerance: how much worse these files may be than the model, in the first metric of the recipe.

    Raises:
        UserError: the folder is not empty, the results do not belong to the current recipe, they are not as dvc.lock
            records them, or a file of ONNX is worse than `tolerance` allows.
    """
    target = empty_folder(folder)
    stale = stale_stages()
    if stale:
        changes = "".join(f"; {change}" for change in read_made().changes) if LOCK.is_file() else ""
        raise UserError(f"out of date: {', '.join(stale)}{changes}", file=PARAMS, expected="`dvc repro` first")
    result = read_result(folder_reader(Path()), where="workspace")
    if result.edited:
        raise UserError(
            f"not as {LOCK} records it: edited or damaged",
            file=result.edited[0],
            expected="the results of one run; `reprise fsck` names what restores them",
        )
    check_content(PREPARED)
    for output in (DATA_CHECKS, TEACHER):  # earlier versions made none
        if output.is_dir():
            check_content(output)
    if not (provenance := read_recorded(folder_reader(Path()), PROVENANCE)):
        expected = "that of this model: `dvc repro --force --single-item train` trains it again"
        raise UserError(NOT_RECORDED, file=PROVENANCE, expected=expected)
    reference = find_reference(result, result.provenance["environment.hardware"])
    recipe, evaluated = read_made().recipe, read_json(EVALUATION)
    if onnx:
        check_onnx(recipe)
    repository = redact_url(try_output("git", "config", "--get", "remote.origin.url") or "")
    prepared, classes, confusions = read_json(stats_path(PREPARED)), read_classes(), read_confusions()
    commit = resolve_commit("HEAD")
    missing = list(missing_for_strangers(commit, repository))
    with atomic_dir(target) as partial:
        for file in sorted(FINAL_MODEL.iterdir()):
            shutil.copyfile(file, partial / file.name)
        check_content(FINAL_MODEL, partial)  # the copies, which are what is exported
        model = sorted(file.name for file in partial.iterdir())
        table = add_onnx(partial, recipe, onnx, tolerance) if onnx else ()
        for line in table:
            echo(line)
        card = model_card(
            recipe,
            evaluated,
            prepared,
            provenance,
            reference,
            repository,
            classes=classes,
            confusions=confusions,
            checks=read_checks(prepared),
            onnx_table=table,
        )
        for name, path in COPIED.items():
            shutil.copyfile(path, partial / name)
        (partial / CARD).write_text(f"{card}\n", encoding="utf-8")
        run = describe_run(result, describe_reference(reference))
        record = Record(SCHEMA, repository, commit, missing, run, model, file_digests(partial, [*model, *COPIED]))
        (partial / CROISSANT).parent.mkdir()
        write_json(partial / CROISSANT, prepared_data(recipe, record, provenance["sessions"][-1]["started"]))
        image = record.run["environment"]["image"]
        if packages := current_image_sbom(image):
            (partial / IMAGE_SBOM).write_text(packages, encoding="utf-8")
        for forms in ((SLSA, SBOM, EVAL_RESULTS), (CRATE,)):  # the last one has the digests of the others
            record = replace(record, files=file_digests(partial, exported_files(partial)))
            texts = standard_forms(partial, record, evaluated, folder_reader(Path()))
            for form in texts.keys() & forms:
                (partial / form).parent.mkdir(exist_ok=True)
                (partial / form).write_text(texts[form], encoding="utf-8")
        write_json(partial / RECORD, asdict(replace(record, files=file_digests(partial, exported_files(partial)))))
    for file in sorted(target.rglob("*")):
        if file.is_file():
            echo(f"export: {folder / file.relative_to(target)}, {file.stat().st_size:,} bytes")
    if image and not packages:
        echo(f"export: without the Debian packages of {image}: `docker/run HARDWARE reprise export DIR` adds them")
    for line in missing:
        echo(f"export: nobody else can verify this yet: {line}")


def stale_stages() -> list[str]:
    """List the stages that DVC would run, except the one that always runs."""
    status: dict[str, list[Any]] = json.loads(check_output("dvc", "status", "--json"))
    return [stage for stage, changes in status.items() if changes != ["always changed"]]


def missing_for_strangers(commit: str, repository: str) -> Iterator[str]:
    """Say in a sentence each what keeps others from reproducing this result."""
    if not repository:
        yield "the remote `origin` has no URL that others can reach"
    paths = [str(path) for path in IN_GIT]
    changed = check_output("git", "diff", "--name-only", "HEAD", "--", *paths).splitlines()
    changed += check_output("git", "ls-files", "--others", "--exclude-standard", "--", *paths).splitlines()
    if changed:
        yield f"not committed: {', '.join(sorted(changed))}"
    if not try_output("git", "branch", "--remotes", "--contains", commit):
        yield f"no remote branch has commit {commit[:12]}: push it"


def prepared_data(recipe: Recipe, record: Record, date: str) -> dict[str, Any]:
    """Describe the prepared data in the current folder as Croissant does."""
    splits = {split: split_shards(split) for split in read_json(stats_path(PREPARED))["splits"]}
    files = {file.name: (file.stat().st_size, sha256(file)) for shards in splits.values() for file in shards}
    columns = {split: arrow_types(shards[0]) for split, shards in splits.items()}
    return croissant(recipe, files, columns, record.repository, date)


def arrow_types(file: Path) -> dict[str, str]:
    """Return the type of each column of an Arrow stream, by name."""
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
        return {field.name: str(field.type) for field in reader.schema}
