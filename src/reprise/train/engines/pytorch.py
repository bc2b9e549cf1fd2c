"""The same training in plain PyTorch and one process: the engine `pytorch`, which the others are held against."""

import torch
from datasets import Dataset
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from reprise.core.config import Recipe
from reprise.modeling.collator import Collator
from reprise.modeling.inference import predict
from reprise.modeling.scoring import compute_metrics
from reprise.train.checkpoint import CheckpointManager
from reprise.train.dataset import ShardedDataset
from reprise.train.engines.accelerate import summed_loss
from reprise.train.history import TrainingHistory
from reprise.train.model import build_model
from reprise.train.optimizer import build_optimizer, build_schedule
from reprise.train.sampler import iter_micro_batches, loss_scale, micro_batch_seed, plan_recipe_epoch


def train(
    recipe: Recipe,
    rows: ShardedDataset,
    validation: Dataset,
    collate: Collator,
    record: TrainingHistory,
    checkpoints: CheckpointManager,
) -> None:
    """Fine-tune the pretrained model on `rows`; see accelerate.py, which takes the same."""
    settings, device = recipe.train, record.world.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    model, keys = build_model(recipe)
    model.to(device)
    optimizer = build_optimizer(model, settings)
    schedule = build_schedule(optimizer, settings, record.total_steps)
    checkpoints.restore(model, optimizer, schedule)

    for epoch in range(len(record.epochs), settings.epochs):
        steps = plan_recipe_epoch(recipe, record.lengths, epoch)
        if not steps:
            break
        done = record.start_epoch(epoch, steps)  # before an interruption
        batches = iter(DataLoader(rows, batch_sampler=iter_micro_batches(steps[done:]), collate_fn=collate))
        model.train()
        for number, step in enumerate(steps[done:], start=done):
            loss = torch.zeros((), device=device)
            for micro_batch in range(len(step.micro_batches)):
                batch = {name: tensor.to(device) for name, tensor in next(batches).items()}
                targets = batch.pop("labels")
                keys.set_batch(epoch, step.rows_of_micro_batch(micro_batch), targets)
                torch.manual_seed(micro_batch_seed(recipe.seed, epoch, number, micro_batch))
                with precision:
                    logits = model(**batch).logits
                part = summed_loss(logits, targets) * loss_scale(step, micro_batch)
                part.backward()  # type: ignore[no-untyped-call]
                loss += part.detach()
            norm = clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            learning_rate = float(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            record.log_device(loss, norm)
            record.log_step(epoch, step, learning_rate)
            checkpoints.maybe_save()

        with precision:
            logits = predict(model, validation, collate, recipe.evaluate.batch_size)
        record.log_epoch(epoch, compute_metrics(recipe.task, logits, validation["label"]))
        if record.is_best(epoch):
            record.save(model)
        checkpoints.save()
