"""Sequence packing: the texts of a batch in one row, with block-diagonal attention."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface


def pack(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate prepared rows into one packed row.

    Returns:
        input_ids, token_type_ids and position_ids (from 0 in each text), [1, tokens] each; labels [rows]; offsets
        [rows + 1], the start of each text and the end of the last one.
    """
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return {
        "input_ids": torch.cat([row["input_ids"] for row in rows])[None],
        "token_type_ids": torch.cat([row["token_type_ids"] for row in rows])[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths.tolist()])[None],
        "offsets": functional.pad(lengths.cumsum(0), (1, 0)),
        "labels": torch.stack([row["label"] for row in rows]),
    }


class Packed(nn.Module):
    """A BERT classifier for the batches of `pack`."""

    def __init__(self, model: Any, note: Callable[[torch.Tensor, int, int], None], longest: int) -> None:
        """Wrap a model; call `note` with each batch's text lengths, which are at most `longest`."""
        super().__init__()
        self.model, self._note, self.longest = model, note, longest
        self.base_model, self.config = model.base_model, model.config
        self.offsets = torch.empty(0)
        model.set_attn_implementation("packed")
        model.base_model.pooler.register_forward_pre_hook(self._first_tokens)

    def _first_tokens(self, _: Any, states: tuple[torch.Tensor]) -> torch.Tensor:
        """Select each text's first hidden state: [1, tokens, hidden] to [rows, 1, hidden]."""
        return states[0][0, self.offsets[:-1], None]

    def forward(self, offsets: torch.Tensor, **batch: torch.Tensor) -> Any:
        """Return the model's output: logits [rows, labels] and the loss."""
        self.offsets = offsets
        if self.training:
            self._note(offsets.diff(), *batch["input_ids"].shape)
        return self.model(**batch, offsets=offsets, longest=self.longest)


def attention(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    offsets: torch.Tensor,
    longest: int,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """Apply attention within each text; on a GPU, with variable-length FlashAttention.

    Args:
        query: [1, heads, tokens, size].
        key: the same shape.
        value: the same shape.
        offsets: the start of each text and the end of the last one.
        longest: maximum tokens per text.
        dropout: probability of dropping an attention weight.
        scaling: scale of the dot products.

    Returns:
        The attention output [1, tokens, heads, size], and None in place of the weights.
    """

    def unpack(packed: torch.Tensor) -> torch.Tensor:
        packed = packed[0].transpose(0, 1).contiguous()
        return torch.nested.nested_tensor_from_jagged(packed, offsets, min_seqlen=1, max_seqlen=longest).transpose(1, 2)

    output = functional.scaled_dot_product_attention(
        unpack(query), unpack(key), unpack(value), dropout_p=dropout, scale=scaling
    )
    return output.transpose(1, 2).values()[None], None


AttentionInterface.register("packed", attention)
