"""What a server answers of its model: the content of /info."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reprise.modeling.recipe import ModelRecipe
from reprise.onnx.files import BESIDE, FILES, ONNX

ATTESTATIONS = "attestations"  # the folder of sharing/record.py, whose imports the image lacks


def describe_model(file: Path, recipe: ModelRecipe, judged: dict[str, Any]) -> dict[str, Any]:
    """Describe a model.

    Args:
        file: of ONNX, in an exported folder.
        recipe: what the model was trained for.
        judged: the content of evaluation.json.
    """
    folder, kind = file.parent.parent, recipe.kind
    found = judged["files"][file.name]
    name = next((name for name in recipe.task.metrics if name in found), None)
    interval = found.get("ci95", {}).get(name)
    signed = sorted(path.name for path in (folder / ATTESTATIONS).glob("*.json"))
    return {
        "model": recipe.task.name,
        "task": kind.name,
        "text_columns": recipe.task.text_columns,
        "labels": list(kind.labels),
        "entities": kind.per_token,
        "max_length": recipe.train.max_length,
        "windows": recipe.data.windows is not None,
        "precision": next((precision for precision, each in FILES.items() if each == file.name), "unknown"),
        "sha256": {
            str(ONNX / file.name): found["sha256"],
            **{each: judged["beside"][each] for each in BESIDE if each in judged["beside"]},
        },
        "evaluation": {
            "split": judged.get("split"),
            "num_examples": judged.get("num_examples"),
            "metric": name,
            "value": found.get(name),
            "ci95": interval and [interval["low"], interval["high"]],
        },
        "attestations": signed,
        "version": _version(),
    }


def _version() -> str:
    """Return the version of Reprise."""
    try:
        return version("reprise")
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"
