"""Dropout as a function of the example: the same mask for any hardware, split and padding.

A CPU, a GPU and a TPU draw different random numbers, and with torch's generator the mask depends on the batch shape. So
nothing is drawn here. A value's coordinates (its example, the epoch, the layer, the token, …) are hashed to 16 bits,
which decide whether it is dropped. Integer hashes have the same bits everywhere, and on a CPU this is several times
faster than torch's generator.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from reprise.modeling.xla import logical_shift_right, unpack_int16

# SplitMix64's constants as int64.
GAMMA, MIX1, MIX2 = 0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
VALUES_PER_HASH = 4  # a hash has 64 bits, 16 per value
MAX_SHARED_VALUES = 2**27  # of the masks that are computed at once: 256 MB in bf16
# What attention_kernel.py computes: the types that recipes have, and heads up to a size.
FUSED_TYPES, MAX_FUSED_SIZE = (torch.bfloat16, torch.float32), 128


def splitmix64(seeds: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Return outputs of SplitMix64 by index.

    Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 16.

    Args:
        seeds: int64, one per generator.
        indices: int64, counted from 0; the shapes are broadcast.

    Returns:
        64 bits each, as int64.
    """
    bits = seeds + (indices + 1) * GAMMA
    bits = bits.bitwise_xor_(logical_shift_right(bits, 30)).mul_(MIX1)
    bits = bits.bitwise_xor_(logical_shift_right(bits, 27)).mul_(MIX2)
    return bits.bitwise_xor_(logical_shift_right(bits, 31))


def on_gpu(tensor: torch.Tensor) -> bool:
    """Return whether a tensor has values on a GPU; memory.py predicts with tensors that have none."""
    return tensor.is_cuda and not isinstance(tensor, FakeTensor)


class DropoutKeys:
    """One key per row of the current batch; all dropout layers of a model use the same keys."""

    def __init__(self, seed: int) -> None:
        """Start without a batch; `seed` is the recipe's."""
        self.seed = seed
        self.values = torch.empty(0, dtype=torch.int64)
        self.at_once = False  # whether layers with values of the same shape get their masks together
        self.masks: dict[int, torch.Tensor] = {}  # by layer, of the current batch, if they were computed together
        # Shape and type of each layer's values and its p, with the current batch and with the previous one.
        self.uses: dict[int, tuple[torch.Size, torch.dtype, float]] = {}
        self.previous_uses = self.uses
        self.offsets: dict[tuple[int, ...], torch.Tensor] = {}  # by group of layers, on the device

    def set_batch(self, epoch: int, rows: list[int], batch: torch.Tensor) -> None:
        """Set the keys of the next batch.

        Args:
            epoch: counted from 0.
            rows: indices of its examples in the training data.
            batch: a tensor of the batch, [rows, …]; it may contain trailing padding rows.
        """
        (seed,) = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64).view(np.int64)
        indices = torch.tensor([*rows, *[0] * (len(batch) - len(rows))])
        values = splitmix64(torch.tensor(seed), indices)
        if on_gpu(batch):  # a copy from memory that is not pinned waits for the device
            values = values.pin_memory()
        self.values = values.to(batch.device, non_blocking=True)
        self.masks, self.previous_uses, self.uses = {}, self.uses, {}
        # On a GPU an operation on a small tensor takes as long as its launch. On a CPU small tensors stay in the cache.
        self.at_once = on_gpu(batch)

    def mask(self, layer_id: int, values: torch.Tensor, p: float) -> torch.Tensor:
        """Return `dropout_mask` of a layer's values, [rows, …], computed with those of other layers if `at_once`."""
        if self.at_once:
            self.uses[layer_id] = values.shape, values.dtype, p
            if layer_id not in self.masks:
                previous = self.previous_uses.get(layer_id)
                alike = [other for other, use in self.previous_uses.items() if use == previous]
                if 0 < len(alike) * values.numel() <= MAX_SHARED_VALUES:
                    self.masks |= zip(alike, self.masks_of_layers(alike, values, p), strict=True)
            mask = self.masks.get(layer_id)
            if mask is not None and (mask.shape, mask.dtype) == (values.shape, values.dtype):
                return mask
        return dropout_mask(self.values, layer_id, values.shape, p, values.dtype)

    def masks_of_layers(self, layer_ids: list[int], values: torch.Tensor, p: float) -> torch.Tensor:
        """Return `dropout_mask` for each of some layers, [layers, rows, …], in as many operations as for one.

        SplitMix64 adds the index times GAMMA to the seed, so the layer's part of the index can be added to the keys.
        """
        group = tuple(layer_ids)
        if group not in self.offsets:  # copied once, because the copy waits for the device
            offsets = [((layer_id << 48) * GAMMA + 2**63) % 2**64 - 2**63 for layer_id in group]
            self.offsets[group] = torch.tensor(offsets).view(-1, 1).to(values.device)
        seeds = (self.values + self.offsets[group]).flatten()
        shape = torch.Size([len(seeds), *values.shape[1:]])
        return dropout_mask(seeds, 0, shape, p, values.dtype).view(len(group), *values.shape)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) with a mask from the keys instead of a random generator."""

    def __init__(self, p: float, layer_id: int, keys: DropoutKeys) -> None:
        """Drop values with probability `p`; `layer_id` is unique in the model."""
        super().__init__()
        self.p, self.layer_id, self.keys = p, layer_id, keys

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Apply dropout to values, [rows, …]; shape and dtype stay the same."""
        if not self.training or not self.p:
            return values
        if len(values) != len(self.keys.values):  # common to all rows, like embeddings of relative positions
            return functional.dropout(values, self.p)
        return values * self.keys.mask(self.layer_id, values, self.p)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        return f"p={self.p}, layer_id={self.layer_id}"


