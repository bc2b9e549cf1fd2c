"""Take from a model's folder what is needed, after checking that it is whole and can be loaded without foreign code."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES  # configuration_auto.py would import torch

from reprise.core.config import MAX_JSON_BYTES
from reprise.core.errors import UserError
from reprise.core.validation import shorten

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# All files that transformers reads for the tokenizers of text classifiers.
TOKENIZER_FILES = (
    "added_tokens.json",
    "entity_vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "word_pronunciation.json",
    "word_shape.json",
)
PATTERNS = (CONFIG, "*.safetensors", INDEX, *TOKENIZER_FILES)  # of the files to download
# Largest sizes in config.json by parts of their names: transformers builds a model of any, until memory ends.
MAX_SIZES = (
    ("layers", 1000),
    ("num_|labels|heads", 10_000),
    ("hidden|intermediate|dim|embedding_size|d_model", 2**17),
    ("vocab|position|length", 2**24),
)
LFS_POINTER = b"version https://git-lfs"  # the first bytes of a file that git did not replace by its content


def copy_model_files(found: Path, folder: Path, place: str) -> None:
    """Copy the files of model and tokenizer: no pickled weights, no code, no configuration of other libraries.

    Args:
        found: the folder of the source.
        folder: receives model/ and tokenizer/.
        place: what messages call the source.

    Raises:
        UserError: a file is missing or damaged, or the model needs code or a format that is never loaded.
    """
    for file in sorted(found.glob("*")):
        if any(file.match(pattern) for pattern in PATTERNS) and file.is_file():
            _check_content(file, place)
    _check_config(_read_json(found / CONFIG, place), f"{place}/{CONFIG}")
    weights = _find_weights(found, place)
    tokenizer = [found / name for name in TOKENIZER_FILES if (found / name).is_file()]
    if not tokenizer:
        raise UserError("no tokenizer", file=place, expected="tokenizer.json, vocab.txt or the like")
    for subfolder, files in (("model", [found / CONFIG, *weights]), ("tokenizer", [found / CONFIG, *tokenizer])):
        (folder / subfolder).mkdir()
        for file in files:
            shutil.copyfile(file, folder / subfolder / file.name)


def _check_content(file: Path, place: str) -> None:
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(
                "a pointer of Git LFS, not the file", file=f"{place}/{file.name}", expected="its content: git lfs pull"
            )


def _read_json(file: Path, place: str) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise UserError("too long", file=f"{place}/{file.name}", expected=f"at most {MAX_JSON_BYTES:,} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError("not found", file=f"{place}/{file.name}", expected=f"a model folder with {CONFIG}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(file=f"{place}/{file.name}", expected="a JSON object")
    return content


def _check_config(config: dict[str, Any], where: str) -> None:
    if "auto_map" in config:
        raise UserError(
            "the model needs code of its own, which is never run",
            file=where, key="auto_map", expected="a model family that is part of transformers",
        )  # fmt: skip
    if "quantization_config" in config:
        raise UserError(
            "the weights are quantised, and cannot be trained",
            file=where, key="quantization_config", expected="the weights before quantisation",
        )  # fmt: skip
    _check_sizes(config, where)
    family = config.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING_NAMES:
        raise UserError(f"got {family!r}", file=where, key="model_type", expected="a family that transformers knows")


def _check_sizes(config: dict[str, Any], where: str) -> None:
    for key, value in config.items():
        if isinstance(value, dict):
            _check_sizes(value, where)
        limit = next((limit for part, limit in MAX_SIZES if re.search(part, key)), None)
        if limit is not None and isinstance(value, int | float) and value > limit:
            raise UserError(f"got {shorten(value)}", file=where, key=key, expected=f"at most {limit:,}")


def _find_weights(found: Path, place: str) -> list[Path]:
    """Return the file of weights, or the index and its shards."""
    if (found / WEIGHTS).is_file():
        _stored_names(found / WEIGHTS, place)
        return [found / WEIGHTS]
    if not (found / INDEX).is_file():
        others = sorted(
            file.name for suffix in ("safetensors", "bin", "pt", "ckpt") for file in found.glob(f"*.{suffix}")
        )
        raise UserError(
            f"no weights{f' but {others[0]}' if others else ''}; pickled ones are never loaded",
            file=place, expected=f"{WEIGHTS}, as model.save_pretrained() of transformers writes it",
        )  # fmt: skip
    shards = _read_json(found / INDEX, place).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(file=f"{place}/{INDEX}", key="weight_map", expected="the file of each weight")
    for name in sorted(set(shards.values())):
        if Path(name).name != name or not (found / name).is_file():
            raise UserError(f"no file {name!r}", file=f"{place}/{INDEX}", key="weight_map", expected="a file beside it")
        lost = sorted({weight for weight, file in shards.items() if file == name} - _stored_names(found / name, place))
        if lost:
            raise UserError(f"no weight {lost[0]}", file=f"{place}/{name}", expected=f"the weights that {INDEX} lists")
    return [found / INDEX, *(found / name for name in sorted(set(shards.values())))]


def _stored_names(file: Path, place: str) -> set[str]:
    """Return the names of the weights in a file, after checking that it is whole."""
    try:
        with safe_open(file, framework="numpy") as opened:
            return set(opened.keys())
    except SafetensorError as error:
        raise UserError(
            f"damaged: {error}", file=f"{place}/{file.name}", expected="a complete file of safetensors"
        ) from None
