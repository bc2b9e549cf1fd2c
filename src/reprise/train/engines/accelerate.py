"""The fine-tuning loop, top to bottom: the engine `accelerate`.

Read it with sampler.py, which says which rows make a step. history.py holds what is measured and shown on the way.
The same without Accelerate stands in pytorch.py, and through transformers' Trainer in hf_trainer.py.
"""

from contextlib import nullcontext

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from datasets import Dataset
from torch.nn import functional
from torch.utils.data import DataLoader

from reprise.core.config import Recipe
from reprise.modeling.collator import Collator
from reprise.modeling.inference import predict
from reprise.modeling.scoring import compute_metrics
from reprise.modeling.xla import autocast, device_scalar, init_optimizer_state, manual_seed, mark_step, on_xla
from reprise.train.checkpoint import CheckpointManager
from reprise.train.dataset import ShardedDataset
from reprise.train.fsdp import configure_fsdp, fsdp_plugin, full_tensor
from reprise.train.history import TrainingHistory
from reprise.train.model import build_model
from reprise.train.optimizer import build_optimizer, build_schedule
from reprise.train.sampler import (
    iter_micro_batches,
    loss_scale,
    micro_batch_seed,
    plan_recipe_epoch,
    resolve_micro_batch_size,
)


def train(
    recipe: Recipe,
    rows: ShardedDataset,
    validation: Dataset,
    collate: Collator,
    record: TrainingHistory,
    checkpoints: CheckpointManager,
) -> None:
    """Fine-tune the pretrained model on `rows`.

    `record` keeps the figures and the weights of the chosen epoch, `checkpoints` what an interrupted run goes on from.
    """
    settings, device = recipe.train, record.world.device
    plugin = fsdp_plugin()  # None where every process has the whole model
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if settings.precision == "bf16" and not on_xla(device) else "no",  # see xla.autocast
        # Gradients are summed in the same order from the first step of a session on: by default, torch deals them into
        # other buckets after it, and with three processes or more an element's place decides the order of its sum.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        fsdp_plugin=plugin,
        step_scheduler_with_optimizer=False,  # our schedule counts optimizer steps, not steps × processes
    )
    processes, process = accelerator.num_processes, accelerator.process_index
    micro_batch_size = resolve_micro_batch_size(settings, processes)

    model, keys = build_model(recipe)
    model.to(device)
    optimizer = build_optimizer(model, settings)
    schedule = build_schedule(optimizer, settings, record.total_steps)
    configure_fsdp(model, accelerator, plugin)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    checkpoints.restore(accelerator.unwrap_model(model), optimizer, schedule)
    loss = torch.zeros(()).to(device)  # this process's share of a step's
    init_optimizer_state(optimizer, device)

    for epoch in range(len(record.epochs), settings.epochs):
        steps = plan_recipe_epoch(recipe, record.lengths, epoch, processes)
        if not steps:
            break
        done = record.start_epoch(epoch, steps)  # before an interruption
        fill_up = collate.with_batch_size("train", micro_batch_size)
        loader = DataLoader(rows, batch_sampler=iter_micro_batches(steps[done:], processes), collate_fn=fill_up)
        batches = iter(accelerator.prepare_data_loader(loader))
        model.train()
        for number, step in enumerate(steps[done:], start=done):
            turns = -(-len(step.micro_batches) // processes)
            for turn in range(turns):
                micro_batch = turn * processes + process
                batch = next(batches)
                targets = batch.pop("labels")
                keys.set_batch(epoch, step.rows_of_micro_batch(micro_batch), targets)  # they decide what is dropped
                manual_seed(
                    micro_batch_seed(recipe.seed, epoch, number, micro_batch), device
                )  # for what else may be drawn
                # Gradients travel between processes once a step, with its last micro-batch. Those of a divided model
                # travel with each, as there is room for a share of them alone.
                travels = turn == turns - 1 or accelerator.is_fsdp2
                with nullcontext() if travels else accelerator.no_sync(model):
                    with autocast(settings.precision, device):
                        logits = model(**batch).logits
                    part = summed_loss(logits, targets) * device_scalar(loss_scale(step, micro_batch), device)
                    accelerator.backward(part * processes)  # the mean over processes is taken; the sum is meant
                loss += part.detach()
                if micro_batch_size * processes < settings.batch_size:
                    mark_step(device)  # one program for each shape of micro-batches, and one for the rest
            norm = full_tensor(accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm))
            learning_rate = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            record.log_device(loss, norm)
            # To XLA, adding to zeros and beginning with nothing are two programs.
            optimizer.zero_grad(set_to_none=not on_xla(device))
            loss.zero_()
            mark_step(device)
            record.log_step(epoch, step, learning_rate)
            checkpoints.maybe_save()

        logits = predict(model, validation, collate, recipe.evaluate.batch_size, accelerator)
        record.log_epoch(epoch, compute_metrics(recipe.task, logits, validation["label"]))
        if record.is_best(epoch):
            record.save(accelerator.unwrap_model(model))
        checkpoints.save()


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss summed over rows: cross-entropy, or squared error where there is one output (regression).

    Rows that only fill a batch up (NO_LABEL, NaN) add nothing.

    Args:
        logits: [rows, outputs].
        labels: label numbers (int64) or values (fp32), [rows].
    """
    if logits.shape[1] == 1:
        values = logits.squeeze(1).float()
        return functional.mse_loss(values, torch.where(labels.isnan(), values, labels), reduction="sum")
    return functional.cross_entropy(logits.float(), labels, reduction="sum")
