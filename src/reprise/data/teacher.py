"""What the stage teacher wrote for training: files, names, and whether they are of this recipe. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import TEACHER
from reprise.data.format import stats_path

TEACHER_FILE = "teacher.json"
TEACHER_COLUMN = "teacher"  # logits of the teacher, fp32, [outputs] of a row
SPLITS = ("train", "validation")  # a fold may train rows of both


def teacher_files() -> list[Path]:
    """Return the files with the teacher's logits, and the one about them; [] if the stage has not run."""
    return sorted(TEACHER.glob("*.arrow")) + sorted(TEACHER.glob(TEACHER_FILE))


def prepared_digests(stats: Mapping[str, Any]) -> dict[str, str]:
    """Take from the content of stats.json the SHA-256 of each split that a teacher is asked about."""
    return {split: stats["splits"][split]["sha256"] for split in SPLITS}


def read_teacher(recipe: Recipe) -> dict[str, Any] | None:
    """Return the content of teacher.json, which is of the recipe's teacher and of the prepared data.

    Returns:
        None if the recipe has no teacher.

    Raises:
        UserError: the stage has not run for this teacher and these data.
    """
    if recipe.train.distill is None:
        return None
    content = read_json(TEACHER / TEACHER_FILE)
    wanted = (recipe.train.distill.teacher, prepared_digests(read_json(stats_path())))
    if (content.get("teacher"), content.get("data")) != wanted:
        expected = f"the outputs of {recipe.train.distill.teacher}: run `dvc repro teacher`"
        raise UserError("of another teacher, or of other data", file=TEACHER, expected=expected)
    return content
