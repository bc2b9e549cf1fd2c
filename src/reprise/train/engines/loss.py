"""The loss of a micro-batch, the same in all engines."""

import torch
from torch.nn import functional


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum the loss over examples: cross-entropy, or squared error for regression (one output).

    Padding rows (label IGNORE_INDEX, or NaN in regression) add nothing.

    Args:
        logits: [rows, outputs].
        labels: label ids (int64) or values (fp32), [rows].
    """
    if logits.shape[1] == 1:
        values = logits.squeeze(1).float()
        return functional.mse_loss(values, torch.where(labels.isnan(), values, labels), reduction="sum")
    return functional.cross_entropy(logits.float(), labels, reduction="sum")
