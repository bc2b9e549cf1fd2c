"""The files of an exported model in ONNX, where transformers.js and others look for them too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from reprise.core.errors import UserError
from reprise.core.files import read_json, sha256

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ONNX = Path("onnx")
FILES: Mapping[Precision, str] = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_quantized.onnx"}
# What the files answer on the evaluation split, and their digests; how fast they are on one machine.
EVALUATION, SPEED = ONNX / "evaluation.json", ONNX / "speed.json"
# What a file of ONNX needs of the folder above it.
BESIDE = ("recipe.json", "config.json", "tokenizer.json", "tokenizer_config.json")


def find_onnx(path: Path) -> Path | None:
    """Return the file of ONNX that a path means: itself, or that of an exported folder; None if there is none.

    Of several, the one in fp32, whose answers are those of the trained model.
    """
    if path.suffix == ".onnx":
        return path
    return next((file for name in FILES.values() if (file := path / ONNX / name).is_file()), None)


def check_judged(file: Path) -> dict[str, Any]:
    """Check that a model and what it needs are the files that were judged.

    Args:
        file: in the folder `onnx` of an exported model.

    Returns:
        The content of evaluation.json.

    Raises:
        UserError: the file was not judged, or a file has changed since.
    """
    folder, again = file.parent.parent, "the folder that `reprise export --format onnx` wrote"
    if not file.is_file():
        raise UserError("not found", file=file, expected=again)
    if not (folder / EVALUATION).is_file():
        raise UserError("not found, so nobody has judged this model", file=folder / EVALUATION, expected=again)
    judged: dict[str, Any] = read_json(folder / EVALUATION)
    digests = judged["beside"] | {str(ONNX / name): each["sha256"] for name, each in judged["files"].items()}
    for name in (*BESIDE, str(ONNX / file.name)):
        if name in digests and (not (folder / name).is_file() or sha256(folder / name) != digests[name]):
            raise UserError(f"not the file that {EVALUATION} judged", file=folder / name, expected=again)
    if str(ONNX / file.name) not in digests:
        raise UserError(f"not in {EVALUATION}", file=file, expected=", ".join(sorted(judged["files"])))
    return judged
