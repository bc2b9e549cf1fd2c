"""Attention with dropout on a GPU, in one kernel per pass.

The scores and weights, [rows, heads, length, length], stay in the registers of a program and are computed again in the
backward pass (Dao 2023, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning"). Dropout's
mask is hashed where a weight is multiplied, by the function of dropout_kernel.py, so it has the same bits as
`reprise.train.dropout.dropout_mask`. Each result has one program that adds its terms in a fixed order, so two runs have
the same bits. Products have the inputs' type and are added in fp32, without TF32.

The difference to the attention written out in dropout.py is one of rounding. In bf16 that form rounds scores and
weights; here scores stay in fp32, and a weight is rounded before it is divided by their sum. In Triton's interpreter
the forms differ by at most 1e-5 in fp32. In bf16 this one is within 2⁻⁷ of fp32, relative to the largest value, and no
farther from it than the form written out.

Imported on a GPU only: Triton is a package of the images for GPUs.
"""

import torch
import triton
import triton.language as tl

from reprise.train.dropout_kernel import BITS, VALUES_PER_HASH, is_kept, keep_factor, splitmix64

MIN_SIZE = 16  # of the tiles that tensor cores multiply
TILE_BYTES = 8192
# The score of a masked token. It is finite, so that a query that sees no token has equal weights for all, as in the
# attention written out.
MASKED = tl.constexpr(torch.finfo(torch.float32).min)
NEVER = tl.constexpr(float("-inf"))  # the score of a token beyond the length


