"""The fine-tuning loop, top to bottom.

Read it with plan.py, which says which rows make a step. What is measured and shown along the way stands in record.py.
"""

from contextlib import nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.nn import functional
from torch.utils.data import DataLoader

from reprise.metrics import compute
from reprise.modeling import Collator, load_classifier, predict, predictions_of
from reprise.places import PRETRAINED
from reprise.recipe import Recipe
from reprise.train.checkpoint import Checkpoints
from reprise.train.optimizer import build_optimizer, build_schedule
from reprise.train.plan import deal, micro_batch_rows, plan_epoch, random_seed, weight
from reprise.train.record import Record
from reprise.xla import as_data, autocast, cut, manual_seed, on_xla, settle


def train(
    recipe: Recipe, accelerator: Accelerator, rows: Dataset, validation: Dataset, collate: Collator, record: Record,
    checkpoints: Checkpoints,
) -> None:  # fmt: skip
    """Fine-tune the pretrained model on `rows`.

    `record` keeps the figures and the weights of the chosen epoch, `checkpoints` what an interrupted run goes on from.
    """
    settings, labels = recipe.train, recipe.task.labels
    processes, process = accelerator.num_processes, accelerator.process_index
    micro_batch_size = micro_batch_rows(settings, processes)
    lengths = np.asarray(rows["length"])

    torch.manual_seed(recipe.seed)  # draws the new head
    model = load_classifier(PRETRAINED / "model", labels).to(accelerator.device)
    optimizer = build_optimizer(model, settings)
    schedule = build_schedule(optimizer, settings, record.steps_in_all)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    checkpoints.restore(model, optimizer, schedule)
    loss = torch.zeros(()).to(accelerator.device)  # this process's share of a step's
    settle(optimizer, accelerator.device)

    for epoch in range(len(record.epochs), settings.epochs):
        steps = plan_epoch(
            lengths, seed=recipe.seed, epoch=epoch, batch_size=settings.batch_size, micro_batch_size=micro_batch_size
        )
        first = epoch * len(steps)
        if first >= record.steps_in_all:
            break
        steps = steps[: record.steps_in_all - first]
        done = len(record.curve) - first  # before an interruption
        fill_up = collate.of("train", micro_batch_size)
        loader = DataLoader(rows, batch_sampler=deal(steps[done:], processes), collate_fn=fill_up)
        batches = iter(accelerator.prepare_data_loader(loader))
        record.start_epoch(epoch, steps, done)
        model.train()
        for number, step in enumerate(steps[done:], start=done):
            turns = -(-len(step.micro_batches) // processes)
            for turn in range(turns):
                micro_batch = turn * processes + process
                batch = next(batches)
                targets = batch.pop("labels")
                # What follows draws the dropout.
                manual_seed(random_seed(recipe.seed, epoch, number, micro_batch), accelerator.device)
                # Gradients travel between processes once a step, with its last micro-batch.
                with nullcontext() if turn == turns - 1 else accelerator.no_sync(model):
                    with autocast(settings.precision, accelerator.device):
                        logits = model(**batch).logits
                    part = summed_loss(logits, targets) * as_data(weight(step, micro_batch), accelerator.device)
                    accelerator.backward(part * processes)  # the mean over processes is taken; the sum is meant
                loss += part.detach()
                if micro_batch_size * processes < settings.batch_size:
                    cut(accelerator.device)  # one program for each shape of micro-batches, and one for the rest
            norm = accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            learning_rate = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            record.note(loss, norm)
            # To XLA, adding to zeros and beginning with nothing are two programs.
            optimizer.zero_grad(set_to_none=not on_xla(accelerator.device))
            loss.zero_()
            cut(accelerator.device)
            record.step(epoch, step, learning_rate)
            checkpoints.after_step()

        logits = predict(accelerator, model, validation, collate, recipe.evaluate.batch_size)
        predictions = predictions_of(logits, regression=recipe.task.regression)
        scores = {}
        if accelerator.is_main_process:  # once is enough
            scores = compute(recipe.task.metrics, predictions, validation["label"], labels=len(labels))
        record.epoch(epoch, scores)
        if record.is_chosen(epoch):
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
