"""Soups: of equal models the model to the bit, of others the mean, and of models that do not fit none."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.validation import check_recipe
from reprise.data.tokenization import load_tokenizer
from reprise.ensemble.soup import check_parts, mean_tensor, write_soup
from reprise.modeling.classifier import load_classifier
from reprise.modeling.recipe import write_model_recipe
from tiny import tiny_recipe


def write_model(tiny_model: Path, folder: Path, seed: int) -> Path:
    """Write a folder like models/final, with a head and an encoder that depend on the seed."""
    recipe = check_recipe(tiny_recipe(seed=seed), "test")
    torch.manual_seed(seed)
    model = load_classifier(tiny_model, recipe.task.kind)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn_like(weight)
        model.classifier.weight *= 30  # with a new head, all answers would be nearly the same
    model.save_pretrained(folder)
    load_tokenizer(tiny_model).save_pretrained(folder)
    write_model_recipe(recipe, folder)
    return folder


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders like models/final of three seeds. Do not change."""
    folder = tmp_path_factory.mktemp("models")
    return [write_model(tiny_model, folder / str(seed), seed) for seed in (42, 43, 44)]


def test_a_soup_of_equal_models_is_the_model_to_the_bit(models: list[Path], tmp_path: Path) -> None:
    for count in (2, 3):
        folders = [models[0]] * count
        check_parts(["a"] * count, folders)
        write_soup(folders, tmp_path / str(count))
        files = {file.name for file in models[0].iterdir()} - {"recipe.json"}
        assert {file.name for file in (tmp_path / str(count)).iterdir()} == files
        assert {name: sha256(tmp_path / str(count) / name) for name in files} == {
            name: sha256(models[0] / name) for name in files
        }


def test_the_weights_are_the_means(models: list[Path], tmp_path: Path) -> None:
    check_parts(["a", "b", "c"], models)
    write_soup(models, tmp_path / "soup")
    found = load_file(tmp_path / "soup/model.safetensors")
    loaded = [load_file(folder / "model.safetensors") for folder in models]
    assert found.keys() == loaded[0].keys()
    for name, tensor in found.items():
        expected = torch.stack([each[name].double() for each in loaded]).mean(dim=0).float()
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-9)
    load_classifier(tmp_path / "soup")


def test_a_mean_keeps_the_type_the_sign_of_zero_and_integers() -> None:
    zero = torch.tensor([-0.0])
    assert str(mean_tensor([zero, zero]).item()) == "-0.0"
    halves = [torch.tensor([value], dtype=torch.bfloat16) for value in (1.0, 2.0)]
    assert (mean_tensor(halves).dtype, mean_tensor(halves).item()) == (torch.bfloat16, 1.5)
    assert mean_tensor([torch.arange(3), torch.arange(3)]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("part", ["config.json", "tokenizer.json", "model.safetensors: classifier.bias"])
def test_models_that_differ_in_a_part_are_refused(models: list[Path], tmp_path: Path, part: str) -> None:
    other = Path(shutil.copytree(models[1], tmp_path / "other"))
    if part == "config.json":
        config = json.loads((other / part).read_text())
        (other / part).write_text(json.dumps(config | {"num_attention_heads": 4}))
    elif part == "tokenizer.json":
        (other / part).write_text((other / part).read_text() + "\n")
    else:
        weights = load_file(other / "model.safetensors")
        save_file(weights | {"classifier.bias": torch.zeros(3)}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError) as refused:
        check_parts(["a", "b"], [models[0], other])
    assert str(refused.value).startswith(f"b: has another {part}; expected that of a: a soup has one architecture")


def test_the_version_of_transformers_is_no_part_of_the_architecture(models: list[Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(models[1], tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"transformers_version": "4.0.0"}))
    check_parts(["a", "b"], [models[0], other])
