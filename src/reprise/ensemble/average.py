"""Average the answers of models to the same examples. Pure functions of numbers.

The mean of the members' probabilities is the uniform mixture of a deep ensemble (Lakshminarayanan, Pritzel & Blundell,
Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, NeurIPS 2017). It is returned as logits, so
that what decodes, prints and judges the answers of one model does so with those of an ensemble.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import pandas as pd

from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.multi_label import MultiLabel

# The probability of each label, or the predicted number, [examples, outputs], exactly as predictions/ holds them.
Scores = npt.NDArray[np.float64]


def stored_scores(table: pd.DataFrame, kind: TaskKind) -> Scores:
    """Return the scores in a table of predictions/, with the columns of `evaluate.stage.predictions_table`."""
    if not kind.labels:
        return table["prediction"].to_numpy(np.float64)[:, None]
    return np.array(table["probabilities"].tolist(), np.float64)


def scores_of_logits(logits: Logits, kind: TaskKind) -> Scores:
    """Return the scores that predictions/ would hold of logits, [examples, outputs]: probabilities in fp32."""
    probabilities = kind.probabilities(logits)
    if probabilities is None:
        return kind.decode(logits).astype(np.float64)[:, None]
    return probabilities.astype(np.float32).astype(np.float64)


def averaged_logits(members: Sequence[Scores], kind: TaskKind) -> Logits:
    """Average the members' scores, and return the logits that stand for the mean; in regression, the mean.

    Args:
        members: at least one, all of the same examples.
        kind: of the task.

    Returns:
        Logits in fp64, [examples, outputs], the same for any order of the members. Equal members give theirs.
    """
    # Sorted, the terms of each sum are in the same order whatever that of the members.
    mean = reduce(np.add, np.sort(np.stack(members), axis=0)) / len(members)
    if not kind.labels:
        return np.asarray(mean)
    with np.errstate(divide="ignore"):  # the logit of 0 is minus infinity, which every decoder takes
        return np.asarray(np.log(mean) - np.log1p(-mean) if isinstance(kind, MultiLabel) else np.log(mean))
