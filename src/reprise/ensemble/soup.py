"""Average the weights of models into one model, a soup.

M. Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time, ICML 2022: the uniform soup.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from reprise.core.errors import UserError
from reprise.modeling.recipe import RECIPE_FILE

CONFIG, WEIGHTS = "config.json", ".safetensors"
# Of config.json, what says with which software and from where it was written.
NOT_ARCHITECTURE = ("transformers_version", "_name_or_path")


def check_parts(names: Sequence[str], folders: Sequence[Path]) -> None:
    """Check that models have the same architecture and labels, tokenizer, and names, shapes and types of weights.

    Args:
        names: of the models, for errors.
        folders: of the models.

    Raises:
        UserError: one differs from the first.
    """
    expected = f"that of {names[0]}: a soup has one architecture, tokenizer and pretrained model"
    first = _parts(folders[0])
    for name, folder in zip(names, folders, strict=True):
        parts = _parts(folder)
        for part in sorted({*first, *parts}):
            if first.get(part) != parts.get(part):
                raise UserError(f"has another {part}", key=name, expected=expected)


def _parts(folder: Path) -> dict[str, Any]:
    """Return what the models of a soup have in common, by file or weight."""
    parts: dict[str, Any] = {}
    for file in folder.iterdir():
        if file.suffix == WEIGHTS:
            with safe_open(file, framework="pt") as weights:
                slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
                parts |= {f"{file.name}: {name}": (each.get_shape(), each.get_dtype()) for name, each in slices.items()}
        elif file.name == CONFIG:
            config = json.loads(file.read_bytes())
            parts[file.name] = {key: value for key, value in config.items() if key not in NOT_ARCHITECTURE}
        elif file.name != RECIPE_FILE:
            parts[file.name] = file.read_bytes()
    return parts


def write_soup(folders: Sequence[Path], target: Path) -> None:
    """Write the model whose weights are the means of those of models for which `check_parts` has found nothing.

    Sums are in fp64, in the order of the folders. One weight of each model is in memory at a time, and one file of the
    result.

    Args:
        folders: of the models.
        target: folder that does not exist; gets all but recipe.json.
    """
    target.mkdir()
    for file in sorted(folders[0].iterdir()):
        if file.suffix == WEIGHTS:
            _average_file([folder / file.name for folder in folders], target / file.name)
        elif file.name != RECIPE_FILE:
            shutil.copyfile(file, target / file.name)


def _average_file(files: Sequence[Path], target: Path) -> None:
    with safe_open(files[0], framework="pt") as first:
        names, metadata = list(first.keys()), first.metadata()
    averaged = {name: mean_tensor([_read(file, name) for file in files]) for name in names}
    save_file(averaged, target, metadata)


def _read(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, framework="pt") as weights:
        tensor: torch.Tensor = weights.get_tensor(name)
    return tensor


def mean_tensor(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean in the type of the tensors, summed in fp64; of equal tensors, the first.

    Integers, such as positions, have no mean that a model could use: they are the first's.
    """
    first = tensors[0]
    if not first.is_floating_point():
        return first
    total = first.double()
    for tensor in tensors[1:]:
        total = total + tensor
    return (total / len(tensors)).to(first.dtype)
