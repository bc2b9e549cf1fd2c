"""The masks of dropout on a GPU, in one kernel instead of a dozen operations on int64.

dropout.py is the definition; this is the same function in Triton, and its masks have the same bits. Imported on a GPU
only: Triton is a package of the images for GPUs.
"""

from functools import cache

import torch
import triton
import triton.language as tl

HASHES_PER_PROGRAM = 512
BITS, VALUES_PER_HASH = tl.constexpr(16), tl.constexpr(4)
GAMMA = tl.constexpr(0x9E3779B97F4A7C15)
MIX1, MIX2 = tl.constexpr(0xBF58476D1CE4E5B9), tl.constexpr(0x94D049BB133111EB)


@triton.jit
def splitmix64(seeds, indices):  # type: ignore[no-untyped-def]
    """Return `reprise.train.dropout.splitmix64` as uint64; seeds and indices are int64."""
    bits = seeds.to(tl.uint64) + (indices + 1).to(tl.uint64) * GAMMA
    bits = (bits ^ (bits >> 30)) * MIX1
    bits = (bits ^ (bits >> 27)) * MIX2
    return bits ^ (bits >> 31)


@triton.jit
def is_kept(bits, part, dropped):  # type: ignore[no-untyped-def]
    """Return whether the value at `part` of a hash is kept; `dropped` of 2¹⁶ values are not."""
    return (bits >> (part * BITS).to(tl.uint64)).to(tl.int16).to(tl.int32) >= dropped - 2**15


@cache
def keep_factor(dropped: int, dtype: torch.dtype) -> float:
    """Return the factor of values that are kept, rounded on the host as `reprise.train.dropout.dropout_mask` does."""
    return torch.ones((), dtype=dtype).mul_(2**16 / (2**16 - dropped)).item()


# Sizes change from batch to batch. Triton would compile another program for a size of 1 or a multiple of 16.
@triton.jit(do_not_specialize=["width", "size1", "size2", "hashes", "layer", "dropped"])  # type: ignore[untyped-decorator]
def _masks(  # type: ignore[no-untyped-def]
    keys, masks, factor, width, size1, size2, hashes, layer, dropped, outer: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Write the masks of `block` hashes; `outer` is the number of dimensions between row and width."""
    number = tl.program_id(0) * block + tl.arange(0, block)  # of a hash, below 2³¹: masks of 17 GB in bf16
    per_line = (width + VALUES_PER_HASH - 1) // VALUES_PER_HASH
    line = number // per_line
    index, row = (number % per_line).to(tl.int64), line
    if outer >= 1:
        index += (row % size1 + 1).to(tl.int64) << BITS
        row = row // size1
    if outer >= 2:
        index += (row % size2 + 1).to(tl.int64) << 2 * BITS
        row = row // size2
    key = tl.load(keys + row, mask=number < hashes, other=0)
    bits = splitmix64(key, index + (layer.to(tl.int64) << 3 * BITS))
    part = tl.arange(0, VALUES_PER_HASH)
    column = (number % per_line * VALUES_PER_HASH)[:, None] + part[None, :]
    kept = tl.where(is_kept(bits[:, None], part[None, :], dropped), factor, 0.0)
    inside = (number < hashes)[:, None] & (column < width)
    tl.store(masks + line.to(tl.int64)[:, None] * width + column, kept.to(masks.dtype.element_ty), mask=inside)


def dropout_mask(
    keys: torch.Tensor, layer_id: int, shape: torch.Size, dropped: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return `reprise.train.dropout.dropout_mask` of keys on a GPU.

    Args:
        keys: int64, [rows].
        layer_id: index of the dropout layer, below 2¹⁵.
        shape: [rows, …, width] of the values, up to four dimensions.
        dropped: values to drop of 2¹⁶.
        dtype: of the result.
    """
    masks = torch.empty(shape, dtype=dtype, device=keys.device)
    *outer, width = shape[1:]
    sizes = [*reversed(outer), 1, 1][:2]
    hashes = masks.numel() // width * -(-width // VALUES_PER_HASH.value)
    factor = keep_factor(dropped, dtype)
    _masks[(triton.cdiv(hashes, HASHES_PER_PROGRAM),)](
        keys.contiguous(), masks, factor, width, *sizes, hashes, layer_id, dropped, len(outer), HASHES_PER_PROGRAM
    )
    return masks
