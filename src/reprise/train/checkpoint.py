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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from reprise.core.config import Recipe, to_dict
from reprise.core.errors import UserError
from reprise.core.files import sha256, write_json
from reprise.core.paths import PREPARED, PRETRAINED
from reprise.data.format import stats_path
from reprise.hardware import ENVIRONMENT
from reprise.train.distributed.consistency import broadcast_object, broadcast_tensors, is_single_node
from reprise.train.distributed.preemption import StopRequest, TrainingInterrupted
from reprise.train.fsdp import is_sharded, load_model_state, load_optimizer_state, save_sharded
from reprise.train.history import TrainingHistory

CHECKPOINTS = Path("checkpoints")
MANIFEST = "manifest.json"
HISTORY_FILE = "history.npy"
KEEP_LAST = 2
# What of the package a training runs; dvc.yaml lists the same as its dependencies.
TRAIN_SOURCES = ("core", "data", "hardware.py", "modeling", "tasks", "train")
LOCK_TIMEOUT_S = 30  # seconds for which one that was killed may still be ending


def fingerprint(recipe: Recipe) -> dict[str, Any]:
    """What decides the weights, by name: keys of the recipe, and the SHA-256 of data, model, environment and code.

    How often checkpoints are made does not, nor who is told of the figures, nor how many processes share the work.
    """
    keys = {"seed": recipe.seed, "task.labels": recipe.task.labels, "task.metrics": recipe.task.metrics}
    keys |= {f"train.{key}": value for key, value in to_dict(recipe.train).items()}
    keys["evaluate.batch_size"] = recipe.evaluate.batch_size
    package = Path(__file__).parents[1]
    code = [
        file
        for place in TRAIN_SOURCES
        for file in (package / place, *sorted((package / place).rglob("*.py")))
        if file.is_file()
    ]
    files = {str(file): file for file in (stats_path(PREPARED), ENVIRONMENT, *sorted((PRETRAINED / "model").iterdir()))}
    files |= {f"src/reprise/{file.relative_to(package)}": file for file in code}
    return keys | {name: sha256(file) if file.is_file() else None for name, file in files.items()}


