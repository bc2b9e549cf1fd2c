"""Checkpoints: a resumed run ends with the same bits as an uninterrupted one.

    checkpoints/<run>/step-0000100-epochs-000/    weights, optimizer, history, and the manifest, which is written last

A checkpoint keeps the results of the steps so far and no generator state, because every random draw is a function of
the seed, the epoch, the step and the micro-batch. DVC does not remove the folder, because it is no output of the stage.
"""

import json
import shutil
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
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import fsync, fsync_tree, json_sha256, sha256, write_json
from reprise.core.paths import PREPARED, PRETRAINED
from reprise.data.format import stats_path
from reprise.data.teacher import teacher_files
from reprise.hardware import ENVIRONMENT
from reprise.train.distributed.consistency import any_rank, broadcast_object, broadcast_tensors, is_single_node
from reprise.train.distributed.preemption import SYNC_EVERY_STEPS, StopRequest, TrainingInterrupted
from reprise.train.fsdp import is_sharded, load_model_state, load_optimizer_state, save_sharded
from reprise.train.provenance import REPOSITORY, code_dependencies
from reprise.train.recorder import Recorder

CHECKPOINTS = Path("checkpoints")
MANIFEST = "manifest.json"
HISTORY_FILE = "history.npy"
KEEP_LAST = 2
SPACE_EXPECTED = "space for a checkpoint; earlier ones are kept, and `dvc repro` resumes from there"


def fingerprint(recipe: Recipe) -> dict[str, Any]:
    """Return what determines the weights: recipe keys, and digests of the files that are read.

    The files are data, the teacher's outputs, pretrained model, environment and code. The number of processes, the
    trackers and the interval between checkpoints do not determine the weights.
    """
    keys = {"seed": recipe.seed}
    keys |= {
        f"task.{key}": to_dict(getattr(recipe.task, key))
        for key in ("labels", "positive_label", "metrics", "multi_label", "token_classification")
    }
    keys["data.windows"] = to_dict(recipe.data.windows)
    keys |= {f"train.{key}": value for key, value in to_dict(recipe.train).items()}
    keys["evaluate.batch_size"] = recipe.evaluate.batch_size
    files = {str(file): file for file in (stats_path(PREPARED), ENVIRONMENT, *sorted((PRETRAINED / "model").iterdir()))}
    if recipe.train.distill:
        files |= {str(file): file for file in teacher_files()}
    files |= train_sources(REPOSITORY)
    return keys | {name: sha256(file) if file.is_file() else None for name, file in files.items()}


def train_sources(repo: Path) -> dict[str, Path]:
    """Find the Python files that the stage `train` depends on in a repository's dvc.yaml.

    Returns:
        The files by their names relative to the repository.

    Raises:
        UserError: dvc.yaml has no such stage.
    """
    sources = [repo / name for name in code_dependencies(repo)]
    files = [file for source in sources for file in (source, *sorted(source.rglob("*.py"))) if file.is_file()]
    return {str(file.relative_to(repo)): file for file in files}


def checkpoint_dir(ingredients: Mapping[str, Any]) -> Path:
    """Return the folder of a run's checkpoints, named after its fingerprint."""
    return CHECKPOINTS / json_sha256(ingredients)[:16]


@contextmanager
def run_dir(folder: Path) -> Iterator[None]:
    """Create the checkpoint directory; delete it on success."""
    folder.mkdir(parents=True, exist_ok=True)
    yield
    shutil.rmtree(folder)