def count_dropped(p: float) -> int:
    """Return how many of 2¹⁶ values are dropped."""
    return min(max(round(p * 2**16), 1), 2**16 - 1)


def dropout_mask(keys: torch.Tensor, layer_id: int, shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """Return the factors of dropout: 0 for a dropped value, else about 1 / (1 - p).

    Args:
        keys: int64, [rows].
        layer_id: index of the dropout layer, below 2¹⁵.
        shape: [rows, …, width] of the values, up to four dimensions of less than 2¹⁶. Padding has no effect, because
            the hash depends on a value's index in each dimension and not on the size of the dimension.
        p: probability of dropping a value, above 0 and below 1; rounded to a multiple of 2⁻¹⁶.
        dtype: of the result.
    """
    dropped = count_dropped(p)
    if on_gpu(keys):
        from reprise.train import dropout_kernel  # Triton is a package of the images for GPUs

        return dropout_kernel.dropout_mask(keys, layer_id, shape, dropped, dtype)
    *outer, width = shape[1:]
    index = torch.arange(-(-width // VALUES_PER_HASH), device=keys.device)
    for depth, size in enumerate(reversed(outer), start=1):
        position = torch.arange(1, size + 1, device=keys.device) << 16 * depth
        index = index + position.view(-1, *[1] * depth)
    bits = unpack_int16(splitmix64(keys.view(-1, *[1] * index.dim()), index + (layer_id << 48)))[..., :width]
    threshold = dropped - 2**15  # 16 bits as int16; values below are dropped
    return bits.clamp(threshold - 1, threshold).sub_(threshold - 1).to(dtype).mul_(2**16 / (2**16 - dropped))


def is_fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, drop: Dropout
) -> bool:
    """Return whether attention_kernel.py computes this attention; the arguments are those of `attention`."""
    if not query.is_cuda or not drop.training or not drop.p or len(query) != len(drop.keys.values):
        return False
    if attention_mask is not None:
        rows, _, length, _ = query.shape
        sizes = zip(attention_mask.shape, (rows, 1, length, length), strict=False)
        if attention_mask.dtype != torch.bool or attention_mask.dim() != 4:
            return False
        if not all(size in (1, full) for size, full in sizes):
            return False
    return (
        query.shape == key.shape == value.shape
        and query.dtype == key.dtype == value.dtype
        and query.dtype in FUSED_TYPES
        and query.shape[-1] <= MAX_FUSED_SIZE
        and all(tensor.stride(-1) == 1 for tensor in (query, key, value))
    )


class FusedAttention(torch.autograd.Function):
    """Attention with dropout in a kernel per pass; tensors without data take its place in memory only."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        keys: torch.Tensor,
        layer_id: int,
        dropped: int,
        scale: float,
        causal: bool,
    ) -> torch.Tensor:
        """Compute attention.

        Args:
            ctx: keeps what the backward pass needs: no tensor of length × length values.
            query: [rows, heads, length, size].
            key: as query.
            value: as query.
            mask: bool, [rows, 1, length, length] or with 1 for a dimension; True where a token is visible.
            keys: of dropout, int64, [rows].
            layer_id: of dropout.
            dropped: weights to drop of 2¹⁶.
            scale: factor of the products.
            causal: whether later tokens are hidden.

        Returns:
            [rows, heads, length, size], in memory [rows, length, heads, size].
        """
        rows, heads, length, size = query.shape
        output = query.new_empty(rows, length, heads, size).transpose(1, 2)
        # The largest score of each query, and the sum of the exponentials of the differences to it. Dao 2023 keeps the
        # logarithm of the sum of exponentials, which loses the sum where all scores are those of masked tokens.
        statistics = query.new_empty(2, rows, heads, length, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, keys, output, statistics)
        ctx.options = layer_id, dropped, scale, causal
        if not isinstance(query, FakeTensor):
            from reprise.train import attention_kernel  # Triton is a package of the images for GPUs

            attention_kernel.forward(
                query, key, value, mask, keys, layer_id, dropped, scale, causal, output, statistics
            )
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of query, key and value, each in memory as the output."""
        query, key, value, mask, keys, output, statistics = ctx.saved_tensors
        layer_id, dropped, scale, causal = ctx.options
        rows, heads, length, size = query.shape
        if gradient.stride(-1) != 1:
            gradient = gradient.contiguous()
        of_query, of_key, of_value = (query.new_empty(rows, length, heads, size).transpose(1, 2) for _ in range(3))
        if not isinstance(query, FakeTensor):
            from reprise.train import attention_kernel

            attention_kernel.backward(
                gradient, query, key, value, mask, keys, output, statistics, layer_id, dropped, scale, causal,
                (of_query, of_key, of_value),
            )  # fmt: skip
        return of_query, of_key, of_value, *[None] * 6


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
    """Compute scaled dot-product attention (Vaswani et al. 2017) with our dropout.

    torch's kernels draw their own random numbers, so plain operations replace them if there is dropout. On a CPU these
    are also faster. On a GPU they are launches that write large tensors, so attention_kernel.py replaces them, up to
    rounding, where `is_fused`.

    Args:
        module: the attention module; it contains the dropout of its weights.
        query: [rows, heads, length, size].
        key: [rows, heads, length, size].
        value: [rows, heads, length, size].
        attention_mask: bool, [rows, 1, length, length], True where a token is visible; None if all are, or, in a causal
            model, all before.
        dropout: probability of dropping a weight, 0 outside of training.
        scaling: factor of the products, by default size^-1/2.
        options: passed to torch's attention.

    Returns:
        [rows, length, heads, size], and no weights.
    """
    drop = next((part for part in module.children() if isinstance(part, Dropout)), None)
    if not dropout or drop is None or hasattr(module, "num_key_value_groups"):
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return output
    scale, causal = scaling or query.shape[-1] ** -0.5, attention_mask is None and getattr(module, "is_causal", False)
    if is_fused(query, key, value, attention_mask, drop):
        inputs = query, key, value, attention_mask, drop.keys.values, drop.layer_id, count_dropped(drop.p)
        result: torch.Tensor = FusedAttention.apply(*inputs, scale, causal)  # type: ignore[no-untyped-call]
        return result.transpose(1, 2), None
    scores = (query * scale) @ key.transpose(2, 3)
    if causal:
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attention_mask is not None:
        bias = torch.zeros_like(attention_mask, dtype=scores.dtype)
        scores = scores + bias.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    weights = drop(scores.softmax(-1, dtype=torch.float32).to(value.dtype))
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("reprise", attention)
AttentionMaskInterface.register("reprise", sdpa_mask)


def replace_dropout(model: PreTrainedModel, seed: int) -> DropoutKeys:
    """Replace a model's dropout modules; calls of torch's functional dropout stay.

    A module that the model uses several times per pass has the same mask each time.

    Returns:
        The keys, to be set before each forward pass.
    """
    keys = DropoutKeys(seed)
    parts = [(parent, name, part) for parent in model.modules() for name, part in parent.named_children()]
    dropouts = [(parent, name, part.p) for parent, name, part in parts if isinstance(part, nn.Dropout)]
    for layer_id, (parent, name, p) in enumerate(dropouts):
        setattr(parent, name, Dropout(p, layer_id, keys))
    model.set_attn_implementation("reprise")  # no effect on a family that has only its own
    return keys
