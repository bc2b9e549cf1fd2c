"""The same training in plain PyTorch and one process: the engine `pytorch`, which the others are held against."""

import torch
from datasets import Dataset
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from reprise.inference import predict, score
from reprise.modeling import Collator
from reprise.recipe import Recipe
from reprise.train.checkpoint import Checkpoints
from reprise.train.loop import summed_loss
from reprise.train.model import build_model
from reprise.train.optimizer import build_optimizer, build_schedule
from reprise.train.plan import deal, random_seed, steps_of_epoch, weight
from reprise.train.record import Record
from reprise.train.shards import Shards


def train(
    recipe: Recipe, rows: Shards, validation: Dataset, collate: Collator, record: Record, checkpoints: Checkpoints
) -> None:
    """Fine-tune the pretrained model on `rows`; see loop.py, which takes the same."""
    settings, device = recipe.train, record.world.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    model, keys = build_model(recipe)
    model.to(device)
    optimizer = build_optimizer(model, settings)
    schedule = build_schedule(optimizer, settings, record.steps_in_all)
    checkpoints.restore(model, optimizer, schedule)

    for epoch in range(len(record.epochs), settings.epochs):
        steps = steps_of_epoch(recipe, record.lengths, epoch)
        if not steps:
            break
        done = record.start_epoch(epoch, steps)  # before an interruption
        batches = iter(DataLoader(rows, batch_sampler=deal(steps[done:]), collate_fn=collate))
        model.train()
        for number, step in enumerate(steps[done:], start=done):
            loss = torch.zeros((), device=device)
            for micro_batch in range(len(step.micro_batches)):
                batch = {name: tensor.to(device) for name, tensor in next(batches).items()}
                targets = batch.pop("labels")
                keys.take(epoch, step.of(micro_batch), targets)
                torch.manual_seed(random_seed(recipe.seed, epoch, number, micro_batch))
                with precision:
                    logits = model(**batch).logits
                part = summed_loss(logits, targets) * weight(step, micro_batch)
                part.backward()  # type: ignore[no-untyped-call]
                loss += part.detach()
            norm = clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            learning_rate = float(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            record.note(loss, norm)
            record.step(epoch, step, learning_rate)
            checkpoints.after_step()

        with precision:
            logits = predict(model, validation, collate, recipe.evaluate.batch_size)
        record.epoch(epoch, score(recipe.task, logits, validation["label"]))
        if record.is_chosen(epoch):
            record.save(model)
        checkpoints.save()
