"""The optimizer, AdamW, and its learning rate schedule."""

import math
from typing import Any

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from reprise.core.config import Train
from reprise.modeling.xla import on_xla
from reprise.train.depth import parameter_depths

Group = dict[str, Any]  # of parameters, with the options of AdamW that they have in common

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def build_optimizer(model: torch.nn.Module, train: Train) -> AdamW:
    """Build AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only.

    Biases and normalization gains, the parameters of one dimension, do not decay: that would not regularize the model.
    `train.layer_decay` gives each layer a learning rate of its own (Clark et al. 2020).

    Raises:
        UserError: `train.layer_decay` is given, and the model has no list of layers.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = _split_by_weight_decay(parameters, train.weight_decay)
    if train.layer_decay is not None:
        groups = _split_by_depth(groups, parameter_depths(model, "train.layer_decay"), train)
    device = parameters[0].device
    # XLA fuses by itself. Its step count must be on the device: as a Python number it would be part of the program.
    return AdamW(groups, lr=train.learning_rate, fused=not on_xla(device), capturable=on_xla(device))


def _split_by_weight_decay(parameters: list[torch.nn.Parameter], weight_decay: float) -> list[Group]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _split_by_depth(groups: list[Group], depths: dict[torch.nn.Parameter, int], train: Train) -> list[Group]:
    """Split groups by depth, with learning rates that fall from the head to the embeddings by `train.layer_decay`.

    The head comes first, because the learning rate of the first group is the one that is recorded.
    """
    top, factor = max(depths.values()), train.layer_decay or 1.0
    split = [
        {**group, "params": [p for p in group["params"] if depths[p] == depth],
         "lr": train.learning_rate * factor ** (top - depth)}
        for depth in range(top, -1, -1)
        for group in groups
    ]  # fmt: skip
    return [group for group in split if group["params"]]


def build_schedule(optimizer: AdamW, train: Train, steps: int) -> LRScheduler:
    """Warm up linearly over `train.warmup_ratio` of the steps, then follow `train.lr_scheduler`."""
    schedule: LRScheduler = get_scheduler(
        SCHEDULES[train.lr_scheduler],
        optimizer,
        num_warmup_steps=math.ceil(train.warmup_ratio * steps),
        num_training_steps=steps,
    )
    return schedule
