"""The baselines on a GPU, with a random BERT-base, and a check of bit-identity.

`make bench-gpu` runs it in the image for GPUs. `python benchmarks/gpu.py --tiny` tests it on the CPU.
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
from interleave import interleave, mean_length, progress, running, show, summarize
from reprise.core.config import to_dict
from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.paths import FINAL_MODEL, PRETRAINED
from reprise.core.validation import read_recipe
from synthetic import BATCH_SIZE, TINY_BERT, random_pairs, synthetic_recipe, write_model
from training import NAMES, ROUNDS, SLICE_SECONDS
from workspaces import Recipe, make_workspace, prepare_pairs

ALL_NAMES = (*NAMES, "compiled", "packed")

# Runs `reprise train` and sends it SIGTERM after {steps} steps, as a pre-emption does.
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
    """The size of the benchmark: model, pairs, rounds, seconds per slice, training steps."""

    config: BertConfig
    pairs: int
    rounds: int
    seconds: float
    steps: int


BASE = Size(BertConfig(), 20_000, ROUNDS, SLICE_SECONDS, 100)
TINY = Size(TINY_BERT, pairs=600, rounds=2, seconds=0.1, steps=4)


def main(*, tiny: bool) -> None:
    """Measure throughput, check bit-identity, print both, and write the results."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU is measured
    if not tiny and not torch.cuda.is_available():
        expected = "one, as in `make bench-gpu`, or --tiny to test on the CPU"
        raise UserError("PyTorch sees no GPU", expected=expected)
    size, hardware = (TINY, "cpu") if tiny else (BASE, "cuda")
    logging.disable_progress_bar()
    console, recipe = Console(highlight=False), synthetic_recipe(to_dict(read_recipe()))
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        source = make_synthetic_workspace(Path(name) / "source", recipe, size)
        content = measure(ALL_NAMES, Path(name), recipe, source, size, hardware)
        device = "the CPU" if tiny else torch.cuda.get_device_name()
        title = f"Training on {device}, {BATCH_SIZE} examples per step"
        show(console, title, content["baselines"], content["matrix_rate"])
        bits = check_bits(Path(name), recipe, source, size, hardware)
    for run, identical in bits.items():
        console.print(f"{run}: {'bit-identical' if identical else '[bold]not bit-identical[/bold]'}")
    if not tiny:
        results.write("gpu", {"machine": results.machine() | {"gpu": device}, **content, "bit_identical": bits})


def make_synthetic_workspace(folder: Path, recipe: Recipe, size: Size) -> Path:
    """Create a workspace with random weights and prepared synthetic pairs; return it."""
    make_workspace(folder, recipe, Path(), [])
    words = write_model(size.config, folder / PRETRAINED / "model", folder / PRETRAINED / "tokenizer")
    prepare_pairs(folder, random_pairs(words, size.pairs))
    return folder


def measure(
    names: tuple[str, ...], scratch: Path, recipe: Recipe, source: Path, size: Size, hardware: str
) -> dict[str, Any]:
    """Time the baselines interleaved; return their metrics and the device's matrix rates."""
    print(f"bench: {len(names)} baselines load and warm up", flush=True)
    device = torch.device("cuda" if hardware == "cuda" else "cpu")
    with running(names, scratch / "baselines", recipe, source, hardware) as runners:
        slices, rates = interleave(runners, size.rounds, size.seconds, device, progress("gpu", size.rounds))
    return {"matrix_rate": rates, "baselines": summarize(slices, rates, mean_length(source))}


def check_bits(scratch: Path, recipe: Recipe, source: Path, size: Size, hardware: str) -> dict[str, bool]:
    """Train, repeat, and interrupt and resume; return whether the weights are bit-identical."""
    recipe = recipe | {"train": recipe["train"] | {"max_steps": size.steps}}
    train, stopped = ("-m", "reprise", "train"), ("-c", STOPPING.format(steps=size.steps // 2))

    def weights(name: str, *programs: tuple[tuple[str, ...], int]) -> str:
        folder = make_workspace(scratch / name, recipe, source)
        for program, code in programs:
            done = subprocess.run(
                [sys.executable, *program], cwd=folder, env=os.environ | {"REPRISE_HARDWARE": hardware}
            )
            if done.returncode != code:
                raise UserError(f"`reprise train` ended with code {done.returncode}, see above", expected=str(code))
        return sha256(folder / FINAL_MODEL / "model.safetensors")

    once = weights("once", (train, 0))
    return {
        "Repeated": weights("repeated", (train, 0)) == once,
        "Interrupted and resumed": weights("resumed", (stopped, 143), (train, 0)) == once,
    }


if __name__ == "__main__":
    try:
        main(tiny=sys.argv[1:] == ["--tiny"])
    except UserError as error:
        sys.exit(f"bench-gpu: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
