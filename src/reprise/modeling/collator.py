"""Batches: prepared rows, padded for the model."""

import copy
import math
from typing import Any, Self

import torch
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from reprise.modeling.bucketing import Buckets, Shapes, padded_length

IGNORE_INDEX = -100  # the label that cross-entropy leaves out: torch's own default


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