class CheckpointManager:
    """Saves and restores a run. The main process saves, and ranks restore what their host has."""

    model: torch.nn.Module
    optimizer: Optimizer
    schedule: LRScheduler

    def __init__(
        self, folder: Path, world: PartialState, recorder: Recorder, stop: StopRequest, save_steps: int
    ) -> None:
        """Manage the checkpoints in a folder, one every `save_steps` steps and one per epoch."""
        self.folder, self.world, self.recorder, self.stop, self.save_steps = folder, world, recorder, stop, save_steps
        self.stopping = False

    def maybe_save(self) -> None:
        """Save every `save_steps` steps within an epoch, and when the run stops.

        Raises:
            TrainingInterrupted: the run stops, on every rank.
        """
        history = self.recorder.history
        due = history.steps_done % self.save_steps == 0 and history.steps_left > 0
        if self.should_stop(history.steps_done) or due:
            self.recorder.flush()
            self.save()
        self.raise_if_stopped()

    def should_stop(self, steps: int) -> bool:
        """Return whether the run stops after this step; the same answer on every rank."""
        requested = self.stop.requested
        if self.world.num_processes > 1:
            requested = steps % SYNC_EVERY_STEPS == 0 and any_rank(self.world, requested)
        self.stopping = requested
        return requested

    def raise_if_stopped(self) -> None:
        """Raise if `should_stop` was true.

        Raises:
            TrainingInterrupted: it was.
        """
        if self.stopping:
            step = f"step {self.recorder.history.steps_done}/{self.recorder.history.total_steps}"
            raise TrainingInterrupted(f"stopped after {step}; `dvc repro` resumes from there", self.stop.signal)

    def save(self) -> None:
        """Write a checkpoint, sync it to disk, then rename it. Keep the last KEEP_LAST.

        Raises:
            UserError: it cannot be written; earlier ones are kept.
        """
        sharded = is_sharded(self.model)
        if not (sharded or self.world.is_main_process):
            return
        state, history = self.recorder.state(), self.recorder.history
        name = f"step-{history.steps_done:07d}-epochs-{len(history.epochs):03d}"
        partial = self.folder / f".{name}.partial"
        try:
            if self.world.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            optimizer = self.optimizer.state_dict()
            optimizer_state = {
                f"{index}.{key}": value for index, entry in optimizer["state"].items() for key, value in entry.items()
            }
            if sharded:
                self.world.wait_for_everyone()  # until the folder exists
                save_sharded(partial, self.model.state_dict() | optimizer_state)
            else:
                for part, tensors in (("model", self.model.state_dict()), ("optimizer", optimizer_state)):
                    on_host = {key: cpu_copy(value) for key, value in tensors.items()}
                    save_file(on_host, partial / f"{part}.safetensors")
            if not self.world.is_main_process:
                return
            state |= {"param_groups": optimizer["param_groups"], "schedule": self.schedule.state_dict()}
            # An array in its own file, because JSON is 200 times slower for a long run.
            np.save(partial / HISTORY_FILE, state.pop("history"), allow_pickle=False)
            write_json(partial / "state.json", state)
            if history.epochs:
                shutil.copytree(self.recorder.model_dir, partial / "best")
            fsync_tree(partial)
            files = sorted(file for file in partial.rglob("*") if file.is_file())
            write_json(partial / MANIFEST, {"files": {str(file.relative_to(partial)): sha256(file) for file in files}})
            shutil.rmtree(self.folder / name, ignore_errors=True)  # exists only if it was skipped as corrupt
            partial.rename(self.folder / name)
            fsync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            problem = getattr(error, "strerror", None) or error
            raise UserError(str(problem), file=self.folder / name, expected=SPACE_EXPECTED) from None
        names = list_checkpoints(self.folder)
        kept = names[: names.index(name) + 1][-KEEP_LAST:]  # later ones were skipped as corrupt
        for other in set(names) - set(kept):
            shutil.rmtree(self.folder / other)

    def restore(self, model: torch.nn.Module, optimizer: Optimizer, schedule: LRScheduler) -> None:
        """Register the unwrapped model, optimizer and schedule; load the latest valid checkpoint."""
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        reads = is_single_node() or self.world.is_main_process
        latest = self.find_latest() if reads else (None, {})
        checkpoint, state = latest if is_single_node() else broadcast_object(latest)
        if not checkpoint:
            return
        weights, tensors = self.read_tensors(checkpoint)
        self.model.load_state_dict(weights)
        optimizer_state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            index, key = name.split(".")
            optimizer_state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": optimizer_state, "param_groups": state["param_groups"]})
        self.schedule.load_state_dict(state["schedule"])
        self.recorder.restore(state)
        best = checkpoint / "best"
        if self.world.is_main_process and best.is_dir():
            shutil.copytree(best, self.recorder.model_dir, dirs_exist_ok=True)
        self.log_resume(checkpoint)

    def find_latest(self) -> tuple[Path | None, dict[str, Any]]:
        """Find the latest valid checkpoint.

        Returns:
            The checkpoint and its state without tensors; (None, {}) if there is none.
        """
        for name in reversed(list_checkpoints(self.folder)):
            checkpoint = self.folder / name
            problem = verify_manifest(checkpoint)
            if not problem:
                state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
                return checkpoint, state | {"history": np.load(checkpoint / HISTORY_FILE)}
            self.log_main(f"train: skipping corrupt checkpoint {checkpoint}: {problem}")
        return None, {}

    def read_tensors(self, checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Read the weights by name, and the optimizer state by "INDEX.KEY" of its parameter.

        Each rank of a sharded model reads its shards from a disk that all hosts mount. A full model is read by each
        rank of a single host; on several hosts the main process broadcasts it, because other disks may not have it.
        """
        every_rank_reads = is_single_node() or is_sharded(self.model)
        reads = every_rank_reads or self.world.is_main_process
        weights = load_model_state(checkpoint, self.model) if reads else {}
        optimizer_state = load_optimizer_state(checkpoint, self.model, self.optimizer) if reads else {}
        if every_rank_reads:
            return weights, optimizer_state
        return broadcast_tensors(self.world, weights), broadcast_tensors(self.world, optimizer_state)

    def log_resume(self, checkpoint: Path) -> None:
        """Print where the run resumes."""
        history = self.recorder.history
        self.log_main(f"train: resuming from step {history.steps_done}/{history.total_steps}, from {checkpoint}")

    def log_main(self, line: str) -> None:
        """Print a line once for all ranks."""
        if self.world.is_main_process:
            echo(line)


def list_checkpoints(folder: Path) -> list[str]:
    """List the complete checkpoints, oldest first; an incomplete one has a temporary name."""
    return sorted(found.name for found in folder.glob("step-*"))


def verify_manifest(checkpoint: Path) -> str | None:
    """Compare every file of a checkpoint with its digest in the manifest.

    Returns:
        What is wrong; None if the checkpoint is valid.
    """
    name = MANIFEST
    try:
        files: dict[str, str] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, digest in files.items():
            if sha256(checkpoint / name) != digest:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, KeyError):
        return f"{name} cannot be read"
    return None


def cpu_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to its own host memory; safetensors refuses tensors that overlap."""
    return tensor.detach().to("cpu", copy=True).contiguous()
