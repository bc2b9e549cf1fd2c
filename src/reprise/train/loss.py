"""The loss that all engines minimize: that of the labels and, with `train.distill`, that of a teacher's outputs."""

import torch

from reprise.core.config import Distill
from reprise.tasks.kind import TaskKind


def summed_loss(
    kind: TaskKind,
    distill: Distill | None,
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    teacher: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum the loss over a micro-batch, without its padding rows; a step divides it by the weight of all its rows.

    Args:
        kind: of the task, fitted to the training labels.
        distill: how labels and teacher are mixed; None without a teacher.
        logits: [rows, outputs].
        labels: as `TaskKind.summed_loss` takes them.
        weights: of the windows of long texts, [rows]; None if every row is an example.
        teacher: the teacher's logits, fp32, [rows, outputs]; None for rows that are not trained, such as validation.

    Returns:
        A scalar, fp32.
    """
    of_labels = kind.summed_loss(logits, labels, weights)
    if distill is None or teacher is None:
        return of_labels
    of_teacher = kind.teacher_loss(logits, labels, teacher, distill.temperature)
    return (1 - distill.alpha) * of_labels + distill.alpha * of_teacher
