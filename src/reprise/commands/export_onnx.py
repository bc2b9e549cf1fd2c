"""`reprise export --format onnx` and `reprise evaluate --model`: the model in ONNX, judged and timed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reprise.commands.markdown import markdown_table
from reprise.commands.packages import ONNX_LOCK, require_packages
from reprise.core.config import PARAMS, Recipe
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import sha256, write_json
from reprise.core.paths import FINAL_MODEL
from reprise.core.validation import read_recipe
from reprise.data.format import split_shards
from reprise.modeling.portable import restart_with_caps
from reprise.modeling.splits import load_split
from reprise.onnx.files import (
    EVALUATION,
    FILES,
    ONNX,
    SPEED,
    Precision,
    check_judged,
    find_onnx,
)
from reprise.tasks.metrics.registry import display_name

HEADINGS = ("file", "MB", "metric", "95 % interval", "other predictions", "largest difference of a logit", "texts/s")


def check_onnx(recipe: Recipe) -> None:
    """Check, before anything is written, that a model can be exported and judged here.

    Raises:
        UserError: a package is missing, or the evaluation split.
    """
    require_packages("onnx", "onnxruntime", "onnxscript", lock=ONNX_LOCK, key="export")
    restart_with_caps(recipe.train)  # the final model is evaluated as it was trained
    if not split_shards(recipe.evaluate.split):
        raise UserError(f"no {recipe.evaluate.split} split was prepared", key="export", expected="`dvc repro` first")


def add_onnx(folder: Path, recipe: Recipe, precisions: Sequence[Precision], tolerance: float) -> tuple[str, ...]:
    """Write a model's files of ONNX, how they answer on the evaluation split, and how fast they are here.

    Args:
        folder: a folder with the model, its tokenizer and its recipe.json; gets the folder `onnx`.
        recipe: of the model.
        precisions: of the files.
        tolerance: how much worse than the model's the first metric of the recipe may be.

    Returns:
        The table of the files, in Markdown, line by line.

    Raises:
        UserError: a file is worse than that.
    """
    from reprise.onnx.evaluation import judge, prepared_texts, too_different
    from reprise.onnx.exporter import export_onnx
    from reprise.onnx.speed import time_files

    (folder / ONNX).mkdir()
    echo(f"export: {', '.join(FILES[precision] for precision in precisions)}, half a minute")
    export_onnx(folder, folder / ONNX, precisions)
    judged = judge(folder, recipe)
    for error in too_different(judged, recipe.task.metrics[0], tolerance):
        raise error
    speed = time_files(folder, recipe, prepared_texts(load_split(recipe.evaluate.split, recipe.train.fold)))
    write_json(folder / EVALUATION, judged)
    write_json(folder / SPEED, speed)
    timed = f"Texts per second: {', '.join(speed['processors'])}, {speed['threads']} threads, {speed['texts']} texts."
    return (*markdown_table(HEADINGS, table_rows(folder, recipe, judged, speed["per_second"])), "", timed)


def evaluate_files(folder: Path) -> None:
    """Evaluate the files of ONNX in an exported folder again, and print their table; nothing is written.

    Args:
        folder: of `reprise export --format onnx`, made from the current final model.

    Raises:
        UserError: there are no such files, the final model is another one, or a file has other results than its
            evaluation.json.
    """
    from reprise.onnx.evaluation import judge, prepared_texts
    from reprise.onnx.speed import time_files

    if not (file := find_onnx(folder)) or file == folder:
        raise UserError("no file of ONNX", file=folder, expected="a folder of `reprise export --format onnx`")
    recipe = read_recipe(folder / PARAMS)
    check_onnx(recipe)
    recorded = check_judged(file)
    for weights in sorted(folder.glob("*.safetensors")):
        final = FINAL_MODEL / weights.name
        if not final.is_file() or sha256(final) != sha256(weights):
            expected = f"the model that {folder} was exported from"
            raise UserError("other weights", file=final, expected=expected)
    judged = judge(folder, recipe)
    speed = time_files(folder, recipe, prepared_texts(load_split(recipe.evaluate.split, recipe.train.fold)))
    for line in markdown_table(HEADINGS, table_rows(folder, recipe, judged, speed["per_second"])):
        echo(line)
    for name, found in judged["files"].items():
        metrics = [metric for metric in recipe.task.metrics if found[metric] != recorded["files"][name][metric]]
        if metrics:
            raise UserError(
                f"{metrics[0]} is {found[metrics[0]]:.4f} here",
                file=folder / ONNX / name,
                expected=f"{recorded['files'][name][metrics[0]]:.4f}, as in {EVALUATION}",
            )


def table_rows(
    folder: Path, recipe: Recipe, judged: Mapping[str, Any], per_second: Mapping[str, float]
) -> list[tuple[str, ...]]:
    """Return a row for the trained model, for each file, and for the other ways that were timed."""
    metric = recipe.task.metrics[0]
    shown = display_name(metric, recipe.task.positive_label, len(recipe.task.labels))

    def score(found: Mapping[str, Any]) -> tuple[str, str]:
        low, high = found["ci95"][metric]["low"], found["ci95"][metric]["high"]
        interval = "–" if low is None or high is None else f"{low:.4f} – {high:.4f}"
        return f"{shown} {found[metric]:.4f}", interval

    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    rows: list[tuple[str, ...]] = []
    rest = {name: rate for name, rate in per_second.items() if name not in judged["files"]}
    for name, rate in rest.items():
        rows.append((name, f"{size / 1e6:.1f}", *score(judged), "–", "–", f"{rate:.0f}"))
    for name, found in judged["files"].items():
        changed = "–"
        if "changed" in found:
            changed = f"{found['changed']} of {judged['num_examples']}"
            if found["changed"]:
                better, worse = found["only_after_correct"], found["only_before_correct"]
                changed += f": {better} now correct, {worse} now wrong, p={found['p']:.2g}"
        difference = f"{found['max_logit_difference']:.2g}"
        rows.append(
            (name, f"{found['bytes'] / 1e6:.1f}", *score(found), changed, difference, f"{per_second[name]:.0f}")
        )
    return rows