@triton.jit  # type: ignore[untyped-decorator]
def _tile(base, strides, row, head, tokens, length, size, width: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return pointers to the values of some tokens, [tokens, width], and whether they are inside."""
    column = tl.arange(0, width)
    start = base + row * strides[0] + head.to(tl.int64) * strides[1]
    inside = (tokens < length)[:, None] & (column < size)[None, :]
    return start + tokens.to(tl.int64)[:, None] * strides[2] + column[None, :], inside


@triton.jit  # type: ignore[untyped-decorator]
def _load(base, strides, row, head, tokens, length, size, width: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load the values of some tokens, [tokens, width], with zeros outside."""
    pointers, inside = _tile(base, strides, row, head, tokens, length, size, width)
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _store(base, strides, row, head, tokens, length, values, size, width: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store the values of some tokens, [tokens, width], rounded to the type of the tensor."""
    pointers, inside = _tile(base, strides, row, head, tokens, length, size, width)
    tl.store(pointers, values.to(base.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _scores(  # type: ignore[no-untyped-def]
    scaled, k, mask, mask_strides, row, queries, keys, length, masked: tl.constexpr, causal: tl.constexpr
):
    """Return the scores of some keys for some queries, [queries, keys] in fp32."""
    scores = tl.dot(scaled, tl.trans(k), input_precision="ieee")
    if masked:
        start = mask + row * mask_strides[0]
        pointers = start + queries.to(tl.int64)[:, None] * mask_strides[1] + keys[None, :] * mask_strides[2]
        visible = tl.load(pointers, mask=(queries < length)[:, None] & (keys < length)[None, :], other=0)
        scores = tl.where(visible != 0, scores, MASKED)
    if causal:
        scores = tl.where(keys[None, :] <= queries[:, None], scores, MASKED)
    return tl.where((keys < length)[None, :], scores, NEVER)


@triton.jit  # type: ignore[untyped-decorator]
def _kept(seed, layer, head, queries, start, dropped, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return whether dropout keeps the weights of the `block` keys from `start` on, [queries, block]."""
    upper = (layer.to(tl.int64) << 3 * BITS) + ((head + 1).to(tl.int64) << 2 * BITS)
    group = start // VALUES_PER_HASH + tl.arange(0, block // VALUES_PER_HASH)
    index = upper + ((queries + 1).to(tl.int64) << BITS)[:, None] + group[None, :]
    part = tl.arange(0, VALUES_PER_HASH)
    kept = is_kept(splitmix64(seed, index)[:, :, None], part[None, None, :], dropped)
    return tl.reshape(kept, (queries.shape[0], block))


@triton.jit
def _statistics(statistics, pair, pairs, tokens, length):  # type: ignore[no-untyped-def]
    """Load the largest score of some queries, and the sum of their exponentials."""
    start = statistics + pair.to(tl.int64) * length
    largest = tl.load(start + tokens, mask=tokens < length, other=0.0)
    return largest, tl.load(start + pairs.to(tl.int64) * length + tokens, mask=tokens < length, other=1.0)


@triton.jit
def _gradients(  # type: ignore[no-untyped-def]
    scores, largest, total, kept, v, gradient, delta, factor
):
    """Return dropped weights without dropout's factor, and the gradients of the scores, [queries, keys] in v's type.

    The gradient of a softmax is P ∘ (dP - delta) with delta = rowsum(dO ∘ O), also with dropout (Dao 2023, section 2).
    """
    weights = tl.exp(scores - largest[:, None]) / total[:, None]
    products = tl.dot(gradient, tl.trans(v), input_precision="ieee")
    of_weights = tl.where(kept, products * factor, 0.0)
    of_scores = weights * (of_weights - delta[:, None])
    return tl.where(kept, weights, 0.0).to(v.dtype), of_scores.to(v.dtype)


# Lengths, and so a mask's strides, change from batch to batch. Triton would compile another program for a multiple of
# 16 or a 1.
VARYING = ["mask_strides", "rows", "length", "layer", "dropped"]


@triton.jit(do_not_specialize=VARYING)  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]
    query, key, value, mask, seeds, output, statistics, query_strides, key_strides, value_strides, mask_strides,
    output_strides, rows, heads, length, layer, dropped, scale, factor, size: tl.constexpr, width: tl.constexpr,
    block: tl.constexpr, masked: tl.constexpr, causal: tl.constexpr,
):  # fmt: skip
    """Write the output and statistics of `block` queries of a row and head."""
    blocks = tl.cdiv(length, block)
    pair, number = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    row, head = (pair // heads).to(tl.int64), pair % heads
    seed = tl.load(seeds + row)
    queries = number * block + tl.arange(0, block)
    q = _load(query, query_strides, row, head, queries, length, size, width)
    scaled = (q.to(tl.float32) * scale).to(q.dtype)
    largest = tl.full((block,), NEVER, tl.float32)
    total = tl.zeros((block,), tl.float32)
    sums = tl.zeros((block, width), tl.float32)
    end = length
    if causal:
        end = tl.minimum(length, (number + 1) * block)
    for start in range(0, end, block):
        keys = start + tl.arange(0, block)
        k = _load(key, key_strides, row, head, keys, length, size, width)
        v = _load(value, value_strides, row, head, keys, length, size, width)
        scores = _scores(scaled, k, mask, mask_strides, row, queries, keys, length, masked, causal)
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp(scores - larger[:, None])
        shrink = tl.exp(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        weights = tl.where(_kept(seed, layer, head, queries, start, dropped, block), weights, 0.0)
        sums = sums * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = larger
    sums = sums * (factor / total)[:, None]
    _store(output, output_strides, row, head, queries, length, sums, size, width)
    lines = statistics + pair.to(tl.int64) * length
    tl.store(lines + queries, largest, mask=queries < length)
    tl.store(lines + (rows * heads).to(tl.int64) * length + queries, total, mask=queries < length)


@triton.jit(do_not_specialize=VARYING)  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    query, key, value, mask, seeds, output, statistics, gradient, query_gradient, key_gradient, value_gradient,
    query_strides, key_strides, value_strides, mask_strides, output_strides, gradient_strides, rows, heads, length,
    layer, dropped, scale, factor, size: tl.constexpr, width: tl.constexpr, block: tl.constexpr, masked: tl.constexpr,
    causal: tl.constexpr, single: tl.constexpr,
):  # fmt: skip
    """Write the gradients of `block` keys and values, and of the queries at the same tokens, of a row and head.

    The gradients have the strides of the output. `single` is whether one block has all tokens: then the scores'
    gradient for the keys is also that for the queries.
    """
    blocks = tl.cdiv(length, block)
    pair, number = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    row, head = (pair // heads).to(tl.int64), pair % heads
    seed = tl.load(seeds + row)
    own = number * block + tl.arange(0, block)
    k = _load(key, key_strides, row, head, own, length, size, width)
    v = _load(value, value_strides, row, head, own, length, size, width)
    of_keys = tl.zeros((block, width), tl.float32)
    of_values = tl.zeros((block, width), tl.float32)
    begin = 0
    if causal:
        begin = number * block
    for start in range(begin, length, block):
        queries = start + tl.arange(0, block)
        q = _load(query, query_strides, row, head, queries, length, size, width)
        scaled = (q.to(tl.float32) * scale).to(q.dtype)
        do = _load(gradient, gradient_strides, row, head, queries, length, size, width)
        o = _load(output, output_strides, row, head, queries, length, size, width)
        delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
        largest, total = _statistics(statistics, pair, rows * heads, queries, length)
        scores = _scores(scaled, k, mask, mask_strides, row, queries, own, length, masked, causal)
        kept = _kept(seed, layer, head, queries, number * block, dropped, block)
        weights, of_scores = _gradients(scores, largest, total, kept, v, do, delta, factor)
        of_values += tl.dot(tl.trans(weights), do, input_precision="ieee")
        of_keys += tl.dot(tl.trans(of_scores), scaled, input_precision="ieee")
        if single:
            of_queries = tl.dot(of_scores, k, input_precision="ieee") * scale
            _store(query_gradient, output_strides, row, head, own, length, of_queries, size, width)
    _store(value_gradient, output_strides, row, head, own, length, of_values * factor, size, width)
    _store(key_gradient, output_strides, row, head, own, length, of_keys, size, width)
    if not single:
        q = _load(query, query_strides, row, head, own, length, size, width)
        scaled = (q.to(tl.float32) * scale).to(q.dtype)
        do = _load(gradient, gradient_strides, row, head, own, length, size, width)
        o = _load(output, output_strides, row, head, own, length, size, width)
        delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
        largest, total = _statistics(statistics, pair, rows * heads, own, length)
        of_queries = tl.zeros((block, width), tl.float32)
        end = length
        if causal:
            end = tl.minimum(length, (number + 1) * block)
        for start in range(0, end, block):
            keys = start + tl.arange(0, block)
            k = _load(key, key_strides, row, head, keys, length, size, width)
            v = _load(value, value_strides, row, head, keys, length, size, width)
            scores = _scores(scaled, k, mask, mask_strides, row, own, keys, length, masked, causal)
            kept = _kept(seed, layer, head, own, start, dropped, block)
            _, of_scores = _gradients(scores, largest, total, kept, v, do, delta, factor)
            of_queries += tl.dot(of_scores, k, input_precision="ieee")
        _store(query_gradient, output_strides, row, head, own, length, of_queries * scale, size, width)


def shape_of_tile(size: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return the tokens of a block and the width of its tiles, for heads of a size.

    Fixed, so that the tile of a token does not depend on the length of its batch. A tile of at most 8 KB, and in fp32,
    which tensor cores do not multiply, of 32 tokens, keeps a program within the shared memory of every architecture.
    """
    width = max(triton.next_power_of_2(size), MIN_SIZE)
    return min(32 if dtype == torch.float32 else 64, TILE_BYTES // (width * dtype.itemsize)), width


def forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    seeds: torch.Tensor,
    layer_id: int,
    dropped: int,
    scale: float,
    causal: bool,
    output: torch.Tensor,
    statistics: torch.Tensor,
) -> None:
    """Compute attention; `reprise.train.dropout.FusedAttention` describes the arguments and allocates the results."""
    rows, heads, length, size = query.shape
    block, width = shape_of_tile(size, query.dtype)
    bits, mask_strides = _bits(mask, query)
    _forward[(rows * heads * triton.cdiv(length, block),)](
        query, key, value, bits, seeds, output, statistics, query.stride(), key.stride(), value.stride(), mask_strides,
        output.stride(), rows, heads, length, layer_id, dropped, scale, keep_factor(dropped, value.dtype), size, width,
        block, mask is not None, causal, num_stages=1,
    )  # fmt: skip


def backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    seeds: torch.Tensor,
    output: torch.Tensor,
    statistics: torch.Tensor,
    layer_id: int,
    dropped: int,
    scale: float,
    causal: bool,
    gradients: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Compute the gradients of query, key and value, whose strides are those of the output."""
    rows, heads, length, size = query.shape
    block, width = shape_of_tile(size, query.dtype)
    bits, mask_strides = _bits(mask, query)
    _backward[(rows * heads * triton.cdiv(length, block),)](
        query, key, value, bits, seeds, output, statistics, gradient, *gradients, query.stride(), key.stride(),
        value.stride(), mask_strides, output.stride(), gradient.stride(), rows, heads, length, layer_id, dropped, scale,
        keep_factor(dropped, value.dtype), size, width, block, mask is not None, causal, length <= block, num_stages=1,
    )  # fmt: skip


def _bits(mask: torch.Tensor | None, query: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Return the mask as bytes, and its strides of rows, queries and keys; 0 where a dimension is expanded."""
    if mask is None:
        return query, (0, 0, 0)  # not read
    rows, _, *lengths = (stride if size > 1 else 0 for size, stride in zip(mask.shape, mask.stride(), strict=True))
    return mask.view(torch.uint8), (rows, *lengths)
