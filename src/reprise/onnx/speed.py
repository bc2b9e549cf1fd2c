"""Time the files of ONNX beside PyTorch, interleaved, on this machine."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import pipeline

from reprise.core.config import Recipe
from reprise.core.display import echo
from reprise.hardware import processors
from reprise.modeling.inference import load_text_model
from reprise.modeling.inputs import Texts
from reprise.modeling.recipe import read_model_recipe
from reprise.onnx.files import FILES, ONNX
from reprise.onnx.model import OnnxModel

TEXTS, ROUNDS, BATCH_SIZE = 128, 3, 32
PIPELINE, PYTORCH = f"transformers pipeline, batches of {BATCH_SIZE}", "reprise predict, PyTorch"


def time_files(folder: Path, recipe: Recipe, texts: Sequence[Texts]) -> dict[str, Any]:
    """Measure texts per second of transformers' pipeline, of Reprise with PyTorch, and of each file of ONNX.

    Each round runs all of them once, in fp32 on the CPU; the first round only warms up.

    Args:
        folder: an exported model, with the folder `onnx`.
        recipe: of the model.
        texts: of the evaluation split; the first TEXTS are timed.

    Returns:
        `processors`, `threads`, `texts`, and `per_second` with the median of the rounds by name.
    """
    sample = list(texts[:TEXTS])
    trained = read_model_recipe(folder)
    files = {name: OnnxModel(folder / ONNX / name) for name in FILES.values() if (folder / ONNX / name).is_file()}
    ask: dict[str, Callable[[], Any]] = {PYTORCH: lambda: pytorch(sample)}
    pytorch = load_text_model(trained, cpu=True, folder=folder)
    if not recipe.task.kind.per_token:  # the pipeline has other windows
        classify = pipeline(recipe.task.kind.pipeline, model=str(folder), device="cpu", batch_size=BATCH_SIZE)
        rows = [text if len(row) == 1 else {"text": row[0], "text_pair": row[1]} for row in sample for text in row[:1]]
        ask = {PIPELINE: lambda: classify(rows, truncation=True, max_length=recipe.train.max_length), **ask}
    ask |= {name: lambda model=model: model(sample) for name, model in files.items()}  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in ask}
    for number in range(ROUNDS + 1):
        echo(f"export: time {len(ask)} ways to predict {len(sample)} texts, round {number} of {ROUNDS}")
        for name, run in ask.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {
        "processors": processors(),
        "threads": next(iter(files.values())).threads,
        "texts": len(sample),
        "per_second": {name: round(len(sample) / statistics.median(times), 1) for name, times in seconds.items()},
    }
