"""The optimizer, AdamW, and its learning rate schedule."""

import math

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from reprise.core.config import Train
from reprise.modeling.xla import on_xla

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def build_optimizer(model: torch.nn.Module, train: Train) -> AdamW:
    """Build AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only.

    Biases and normalization gains, the parameters of one dimension, do not decay: that would not regularize the model.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    device = parameters[0].device
    # XLA fuses by itself. Its step count must be on the device: as a Python number it would be part of the program.
    return AdamW(groups, lr=train.learning_rate, fused=not on_xla(device), capturable=on_xla(device))


def build_schedule(optimizer: AdamW, train: Train, steps: int) -> LRScheduler:
    """Warm up linearly over `train.warmup_ratio` of the steps, then follow `train.lr_scheduler`."""
    schedule: LRScheduler = get_scheduler(
        SCHEDULES[train.lr_scheduler],
        optimizer,
        num_warmup_steps=math.ceil(train.warmup_ratio * steps),
        num_training_steps=steps,
    )
    return schedule
