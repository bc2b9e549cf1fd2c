"""Model and batches, as train, evaluate and predict need them.

Everything is loaded from local folders: safetensors only, no code from a repository.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import logging

# Families whose head reads the first token alone. Of their last layer, after its attention, nothing but that token is
# computed: the numbers are the same, and of a six-layer model's work an eighth is saved.
CLS_HEAD_FAMILIES = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}

# Their warnings (a new classification head, a tokenizer used through `pad`) and bars describe what is meant here.
logging.set_verbosity_error()
logging.disable_progress_bar()


def load_classifier(folder: Path, labels: list[str] | None = None) -> PreTrainedModel:
    """The encoder in `folder` with a head on top, all in fp32.

    Args:
        folder: holds config.json and safetensors.
        labels: the names of the head's outputs, [] for a single number (regression); the head is new where `folder`
            has none of that size, drawn from torch's generator. None: as `folder` says.
    """
    head: dict[str, Any] = {}
    if labels is not None:
        names = labels or ["value"]
        head = {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: number for number, name in enumerate(names)},
            "ignore_mismatched_sizes": True,  # a trained head for other labels gives way to a new one
            "problem_type": "single_label_classification" if labels else "regression",
        }
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False, **head
    )
    if model.config.model_type in CLS_HEAD_FAMILIES:
        last = model.base_model.encoder.layer[-1].attention.output
        last.register_forward_pre_hook(lambda _, states: tuple(state[:, :1] for state in states))
    return model
