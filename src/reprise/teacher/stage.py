"""`reprise teacher`: ask the teacher of `train.distill` once, before training.

    data/teacher/train.arrow, validation.arrow   for each prepared file, one with the logits of its rows, in their order
    data/teacher/teacher.json                    the teacher, digests of the data, metrics on the validation split

The validation split is asked, too, because a fold of a cross-validation trains on it. Nothing here imports torch unless
there is a teacher.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprise.core.config import PARAMS, Recipe, Train, to_dict
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, read_json, write_json
from reprise.core.paths import TEACHER
from reprise.core.validation import load_params
from reprise.data.format import split_shards, stats_path
from reprise.data.sources import TEACHER_KEY, model_files, path_digest
from reprise.data.teacher import SPLITS, TEACHER_COLUMN, TEACHER_FILE, prepared_digests
from reprise.ensemble.folder import is_ensemble, member_folders
from reprise.hardware import require_device
from reprise.modeling.recipe import ModelRecipe, model_recipe, read_model_recipe

if TYPE_CHECKING:
    from reprise.modeling.inputs import TextModel
    from reprise.tasks.kind import Logits

CHUNK_ROWS = 1000  # examples between two lines of progress; batches of similar lengths are formed within a chunk
LOG_EVERY_S = 10
# What decides which examples a model was trained on.
SPLIT_KEYS = ("source", "filter", "split", "max_examples")
LEAK = "so it may have seen examples of this recipe's validation and test splits"


def write_teacher(recipe: Recipe, hardware: str, check: Callable[[], None] = lambda: None) -> None:
    """Write the logits of the teacher to data/teacher/; without `train.distill`, only that there is none.

    Args:
        recipe: names the teacher.
        hardware: the folder in docker/.
        check: called before the output is replaced; raises if it may not be.

    Raises:
        UserError: there is no such teacher, or it predicts something else than the recipe.
    """
    if recipe.train.distill is None:
        check()
        with atomic_dir(TEACHER) as partial:
            write_json(partial / TEACHER_FILE, {"teacher": None})
        return
    teacher = Path(recipe.train.distill.teacher)
    folders = member_folders(teacher) if is_ensemble(teacher) else [teacher]
    recipes = [read_model_recipe(folder) for folder in folders]
    for each in recipes:
        check_fits(each, recipe, teacher)
    warnings = leak_warnings(recipes, recipe, teacher)
    for warning in warnings:
        echo(f"teacher: warning: {warning}")
    content: dict[str, Any] = {
        "teacher": str(teacher),
        "sha256": path_digest(teacher, model_files(teacher, TEACHER_KEY)),
        "data": prepared_digests(read_json(stats_path())),
        "folds": [each.train.fold or 0 for each in recipes],
        "warnings": warnings,
    }
    cpu = require_device(hardware) == "cpu"
    asked = [as_asked_here(each, recipe.train) for each in recipes]
    kind_recipe, model = open_teacher(asked, folders, recipe, cpu=cpu)
    with atomic_dir(TEACHER) as partial:
        metrics = write_logits(recipe, kind_recipe, model, partial)
        content["validation"] = metrics
        write_json(partial / TEACHER_FILE, content)
        check()
    listed = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    echo(f"teacher: {teacher}, on the validation split: {listed}")


def check_fits(teacher: ModelRecipe, recipe: Recipe, folder: Path) -> None:
    """Check that a teacher predicts what the recipe does.

    Raises:
        UserError: it has other labels, or the same in another order, another kind of task, or another number of texts.
    """
    own, task = teacher.task, recipe.task
    found = [
        (f"its task is {own.kind.name}", task.kind.name),
        (f"its labels are {', '.join(own.labels)}", f"{', '.join(task.labels)}, in this order"),
        (f"it reads {len(own.text_columns)} text(s)", f"{len(task.text_columns)}, as task.text_columns has"),
    ]
    same = (own.kind.name == task.kind.name, own.labels == task.labels, len(own.text_columns) == len(task.text_columns))
    for (problem, expected), fits in zip(found, same, strict=True):
        if not fits:
            raise UserError(f"{folder}: {problem}", file=PARAMS, key=TEACHER_KEY, expected=expected)


def leak_warnings(teachers: Sequence[ModelRecipe], recipe: Recipe, folder: Path) -> list[str]:
    """Return what shows that a teacher was trained on other examples than the student, a sentence each.

    A folder of `reprise export` has the teacher's params.yaml; the others say only its task.
    """
    names = sorted({each.task.name for each in teachers} - {recipe.task.name})
    if names:
        return [f"{folder} was trained for the task {', '.join(names)}, {LEAK}"]
    if not (folder / PARAMS.name).is_file():
        return []
    task = (load_params(folder / PARAMS.name) or {}).get("task") or {}
    before, now = ({key: each.get(key) for key in SPLIT_KEYS} for each in (task, to_dict(recipe.task)))
    changed = [f"task.{key}" for key in SPLIT_KEYS if not is_part_of(before[key], now[key])]
    return [f"{folder} was trained with another {' and '.join(changed)}, {LEAK}"] if changed else []


def is_part_of(given: Any, complete: Any) -> bool:
    """Return whether a section equals another one that may have more keys, which came with later versions."""
    if isinstance(given, dict) and isinstance(complete, dict):
        return all(key in complete and is_part_of(value, complete[key]) for key, value in given.items())
    return bool(given == complete)


def as_asked_here(teacher: ModelRecipe, train: Train) -> ModelRecipe:
    """Return a teacher's recipe with what is set for a process as the student's recipe says, so that it fixes the bits.

    How a text is read stays the teacher's: its tokenizer, `train.max_length` and `data.windows`.
    """
    changed = replace(  # type: ignore[type-var]  # mypy does not see through `_section`
        teacher.train, engine="accelerate", precision=train.precision, threads=train.threads, bucket_lengths="auto"
    )
    return replace(teacher, train=changed)


def open_teacher(
    recipes: Sequence[ModelRecipe], folders: Sequence[Path], recipe: Recipe, *, cpu: bool
) -> "tuple[ModelRecipe, TextModel]":
    """Load one model, or all members of an ensemble.

    Returns:
        The teacher's recipe with the task of the student, for its thresholds; and the model.
    """
    from reprise.ensemble.model import ensemble_model, joined_recipe
    from reprise.modeling.inference import load_text_model

    members = [load_text_model(each, cpu=cpu, folder=folder) for each, folder in zip(recipes, folders, strict=True)]
    joined = replace(joined_recipe(recipes), task=model_recipe(recipe).task)
    return joined, members[0] if len(members) == 1 else ensemble_model(members, recipe.task.kind)


def write_logits(recipe: Recipe, teacher: ModelRecipe, model: "TextModel", folder: Path) -> dict[str, float]:
    """Write the logits of all prepared rows of the training and validation splits, fp32, [rows, outputs], by file.

    Returns:
        The metrics of the teacher on the validation split.
    """
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset, Features, List, Value

    from reprise.data.labels import column_array
    from reprise.data.mmap import drop_mapped_pages
    from reprise.modeling.scoring import compute_metrics

    outputs = len(teacher.kind.head_config()["id2label"])
    schema = Features({TEACHER_COLUMN: List(Value("float32"), length=outputs)}).arrow_schema
    shards = [(split, Dataset.from_file(str(file)), file.name) for split in SPLITS for file in split_shards(split)]
    columns = [name for name in ("text", "text_pair") if name in shards[0][1].column_names]
    total, done, start = sum(len(rows) for _, rows, _ in shards), 0, time.monotonic()
    last_line = start
    logits: list[Logits] = []
    references: list[Any] = []
    echo(f"teacher: {total} examples")
    for split, rows, name in shards:
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for first in range(0, len(rows), CHUNK_ROWS):
                chunk = rows[first : first + CHUNK_ROWS]
                found = model(list(zip(*(chunk[column] for column in columns), strict=True)))[0].astype(np.float32)
                values = pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), outputs)
                writer.write_table(pa.table({TEACHER_COLUMN: values}, schema=schema))
                if split == "validation":
                    logits.append(found)
                done += len(found)
                drop_mapped_pages()
                now = time.monotonic()
                if now - last_line >= LOG_EVERY_S and done < total:
                    last_line = now
                    echo(f"teacher: {done} of {total} examples, {(now - start) / done * (total - done):.0f} s left")
        if split == "validation":
            references.append(column_array(rows))
    metrics = compute_metrics(recipe.task.metrics, teacher.kind, np.concatenate(logits), np.concatenate(references))
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
