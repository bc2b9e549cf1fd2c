"""The folder of an ensemble or a soup: what it was made of, and whether its files are still those."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reprise.core.errors import UserError
from reprise.core.files import read_json, sha256, write_json

ENSEMBLE = "ensemble.json"  # beside the folder of the members
SOUP = "soup.json"  # beside the weights
MEMBERS = "members"
WRITTEN = "the folder that `reprise ensemble --output` wrote"


@dataclass(frozen=True)
class Member:
    """A model that was combined.

    Attributes:
        run: name of its run.
        commit: of the run; None for one of the workspace.
        seed: of the run.
        model: DVC's MD5 of its folder, as in the run's dvc.lock.
        files: SHA-256 of each file, by name.
    """

    run: str
    commit: str | None
    seed: int
    model: str
    files: dict[str, str]


@dataclass(frozen=True)
class Combination:
    """The content of ensemble.json or soup.json.

    Attributes:
        combined: what was averaged.
        members: in the order of their folders.
        evaluation: split, metrics and intervals, as metrics/evaluate.json has those of a run.
    """

    combined: str
    members: list[Member]
    evaluation: dict[str, Any]


def write_combination(file: Path, combined: str, members: Sequence[Member], evaluation: Mapping[str, Any]) -> None:
    """Write ensemble.json or soup.json."""
    write_json(file, asdict(Combination(combined, list(members), dict(evaluation))))


def is_ensemble(folder: Path) -> bool:
    """Return whether a folder is that of an ensemble."""
    return (folder / ENSEMBLE).is_file()


def member_folders(folder: Path) -> list[Path]:
    """Return the folders of the members of an ensemble, and check that their files are those that were judged.

    Raises:
        UserError: ensemble.json is damaged, or a file is missing, new or another.
    """
    content = read_json(folder / ENSEMBLE)
    try:
        members = TypeAdapter(Combination).validate_python(content).members
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError("damaged", file=folder / ENSEMBLE, key=key, expected=WRITTEN) from None
    folders = [folder / MEMBERS / str(number) for number in range(len(members))]
    for member, each in zip(members, folders, strict=True):
        present = {file.name for file in each.iterdir()} if each.is_dir() else set()
        for name in sorted(present | member.files.keys()):
            known = name in present and name in member.files and (each / name).is_file()
            if not known or sha256(each / name) != member.files[name]:
                raise UserError(f"not the file that {ENSEMBLE} records", file=each / name, expected=WRITTEN)
    return folders
