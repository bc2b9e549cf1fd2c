"""Batches: prepared rows, padded for the model."""

import copy
from typing import Any, Self

import torch
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding, PreTrainedTokenizerBase

from reprise.data.teacher import TEACHER_COLUMN
from reprise.modeling.bucketing import Buckets, Shapes, padded_length
from reprise.tasks.kind import TaskKind


class Collator:
    """Make a batch of prepared rows, with labels as `labels`, without the columns of text.

    A batch is padded to its longest example. With `buckets`, it is padded to the next of these lengths and to
    `batch_size` rows; the label of padding rows is the task's `ignored_label`, and loss and predictions leave them out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, kind: TaskKind, buckets: Buckets | None = None) -> None:
        """Make batches for a kind of task; `with_batch_size` sets phase and size."""
        self.tokenizer, self.kind, self.buckets, self.phase, self.batch_size = tokenizer, kind, buckets, "", 0
        self.columns = {"input_ids", "token_type_ids", "label", "weight", TEACHER_COLUMN}
        self.seen_shapes: Shapes = set()  # of padded batches

    def with_batch_size(self, phase: str, rows: int) -> Self:
        """Return a collator for batches of this size in a phase (train or predict), which shares `seen_shapes`."""
        other = copy.copy(self)
        other.phase, other.batch_size = phase, rows
        return other

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch.

        Returns:
            input_ids, attention_mask and the like (int64, [rows, length]), labels (int64 or fp32, [rows], of words
            [rows, length]), of windows weight (fp32, [rows]), and with a teacher its logits (fp32, [rows, outputs]).
        """
        wanted = [{name: row[name] for name in row if name in self.columns} for row in rows]
        if not self.buckets:
            return self._pad(wanted)
        length = padded_length(max(len(row["input_ids"]) for row in wanted), self.buckets)
        wanted += [wanted[0] | {"label": self.kind.ignored_label}] * (self.batch_size - len(wanted))
        self.seen_shapes.add((self.phase, self.batch_size, length))
        return self._pad(wanted, padding="max_length", max_length=length)

    def _pad(self, rows: list[dict[str, Any]], **options: Any) -> dict[str, torch.Tensor]:
        if not self.kind.per_token:
            return dict(DataCollatorWithPadding(self.tokenizer, **options)(rows))
        renamed = [{"labels" if name == "label" else name: value for name, value in row.items()} for row in rows]
        return dict(DataCollatorForTokenClassification(self.tokenizer, **options)(renamed))
