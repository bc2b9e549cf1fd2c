"""The confusion matrix of a run, laid out so that many labels stay readable."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

FEW_LABELS = 12  # these have their counts in the cells, and the recipe's order
MAX_LABELS = 80  # of a matrix across the page: 12 pixels each


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes:
        labels: names of rows and columns, in order.
        cells: index of the actual label, index of the predicted one, and count of each cell that is not 0; sorted.
        note: what was left out and how the labels are sorted, in sentences.
    """

    labels: list[str]
    cells: list[list[int]]
    note: str


def confusion_matrix(pairs: pd.DataFrame, labels: list[str]) -> Matrix:
    """Lay out a confusion matrix.

    More than FEW_LABELS labels are sorted by similarity. Of more than MAX_LABELS, those with the most errors are kept;
    the others share one row and one column, so that no example is left out.

    Args:
        pairs: one row per example with the columns actual and predicted; may be empty.
        labels: names of all labels, in the order of their ids.

    Raises:
        ValueError: a name in the pairs is not among them.
    """
    if pairs.empty:
        return Matrix(labels, [], "")
    ids = pd.Index(labels)
    if unknown := {*pairs["actual"], *pairs["predicted"]} - {*labels}:
        raise ValueError(f"not among the labels: {', '.join(sorted(map(str, unknown)))}")
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (ids.get_indexer(pd.Index(pairs["actual"])), ids.get_indexer(pd.Index(pairs["predicted"]))), 1)
    note = ""
    if len(labels) > FEW_LABELS:
        errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
        kept = np.argsort(-errors, kind="stable")[:MAX_LABELS]
        order = kept[similar_first(counts[np.ix_(kept, kept)])]
        rest = len(labels) - len(kept)
        group = np.full(len(labels), len(kept))
        group[order] = np.arange(len(kept))
        shown = np.zeros((len(kept) + 1, len(kept) + 1), np.int64)
        np.add.at(shown, (group[:, None], group[None, :]), counts)
        counts, labels = shown, [*(labels[label] for label in order), *([f"{rest} other labels"] if rest else [])]
        note = "Labels that are confused with each other are side by side."
        if rest:
            note += (
                f" The {len(kept)} labels with the most errors are shown; the other {rest} share a row and a column."
            )
    cells = [[int(actual), int(predicted), int(counts[actual, predicted])] for actual, predicted in np.argwhere(counts)]
    return Matrix(labels, cells, note)


def similar_first(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the order of labels, [labels], that puts labels side by side that are often confused with each other.

    Args:
        counts: by actual and predicted label, [labels, labels].
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    confused = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    confused = (confused + confused.T) / 2
    pairs = np.triu_indices(len(counts), 1)
    return np.asarray(leaves_list(linkage(1 - confused[pairs], method="average", optimal_ordering=True)), np.int64)