def checkpoint_dir(ingredients: Mapping[str, Any]) -> Path:
    """Where the checkpoints of a run lie: each run has a folder of its own, and never looks into another's."""
    fingerprint = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
    return CHECKPOINTS / fingerprint[:16]


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Have the folder of a run's checkpoints alone while it trains; remove it once that has succeeded.

    Raises:
        UserError: another process trains the same run, and goes on doing so.
    """
    for second in range(LOCK_TIMEOUT_S):
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
    raise UserError(f"{folder}: another process trains this recipe; expected it to end first")


class CheckpointManager:
    """Writes and restores the state of a training. The first process writes, and all restore what its host has."""

    model: torch.nn.Module
    optimizer: Optimizer
    schedule: LRScheduler

    def __init__(
        self, folder: Path, world: PartialState, record: TrainingHistory, stop: StopRequest, save_steps: int
    ) -> None:
        self.folder, self.world, self.record, self.stop, self.save_steps = folder, world, record, stop, save_steps
        self.stopping = False

    def maybe_save(self) -> None:
        """Write a checkpoint every so many steps (each epoch ends with one of its own), and where the run is to stop.

        Raises:
            Stopped: after the checkpoint, on every process.
        """
        steps = len(self.record.history)
        if self.should_stop(steps) or (steps % self.save_steps == 0 and self.record.steps_left):
            self.record.flush()
            self.save()
        self.raise_if_stopped()

    def should_stop(self, steps: int) -> bool:
        """Whether the run is to stop after so many steps, the same answer on every process."""
        self.stopping = self.stop.should_stop(self.world, steps)
        return self.stopping

    def raise_if_stopped(self) -> None:
        """End the run where it was to stop.

        Raises:
            Stopped: it was.
        """
        if self.stopping:
            place = f"step {len(self.record.history)}/{self.record.total_steps}"
            raise TrainingInterrupted(f"stopped after {place}; `dvc repro` goes on from there", self.stop.signal)

    def save(self) -> None:
        """Write a checkpoint: whole, on the disk, and then under its name. The last two are kept.

        Raises:
            UserError: it cannot be written; the ones before are still there.
        """
        divided = is_sharded(self.model)
        if not (divided or self.world.is_main_process):
            return
        state = self.record.state()
        name = f"step-{len(self.record.history):07d}-epochs-{len(self.record.epochs):03d}"
        partial = self.folder / f".{name}.partial"
        try:
            if self.world.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            optimizer = self.optimizer.state_dict()
            moments = {
                f"{number}.{key}": value for number, entry in optimizer["state"].items() for key, value in entry.items()
            }
            if divided:
                self.world.wait_for_everyone()  # the folder is there
                save_sharded(partial, self.model.state_dict() | moments)
            else:
                for part, tensors in (("model", self.model.state_dict()), ("optimizer", moments)):
                    on_host = {key: cpu_copy(value) for key, value in tensors.items()}
                    save_file(on_host, partial / f"{part}.safetensors")
            if not self.world.is_main_process:
                return
            state |= {"param_groups": optimizer["param_groups"], "schedule": self.schedule.state_dict()}
            # As JSON it would take two seconds after 300,000 steps; so it takes a hundredth of one.
            np.save(partial / HISTORY_FILE, state.pop("history"), allow_pickle=False)
            write_json(partial / "state.json", state)
            if self.record.epochs:
                shutil.copytree(self.record.folder, partial / "best")
            files = sorted(file for file in partial.rglob("*") if file.is_file())
            for file in files:
                fsync(file)
            write_json(partial / MANIFEST, {"files": {str(file.relative_to(partial)): sha256(file) for file in files}})
            for file in (partial / MANIFEST, partial):
                fsync(file)
            shutil.rmtree(self.folder / name, ignore_errors=True)  # there is one only where it was left out
            partial.rename(self.folder / name)
            fsync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            problem = getattr(error, "strerror", None) or error
            raise UserError(
                f"{self.folder / name}: {problem}; expected room for a checkpoint; those before are kept, and "
                "`dvc repro` goes on from there"
            ) from None
        names = list_checkpoints(self.folder)
        kept = names[: names.index(name) + 1][-KEEP_LAST:]  # later ones were left out as damaged
        for other in set(names) - set(kept):
            shutil.rmtree(self.folder / other)

    def restore(self, model: torch.nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> None:
        """Watch over these, the model itself and no wrapper, and take up the newest checkpoint that is whole."""
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        reads = is_single_node() or self.world.is_main_process
        newest = self.find_latest() if reads else (None, {})
        checkpoint, state = newest if is_single_node() else broadcast_object(newest)
        if not checkpoint:
            return
        weights, kept = self.tensors(checkpoint)
        self.model.load_state_dict(weights)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in kept.items():
            number, moment = key.split(".")
            moments.setdefault(int(number), {})[moment] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
        self.schedule.load_state_dict(state["schedule"])
        self.record.restore(state, checkpoint / "best")
        self.log_resume(checkpoint)

    def find_latest(self) -> tuple[Path | None, dict[str, Any]]:
        """The newest checkpoint that is whole, with its state beside the tensors; (None, {}) where there is none."""
        for name in reversed(list_checkpoints(self.folder)):
            checkpoint = self.folder / name
            problem = verify_manifest(checkpoint)
            if not problem:
                state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
                return checkpoint, state | {"history": np.load(checkpoint / HISTORY_FILE)}
            self.log_main(f"train: {checkpoint} is left out: {problem}")
        return None, {}

    def tensors(self, checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The weights of a checkpoint by name, and the moments by the number of their parameter and their own name.

        Each process reads for itself, its share of a divided model from a disk that all hosts see. Of a whole one on
        several hosts, the first process hands on what it has read: the others' disks may not have it.
        """
        shared = is_single_node() or is_sharded(self.model)
        reads = shared or self.world.is_main_process
        weights = load_model_state(checkpoint, self.model) if reads else {}
        moments = load_optimizer_state(checkpoint, self.model, self.optimizer) if reads else {}
        if shared:
            return weights, moments
        return broadcast_tensors(self.world, weights), broadcast_tensors(self.world, moments)

    def log_resume(self, checkpoint: Path) -> None:
        """Print where the run goes on, and from what."""
        self.log_main(
            f"train: goes on after step {len(self.record.history)}/{self.record.total_steps}, from {checkpoint}"
        )

    def log_main(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.world.is_main_process:
            print(line, flush=True)


def list_checkpoints(folder: Path) -> list[str]:
    """The checkpoints that were given their name, oldest first; what a killed run was still writing has another."""
    return sorted(found.name for found in folder.glob("step-*"))


def verify_manifest(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, None if every file has the digest that the manifest gives."""
    try:
        files: dict[str, str] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, digest in files.items():
            if sha256(checkpoint / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError) as error:
        return f"{getattr(error, 'filename', None) or MANIFEST} cannot be read"
    return None


def cpu_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory, which shares it with no other tensor, as safetensors asks."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def fsync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's names, before anything that relies on them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
