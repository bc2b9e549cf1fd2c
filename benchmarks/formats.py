"""The files of exported models side by side: size, metric, changed predictions, speed, cold start.

`make bench-formats MODEL="DIR …"` for folders of `reprise export --format onnx`. The export has judged and timed
the files; here each predicts one text in a new process, interleaved.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import results
from reprise.core.config import PARAMS
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.validation import read_recipe
from reprise.onnx.files import EVALUATION, ONNX, SPEED, check_judged
from reprise.onnx.speed import PYTORCH

ROUNDS = 5
TEXT = "A quiet, moving film that earns every tear."


def measure(folder: Path) -> dict[str, Any]:
    """Return what is known of the files of a folder, by name, beside the trained model in PyTorch.

    Raises:
        UserError: it has no files of ONNX, or they are not those that were judged.
    """
    if not (folder / SPEED).is_file():
        raise UserError("not found", file=folder / SPEED, expected="MODEL=DIR of `reprise export --format onnx`")
    judged, speed, recipe = read_json(folder / EVALUATION), read_json(folder / SPEED), read_recipe(folder / PARAMS)
    metric = recipe.task.metrics[0]
    files = {name: folder / ONNX / name for name in judged["files"]}
    for file in files.values():
        check_judged(file)
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        weights = Path(name)
        for file in folder.iterdir():
            if file.is_file():
                (weights / file.name).symlink_to(file.resolve())
        seconds = cold_starts({PYTORCH: weights, **files})
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    found = {PYTORCH: {**judged, "bytes": size}} | judged["files"]
    kept = ("bytes", "changed", "only_before_correct", "only_after_correct", "p", "max_logit_difference")
    return {
        "task": recipe.task.name,
        "metric": metric,
        "num_examples": judged["num_examples"],
        "per_second": speed["per_second"],
        "files": {
            name: {
                "metric": each[metric],
                "ci95": each["ci95"][metric],
                **{key: each[key] for key in kept if key in each},
                "cold_start_seconds": round(seconds[name], 2),
            }
            for name, each in found.items()
        },
    }


def cold_starts(models: dict[str, Path]) -> dict[str, float]:
    """Return the median seconds of `reprise predict` of one text in a new process."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(ROUNDS + 1):
        print(f"bench: cold start, round {number} of {ROUNDS}", flush=True)
        for name, path in models.items():
            began = time.perf_counter()
            command = [sys.executable, "-m", "reprise", "predict", "--model", str(path), TEXT]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if number:  # the first reads the files into the page cache
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in seconds.items()}


def show(console: Console, models: dict[str, Any]) -> None:
    """Print a table for each model."""
    for found in models.values():
        title = f"{found['task']}: {found['metric']} on {found['num_examples']} examples"
        table = Table("model", "MB", "metric", "95 %", "changed", "logit", "texts/s", "cold start, s", title=title)
        for name, each in found["files"].items():
            ends = f"{each['ci95']['low']:.4f} – {each['ci95']['high']:.4f}"
            changed, logit = each.get("changed", "–"), each.get("max_logit_difference")
            table.add_row(
                name, f"{each['bytes'] / 1e6:.1f}", f"{each['metric']:.4f}", ends, str(changed),
                "–" if logit is None else f"{logit:.2g}", f"{found['per_second'][name]:.0f}",
                f"{each['cold_start_seconds']:.1f}",
            )  # fmt: skip
        console.print(table)


def main(folders: list[Path]) -> None:
    """Measure the folders, print the tables, and write the results; those of other models stay."""
    measured = {found["task"]: found for found in map(measure, folders or [Path()])}
    models = results.read().get("formats", {}).get("models", {}) | measured
    results.write("formats", {"machine": results.machine(), "models": models})
    show(Console(highlight=False), models)


if __name__ == "__main__":
    try:
        main([Path(name) for name in sys.argv[1:]])
    except UserError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
