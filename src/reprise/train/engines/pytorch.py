"""The same loop in plain PyTorch and one process: the engine `pytorch`.

The other engines are compared with it.
"""

import torch
from datasets import Dataset
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from reprise.core.config import Recipe
from reprise.modeling.collator import Collator
from reprise.modeling.inference import predict
from reprise.train.checkpoint import CheckpointManager
from reprise.train.dataset import ShardedDataset
from reprise.train.loss import summed_loss
from reprise.train.model import build_model, fitted_kind
from reprise.train.optimizer import build_optimizer, build_schedule
from reprise.train.recorder import Recorder
from reprise.train.sampler import iter_micro_batches, loss_scale, micro_batch_seed, plan_recipe_epoch


def train(
    recipe: Recipe,
    rows: ShardedDataset,
    validation: Dataset,
    collate: Collator,
    recorder: Recorder,
    checkpoints: CheckpointManager,
) -> None:
    """Fine-tune the pretrained model; the arguments are those of accelerate.py."""
    config, kind, device = recipe.train, fitted_kind(recipe), recorder.world.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
    model, dropout_keys = build_model(recipe)
    model.to(device)
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, recorder.history.total_steps)
    checkpoints.restore(model, optimizer, schedule)

    for epoch in range(len(recorder.history.epochs), config.epochs):
        steps = plan_recipe_epoch(recipe, rows.lengths, epoch)
        if not steps or recorder.stopped_early:
            break
        steps_done = recorder.start_epoch(epoch, steps)  # 0 unless the epoch is resumed
        sampler, pinned = iter_micro_batches(steps[steps_done:]), device.type == "cuda"
        batches = iter(DataLoader(rows, batch_sampler=sampler, collate_fn=collate, pin_memory=pinned))
        model.train()
        for index, step in enumerate(steps[steps_done:], start=steps_done):
            loss = torch.zeros((), device=device)
            for micro_batch in range(len(step.micro_batches)):
                batch = {name: tensor.to(device, non_blocking=True) for name, tensor in next(batches).items()}
                labels, weights, teacher = (batch.pop(name, None) for name in ("labels", "weight", "teacher"))
                dropout_keys.set_batch(epoch, step.rows_of_micro_batch(micro_batch), labels)
                torch.manual_seed(micro_batch_seed(recipe.seed, epoch, index, micro_batch))
                with precision:
                    logits = model(**batch).logits
                micro_loss = summed_loss(kind, config.distill, logits, labels, weights, teacher) * loss_scale(
                    step, micro_batch, rows.loss_weights
                )
                micro_loss.backward()  # type: ignore[no-untyped-call]
                loss += micro_loss.detach()
            grad_norm = clip_grad_norm_(model.parameters(), config.max_grad_norm)
            learning_rate = float(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            recorder.log_device(loss, grad_norm)
            recorder.log_step(step, learning_rate)
            checkpoints.maybe_save()

        with precision:
            logits = predict(model, validation, collate, recipe.evaluate.batch_size)
        recorder.log_epoch(epoch, recorder.score(logits))
        if recorder.is_best(epoch):
            recorder.save_model(model)
        checkpoints.save()
