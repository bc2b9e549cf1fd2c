"""The stage teacher, and training on what it wrote: the same losses of all engines and for any micro-batches."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.files import write_json
from reprise.core.validation import check_recipe
from reprise.data.sources import source_digests
from reprise.data.teacher import TEACHER_COLUMN
from reprise.modeling.inference import load_text_model
from reprise.modeling.recipe import read_model_recipe
from reprise.prepare.stage import prepare
from reprise.teacher.stage import is_part_of, write_teacher
from reprise.train.checkpoint import fingerprint
from reprise.train.preflight import preflight
from tiny import Run, tiny_recipe, write_params

FOLDER = Path("data/own/teacher")
DISTILL = {"train.distill": {"teacher": str(FOLDER), "temperature": 2.0, "alpha": 0.5}}
STUDENT = {**DISTILL, "train.num_hidden_layers": 1, "train.epochs": 1}
CONFIG = Path("models/final/config.json")


def recipe(**changes: Any) -> Recipe:
    return check_recipe(tiny_recipe(**changes), "params.yaml")


def ask(**changes: Any) -> None:
    """Run the stage in this process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    write_teacher(recipe(**changes), "cpu")


@pytest.fixture
def teacher(train: Callable[..., Recipe]) -> Path:
    """A model of one epoch as the teacher in data/own/."""
    train(**{"train.epochs": 1})
    return Path(shutil.copytree("models/final", FOLDER))


def losses() -> list[float]:
    return [*pd.read_csv("plots/train.csv")["loss"]]


def test_the_stage_writes_the_logits_of_predict_and_students_train_on_them(
    teacher: Path, train: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(**DISTILL)
    assert "data/own/teacher, on the validation split: accuracy " in capsys.readouterr().out
    model = load_text_model(read_model_recipe(teacher), cpu=True, folder=teacher)
    for split in ("train", "validation"):
        rows, found = (Dataset.from_file(f"data/{name}/{split}.arrow") for name in ("prepared", "teacher"))
        expected = model([(text,) for text in rows["text"]])[0]
        np.testing.assert_allclose(np.array(found[TEACHER_COLUMN][:], np.float32), expected, rtol=1e-4, atol=1e-5)
    content = json.loads(Path("data/teacher/teacher.json").read_text())
    Path("data/own/reviews.csv").touch()
    Path("data/own/tiny").mkdir()
    Path("data/own/tiny/config.json").touch()
    assert content["sha256"] == source_digests(recipe(**DISTILL))["teacher"][str(FOLDER)]
    assert content["validation"]["accuracy"] > 0.5
    assert preflight(recipe(**STUDENT)).notes == ["1 of 2 layers are kept: 0, counted from 0"]

    train(**STUDENT)
    assert "train: distilled from data/own/teacher (temperature 2, alpha 0.5)\n" in capsys.readouterr().out
    distilled, weights = losses(), Path("models/final/model.safetensors").read_bytes()
    assert json.loads(CONFIG.read_text())["num_hidden_layers"] == 1
    assert json.loads(Path("models/final/recipe.json").read_text())["train"]["distill"] == DISTILL["train.distill"]
    loaded = AutoModelForSequenceClassification.from_pretrained("models/final")
    row = Dataset.from_file("data/prepared/validation.arrow")[0]
    student = load_text_model(read_model_recipe(), cpu=True)
    with torch.no_grad():
        logits = loaded.eval()(input_ids=torch.tensor([row["input_ids"]])).logits.numpy()
    np.testing.assert_allclose(student([(row["text"],)])[0], logits, rtol=1e-4, atol=1e-5)

    for engine in ("pytorch", "trainer"):
        train(**STUDENT, **{"train.engine": engine})
        assert losses() == distilled, engine
        assert Path("models/final/model.safetensors").read_bytes() == weights, engine
    train(**STUDENT, **{"train.micro_batch_size": 3})
    assert losses() == pytest.approx(distilled, rel=1e-5)
    train(**{**STUDENT, "train.distill": None})
    assert losses() != pytest.approx(distilled, rel=1e-3)


def test_other_outputs_of_the_teacher_are_another_run(teacher: Path) -> None:
    ask(**DISTILL)
    before = fingerprint(recipe(**DISTILL))
    assert {"data/teacher/teacher.json", "data/teacher/train.arrow", "data/teacher/validation.arrow"} <= before.keys()
    with Path("data/teacher/train.arrow").open("ab") as file:
        file.write(b"\0")
    assert fingerprint(recipe(**DISTILL)) != before
    assert not [name for name in fingerprint(recipe()) if name.startswith("data/teacher")]


def test_the_outputs_of_another_teacher_or_of_other_data_are_refused(teacher: Path) -> None:
    ask(**DISTILL)
    changed = {"train.distill": DISTILL["train.distill"] | {"teacher": "data/own/other"}}
    with pytest.raises(UserError, match=r"^data/teacher: of another teacher, or of other data; expected the outputs"):
        preflight(recipe(**changed))
    other = recipe(**DISTILL, **{"task.split.seed": 3})
    prepare(other.task, max_length=other.train.max_length)
    with pytest.raises(UserError, match="of other data"):
        preflight(other)


def test_a_fold_trains_on_the_rows_of_all_splits_with_their_own_outputs(
    teacher: Path, train: Callable[..., Recipe]
) -> None:
    folds = {"task.split.validation": None, "task.split.folds": 3, "train.fold": 1}
    changed = recipe(**folds)
    prepare(changed.task, max_length=changed.train.max_length)
    ask(**DISTILL, **folds)
    (warning,) = preflight(recipe(**DISTILL, **folds)).warnings
    assert warning.startswith("the teacher was trained with fold 0 as its validation split")
    # A student that equals its teacher everywhere has no loss of it: only with the outputs of its own rows.
    from reprise.modeling.splits import split_parts
    from reprise.train.dataset import ShardedDataset

    rows = ShardedDataset(split_parts("train", 1, inputs=True), teacher=True)
    texts = [text for part in split_parts("train", 1) for text in part.load()["text"]]
    chosen = [0, len(rows) // 2, len(rows) - 1]
    model = load_text_model(read_model_recipe(teacher), cpu=True, folder=teacher)
    expected = model([(texts[index],) for index in chosen])[0]
    found = np.array([row[TEACHER_COLUMN] for row in rows.__getitems__(chosen)], np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"task.labels": ["fresh", "rotten"], "task.positive_label": "fresh"},
            "params.yaml: train.distill.teacher: data/own/teacher: its labels are rotten, fresh; "
            "expected fresh, rotten, in this order",
        ),
        (
            {"task.text_columns": ["text", "film"]},
            "params.yaml: train.distill.teacher: data/own/teacher: it reads 1 text(s); "
            "expected 2, as task.text_columns has",
        ),
    ],
)
def test_a_teacher_of_something_else_is_one_line(workdir: Path, changes: dict[str, Any], line: str) -> None:
    write_final(FOLDER)
    with pytest.raises(UserError) as refused:
        ask(**DISTILL, **changes)
    assert str(refused.value) == line


