"""The main job on the real data: the default recipe, cooked in a new clone, without the network after fetch."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tiny import ALONE, OWNER, ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def cook(clone: Path, *command: str) -> tuple[str, float]:
    """Run a command in the clone, showing what it prints as a user sees it; return that and the seconds."""
    environment = {**os.environ, **OWNER, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("OMP_NUM_THREADS")  # conftest's, for tiny tensors; here all cores count
    start, lines = time.monotonic(), []
    with subprocess.Popen(command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    assert running.returncode == 0, command
    return "".join(lines), time.monotonic() - start


def model_digest(folder: Path) -> str:
    outs = YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]["train"]["outs"]
    return next(str(out["md5"]) for out in outs if out["path"] == "models/final")


def judged(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "metrics/evaluate.json").read_text())
    return said


def test_the_default_recipe_reaches_its_accuracy_and_cooks_once(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    committed = model_digest(clone)

    _, fetching = cook(clone, "dvc", "repro", "fetch")
    _, cooking = cook(clone, *ALONE, "dvc", "repro")
    again, repeating = cook(clone, *ALONE, "dvc", "repro")
    cook(clone, "reprise", "summary")
    print(f"fetch: {fetching:.0f} s; everything else: {cooking:.0f} s; again: {repeating:.1f} s")
    print(f"the model has the bits of the committed dvc.lock: {'yes' if model_digest(clone) == committed else 'no'}")

    assert re.findall(r"Running stage '(\w+)'", again) == ["environment"]
    seeds = [judged(clone)]
    assert seeds[0]["constant_prediction"] is False
    assert seeds[0]["num_examples"] == 1273
    assert seeds[0]["baseline"]["accuracy"] < 0.6
    # A seed alone says little: its accuracy has a standard deviation of 0.005.
    for seed in range(43, 42 + int(os.environ.get("N", "3"))):
        cook(clone, *ALONE, "dvc", "exp", "run", "--set-param", f"seed={seed}")
        seeds.append(judged(clone))
    accuracies = [each["accuracy"] for each in seeds]
    print(f"test accuracy of {len(seeds)} seeds: {', '.join(f'{accuracy:.4f}' for accuracy in accuracies)}")
    assert min(accuracies) >= 0.83
    if len(seeds) > 1:
        assert len(set(accuracies)) > 1
        assert statistics.mean(accuracies) >= 0.84
