"""Dropout as a function of the row: the same values are dropped on every hardware, however a step is split and padded.

A CPU, a GPU and a TPU draw different random numbers, and which value gets which hangs on the shape of the batch. So
nothing is drawn here. A value's place (its row, the epoch, the layer, the token, …) is hashed to 16 bits, which say
whether it stays. The hash is made of integers alone: its bits are the same everywhere. On a CPU it is also several
times faster than torch's generator.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from reprise.modeling.xla import logical_shift_right, unpack_int16

# SplitMix64's constants, as int64 has them.
GAMMA, MIX1, MIX2 = 0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
VALUES_PER_HASH = 4  # values are decided by one hash: 64 bits, 16 each


def splitmix64(seeds: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The outputs of SplitMix64 by their numbers, 0 the first (Steele, Lea & Flood 2014, "Fast splittable pseudorandom
    number generators", figure 16).

    Args:
        seeds: int64, which of the generators.
        numbers: int64, which of its outputs; the shapes are broadcast.

    Returns:
        Their 64 bits as int64.
    """
    bits = seeds + (numbers + 1) * GAMMA
    bits = bits.bitwise_xor_(logical_shift_right(bits, 30)).mul_(MIX1)
    bits = bits.bitwise_xor_(logical_shift_right(bits, 27)).mul_(MIX2)
    return bits.bitwise_xor_(logical_shift_right(bits, 31))


class DropoutKeys:
    """A key for each row that a forward pass is of; all dropout of a model shares them."""

    def __init__(self, seed: int) -> None:
        """`seed` is the recipe's."""
        self.seed = seed
        self.values = torch.empty(0, dtype=torch.int64)

    def set_batch(self, epoch: int, rows: list[int], batch: torch.Tensor) -> None:
        """Say which rows the next batch holds.

        Args:
            epoch: counted from 0.
            rows: their numbers in the training data.
            batch: a tensor of the batch, [rows or more, …]; what is more only fills the batch up.
        """
        (seed,) = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64).view(np.int64)
        numbers = torch.tensor([*rows, *[0] * (len(batch) - len(rows))])
        self.values = splitmix64(torch.tensor(seed), numbers).to(batch.device)


class Dropout(nn.Module):
    """Set a share of values to zero and scale the others up (Srivastava et al. 2014), as the keys decide."""

    def __init__(self, share: float, place: int, keys: DropoutKeys) -> None:
        """`place` tells the dropout of a model apart."""
        super().__init__()
        self.p, self.layer_id, self.keys = share, place, keys

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return values, [rows, …], of the same shape and dtype."""
        if not self.training or not self.p:
            return values
        if len(values) != len(self.keys.values):  # shared by all rows, as embeddings of relative positions are
            return functional.dropout(values, self.p)
        return values * dropout_mask(self.keys.values, self.layer_id, values.shape, self.p, values.dtype)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"p={self.p}, place={self.layer_id}"


def dropout_mask(keys: torch.Tensor, place: int, shape: torch.Size, share: float, dtype: torch.dtype) -> torch.Tensor:
    """What values are multiplied with: 0 where they are dropped, else what keeps the mean.

    Args:
        keys: int64, [rows].
        place: which dropout of the model, below 2¹⁵.
        shape: [rows, …, width] of the values, up to four dimensions of less than 2¹⁶. How long a batch is padded does
            not count: a value's place hangs on what comes before it in each dimension, not on how much follows.
        share: of values that are dropped, above 0 and below 1; taken to the next 2⁻¹⁶.
        dtype: of the result.
    """
    *outer, width = shape[1:]
    number = torch.arange(-(-width // VALUES_PER_HASH), device=keys.device)
    for depth, size in enumerate(reversed(outer), start=1):
        position = torch.arange(1, size + 1, device=keys.device) << 16 * depth
        number = number + position.view(-1, *[1] * depth)
    bits = unpack_int16(splitmix64(keys.view(-1, *[1] * number.dim()), number + (place << 48)))[..., :width]
    dropped = min(max(round(share * 2**16), 1), 2**16 - 1)
    threshold = dropped - 2**15  # of 16 bits as int16: those below are dropped
    return bits.clamp(threshold - 1, threshold).sub_(threshold - 1).to(dtype).mul_(2**16 / (2**16 - dropped))


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention (Vaswani et al. 2017), written out where its weights meet our dropout.

    torch's own draws within its kernels. On a CPU this is the faster of the two, too.

    Args:
        module: the attention that asks; it holds the dropout of its weights.
        query, key, value: [rows, heads, length, size].
        attention_mask: bool, [rows, 1, length, length], True where a token may be seen; None where all may.
        dropout: the share of weights, 0 outside of training.
        scaling: of the products, by default size^-1/2.
        options: for torch's own.

    Returns:
        [rows, length, heads, size], and no weights.
    """
    drop = next((part for part in module.children() if isinstance(part, Dropout)), None)
    if not dropout or drop is None or getattr(module, "is_causal", False):
        said: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return said
    scores = (query * (scaling or query.shape[-1] ** -0.5)) @ key.transpose(2, 3)
    if attention_mask is not None:
        unseen = torch.zeros_like(attention_mask, dtype=scores.dtype)
        scores = scores + unseen.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = drop(scores.softmax(-1, dtype=torch.float32).to(value.dtype))
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("reprise", attention)
AttentionMaskInterface.register("reprise", sdpa_mask)


def replace_dropout(model: PreTrainedModel, seed: int) -> DropoutKeys:
    """Replace the dropout of a model; what its family's own code draws with torch's functions stays torch's.

    A module that the model uses several times in a pass drops the same each time.

    Returns:
        Who is told which rows come next.
    """
    keys = DropoutKeys(seed)
    parts = [(parent, name, part) for parent in model.modules() for name, part in parent.named_children()]
    dropouts = [(parent, name, part.p) for parent, name, part in parts if isinstance(part, nn.Dropout)]
    for place, (parent, name, share) in enumerate(dropouts):
        setattr(parent, name, Dropout(share, place, keys))
    model.set_attn_implementation("reprise")  # does nothing where a family has but its own
    return keys
