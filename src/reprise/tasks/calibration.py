"""Temperature scaling: the number that logits are divided by, so that their probabilities are calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Far fewer than the sampling error of any validation split. The last bits of the logits, which depend on the hardware
# and the number of ranks, do not reach them.
SIGNIFICANT_DIGITS = 5


def fit_temperature(logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[Any]) -> float:
    """Return the temperature with the lowest cross-entropy of softmax(logits / temperature) (Guo et al. 2017).

    Args:
        logits: of examples that the model was not trained on, [examples, labels].
        labels: their label ids, [examples].

    Returns:
        A positive number. 1 where none is best: without an error, the lower the better; and where the logits of the
        true labels are no higher than the mean, the higher the better.
    """
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV

    class Identity(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """A classifier whose features are its logits; scikit-learn calibrates no logits without their classifier."""

        classes_ = np.arange(logits.shape[1])

        def fit(self, features: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Identity:
            return self

        def decision_function(self, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return features

    # Numbers from 0 to 1 could be taken for probabilities; none of these is above 0.
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    true = shifted[rows, labels]
    if (true == 0).all() or true.mean() <= shifted.mean():
        return 1.0
    calibrated = CalibratedClassifierCV(Identity(), method="temperature", cv=[(rows, rows)], ensemble=True)
    (fitted,) = calibrated.fit(shifted, labels).calibrated_classifiers_
    return float(f"{1 / fitted.calibrators[0].beta_:.{SIGNIFICANT_DIGITS}g}")
