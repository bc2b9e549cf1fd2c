"""FLOPs of training, and the machine's matrix-multiplication rate."""

import statistics
import time
from typing import Any

import torch

SIZE = 2048  # rows and columns of the matrices that are multiplied to measure the rate
REPEATS = 3


def training_flops(model: Any, tokens: int, squares: int) -> int:
    """Return the FLOPs of the matrix products in the forward and backward pass over some texts.

    A token is multiplied with every matrix of the encoder, 2 FLOPs per parameter, and with each token of its text in
    the two products of attention, 4 · layers · hidden · length. The backward pass takes twice the forward pass (Kaplan
    et al. 2020, "Scaling laws for neural language models", section 2.1; Chowdhery et al. 2022, "PaLM", appendix B).
    Embeddings and the head, which reads one token of each text, are left out.

    The standard model is counted: operations that a baseline skips count as if they were executed (Reprise computes
    only the first token of its last layer after attention, see modeling/classifier.py). Padding does not count.

    Args:
        model: an encoder of transformers with a head.
        tokens: tokens of all texts.
        squares: the sum of the squared lengths of all texts.
    """
    encoder = model.base_model.encoder
    matrices = sum(part.weight.numel() for part in encoder.modules() if isinstance(part, torch.nn.Linear))
    layers, hidden = int(model.config.num_hidden_layers), int(model.config.hidden_size)
    return 3 * (2 * matrices * tokens + 4 * layers * hidden * squares)


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = SIZE) -> float:
    """Return the FLOP/s of multiplying two square matrices, the median of REPEATS.

    On a GPU many products are timed together, so that launch overhead does not count.
    """
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    products = 1 if device.type == "cpu" else 100
    seconds = []
    for _ in range(REPEATS + 1):  # the first one is a warm-up
        synchronize(device)
        began = time.perf_counter()
        for _ in range(products):
            left @ right
        synchronize(device)
        seconds.append((time.perf_counter() - began) / products)
    return 2 * size**3 / statistics.median(seconds[1:])


def synchronize(device: torch.device) -> None:
    """Wait until all kernels queued on a GPU have finished; do nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
