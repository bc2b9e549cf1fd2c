"""What a training's matrix products come to, and how many of them the machine can do."""

import statistics
import time
from typing import Any

import torch

SIZE = 2048  # of the square matrices whose product is the machine's rate
REPEATS = 3


def training_flops(model: Any, tokens: int, squares: int) -> int:
    """The floating-point operations of the matrix products that training on texts needs, forward and backward.

    A token is multiplied with every matrix of the encoder, 2 operations a parameter, and meets each token of its text
    in the two products of attention, 4 · layers · hidden · length. Backward does twice of forward (Kaplan et al. 2020,
    "Scaling laws for neural language models", section 2.1; Chowdhery et al. 2022, "PaLM", appendix B). Embeddings and
    the head, which reads one token of each text, are left out.

    The standard model is what counts: what a contender leaves out of it (Reprise computes nothing but the first token
    of its last layer after attention, see modeling/classifier.py) counts as if it were done; padding does not count.

    Args:
        model: an encoder with a head, as transformers has them.
        tokens: of all texts together.
        squares: the sum over texts of their lengths squared.
    """
    encoder = model.base_model.encoder
    matrices = sum(part.weight.numel() for part in encoder.modules() if isinstance(part, torch.nn.Linear))
    layers, hidden = int(model.config.num_hidden_layers), int(model.config.hidden_size)
    return 3 * (2 * matrices * tokens + 4 * layers * hidden * squares)


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = SIZE) -> float:
    """The floating-point operations a second in a product of square matrices, by the median of REPEATS.

    On a GPU so many products are timed together that starting them does not count.
    """
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    products = 1 if device.type == "cpu" else 100
    seconds = []
    for _ in range(REPEATS + 1):  # the first only warms up
        settle(device)
        began = time.perf_counter()
        for _ in range(products):
            left @ right
        settle(device)
        seconds.append((time.perf_counter() - began) / products)
    return 2 * size**3 / statistics.median(seconds[1:])


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