def write_final(folder: Path, **changes: Any) -> None:
    """Write the files of a model that are read before its weights."""
    from reprise.modeling.recipe import write_model_recipe

    folder.mkdir(parents=True)
    write_json(folder / "config.json", {})
    write_model_recipe(recipe(**changes), folder)


def test_a_teacher_of_another_split_is_a_warning(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(teacher, **{"task.split.seed": 7})
    ask(**DISTILL)
    expected = "teacher: warning: data/own/teacher was trained with another task.split, so it may have seen examples"
    assert expected in capsys.readouterr().out
    assert len(json.loads(Path("data/teacher/teacher.json").read_text())["warnings"]) == 1


def test_a_section_of_an_earlier_version_may_have_fewer_keys() -> None:
    assert is_part_of({"seed": 0}, {"seed": 0, "folds": None})
    assert not is_part_of({"seed": 1}, {"seed": 0, "folds": None})
    assert not is_part_of(None, {"seed": 0})


def test_without_a_teacher_the_stage_writes_that_there_is_none_and_imports_no_torch(workdir: Path, run: Run) -> None:
    write_params(workdir)
    code = """
import sys
from typer.testing import CliRunner
from reprise.cli import app
assert CliRunner().invoke(app, ["teacher"]).exit_code == 0
print("torch" in sys.modules)
"""
    assert run(workdir, sys.executable, "-c", code).stdout == "False\n"
    assert [file.name for file in Path("data/teacher").iterdir()] == ["teacher.json"]
    assert json.loads(Path("data/teacher/teacher.json").read_text()) == {"teacher": None}
