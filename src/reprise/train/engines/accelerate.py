"""The training loop with Accelerate, from top to bottom: the engine `accelerate`.

Read it with sampler.py, which plans the examples of each step. The same loop without Accelerate is pytorch.py, and with
transformers' Trainer hf_trainer.py.
"""

from contextlib import nullcontext

import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from datasets import Dataset
from torch.utils.data import DataLoader

from reprise.core.config import Recipe
from reprise.modeling.collator import Collator
from reprise.modeling.inference import predict
from reprise.modeling.xla import autocast, device_scalar, init_optimizer_state, manual_seed, mark_step, on_xla
from reprise.train.checkpoint import CheckpointManager
from reprise.train.dataset import ShardedDataset
from reprise.train.fsdp import configure_fsdp, fsdp_plugin, full_tensor
from reprise.train.loss import summed_loss
from reprise.train.model import build_model, fitted_kind
from reprise.train.optimizer import build_optimizer, build_schedule
from reprise.train.recorder import Recorder
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
    recorder: Recorder,
    checkpoints: CheckpointManager,
) -> None:
    """Fine-tune the pretrained model.

    Args:
        recipe: what to train.
        rows: the training examples, or their windows.
        validation: the examples that select the best epoch.
        collate: makes the batches.
        recorder: receives the metrics and the best epoch's model.
        checkpoints: saves the run, and restores an interrupted one.
    """
    config, kind, device = recipe.train, fitted_kind(recipe), recorder.world.device
    plugin = fsdp_plugin()  # None if every rank has the full model
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if config.precision == "bf16" and not on_xla(device) else "no",  # see xla.autocast
        # Sum gradients in the same order from the first step of a session: by default torch rearranges its buckets
        # after it, and from three ranks on, an element's position in a bucket determines the order of its sum.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        fsdp_plugin=plugin,
        dataloader_config=DataLoaderConfiguration(non_blocking=True),
        step_scheduler_with_optimizer=False,  # our schedule counts optimizer steps, not steps × ranks
    )
    world_size, rank = accelerator.num_processes, accelerator.process_index
    micro_batch_size = resolve_micro_batch_size(config, world_size)

    model, dropout_keys = build_model(recipe)
    model.to(device)
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, recorder.history.total_steps)
    configure_fsdp(model, accelerator, plugin)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    checkpoints.restore(accelerator.unwrap_model(model), optimizer, schedule)
    loss = torch.zeros(()).to(device)  # this rank's part of a step's loss
    init_optimizer_state(optimizer, device)

    for epoch in range(len(recorder.history.epochs), config.epochs):
        steps = plan_recipe_epoch(recipe, rows.lengths, epoch, world_size)
        if not steps or recorder.stopped_early:
            break
        steps_done = recorder.start_epoch(epoch, steps)  # 0 unless the epoch is resumed
        sampler = iter_micro_batches(steps[steps_done:], world_size)
        train_collator = collate.with_batch_size("train", micro_batch_size)
        pinned = device.type == "cuda"  # a copy from other memory waits for the device
        loader = DataLoader(rows, batch_sampler=sampler, collate_fn=train_collator, pin_memory=pinned)
        batches = iter(accelerator.prepare_data_loader(loader))
        model.train()
        for index, step in enumerate(steps[steps_done:], start=steps_done):
            micro_steps = -(-len(step.micro_batches) // world_size)
            for micro_step in range(micro_steps):
                micro_batch = micro_step * world_size + rank
                batch = next(batches)
                labels, weights, teacher = (batch.pop(name, None) for name in ("labels", "weight", "teacher"))
                dropout_keys.set_batch(epoch, step.rows_of_micro_batch(micro_batch), labels)
                manual_seed(micro_batch_seed(recipe.seed, epoch, index, micro_batch), device)  # for any other draws
                # Ranks exchange gradients once per step, with its last micro-batch. Those of a sharded model are
                # exchanged with each one, because a rank has space for its shard only.
                sync_gradients = micro_step == micro_steps - 1 or accelerator.is_fsdp2
                with nullcontext() if sync_gradients else accelerator.no_sync(model):
                    with autocast(config.precision, device):
                        logits = model(**batch).logits
                    scale = device_scalar(loss_scale(step, micro_batch, rows.loss_weights), device)
                    micro_loss = summed_loss(kind, config.distill, logits, labels, weights, teacher) * scale
                    accelerator.backward(micro_loss * world_size)  # gradients are averaged over ranks; we need the sum
                loss += micro_loss.detach()
                if micro_batch_size * world_size < config.batch_size:
                    mark_step(device)  # one XLA program per shape of a micro-batch, and one for the optimizer
            grad_norm = full_tensor(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm))
            learning_rate = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            recorder.log_device(loss, grad_norm)
            optimizer.zero_grad(set_to_none=not on_xla(device))  # on XLA, None instead of zeros is another program
            loss.zero_()
            mark_step(device)
            recorder.log_step(step, learning_rate)
            checkpoints.maybe_save()

        logits = predict(model, validation, collate, recipe.evaluate.batch_size, accelerator)
        recorder.log_epoch(epoch, recorder.score(logits))
        if recorder.is_best(epoch):
            recorder.save_model(accelerator.unwrap_model(model))
        checkpoints.save()
