"""TF-IDF with a linear model: what a line of scikit-learn reaches, and which labels it doubts."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from reprise.tasks.kind import LinearTaskKind

# scikit-learn's own, except that each character counts as a word in the scripts that put no spaces between words.
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORDS = rf"(?u)[{UNSPACED}]|\b(?:(?![{UNSPACED}])\w){{2,}}"
# More words, examples or labels give hardly another number, but minutes and gigabytes: L-BFGS keeps ten gradients.
MAX_COEFFICIENTS = 2**22  # words times labels
MAX_OUTPUTS = 2**21  # examples times labels
FOLDS = 5
MAX_TRAINED = 1_000_000
MAX_CROSS_VALIDATED = 50_000


def limited(rows: npt.NDArray[np.uint64], labels: int, most: int) -> npt.NDArray[np.int64]:
    """Return which examples to use, those with the smallest hashes, so that the order of the rows does not matter."""
    size = max(min(most, MAX_OUTPUTS // max(labels, 1)), 2)
    return np.sort(np.argsort(rows, kind="stable")[:size])


def features(train: Iterable[str], others: Sequence[Iterable[str]], labels: int) -> tuple[csr_matrix, list[csr_matrix]]:
    """Weigh the words of the texts by TF-IDF, [examples, words], as learned from the training split."""
    vectorizer = TfidfVectorizer(token_pattern=WORDS, max_features=MAX_COEFFICIENTS // max(labels, 1))
    try:
        matrix = vectorizer.fit_transform(train)
    except ValueError:  # no text has a word
        return None, []
    return matrix, [vectorizer.transform(texts) for texts in others]


def predict(
    kind: LinearTaskKind, train: csr_matrix, labels: npt.NDArray[Any], others: Sequence[csr_matrix]
) -> list[Any]:
    """Train the linear model of a kind of task, and return its outputs for each matrix, [examples, outputs]."""
    with threadpool_limits(1, "blas"):  # threads divide sums, so their number would change the last bits
        outputs = kind.fit_linear(train, labels)
        return [outputs(matrix) for matrix in others]


def out_of_fold(
    kind: LinearTaskKind, matrix: csr_matrix, labels: npt.NDArray[Any], texts: npt.NDArray[np.uint64]
) -> npt.NDArray[np.float64]:
    """Return for each example the outputs of a model that was trained without its fold, [examples, outputs].

    Equal texts are in one fold: else a wrong label would confirm its copy.

    Args:
        kind: of the task.
        matrix: the features, [examples, words].
        labels: shape [examples].
        texts: a hash of each text, which decides the fold.
    """
    folds = (texts >> np.uint64(32)) % np.uint64(FOLDS)
    found: npt.NDArray[np.float64] | None = None
    for fold in range(FOLDS):
        inside = folds == fold
        if not inside.any() or inside.all():
            continue
        (outputs,) = predict(kind, matrix[~inside], labels[~inside], [matrix[inside]])
        if found is None:
            found = np.zeros((len(labels), outputs.shape[1]))
        found[inside] = outputs
    return np.zeros((len(labels), 0)) if found is None else found
