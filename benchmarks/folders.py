"""Folders in which a contender trains: the recipe, the prepared data, the pretrained model."""

import csv
import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from reprise.core.config import to_dict
from reprise.core.errors import UserError
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.core.validation import read_recipe
from reprise.data.format import stats_path
from reprise.hardware import ENVIRONMENT, HARDWARE_DIR

Recipe = dict[str, Any]  # as params.yaml says it

TASK = "rotten-tomatoes"  # of the default recipe
# What `dvc repro` reads of a checkout, beside the recipe and the data.
PIPELINE = (".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "src", str(HARDWARE_DIR))

# Two texts a row, and whether they were judged alike.
PAIRS: Recipe = {
    "name": "pairs",
    "source": {"kind": "files", "train": "data/own/pairs.csv", "validation": None, "test": None},
    "text": ["first", "second"],
    "label": "judged",
    "labels": ["differently", "alike"],
    "metrics": ["accuracy", "f1"],
    "id": None,
    "keep": None,
    "split": {"validation": 0.1, "test": 0.1, "group_by": None, "seed": 0},
    "limit": None,
    "submission": None,
}


def default_recipe() -> Recipe:
    """The recipe in params.yaml, whose data and model are here then.

    Raises:
        UserError: it is another than the benchmark is of, or cannot be cooked.
    """
    recipe: Recipe = to_dict(read_recipe())
    if recipe["task"]["name"] != TASK:
        raise UserError(f"params.yaml: task.name: expected {TASK}: reprise recipe task={TASK}")
    if not (stats_path().exists() and PRETRAINED.exists() and RAW.exists()) and subprocess.call(
        ["dvc", "repro", "prepare"]
    ):
        raise UserError("`dvc repro prepare` failed, see above; expected it to prepare the default recipe")
    return recipe


def reviews() -> Iterator[tuple[str, str]]:
    """The raw reviews with their verdicts, in the order of their table."""
    (table,) = (RAW / "all").iterdir()
    rows = pd.read_csv(table)
    judged = rows[rows["category"].isin(["rotten", "fresh"])]
    return zip(judged["text"], judged["category"], strict=True)


def pairs_of(reviews: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Reviews two by two, and whether both were judged alike."""
    reviews = iter(reviews)
    for (first, one), (second, other) in zip(reviews, reviews, strict=False):  # an odd one is left
        yield first, second, "alike" if one == other else "differently"


def lay_out(folder: Path, recipe: Recipe, place: Path, parts: Iterable[Path] = (PREPARED, PRETRAINED)) -> Path:
    """Make a folder with this recipe and this checkout's environment, and with links to parts of another; return it."""
    folder.mkdir(parents=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(recipe, file)
    for name, there in [
        (HARDWARE_DIR, HARDWARE_DIR),
        (ENVIRONMENT, ENVIRONMENT),
        *((part, place / part) for part in parts),
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(there.absolute())
    return folder


def lay_out_repository(folder: Path, recipe: Recipe) -> Path:
    """Make a git repository with this checkout's pipeline and this recipe, nothing cooked or committed; return it."""
    listed = subprocess.run(["git", "ls-files", "-z", "--", *PIPELINE], stdout=subprocess.PIPE, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, folder / name)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(recipe, file)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def write_pairs(table: Path, pairs: Iterable[tuple[str, str, str]]) -> None:
    """Write pairs of texts, each with its label, as a table with the columns that PAIRS names."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(itertools.chain([("first", "second", "judged")], pairs))


def prepare_pairs(folder: Path, pairs: Iterable[tuple[str, str, str]]) -> None:
    """Have `reprise prepare` prepare pairs of texts, each with its label, in a folder that has no data yet.

    Raises:
        UserError: it failed; its own words stand above.
    """
    write_pairs(folder / RAW / "all/pairs.csv", pairs)
    if subprocess.call([sys.executable, "-m", "reprise", "prepare"], cwd=folder, stdout=sys.stderr):
        raise UserError("`reprise prepare` failed, see above; expected it to prepare the pairs")
