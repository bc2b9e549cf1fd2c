"""The model, as train, evaluate and predict load it: from local folders, safetensors only, no remote code."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import logging

from reprise.tasks.kind import TaskKind

# Families whose head reads only the first token. After the attention of the last layer, only that token is computed:
# the logits are the same, and a six-layer model does an eighth less work.
CLS_HEAD_FAMILIES = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}

# The warnings (a new classification head, a tokenizer used through `pad`) describe what is intended here.
logging.set_verbosity_error()
logging.disable_progress_bar()


def load_classifier(folder: Path, kind: TaskKind | None = None) -> PreTrainedModel:
    """Load the encoder in `folder` with a head on top, all in fp32.

    Args:
        folder: holds config.json and safetensors.
        kind: shapes the head; a head of another size in `folder` gives way to a new one, drawn from torch's generator.
            None: the head in `folder`.
    """
    head: dict[str, Any] = {**kind.head_config(), "ignore_mismatched_sizes": True} if kind else {}
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False, **head
    )
    if model.config.model_type in CLS_HEAD_FAMILIES:
        last = model.base_model.encoder.layer[-1].attention.output
        last.register_forward_pre_hook(lambda _, states: tuple(state[:, :1] for state in states))
    return model
