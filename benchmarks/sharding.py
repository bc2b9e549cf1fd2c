"""Peak memory per process: replicated model, FSDP, gradient checkpointing.

`make bench-sharding` trains a few steps of a wide BERT with random weights on synthetic pairs, in two processes on the
CPU, and prints the table of docs/guides/bigger-models.md. `python benchmarks/sharding.py --tiny` tests it with a tiny
model.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from transformers import BertConfig
from transformers.utils import logging

from reprise.core.config import to_dict
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import METRICS, PLOTS, PRETRAINED
from reprise.core.validation import read_recipe
from results import machine
from synthetic import TINY_BERT, random_pairs, synthetic_recipe, write_model
from workspaces import make_workspace, prepare_pairs

# Twelve layers of BERT-large.
WIDE_BERT = BertConfig(hidden_size=1024, num_attention_heads=16, intermediate_size=4096)
PROCESSES, PAIRS, STEPS = 2, 160, 4
PROFILES = {"replicated": "accelerate", "sharded": "fsdp"}
# Model, pairs per process, activations. With two pairs parameters take most of the memory, with sixteen activations do.
VARIANTS = (
    ("replicated", 2, "kept"),
    ("sharded", 2, "kept"),
    ("replicated", 16, "kept"),
    ("sharded", 16, "kept"),
    ("sharded", 16, "recomputed"),
)
SAMPLE_SECONDS = 0.1


def main(*, tiny: bool) -> None:
    """Train each variant and print one row for it."""
    logging.disable_progress_bar()
    config = TINY_BERT if tiny else WIDE_BERT
    recipe = synthetic_recipe(to_dict(read_recipe()))
    recipe["train"] |= {"engine": "accelerate", "lora": None, "epochs": 1, "max_steps": STEPS}
    recipe["run"] |= {"trackers": []}
    rows = []
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        source = make_workspace(Path(name) / "source", recipe, Path(), [])
        words = write_model(config, source / PRETRAINED / "model", source / PRETRAINED / "tokenizer")
        prepare_pairs(source, random_pairs(words, PAIRS))
        for model, pairs, activations in VARIANTS:
            variant = [model, str(pairs), activations]
            print(f"bench: model {model}, {pairs} pairs per process, activations {activations}", flush=True)
            train = {"batch_size": PROCESSES * pairs, "gradient_checkpointing": activations == "recomputed"}
            changed = {"train": recipe["train"] | train, "evaluate": recipe["evaluate"] | {"batch_size": pairs}}
            folder = make_workspace(Path(name) / "-".join(variant), recipe | changed, source)
            rows.append([*variant, *train_and_measure(folder, PROFILES[model])])
        weights = sum(file.stat().st_size for file in (source / PRETRAINED / "model").glob("*.safetensors"))
    print(
        f"\n{weights / 4e6:.0f} M parameters, {recipe['train']['precision']}, {PROCESSES} processes; "
        f"{machine()['cores']} cores of {machine()['processor']}\n"
    )
    columns = ("model", "pairs per process", "activations", "peak GB per process", "seconds per step", "last loss")
    for row in (columns, ("---", "---:", "---", "---:", "---:", "---:"), *rows):
        print("| " + " | ".join(row) + " |")


def train_and_measure(folder: Path, profile: str) -> list[str]:
    """Train a workspace with a launch profile.

    Returns:
        The peak memory of the largest process in GB (10⁹ bytes), the seconds per step, the last step's loss.

    Raises:
        UserError: training failed; its own message is on stderr.
    """
    environment = os.environ | {
        "REPRISE_HARDWARE": "cpu", "REPRISE_PROFILE": profile, "REPRISE_PROCESSES": str(PROCESSES),
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    peaks: dict[int, int] = {}
    with subprocess.Popen([sys.executable, "-m", "reprise", "train"], cwd=folder, env=environment) as training:
        while training.poll() is None:
            for child in psutil.Process(training.pid).children(recursive=True):
                peaks[child.pid] = max(peaks.get(child.pid, 0), peak(child.pid))
            time.sleep(SAMPLE_SECONDS)
    if training.returncode:
        raise UserError("`reprise train` failed, see above", expected=f"it to train with the profile {profile}")
    speed: dict[str, Any] = read_json(folder / METRICS / "speed.json")
    loss = pd.read_csv(folder / PLOTS / "train.csv")["loss"].iloc[-1]
    return [f"{max(peaks.values()) / 1e9:.2f}", f"{speed['median_step_seconds']:.1f}", f"{loss:.6f}"]


def peak(process: int) -> int:
    """Return the peak memory of a process so far, in bytes; 0 if it has exited."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))  # a zombie has none


if __name__ == "__main__":
    try:
        main(tiny=sys.argv[1:] == ["--tiny"])
    except UserError as error:
        sys.exit(f"bench-sharding: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
