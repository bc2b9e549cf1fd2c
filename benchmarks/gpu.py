"""The contenders on a GPU, at the size of BERT-base with random weights and random texts, and the bits that come of it.

`make bench-gpu` runs it in the image for GPUs. `python benchmarks/gpu.py --tiny` tries the same on the processor.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import BertConfig
from transformers.utils import logging

import results
from folders import Recipe, lay_out, prepare_pairs
from made_up import BATCH_SIZE, TINY_BERT, made_up, random_pairs, write_model
from race import mean_length, progress, race, running, show, summarize
from reprise.core.config import to_dict
from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.paths import FINAL_MODEL, PRETRAINED
from reprise.core.validation import read_recipe
from training import NAMES, ROUNDS, TURN_SECONDS

ALL_NAMES = (*NAMES, "compiled", "packed")

# SIGTERM comes after so many steps, as from a machine that is taken away.
STOPPING = """
import signal
from reprise.cli import app
from reprise.train.checkpoint import CheckpointManager

maybe_save = CheckpointManager.maybe_save

def stopped_after_step(self):
    if self.recorder.history.steps_done == {steps}:
        signal.raise_signal(signal.SIGTERM)
    maybe_save(self)

CheckpointManager.maybe_save = stopped_after_step
app(["train"], prog_name="reprise")
"""


@dataclass(frozen=True)
class Size:
    """How much is computed: the model, pairs of texts, rounds, the seconds of a turn, the steps of a whole training."""

    config: BertConfig
    pairs: int
    rounds: int
    seconds: float
    steps: int


BASE = Size(BertConfig(), 20_000, ROUNDS, TURN_SECONDS, 100)
TINY = Size(TINY_BERT, pairs=600, rounds=2, seconds=0.1, steps=4)


def main(*, tiny: bool) -> None:
    """Measure, prove, print both, and write them."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one card is measured
    if not tiny and not torch.cuda.is_available():
        raise UserError("PyTorch sees no GPU; expected one, as `make bench-gpu` hands it on, or --tiny to try without")
    size, hardware = (TINY, "cpu") if tiny else (BASE, "cuda")
    logging.disable_progress_bar()
    console, recipe = Console(highlight=False), made_up(to_dict(read_recipe()))
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        place = make_up(Path(name) / "place", recipe, size)
        content = measure(ALL_NAMES, Path(name), recipe, place, size, hardware)
        card = "the processor" if tiny else torch.cuda.get_device_name()
        show(
            console, f"Training on {card}, {BATCH_SIZE} examples a step", content["contenders"], content["matrix_rate"]
        )
        bits = prove(Path(name), recipe, place, size, hardware)
    for what, same in bits.items():
        console.print(f"{what}: {'the same bits' if same else '[bold]other bits[/bold]'}")
    if not tiny:
        results.write("gpu", {"machine": results.machine() | {"gpu": card}, **content, "same_bits": bits})


def make_up(folder: Path, recipe: Recipe, size: Size) -> Path:
    """Make a folder with random weights and pairs of random words, prepared; their lengths are like MRPC's."""
    lay_out(folder, recipe, Path(), [])
    words = write_model(size.config, folder / PRETRAINED / "model", folder / PRETRAINED / "tokenizer")
    prepare_pairs(folder, random_pairs(words, size.pairs))
    return folder


def measure(
    names: tuple[str, ...], scratch: Path, recipe: Recipe, place: Path, size: Size, hardware: str
) -> dict[str, Any]:
    """Let the contenders take turns on the device; return their figures and its matrix rates."""
    print(f"bench: {len(names)} contenders load and warm up", flush=True)
    device = torch.device("cuda" if hardware == "cuda" else "cpu")
    with running(names, scratch / "contenders", recipe, place, hardware) as runners:
        turns, rates = race(runners, size.rounds, size.seconds, device, progress("gpu", size.rounds))
    return {"matrix_rate": rates, "contenders": summarize(turns, rates, mean_length(place))}


def prove(scratch: Path, recipe: Recipe, place: Path, size: Size, hardware: str) -> dict[str, bool]:
    """Train three times on the device, the third time with an interruption; return whether the weights are the same."""
    recipe = recipe | {"train": recipe["train"] | {"max_steps": size.steps}}
    train, stopped = ("-m", "reprise", "train"), ("-c", STOPPING.format(steps=size.steps // 2))

    def weights(name: str, *programs: tuple[tuple[str, ...], int]) -> str:
        folder = lay_out(scratch / name, recipe, place)
        for program, code in programs:
            done = subprocess.run(
                [sys.executable, *program], cwd=folder, env=os.environ | {"REPRISE_HARDWARE": hardware}
            )
            if done.returncode != code:
                raise UserError(f"`reprise train` ended with code {done.returncode}, see above; expected {code}")
        return sha256(folder / FINAL_MODEL / "model.safetensors")

    once = weights("once", (train, 0))
    return {
        "Trained again": weights("again", (train, 0)) == once,
        "Stopped and gone on": weights("stopped", (stopped, 143), (train, 0)) == once,
    }


if __name__ == "__main__":
    try:
        main(tiny=sys.argv[1:] == ["--tiny"])
    except UserError as error:
        sys.exit(f"bench-gpu: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
