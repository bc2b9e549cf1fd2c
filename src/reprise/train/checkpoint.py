"""Checkpoints: a run that was interrupted goes on where it was, and ends with the bits of one that was not.

    checkpoints/<run>/step-0000100-epochs-000/    weights, optimizer, figures, and last of all the manifest

Only what the steps so far have made is kept; no generator's state is, since every draw is a function of the seed, the
epoch, the step and the micro-batch. The folder is no output of the stage, so DVC leaves it alone when it runs it again.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from reprise.environment import ENVIRONMENT
from reprise.errors import InputError
from reprise.outputs import sha256, write_json
from reprise.places import PREPARED, PRETRAINED, card
from reprise.recipe import CHANGE_NO_BIT, Recipe, as_plain
from reprise.train.record import Record
from reprise.train.stop import Stop, Stopped

CHECKPOINTS = Path("checkpoints")
MANIFEST = "manifest.json"
CURVE = "curve.safetensors"
KEPT = 2
# What of the package a training runs; dvc.yaml lists the same as its dependencies.
CODE = (
    "environment.py",
    "errors.py",
    "inference.py",
    "memory.py",
    "metrics",
    "modeling.py",
    "outputs.py",
    "places.py",
    "recipe.py",
    "shapes.py",
    "tokenizing.py",
    "train",
    "xla.py",
)
PATIENCE = 30  # seconds for which one that was killed may still be ending


def fingerprint(recipe: Recipe) -> str:
    """What decides the weights: recipe, data, pretrained model, environment and the code that runs, as a SHA-256.

    How often checkpoints are made does not, nor who is told of the figures, nor how many processes share the work.
    """
    train = {key: value for key, value in as_plain(recipe.train).items() if key not in CHANGE_NO_BIT}
    told = [recipe.seed, recipe.task.labels, recipe.task.metrics, recipe.evaluate.batch_size, train]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    package = Path(__file__).parents[1]
    code = [
        file for place in CODE for file in (package / place, *sorted((package / place).rglob("*.py"))) if file.is_file()
    ]
    for file in [card(PREPARED), ENVIRONMENT, *sorted((PRETRAINED / "model").iterdir()), *code]:
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def folder_of(recipe: Recipe) -> Path:
    """Where the checkpoints of a run lie: each run has a folder of its own, and never looks into another's."""
    return CHECKPOINTS / fingerprint(recipe)[:16]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Have the folder of a run's checkpoints alone while it trains; remove it once that has succeeded.

    Raises:
        InputError: another process trains the same run, and goes on doing so.
    """
    for second in range(PATIENCE):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if second == 0:
                    print(f"train: waits for another process that trains this recipe, in {folder}", flush=True)
                time.sleep(1)
                continue
            if os.fstat(lock.fileno()).st_nlink == 0:
                continue  # the other has succeeded and removed the folder in the meantime
            yield
            shutil.rmtree(folder)
            return
    raise InputError(f"{folder}: another process trains this recipe; expected it to end first")


class Checkpoints:
    """Writes and restores the state of a training. All processes restore, the first one writes."""

    model: torch.nn.Module
    optimizer: Optimizer
    schedule: LRScheduler

    def __init__(self, folder: Path, world: PartialState, record: Record, stop: Stop) -> None:
        self.folder, self.world, self.record, self.stop = folder, world, record, stop
        self.stopping = False

    def after_step(self) -> None:
        """Write a checkpoint every so many steps (each epoch ends with one of its own), and where the run is to stop.

        Raises:
            Stopped: after the checkpoint, on every process.
        """
        steps = len(self.record.curve)
        if self.is_to_stop(steps) or (steps % self.record.train.checkpoint_every == 0 and self.record.left_of_epoch):
            self.record.fetch()
            self.save()
        self.end_if_stopped()

    def is_to_stop(self, steps: int) -> bool:
        """Whether the run is to stop after so many steps, the same answer on every process."""
        self.stopping = self.stop.asked(self.world, steps)
        return self.stopping

    def end_if_stopped(self) -> None:
        """End the run where it was to stop.

        Raises:
            Stopped: it was.
        """
        if self.stopping:
            place = f"step {len(self.record.curve)}/{self.record.steps_in_all}"
            raise Stopped(f"stopped after {place}; `dvc repro` goes on from there", self.stop.signal)

    def save(self) -> None:
        """Write a checkpoint: whole, on the disk, and then under its name. The last two are kept.

        Raises:
            InputError: it cannot be written; the ones before are still there.
        """
        if not self.world.is_main_process:
            return
        state = self.record.state()
        name = f"step-{len(self.record.curve):07d}-epochs-{len(self.record.epochs):03d}"
        partial = self.folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            save_file(
                {key: on_cpu(value) for key, value in self.model.state_dict().items()}, partial / "model.safetensors"
            )
            optimizer = self.optimizer.state_dict()
            moments = {
                f"{number}.{key}": on_cpu(value)
                for number, entry in optimizer["state"].items()
                for key, value in entry.items()
            }
            save_file(moments, partial / "optimizer.safetensors")
            state |= {"param_groups": optimizer["param_groups"], "schedule": self.schedule.state_dict()}
            # As JSON it would take two seconds after 300,000 steps; so it takes a hundredth of one.
            save_file({"curve": torch.from_numpy(state.pop("curve"))}, partial / CURVE)
            write_json(partial / "state.json", state)
            if self.record.epochs:
                shutil.copytree(self.record.folder, partial / "chosen")
            files = sorted(file for file in partial.rglob("*") if file.is_file())
            for file in files:
                sync(file)
            write_json(partial / MANIFEST, {"files": {str(file.relative_to(partial)): sha256(file) for file in files}})
            for file in (partial / MANIFEST, partial):
                sync(file)
            shutil.rmtree(self.folder / name, ignore_errors=True)  # there is one only where it was left out
            partial.rename(self.folder / name)
            sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            problem = getattr(error, "strerror", None) or error
            raise InputError(
                f"{self.folder / name}: {problem}; expected room for a checkpoint; those before are kept, and "
                "`dvc repro` goes on from there"
            ) from None
        names = complete_names(self.folder)
        kept = names[: names.index(name) + 1][-KEPT:]  # later ones were left out as damaged
        for other in set(names) - set(kept):
            shutil.rmtree(self.folder / other)

    def restore(self, model: torch.nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> None:
        """Watch over these, the model itself and no wrapper, and take up the newest checkpoint that is whole."""
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        for name in reversed(complete_names(self.folder)):
            checkpoint = self.folder / name
            problem = damage(checkpoint)
            if problem:
                self.say(f"train: {checkpoint} is left out: {problem}")
                continue
            state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
            self.model.load_state_dict(load_file(checkpoint / "model.safetensors"))
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in load_file(checkpoint / "optimizer.safetensors").items():
                number, moment = key.split(".")
                moments.setdefault(int(number), {})[moment] = value
            self.optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
            self.schedule.load_state_dict(state["schedule"])
            self.record.restore(state | load_file(checkpoint / CURVE), checkpoint / "chosen")
            self.say_restored(checkpoint)
            return

    def say_restored(self, checkpoint: Path) -> None:
        """Print where the run goes on, and from what."""
        self.say(f"train: goes on after step {len(self.record.curve)}/{self.record.steps_in_all}, from {checkpoint}")

    def say(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.world.is_main_process:
            print(line, flush=True)


def complete_names(folder: Path) -> list[str]:
    """The checkpoints that were given their name, oldest first; what a killed run was still writing has another."""
    return sorted(found.name for found in folder.glob("step-*"))


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, None if every file has the digest that the manifest gives."""
    try:
        files: dict[str, str] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, digest in files.items():
            if sha256(checkpoint / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError) as error:
        return f"{getattr(error, 'filename', None) or MANIFEST} cannot be read"
    return None


def on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory, which shares it with no other tensor, as safetensors asks."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's names, before anything that relies on them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
