"""Hash the outputs in dvc.lock again, in the workspace and in DVC's cache, and find what restores the damaged ones."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reprise.core.config import LOCAL_DATA
from reprise.core.dvc_lock import LOCK, file_md5, file_md5s, folder_md5, locked_outputs, read_stages


@dataclass(frozen=True)
class TrackedOutput:
    """A file or folder whose MD5 DVC recorded.

    Attributes:
        path: in the workspace.
        md5: in dvc.lock or a .dvc file.
        stage: the stage or .dvc file that DVC names it by.
        cached: whether DVC's cache keeps it; git keeps the others.
    """

    path: Path
    md5: str
    stage: str
    cached: bool


@dataclass(frozen=True)
class Damage:
    """What is wrong with an output in the workspace or in the cache.

    Attributes:
        missing: whether it is only absent, not damaged.
        files: the damaged or missing files, relative to the workspace or as objects of the cache; at least one.
    """

    missing: bool
    files: list[str]


def tracked_outputs(root: Path = Path()) -> list[TrackedOutput]:
    """List the outputs in dvc.lock, and the user's own files that `dvc add` tracks.

    Raises:
        UserError: dvc.lock is missing or damaged.
    """
    in_git = {path for path, options in declared_outputs(root).items() if options.get("cache") is False}
    outputs = [
        TrackedOutput(Path(path), output.md5, output.stage, path not in in_git)
        for path, output in locked_outputs(read_stages((root / LOCK).read_bytes())).items()
    ]
    for file in sorted((root / LOCAL_DATA).rglob("*.dvc")):
        name = file.relative_to(root)
        outs = YAML(typ="safe").load(file.read_bytes())["outs"]
        outputs += [TrackedOutput(name.parent / out["path"], out["md5"], str(name), cached=True) for out in outs]
    return outputs


def declared_outputs(root: Path) -> dict[str, dict[str, Any]]:
    """Return the options of each output in dvc.yaml, by path."""
    stages = YAML(typ="safe").load((root / "dvc.yaml").read_bytes())["stages"].values()
    entries = [entry for stage in stages for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return {
        path: options
        for entry in entries
        for path, options in (entry if isinstance(entry, dict) else {entry: {}}).items()
    }


def object_path(cache: Path, md5: str) -> Path:
    """Return the path of an object in DVC's cache (dvc.org/doc/user-guide/project-structure/internal-files)."""
    return cache / "files/md5" / md5[:2] / md5[2:]


def cached_files(cache: Path, md5: str) -> dict[str, str] | None:
    """Return the MD5 of each file of a cached folder, by path relative to it; None if the cache lacks its list."""
    file = object_path(cache, md5)
    if not file.is_file() or f"{file_md5(file)}.dir" != md5:
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(file.read_bytes())}


def workspace_damage(output: TrackedOutput, root: Path, cache: Path) -> Damage | None:
    """Hash an output in the workspace; None if it is as recorded.

    Args:
        output: what to hash.
        root: the workspace.
        cache: DVC's cache, whose list of a folder's files is needed to name one of them.
    """
    path = root / output.path
    if not path.exists():
        return Damage(missing=True, files=[str(output.path)])
    if not output.md5.endswith(".dir"):
        same = path.is_file() and file_md5(path) == output.md5
        return None if same else Damage(missing=False, files=[str(output.path)])
    found = file_md5s(path)
    if path.is_dir() and folder_md5(found) == output.md5:
        return None
    expected = cached_files(cache, output.md5) or {}
    differing = sorted(name for name in {**expected, **found} if expected and expected.get(name) != found.get(name))
    return Damage(missing=False, files=[str(output.path / name) for name in differing] or [str(output.path)])


def cache_damage(output: TrackedOutput, cache: Path) -> Damage | None:
    """Hash the objects of an output in DVC's cache; None if all are as recorded."""
    file = object_path(cache, output.md5)
    if not file.is_file():
        return Damage(missing=True, files=[str(file)])
    if file_md5(file) != output.md5.removesuffix(".dir"):
        return Damage(missing=False, files=[str(file)])
    listed = cached_files(cache, output.md5) or {} if output.md5.endswith(".dir") else {}
    objects = [(object_path(cache, md5), md5) for md5 in sorted(set(listed.values()))]
    damaged = [str(each) for each, md5 in objects if each.is_file() and file_md5(each) != md5]
    if damaged:
        return Damage(missing=False, files=damaged)
    absent = [str(each) for each, _ in objects if not each.is_file()]
    return Damage(missing=True, files=absent) if absent else None
