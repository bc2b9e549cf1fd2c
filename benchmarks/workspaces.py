"""Workspaces: folders with a recipe, data and a pretrained model, to train in."""

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

from reprise.core.config import PARAMS, to_dict
from reprise.core.errors import UserError
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.core.validation import read_recipe
from reprise.data.format import stats_path
from reprise.hardware import ENVIRONMENT, HARDWARE_DIR

Recipe = dict[str, Any]  # nested, as in params.yaml

TASK = "rotten-tomatoes"  # the task of the default recipe
# The files of a checkout that `dvc repro` reads besides the recipe and the data.
PIPELINE = (".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "src", str(HARDWARE_DIR))

# Two reviews per row; the label is whether both have the same verdict.
PAIRS: Recipe = {
    "name": "pairs",
    "source": {"kind": "local", "train": "data/own/pairs.csv", "validation": None, "test": None},
    "text_columns": ["first", "second"],
    "label_column": "judged",
    "labels": ["differently", "alike"],
    "positive_label": "alike",
    "metrics": ["accuracy", "f1"],
    "id_column": None,
    "filter": None,
    "split": {"validation": 0.1, "test": 0.1, "group_by": None, "seed": 0},
    "max_examples": None,
    "submission": None,
}


def default_recipe() -> Recipe:
    """Read the recipe in params.yaml, and prepare its data and model if they are missing.

    Raises:
        UserError: params.yaml has another task, or preparing fails.
    """
    recipe: Recipe = to_dict(read_recipe())
    if recipe["task"]["name"] != TASK:
        raise UserError(file=PARAMS, key="task.name", expected=f"{TASK}: reprise compose task={TASK}")
    if not (stats_path().exists() and PRETRAINED.exists() and RAW.exists()) and subprocess.call(
        ["dvc", "repro", "prepare"]
    ):
        raise UserError("failed, see above", key="dvc repro prepare", expected="it to prepare the default recipe")
    return recipe


def reviews() -> Iterator[tuple[str, str]]:
    """Yield the raw reviews with their verdicts, in the order of the table."""
    (table,) = (RAW / "all").iterdir()
    rows = pd.read_csv(table)
    judged = rows[rows["category"].isin(["rotten", "fresh"])]
    return zip(judged["text"], judged["category"], strict=True)


def pair_reviews(reviews: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield reviews in pairs, labelled by whether both have the same verdict."""
    reviews = iter(reviews)
    for (first, one), (second, other) in zip(reviews, reviews, strict=False):  # an odd one is dropped
        yield first, second, "alike" if one == other else "differently"


def make_workspace(folder: Path, recipe: Recipe, source: Path, linked: Iterable[Path] = (PREPARED, PRETRAINED)) -> Path:
    """Create a workspace with a recipe and links to the data and model of `source`.

    Args:
        folder: the new workspace.
        recipe: its recipe.
        source: a folder with prepared data and a pretrained model.
        linked: the paths in `source` to link.
    """
    folder.mkdir(parents=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(recipe, file)
    for name, target in [
        (HARDWARE_DIR, HARDWARE_DIR),
        (ENVIRONMENT, ENVIRONMENT),
        *((path, source / path) for path in linked),
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target.absolute())
    return folder


def make_repository(folder: Path, recipe: Recipe) -> Path:
    """Create a git repository with this checkout's pipeline and a recipe, without results."""
    listed = subprocess.run(["git", "ls-files", "-z", "--", *PIPELINE], stdout=subprocess.PIPE, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, folder / name)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(recipe, file)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def write_pairs(table: Path, pairs: Iterable[tuple[str, str, str]]) -> None:
    """Write labelled pairs of texts as a CSV file with the columns of PAIRS."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(itertools.chain([("first", "second", "judged")], pairs))


def prepare_pairs(folder: Path, pairs: Iterable[tuple[str, str, str]]) -> None:
    """Write labelled pairs as the raw data of a workspace and run `reprise prepare` there.

    Raises:
        UserError: it failed; its own message is on stderr.
    """
    write_pairs(folder / RAW / "all/pairs.csv", pairs)
    if subprocess.call([sys.executable, "-m", "reprise", "prepare"], cwd=folder, stdout=sys.stderr):
        raise UserError("failed, see above", key="reprise prepare", expected="it to prepare the pairs")
