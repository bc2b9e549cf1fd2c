"""Model and batches, as train, evaluate and predict need them.

Everything is loaded from local folders: safetensors only, no code from a repository.
"""

import copy
import math
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from reprise.shapes import Buckets, Shapes, padded_length

# Families whose head reads the first token alone. Of their last layer, after its attention, nothing but that token is
# computed: the numbers are the same, and of a six-layer model's work an eighth is saved.
CLS_HEAD_FAMILIES = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}

IGNORE_INDEX = -100  # cross-entropy leaves it out: torch's own default

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


class Collator:
    """Make a batch of prepared rows, with labels as `labels`, without the columns of text.

    It is padded to its longest row; or with `buckets` to the next of these lengths, and to `rows` rows. Those that only
    fill it up have the label NO_LABEL (NaN in regression), and loss and predictions leave them out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, buckets: Buckets | None = None) -> None:
        self.tokenizer, self.buckets, self.phase, self.batch_size = tokenizer, buckets, "", 0
        self.columns = {"input_ids", "token_type_ids", "label"}
        self.seen_shapes: Shapes = set()  # that batches were filled up to

    def with_batch_size(self, use: str, rows: int) -> Self:
        """The same for batches of so many rows, to train or to predict; it notes their shapes in the same place."""
        other = copy.copy(self)
        other.phase, other.batch_size = use, rows
        return other

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return input_ids, attention_mask and the like (int64, [rows, length]) and labels (int64 or fp32, [rows])."""
        wanted = [{name: row[name] for name in row if name in self.columns} for row in rows]
        if not self.buckets:
            return dict(DataCollatorWithPadding(self.tokenizer)(wanted))
        length = padded_length(max(len(row["input_ids"]) for row in wanted), self.buckets)
        none = math.nan if isinstance(wanted[0]["label"], float) else IGNORE_INDEX
        wanted += [wanted[0] | {"label": none}] * (self.batch_size - len(wanted))
        self.seen_shapes.add((self.phase, self.batch_size, length))
        return dict(DataCollatorWithPadding(self.tokenizer, padding="max_length", max_length=length)(wanted))
