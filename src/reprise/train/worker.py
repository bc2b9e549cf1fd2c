"""One process of the train stage: set up the device, the data and the determinism, run the loop, write what it gave."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir
from reprise.core.paths import FINAL_MODEL, METRICS, PLOTS, PRETRAINED
from reprise.core.validation import read_recipe
from reprise.data.format import split_shards
from reprise.data.tokenization import load_tokenizer
from reprise.hardware import current_hardware
from reprise.modeling.bucketing import resolve_buckets
from reprise.modeling.collator import Collator
from reprise.modeling.inference import drop_text_columns, load_split
from reprise.modeling.malloc import disable_malloc_trim
from reprise.modeling.xla import on_xla, use_fp32_matmul
from reprise.train.checkpoint import CheckpointManager, checkpoint_dir, fingerprint, run_lock
from reprise.train.dataset import ShardedDataset
from reprise.train.distributed.consistency import RankMismatchError, check_consistency
from reprise.train.distributed.launch_config import LaunchConfig
from reprise.train.distributed.liveness import liveness_lock
from reprise.train.distributed.preemption import STOP_FILE, TrainingInterrupted, handle_signals, set_pdeathsig
from reprise.train.fsdp import fsdp_plugin
from reprise.train.history import TrainingHistory
from reprise.train.provenance import describe_session
from reprise.train.stage import ERROR_FILE, TIMEOUT, WORLD_SIZE
from reprise.train.trackers import Trackers

# What Gloo says where another process no longer answers.
GLOO_ERRORS = ("/gloo/", "pair closure")


def train_worker(recipe: Recipe, kind: str) -> None:
    """Train as one of the launched processes; the first one writes models/final/, metrics/ and plots/.

    Raises:
        UserError: fewer or more processes came up than were asked for, a host is unlike the first, or the loss is not
            a number.
    """
    torch.use_deterministic_algorithms(True)  # an operation without a deterministic form fails and says its name
    # It would also fill memory that nothing has written yet: nothing reads it, and it takes 5 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The others may wait as long for a host that is lost as for one that writes.
    world = PartialState(
        cpu=kind == "cpu", timeout=timedelta(seconds=int(os.environ.get(TIMEOUT, LaunchConfig.timeout)))
    )
    check_world_size(world.num_processes)
    parts = fingerprint(recipe)
    check_consistency(parts)
    use_fp32_matmul(world.device)
    if fsdp_plugin() is None:  # layers come and go, and would leave holes in what is kept: as much again as they need
        disable_malloc_trim()
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    rows, validation = ShardedDataset(split_shards("train")), drop_text_columns(load_split("validation"))
    first, run = world.is_main_process, checkpoint_dir(parts)
    if first:  # not world.print, which says nothing on XLA's CPU device
        print(
            f"train: {recipe.model.name} on {len(rows)} rows, {world.device}, {recipe.train.precision}, "
            f"processes: {world.num_processes}, threads: {torch.get_num_threads()}",
            flush=True,
        )
    with handle_signals() as stop, run_lock(run) if first else nullcontext():
        if world.use_distributed:
            world.wait_for_everyone()  # before anyone looks for a checkpoint that somebody may still be writing
        with atomic_dir(FINAL_MODEL) if first else nullcontext(FINAL_MODEL) as folder:
            lengths = rows.lengths
            buckets = None
            if on_xla(world.device):
                buckets = resolve_buckets(recipe.train.bucket_lengths, lengths, np.asarray(validation["length"]))
            collate = Collator(tokenizer, recipe.task.kind, buckets)
            about = describe_session(world, recipe.train.precision)
            with closing(Trackers(recipe, run.name, first=first)) as trackers:
                record = TrainingHistory(
                    world, recipe.train, recipe.task.metrics[0], lengths, folder, about, collate, trackers
                )
                checkpoints = CheckpointManager(run, world, record, stop, recipe.run.save_steps)
                load_engine(recipe.train.engine)(recipe, rows, validation, collate, record, checkpoints)
            if first:
                tokenizer.save_pretrained(folder)
        if first:
            record.write_outputs(METRICS, PLOTS)
    world.destroy_process_group()


def load_engine(name: str) -> Callable[..., None]:
    """The function `train` of accelerate.py, hf_trainer.py or pytorch.py: three ways to the same weights."""
    if name == "trainer":
        from reprise.train.engines.hf_trainer import train
    elif name == "pytorch":
        from reprise.train.engines.pytorch import train
    else:
        from reprise.train.engines.accelerate import train
    return train


def check_world_size(processes: int) -> None:
    """Fail where the world that came up is not the one that was asked for: launchers have been seen to ignore it."""
    asked = int(os.environ.get(WORLD_SIZE, "1"))
    if processes != asked:
        raise RankMismatchError(f"train: {processes} process(es) came up, expected {asked}")


def main() -> None:
    """Train as one of several processes; stage.py reads what it leaves in a file, where it was stopped or refused."""
    set_pdeathsig(signal.SIGKILL)
    with liveness_lock():
        try:
            train_worker(read_recipe(), current_hardware())
        except TrainingInterrupted as stopped:
            Path(os.environ[STOP_FILE]).write_text(str(stopped), encoding="utf-8")
        except RankMismatchError as error:
            Path(os.environ[ERROR_FILE]).write_text(str(error), encoding="utf-8")
        except UserError as error:
            print(f"reprise: error: {error}", file=sys.stderr)
            sys.exit(2)
        except RuntimeError as error:
            if not is_peer_failure(error):
                raise
            print(f"train: another process or its host is lost: {str(error).splitlines()[0]}", file=sys.stderr)
            sys.exit(1)
        PartialState().destroy_process_group()  # a process that is stopped has it still, and might end in an abort


def is_peer_failure(error: RuntimeError) -> bool:
    """Whether an error says that another process no longer answers: torch has a class for it, Gloo but its words."""
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in GLOO_ERRORS)


if __name__ == "__main__":
    main()
