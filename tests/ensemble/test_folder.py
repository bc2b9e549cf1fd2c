"""The folder of an ensemble: predict averages its members, and a file that is not the judged one is refused."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reprise.commands.predict import predict_texts
from reprise.commands.text_models import open_model
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.data.tokenization import load_tokenizer
from reprise.ensemble.average import averaged_logits, scores_of_logits
from reprise.ensemble.folder import ENSEMBLE, MEMBERS, is_ensemble, member_folders, write_combination
from reprise.ensemble.members import describe_member
from reprise.modeling.classifier import load_classifier
from reprise.modeling.recipe import write_model_recipe
from stored_predictions import synthetic_run
from tiny import tiny_recipe

MULTI_LABEL: dict[str, Any] = {
    "task.labels": ["long", "sequel", "none"],
    "task.label_column": None,
    "task.metrics": ["f1_micro"],
    "task.multi_label": {"separator": None, "thresholds": "tuned"},
}
KINDS: dict[str, dict[str, Any]] = {
    "classification": {},
    "multi_label": MULTI_LABEL,
    "regression": {"task.labels": [], "task.metrics": ["pearson"]},
}
TEXTS = [("a bright, moving film",), ("the plot is dull",), ("",), ("a funny scene and a tired end",)]


def write_ensemble(tiny_model: Path, folder: Path, **changes: Any) -> Path:
    """Write an ensemble of two untrained models."""
    described = []
    for number, seed in enumerate((42, 43)):
        recipe, member = check_recipe(tiny_recipe(seed=seed, **changes), "test"), folder / MEMBERS / str(number)
        torch.manual_seed(seed)
        model = load_classifier(tiny_model, recipe.task.kind)
        with torch.no_grad():  # with a new head, all answers would be nearly the same
            model.classifier.weight *= 30
        model.save_pretrained(member)
        load_tokenizer(tiny_model).save_pretrained(member)
        thresholds = [0.2 + 0.2 * number] * 3 if recipe.task.multi_label else None
        write_model_recipe(recipe, member, thresholds)
        described.append(describe_member(synthetic_run(f"run-{seed}", seed=seed), member))
    write_combination(folder / ENSEMBLE, "the probabilities", described, {"split": "test"})
    return folder


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """An ensemble of classifiers."""
    return write_ensemble(tiny_model, tmp_path / "ensemble")


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_answers_with_the_averages_of_its_members(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    folder = write_ensemble(tiny_model, tmp_path / "ensemble", **KINDS[kind])
    recipe, model = open_model(folder)
    members = [open_model(each) for each in member_folders(folder)]
    answers = [scores_of_logits(member(TEXTS)[0], own.kind) for own, member in members]
    assert not np.array_equal(*answers)
    found, _ = model(TEXTS)
    assert found.tobytes() == averaged_logits(answers[::-1], recipe.kind).tobytes()
    if kind == "multi_label":
        assert recipe.thresholds == pytest.approx([0.3] * 3)
    out = io.StringIO()
    predict_texts(recipe, model, TEXTS, out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    printed = [list(line["probabilities"].values()) if recipe.kind.labels else [line["label"]] for line in lines]
    np.testing.assert_allclose(printed, np.mean(answers, axis=0), rtol=1e-6)


def test_a_file_that_was_not_judged_is_refused(folder: Path) -> None:
    assert is_ensemble(folder)
    assert [each.name for each in member_folders(folder)] == ["0", "1"]
    (folder / MEMBERS / "1/added.txt").touch()
    with pytest.raises(UserError, match=r"1/added.txt: not the file that ensemble.json records"):
        open_model(folder)
    (folder / MEMBERS / "1/added.txt").unlink()
    recipe = folder / MEMBERS / "0/recipe.json"
    recipe.write_text(recipe.read_text() + "\n")
    with pytest.raises(UserError, match=r"0/recipe.json: not the file that ensemble.json records"):
        open_model(folder)
    shutil.rmtree(folder / MEMBERS / "0")
    with pytest.raises(UserError, match=r"0/config.json: not the file that ensemble.json records"):
        open_model(folder)


def test_a_damaged_description_is_refused_with_its_key(folder: Path) -> None:
    content = json.loads((folder / ENSEMBLE).read_text())
    content["members"][1]["seed"] = "many"
    (folder / ENSEMBLE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"ensemble.json: members.1.seed: damaged"):
        open_model(folder)
