"""How much memory a process needs where all have the whole model, where it is divided, and with recomputed layers.

`make bench-sharding` trains a few steps of a wide BERT with random weights on made-up pairs, in two processes of this
machine's processor, and prints the table of docs/scaling.md. `python benchmarks/sharding.py --tiny` tries the same.
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

from folders import lay_out, prepare_pairs
from made_up import TINY_BERT, made_up, random_pairs, write_model
from reprise.core.config import to_dict
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import METRICS, PLOTS, PRETRAINED
from reprise.core.validation import read_recipe
from results import machine

# Twelve layers of BERT-large.
WIDE_BERT = BertConfig(hidden_size=1024, num_attention_heads=16, intermediate_size=4096)
PROCESSES, PAIRS, STEPS = 2, 160, 4
PROFILES = {"whole": "accelerate", "divided": "fsdp"}
# The model, pairs at once in a process, and what becomes of activations. With two pairs parameters take most of the
# memory, with sixteen activations do.
WAYS = (
    ("whole", 2, "kept"),
    ("divided", 2, "kept"),
    ("whole", 16, "kept"),
    ("divided", 16, "kept"),
    ("divided", 16, "recomputed"),
)
SAMPLE_SECONDS = 0.1


def main(*, tiny: bool) -> None:
    """Train each way and print a row for it."""
    logging.disable_progress_bar()
    config = TINY_BERT if tiny else WIDE_BERT
    recipe = made_up(to_dict(read_recipe()))
    recipe["train"] |= {"engine": "accelerate", "lora": None, "epochs": 1, "max_steps": STEPS, "trackers": []}
    rows = []
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        place = lay_out(Path(name) / "place", recipe, Path(), [])
        words = write_model(config, place / PRETRAINED / "model", place / PRETRAINED / "tokenizer")
        prepare_pairs(place, random_pairs(words, PAIRS))
        for model, at_once, activations in WAYS:
            shown = [model, str(at_once), activations]
            print(f"bench: model {model}, {at_once} pairs at once, activations {activations}", flush=True)
            train = {"batch_size": PROCESSES * at_once, "gradient_checkpointing": activations == "recomputed"}
            changed = {"train": recipe["train"] | train, "evaluate": recipe["evaluate"] | {"batch_size": at_once}}
            folder = lay_out(Path(name) / "-".join(shown), recipe | changed, place)
            rows.append([*shown, *trained(folder, PROFILES[model])])
        weights = sum(file.stat().st_size for file in (place / PRETRAINED / "model").glob("*.safetensors"))
    print(
        f"\n{weights / 4e6:.0f} M parameters, {recipe['train']['precision']}, {PROCESSES} processes; "
        f"{machine()['cores']} cores of {machine()['processor']}\n"
    )
    columns = ("model", "pairs at once", "activations", "peak GB of a process", "seconds a step", "last loss")
    for row in (columns, ("---", "---:", "---", "---:", "---:", "---:"), *rows):
        print("| " + " | ".join(row) + " |")


def trained(folder: Path, profile: str) -> list[str]:
    """Train what a folder holds under a profile.

    Returns:
        The most memory that one of the processes has used, in GB (10⁹ bytes), seconds of a step, the last step's loss.

    Raises:
        UserError: it failed; its own words stand above.
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
        raise UserError(f"`reprise train` failed, see above; expected it to train with the profile {profile}")
    speed: dict[str, Any] = read_json(folder / METRICS / "speed.json")
    loss = pd.read_csv(folder / PLOTS / "train.csv")["loss"].iloc[-1]
    return [f"{max(peaks.values()) / 1e9:.2f}", f"{speed['median_step_seconds']:.1f}", f"{loss:.6f}"]


def peak(process: int) -> int:
    """The most memory that a process has used so far, in bytes; 0 where it has ended."""
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
