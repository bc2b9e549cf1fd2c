"""One rank of the train stage: set up device and data, run the engine, write the outputs."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from reprise.core.config import PARAMS, Recipe
from reprise.core.crash import report_exception
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir
from reprise.core.lock import write_lock
from reprise.core.paths import FINAL_MODEL, PRETRAINED, WORKSPACE_LOCK
from reprise.core.unchanged import InputChangedError, check_unchanged
from reprise.core.validation import read_recipe
from reprise.data.teacher import read_teacher
from reprise.data.tokenization import load_tokenizer
from reprise.hardware import current_hardware, read_facts
from reprise.modeling.bucketing import resolve_buckets
from reprise.modeling.collator import Collator
from reprise.modeling.malloc import disable_malloc_trim
from reprise.modeling.portable import set_up_cpu
from reprise.modeling.recipe import write_model_recipe
from reprise.modeling.splits import load_inputs, load_labels, split_parts
from reprise.modeling.tf32 import disable_tf32
from reprise.modeling.xla import on_xla, use_fp32_matmul
from reprise.train.checkpoint import CheckpointManager, checkpoint_dir, fingerprint, run_dir
from reprise.train.dataset import ShardedDataset
from reprise.train.distributed.consistency import RankMismatchError, check_consistency, diff
from reprise.train.distributed.liveness import liveness_lock
from reprise.train.distributed.preemption import StopRequest, TrainingInterrupted, handle_signals, set_pdeathsig
from reprise.train.fsdp import fsdp_plugin
from reprise.train.model import fitted_kind
from reprise.train.outputs import write_outputs
from reprise.train.provenance import describe_session
from reprise.train.recorder import Recorder
from reprise.train.trackers import Trackers
from reprise.train.worker_env import WorkerEnv, write_message

# Parts of Gloo's messages when another process no longer answers.
GLOO_ERRORS = ("/gloo/", "pair closure")


def train_worker(recipe: Recipe, device: str, check: Callable[[], None] = lambda: None) -> None:
    """Train as one rank; the main process writes models/final/, metrics/ and plots/.

    Args:
        recipe: what is trained.
        device: the type of device.
        check: called before an output is replaced; raises if none may be, and the checkpoints are kept.

    Raises:
        UserError: the number of processes is not the requested one, a host differs from host 0, or the loss is not
            finite.
        TrainingInterrupted: the run was stopped, after its checkpoint.
    """
    worker_env = WorkerEnv.read()
    set_up_cpu(recipe.train)
    torch.use_deterministic_algorithms(True)  # an operation without a deterministic form raises an error
    # By default torch then fills uninitialized memory, which nothing reads here; it takes 5 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    disable_tf32()
    # Ranks wait this long for a lost host, and as long for one that writes.
    world = PartialState(cpu=device == "cpu", timeout=timedelta(seconds=worker_env.timeout))
    check_world_size(world.num_processes, worker_env.world_size)
    lock = write_lock(WORKSPACE_LOCK, "train") if world.is_main_process else nullcontext()
    with lock, handle_signals(worker_env.stop_file) as stop:  # Ctrl-C ends the wait for the lock
        if world.use_distributed:
            world.wait_for_everyone()  # until the lock is taken: another run may still be writing
        check()
        train_rank(recipe, world, stop, check)
    world.destroy_process_group()


def train_rank(recipe: Recipe, world: PartialState, stop: StopRequest, check: Callable[[], None]) -> None:
    """Train and write the outputs, in a world whose main process holds the lock."""
    ingredients = fingerprint(recipe)
    check_consistency(ingredients)
    use_fp32_matmul(world.device)
    if fsdp_plugin() is None:  # gathered layers of a sharded model would fragment the memory that is kept
        disable_malloc_trim()
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    fold = recipe.train.fold
    read_teacher(recipe)
    parts, distill = split_parts("train", fold, inputs=True), recipe.train.distill
    rows = ShardedDataset(parts, fitted_kind(recipe), teacher=distill is not None)
    validation, references = load_inputs("validation", fold), load_labels("validation", fold)
    is_main_process, run = world.is_main_process, checkpoint_dir(ingredients)
    if is_main_process:  # not world.print, which prints nothing on XLA's CPU device
        units = "windows" if recipe.data.windows else "examples"
        echo(
            f"train: {recipe.model.name} on {len(rows)} {units}, {world.device}, {recipe.train.precision}, "
            f"processes: {world.num_processes}, threads: {torch.get_num_threads()}",
        )
        if distill:
            temperature = "" if distill.temperature is None else f"temperature {distill.temperature:g}, "
            echo(f"train: distilled from {distill.teacher} ({temperature}alpha {distill.alpha:g})")
    with run_dir(run) if is_main_process else nullcontext():
        with atomic_dir(FINAL_MODEL) if is_main_process else nullcontext(FINAL_MODEL) as model_dir:
            buckets = None
            if on_xla(world.device):
                buckets = resolve_buckets(recipe.train.bucket_lengths, rows.lengths, np.asarray(validation["length"]))
            collate = Collator(tokenizer, recipe.task.kind, buckets)
            session = describe_session(world, recipe.train.precision)
            with closing(Trackers(recipe, run.name, is_main_process=is_main_process)) as trackers:
                recorder = Recorder(
                    recipe, world, rows.lengths, validation, references, collate, trackers, model_dir, session
                )
                checkpoints = CheckpointManager(run, world, recorder, stop, recipe.run.save_steps)
                try:
                    load_engine(recipe.train.engine)(recipe, rows, validation, collate, recorder, checkpoints)
                except torch.OutOfMemoryError as error:
                    problem = ". ".join(str(error).split(". ")[:2])  # the rest describes the allocator
                    expected = (
                        "fewer texts, train.gradient_checkpointing: true, train=lora, or a smaller train.max_length"
                    )
                    raise UserError(problem, file=PARAMS, key="train.micro_batch_size", expected=expected) from None
            if is_main_process:
                tokenizer.save_pretrained(model_dir)
                write_model_recipe(recipe, model_dir, recorder.history.thresholds, recorder.history.temperatures)
                check()
                check_inputs(recipe, ingredients)
        if is_main_process:
            recorder.progress.close()
            write_outputs(recorder.history, recorder.speed())


def load_engine(name: str) -> Callable[..., None]:
    """Return the function `train` of an engine; all give the same weights."""
    if name == "trainer":
        from reprise.train.engines.hf_trainer import train
    elif name == "pytorch":
        from reprise.train.engines.pytorch import train
    else:
        from reprise.train.engines.accelerate import train
    return train


def check_world_size(world_size: int, expected: int) -> None:
    """Check that the launcher started as many processes as requested; some ignore the number.

    Raises:
        RankMismatchError: it did not.
    """
    if world_size != expected:
        raise RankMismatchError(f"{world_size} process(es) started", key="train", expected=str(expected))


def check_inputs(recipe: Recipe, before: Mapping[str, Any]) -> None:
    """Check that data, pretrained model, environment and code are those that were read; DVC hashes them afterwards.

    Raises:
        InputChangedError: one is not.
    """
    for difference in diff(fingerprint(recipe), before)[:1]:
        raise InputChangedError(
            f"{difference}; it changed while train ran, and nothing was replaced",
            key="train",
            expected="the same files; with these, `dvc repro` ends at once",
        )


def main() -> None:
    """Train as one of several ranks, and report to stage.py why the run was stopped or refused."""
    set_pdeathsig(signal.SIGKILL)
    worker_env = WorkerEnv.read()
    with liveness_lock(worker_env.liveness_file):
        try:
            recipe = read_recipe()
            check = partial(check_unchanged, recipe, "train")
            train_worker(recipe, read_facts(current_hardware())["device"], check)
        except TrainingInterrupted as interrupted:
            write_message(worker_env.stop_file, str(interrupted))
        except (RankMismatchError, InputChangedError) as error:
            write_message(worker_env.error_file, str(error))
        except UserError as error:
            echo(f"reprise: error: {error}", err=True)
            sys.exit(2)
        except Exception as error:
            if not is_peer_failure(error):
                sys.exit(report_exception(error))
            echo(f"train: another process or its host is lost: {str(error).splitlines()[0]}", err=True)
            sys.exit(1)
        PartialState().destroy_process_group()  # an interrupted run still has it, and could abort at exit


def is_peer_failure(error: Exception) -> bool:
    """Return whether another rank no longer answers; Gloo has no class for that error."""
    gloo = isinstance(error, RuntimeError) and any(text in str(error) for text in GLOO_ERRORS)
    return gloo or isinstance(error, torch.distributed.DistError)


if __name__ == "__main__":
    main()
