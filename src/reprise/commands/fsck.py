"""`reprise fsck`: hash everything that was pinned again, and name what restores what is damaged.

DVC, and the other commands, hash a file again only where its size or time has changed, or where they use it.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from reprise.core.display import echo
from reprise.core.dvc_lock import LOCK, locked_outputs, read_stages
from reprise.core.errors import UserError
from reprise.core.paths import FINAL_MODEL
from reprise.hardware import current_hardware, damaged_files, installed_files, installed_version, locked_versions
from reprise.results.integrity import Damage, TrackedOutput, cache_damage, tracked_outputs, workspace_damage
from reprise.results.run import commit_reader, describe_edited, edited_records, folder_reader, md5_of
from reprise.results.vcs import check_output, resolve_commit, try_output

State = Literal["ok", "damaged", "missing", "leftover"]


@dataclass(frozen=True)
class Finding:
    """One line of the result.

    Attributes:
        state: a leftover is no damage: the next run replaces it.
        item: what was checked, and the damaged files.
        restore: the command that restores it; "" where nothing is to be done.
    """

    state: State
    item: str
    restore: str = ""


def fsck() -> bool:
    """Check the results, DVC's cache and the installed packages, and print one line for each.

    Returns:
        Whether nothing is damaged or missing.

    Raises:
        UserError: dvc.lock is missing or damaged, or this is not the root of the repository.
    """
    commit = resolve_commit("HEAD")
    if not LOCK.is_file():
        raise UserError("not found", file=LOCK, expected="the result of `dvc repro`")
    counts = dict.fromkeys(("ok", "damaged", "missing", "leftover"), 0)
    for finding in all_findings(commit):
        counts[finding.state] += 1
        tqdm.write(f"{finding.state:<9}{finding.item}{f'; restore: {finding.restore}' if finding.restore else ''}")
    echo(f"fsck: {', '.join(f'{count} {state}' for state, count in counts.items() if count)}")
    return not counts["damaged"] and not counts["missing"]


def all_findings(commit: str) -> Iterator[Finding]:
    """Yield the findings as they are made; a bar shows after two seconds."""
    cache, remote = Path(check_output("dvc", "cache", "dir")), bool(try_output("dvc", "remote", "list"))
    if cache.is_relative_to(Path.cwd()):
        cache = cache.relative_to(Path.cwd())
    outputs = tracked_outputs()
    for output in tqdm(outputs, desc="fsck", unit=" outputs", delay=2, leave=False, disable=None):
        findings = output_findings(output, cache, commit, remote=remote)
        yield from findings
        if output.path == FINAL_MODEL and findings[0].state == "ok":
            yield model_finding()
    for path in edited_records(locked_outputs(read_stages()), folder_reader(Path())):
        yield Finding("damaged", describe_edited(path), f"git restore --source HEAD {path}")
    yield from package_findings(current_hardware())
    for output in outputs:
        yield from leftovers(output.path)


def leftovers(path: Path) -> Iterator[Finding]:
    """Yield what a killed stage left beside an output: what it was writing, and the earlier output moved aside."""
    for part in ("", ".earlier"):
        left = path.with_name(f".{path.name}{part}.partial")
        if left.exists():
            restore = ["rm", "-r", str(left)] if path.exists() or not part else ["mv", str(left), str(path)]
            yield Finding("leftover", f"{left}: of a stage that was killed, or still runs", shlex.join(restore))


def output_findings(output: TrackedOutput, cache: Path, commit: str, *, remote: bool) -> list[Finding]:
    """Hash an output in the workspace and, if it is kept there, in DVC's cache.

    Args:
        output: what to hash.
        cache: DVC's cache.
        commit: its files restore those that git keeps.
        remote: whether DVC has a remote, which may have the files that the cache lacks.
    """
    here = workspace_damage(output, Path(), cache)
    stored = cache_damage(output, cache) if output.cached else None
    path, stage = shlex.quote(str(output.path)), shlex.quote(output.stage)
    remove = [f"rm -r {path}"] if here and not here.missing else []
    remove_objects = [shlex.join(["rm", "-f", *stored.files])] if stored and not stored.missing else []
    if here and not output.cached:
        in_git = md5_of(commit_reader(commit)(output.path)) == output.md5
        restore = [f"git restore --source HEAD {path}"] if in_git else [*remove, f"dvc repro {stage}"]
    elif here and not stored:
        restore = [*remove, f"dvc checkout {path}"]
    elif stored and not here:
        restore = [*remove_objects, f"dvc commit {stage}"]
    elif remote or stage.endswith(".dvc"):
        restore = [*remove_objects, *remove, f"dvc pull {path}"]
    else:
        restore = [*remove_objects, *remove, f"dvc repro {stage}"]
    command = " && ".join(restore)
    findings = [as_finding(str(output.path), here, command)]
    return [*findings, as_finding(f"{output.path} in DVC's cache", stored, command)] if output.cached else findings


def as_finding(item: str, damage: Damage | None, restore: str) -> Finding:
    """Describe damage in a line, with the files that are not the item itself."""
    if damage is None:
        return Finding("ok", item)
    files = ", ".join(damage.files)
    return Finding("missing" if damage.missing else "damaged", item if files == item else f"{item}: {files}", restore)


def model_finding() -> Finding:
    """Load the final model, which has the content in dvc.lock, and its tokenizer as predict does."""
    try:
        # Imported here, because torch itself may be damaged.
        from reprise.data.tokenization import load_tokenizer
        from reprise.modeling.classifier import load_classifier
        from reprise.modeling.inference import check_finite, check_labels
        from reprise.modeling.recipe import read_model_recipe

        recipe, model = read_model_recipe(), load_classifier(FINAL_MODEL)
        load_tokenizer(FINAL_MODEL)
        check_labels(model.config.id2label, recipe.task.kind)
        check_finite(model)
    except Exception as error:  # of any of the libraries that read the files
        line = UserError(f"{FINAL_MODEL} as a model: {' '.join(str(error).split())[:200]}")
        return Finding("damaged", str(line), "dvc repro --force train")
    return Finding("ok", f"{FINAL_MODEL} as a model: complete, with finite weights")


def package_findings(hardware: str) -> Iterator[Finding]:
    """Hash every installed file of the locked packages."""
    versions = locked_versions(hardware)
    restore = f"rm -r {shlex.quote(sys.prefix)} && make setup, or build the image again"
    wrong = {name: installed_version(name) for name, pinned in versions.items() if installed_version(name) != pinned}
    for name, found in wrong.items():
        yield Finding("damaged", f"package {name}: the lock pins {versions[name]}, installed is {found}", restore)
    files = installed_files(name for name in versions if name not in wrong)
    damaged = list(damaged_files(files))
    for file in damaged:
        yield Finding(
            "damaged" if Path(file.path).exists() else "missing", f"package {file.package}: {file.path}", restore
        )
    if not damaged and not wrong:
        yield Finding("ok", f"{len(versions)} packages: {len(files)} installed files")
