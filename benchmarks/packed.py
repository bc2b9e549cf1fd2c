"""Texts laid one after the other in a single row, so that nothing is padding; attention keeps them apart."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface


def pack(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Make a batch of prepared rows: [1, tokens] each of input_ids, token_type_ids and position_ids (from 0 in each
    text), labels [rows], and offsets [rows + 1], where the texts begin and the last one ends.
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
    """A BERT with a head that reads batches of `pack`."""

    def __init__(self, model: Any, note: Callable[[torch.Tensor, int, int], None], longest: int) -> None:
        """`note` is told the lengths of a batch's texts, none of which is longer than `longest`."""
        super().__init__()
        self.model, self._note, self.longest = model, note, longest
        self.base_model, self.config = model.base_model, model.config
        self.offsets = torch.empty(0)
        model.set_attn_implementation("packed")
        model.base_model.pooler.register_forward_pre_hook(self._first_tokens)

    def _first_tokens(self, _: Any, states: tuple[torch.Tensor]) -> torch.Tensor:
        """The states of each text's first token, [rows, 1, hidden], out of those of all, [1, tokens, hidden]."""
        return states[0][0, self.offsets[:-1], None]

    def forward(self, offsets: torch.Tensor, **batch: torch.Tensor) -> Any:
        """Return what the model does: logits [rows, labels] and their loss."""
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
    """Scaled dot-product attention of each text to itself; on a GPU it is FlashAttention for texts of several lengths.

    Args:
        query, key, value: [1, heads, tokens, size].
        offsets: where the texts begin, and the last one ends.
        longest: no text is longer.
        dropout: the share of weights.
        scaling: of the products.

    Returns:
        [1, tokens, heads, size], and no weights.
    """

    def apart(part: torch.Tensor) -> torch.Tensor:
        part = part[0].transpose(0, 1).contiguous()
        return torch.nested.nested_tensor_from_jagged(part, offsets, min_seqlen=1, max_seqlen=longest).transpose(1, 2)

    found = functional.scaled_dot_product_attention(
        apart(query), apart(key), apart(value), dropout_p=dropout, scale=scaling
    )
    return found.transpose(1, 2).values()[None], None


AttentionInterface.register("packed", attention)
