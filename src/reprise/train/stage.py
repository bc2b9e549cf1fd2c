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

from reprise.environment import hardware
from reprise.errors import InputError
from reprise.inference import inputs_of, prepared_rows
from reprise.memory import keep_freed_memory
from reprise.modeling import Collator
from reprise.outputs import replacing_folder
from reprise.places import FINAL, METRICS, PLOTS, PRETRAINED, shards_of
from reprise.recipe import Recipe, read_recipe
from reprise.shapes import plan_buckets
from reprise.tokenizing import load_tokenizer
from reprise.train.alike import Unlike, check_alike
from reprise.train.alive import living
from reprise.train.checkpoint import Checkpoints, folder_of, held, ingredients
from reprise.train.divided import sharding
from reprise.train.hosts import Share
from reprise.train.launch import REFUSED, TIMEOUT, WORLD_SIZE
from reprise.train.provenance import session
from reprise.train.record import Record
from reprise.train.shards import Shards
from reprise.train.stop import STOP_FILE, Stopped, die_with_parent, listening
from reprise.train.trackers import Trackers
from reprise.xla import full_precision, on_xla

# What Gloo says where another process no longer answers.
GLOO = ("/gloo/", "pair closure")


def run(recipe: Recipe, kind: str) -> None:
    """Train as one of the launched processes; the first one writes models/final/, metrics/ and plots/.

    Raises:
        InputError: fewer or more processes came up than were asked for, a host is unlike the first, or the loss is not
            a number.
    """
    torch.use_deterministic_algorithms(True)  # an operation without a deterministic form fails and says its name
    # It would also fill memory that nothing has written yet: nothing reads it, and it takes 5 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The others may wait as long for a host that is lost as for one that writes.
    world = PartialState(cpu=kind == "cpu", timeout=timedelta(seconds=int(os.environ.get(TIMEOUT, Share.timeout))))
    check_world(world.num_processes)
    parts = ingredients(recipe)
    check_alike(parts)
    full_precision(world.device)
    if sharding() is None:  # layers come and go, and would leave holes in what is kept: as much again as they need
        keep_freed_memory()
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    rows, validation = Shards(shards_of("train")), inputs_of(prepared_rows("validation"))
    first, run = world.is_main_process, folder_of(parts)
    if first:  # not world.print, which says nothing on XLA's CPU device
        print(
            f"train: {recipe.model.name} on {len(rows)} rows, {world.device}, {recipe.train.precision}, "
            f"processes: {world.num_processes}, threads: {torch.get_num_threads()}",
            flush=True,
        )
    with listening() as stop, held(run) if first else nullcontext():
        if world.use_distributed:
            world.wait_for_everyone()  # before anyone looks for a checkpoint that somebody may still be writing
        with replacing_folder(FINAL) if first else nullcontext(FINAL) as folder:
            lengths = rows.lengths
            buckets = None
            if on_xla(world.device):
                buckets = plan_buckets(recipe.train.buckets, lengths, np.asarray(validation["length"]))
            collate = Collator(tokenizer, buckets)
            about = session(world, recipe.train.precision)
            with closing(Trackers(recipe, run.name, first=first)) as trackers:
                record = Record(world, recipe.train, recipe.task.metrics[0], lengths, folder, about, collate, trackers)
                checkpoints = Checkpoints(run, world, record, stop)
                engine(recipe.train.engine)(recipe, rows, validation, collate, record, checkpoints)
            if first:
                tokenizer.save_pretrained(folder)
        if first:
            record.write(METRICS, PLOTS)
    world.destroy_process_group()


def engine(name: str) -> Callable[..., None]:
    """The function `train` of loop.py, trainer.py or pytorch.py: three ways to the same weights."""
    if name == "trainer":
        from reprise.train.trainer import train
    elif name == "pytorch":
        from reprise.train.pytorch import train
    else:
        from reprise.train.loop import train
    return train


def check_world(processes: int) -> None:
    """Fail where the world that came up is not the one that was asked for: launchers have been seen to ignore it."""
    asked = int(os.environ.get(WORLD_SIZE, "1"))
    if processes != asked:
        raise Unlike(f"train: {processes} process(es) came up, expected {asked}")


def main() -> None:
    """Train as one of several processes; launch.py reads what it leaves in a file, where it was stopped or refused."""
    die_with_parent(signal.SIGKILL)
    with living():
        try:
            run(read_recipe(), hardware())
        except Stopped as stopped:
            Path(os.environ[STOP_FILE]).write_text(str(stopped), encoding="utf-8")
        except Unlike as error:
            Path(os.environ[REFUSED]).write_text(str(error), encoding="utf-8")
        except InputError as error:
            print(f"reprise: error: {error}", file=sys.stderr)
            sys.exit(2)
        except RuntimeError as error:
            if not is_loss(error):
                raise
            print(f"train: another process or its host is lost: {str(error).splitlines()[0]}", file=sys.stderr)
            sys.exit(1)
        PartialState().destroy_process_group()  # a process that is stopped has it still, and might end in an abort


def is_loss(error: RuntimeError) -> bool:
    """Whether an error says that another process no longer answers: torch has a class for it, Gloo but its words."""
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in GLOO)


if __name__ == "__main__":
    main()
