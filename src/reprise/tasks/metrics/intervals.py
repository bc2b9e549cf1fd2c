"""95 % confidence intervals of metrics over the choice of examples; docs/guides/experiments.md compares them.

The percentile bootstrap has width zero where every prediction is correct, and is too narrow near there: it cannot draw
an error that it has not seen. So a proportion gets Wilson's interval, a function of the confusion matrix the Bayesian
bootstrap, and only numbers, which are never all correct, a bootstrap.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reprise.tasks.metrics.entities import count_entities

Values = npt.NDArray[np.generic]
Numbers = npt.NDArray[np.float64]
MetricFunction = Callable[[Values, Values], float]  # predictions and references, each of [examples]
MatrixFunction = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]  # [draws, labels, labels] to [draws]

# One fixed seed: two runs on the same examples are compared on the same resamples.
SEED = 0
CONFIDENCE = 0.95
# BCa computes the metric once more for each example; with more examples its correction is smaller than the noise.
BCA_MAX_EXAMPLES = 5_000
BATCH = 256  # resamples in memory at a time
BAYESIAN = "Bayesian bootstrap"
MAX_WEIGHTS = 2**23  # of examples in memory at a time
TINY = 1e-12  # in place of a denominator of 0, whose numerator is 0
MAX_CELLS = 2**20  # of confusion matrices in memory at a time


@dataclass(frozen=True)
class Interval:
    """A 95 % interval. Both bounds are None where the examples do not determine one.

    Attributes:
        low: lower bound.
        high: upper bound.
        method: how it was computed.
    """

    low: float | None
    high: float | None
    method: str


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the score interval of a proportion (E. B. Wilson, JASA 22, 1927; Brown, Cai & DasGupta 2001)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_interval(predictions: Values, references: Values, _positive: int | None, _resamples: int) -> Interval:
    """Return Wilson's interval of the fraction of correct predictions."""
    return Interval(*wilson(int(np.sum(predictions == references)), len(references)), "Wilson")


def f1_interval(predictions: Values, references: Values, positive: int | None, resamples: int) -> Interval:
    """Return the interval of F1: of two labels Wilson's, of more the Bayesian bootstrap.

    F1 of two labels is 2θ / (1 + θ), with θ the fraction of true positives among the examples that are positive in
    prediction or reference (K. F. Y. Lam, V. Gopal & J. Qian, arXiv:2309.14621, "Wilson indirect").
    """
    if positive is None:
        return matrix_interval(macro_f1, predictions, references, resamples)
    predicted, actual = predictions == positive, references == positive
    trials = int(np.sum(predicted | actual))
    if not trials:
        return Interval(None, None, "Wilson")
    low, high = wilson(int(np.sum(predicted & actual)), trials)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high), "Wilson")


def precision_interval(predictions: Values, references: Values, positive: int | None, resamples: int) -> Interval:
    """Return the interval of precision: of two labels Wilson's, of more the Bayesian bootstrap of the mean."""
    if positive is None:
        return matrix_interval(macro_precision, predictions, references, resamples)
    return _share_interval(references == positive, predictions == positive)


def recall_interval(predictions: Values, references: Values, positive: int | None, resamples: int) -> Interval:
    """Return the interval of recall: of two labels Wilson's, of more the Bayesian bootstrap of the mean."""
    if positive is None:
        return balanced_accuracy_interval(predictions, references, positive, resamples)
    return _share_interval(predictions == positive, references == positive)


def _share_interval(hit: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> Interval:
    trials = int(np.sum(among))
    low, high = wilson(int(np.sum(hit & among)), trials) if trials else (None, None)
    return Interval(low, high, "Wilson")


def balanced_accuracy_interval(
    predictions: Values, references: Values, _positive: int | None, resamples: int
) -> Interval:
    """Return the Bayesian bootstrap's interval of the mean recall of the labels that references have."""
    has_examples = np.isin(np.unique([references, predictions]), references)
    return matrix_interval(
        lambda matrices: _recalls(matrices)[:, has_examples].mean(axis=1), predictions, references, resamples
    )


def weighted_f1_interval(predictions: Values, references: Values, _positive: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of the mean of F1, weighted by the examples of each label."""
    return matrix_interval(weighted_f1, predictions, references, resamples)


def matthews_interval(predictions: Values, references: Values, _positive: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of Matthews' correlation coefficient."""
    return matrix_interval(matthews_of, predictions, references, resamples)


def matrix_interval(score: MatrixFunction, predictions: Values, references: Values, resamples: int) -> Interval:
    """Return the interval of a function of the confusion matrix, by the Bayesian bootstrap with one pseudo-example.

    The cells are drawn from a Dirichlet distribution of their counts (D. B. Rubin, Annals of Statistics 9, 1981; O.
    Caelen, "A Bayesian interpretation of the confusion matrix", 2017). One more example is spread evenly over all cells
    (Perks' prior), so that an error that was not seen has a chance. The interval is extended to the metric itself.
    """
    method = BAYESIAN
    occurring, ids = np.unique([references, predictions], return_inverse=True)
    size = len(occurring)
    if size < 2:  # with a single label there is no other to confuse it with
        return Interval(None, None, method)
    actual, predicted = ids.reshape(2, -1)
    counts = np.bincount(size * actual + predicted, minlength=size**2).astype(np.float64)
    random, batch = np.random.default_rng(SEED), max(1, MAX_CELLS // size**2)
    scores = np.concatenate(
        [
            score(random.dirichlet(counts + 1 / size**2, min(batch, resamples - done)).reshape(-1, size, size))
            for done in range(0, resamples, batch)
        ]
    )
    estimate = float(score(counts.reshape(1, size, size))[0])
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(min(float(low), estimate), max(float(high), estimate), method)


def macro_f1(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average F1 over the labels of confusion matrices, [draws, actual, predicted]; each label occurs."""
    return np.asarray(_f1s(matrices).mean(axis=1))


def weighted_f1(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average F1 over the labels of confusion matrices, [draws, actual, predicted], by their share of the examples."""
    actual = matrices.sum(axis=2)
    return np.asarray((_f1s(matrices) * actual).sum(axis=1) / actual.sum(axis=1))


def macro_precision(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average precision over the labels of confusion matrices, [draws, actual, predicted]; 0 if never predicted."""
    return np.asarray(_recalls(matrices.transpose(0, 2, 1)).mean(axis=1))


def _f1s(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    both = matrices.sum(axis=2) + matrices.sum(axis=1)
    return np.asarray(2 * np.diagonal(matrices, axis1=1, axis2=2) / both)


def _recalls(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    actual = matrices.sum(axis=2)
    return np.asarray(np.diagonal(matrices, axis1=1, axis2=2) / np.where(actual > 0, actual, 1))


def matthews_of(matrices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Compute Matthews' correlation of confusion matrices, [draws, actual, predicted]; 0 where it is not defined."""
    total = matrices.sum(axis=(1, 2))
    actual, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    covariance = np.trace(matrices, axis1=1, axis2=2) * total - (actual * predicted).sum(axis=1)
    variances = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return np.where(variances > 0, covariance / np.sqrt(np.where(variances > 0, variances, 1)), 0.0)


def subset_accuracy_interval(predictions: Values, references: Values, _: int | None, _resamples: int) -> Interval:
    """Return Wilson's interval of the fraction of examples with all labels right."""
    correct = (predictions == references).all(axis=1)
    return Interval(*wilson(int(correct.sum()), len(references)), "Wilson")


def f1_micro_interval(predictions: Values, references: Values, _: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of F1 over all decisions."""
    return decisions_interval(
        lambda hits, both: 2 * hits.sum(axis=1) / np.where(both.any(axis=1), both.sum(axis=1), 1),
        predictions,
        references,
        resamples,
    )


def f1_macro_interval(predictions: Values, references: Values, _: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of the mean of F1 over the labels."""
    occurring = predictions.any(axis=0) | references.any(axis=0)  # F1 of the others is 0, as in the metric
    return decisions_interval(
        lambda hits, both: (2 * hits / np.where(both > 0, both, 1) * occurring).mean(axis=1),
        predictions, references, resamples,
    )  # fmt: skip


def entity_interval(
    score: Callable[[Numbers, Numbers, Numbers], Numbers], predictions: Values, references: Values, resamples: int
) -> Interval:
    """Return the interval of a function of entity counts, by the Bayesian bootstrap over the examples.

    The words of an example depend on each other, so whole examples are weighed. One more entity is spread over correct,
    spurious and missed, as in `decisions_interval`.

    Args:
        score: takes the weights of the correct, the predicted and the actual entities of each draw, each of [draws].
        predictions: tags of each example, [examples] of [words].
        references: the true ones.
        resamples: the number of draws.
    """
    counts = count_entities(predictions, references)
    correct, predicted, actual = (
        part[:, 0].astype(np.float64) for part in (counts.correct, counts.predicted, counts.actual)
    )

    def of_draws(random: np.random.Generator, weights: Numbers) -> Numbers:
        hit, spurious, missed = random.gamma(1 / 3, size=(3, len(weights)))
        return score(weights @ correct + hit, weights @ predicted + hit + spurious, weights @ actual + hit + missed)

    totals = (part.sum()[np.newaxis] for part in (correct, predicted, actual))
    return bayesian_interval(of_draws, len(references), resamples, float(score(*totals)[0]))


def entity_f1_interval(predictions: Values, references: Values, _: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of F1 over entities."""
    return entity_interval(
        lambda correct, predicted, actual: 2 * correct / np.maximum(predicted + actual, TINY),
        predictions, references, resamples,
    )  # fmt: skip


def entity_precision_interval(predictions: Values, references: Values, _: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of precision over entities."""
    return entity_interval(
        lambda correct, predicted, _: correct / np.maximum(predicted, TINY), predictions, references, resamples
    )


def entity_recall_interval(predictions: Values, references: Values, _: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of recall over entities."""
    return entity_interval(
        lambda correct, _, actual: correct / np.maximum(actual, TINY), predictions, references, resamples
    )


def token_accuracy_interval(predictions: Values, references: Values, _: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval, over the examples, of the fraction of words with the right tag."""
    right = np.array([np.sum(np.equal(*pair)) for pair in zip(predictions, references, strict=True)], np.float64)
    words = np.array([len(each) for each in references], np.float64)

    def of_draws(random: np.random.Generator, weights: Numbers) -> Numbers:
        hit, miss = random.gamma(1 / 2, size=(2, len(weights)))
        return np.asarray((weights @ right + hit) / (weights @ words + hit + miss))

    return bayesian_interval(of_draws, len(words), resamples, float(right.sum() / max(words.sum(), 1)))


def decisions_interval(
    score: Callable[[Numbers, Numbers], Numbers], predictions: Values, references: Values, resamples: int
) -> Interval:
    """Return the interval of a function of each label's decisions, by the Bayesian bootstrap with one pseudo-example.

    Each draw weighs the examples with a Dirichlet distribution (D. B. Rubin, Annals of Statistics 9, 1981). For each
    label one more example is spread over the four cells of its confusion matrix, as in `matrix_interval`.

    Args:
        score: takes, of each draw and label, the weight of the true positives, and that of the examples that have the
            label plus that of the examples for which it is predicted: [draws, labels] each.
        predictions: 0 or 1, [examples, labels].
        references: the true ones.
        resamples: the number of draws.
    """
    predicted, actual = predictions.astype(np.float64), references.astype(np.float64)
    hits, both, labels = predicted * actual, predicted + actual, predicted.shape[1]

    def of_draws(random: np.random.Generator, weights: Numbers) -> Numbers:
        cells = random.gamma(1 / 4, size=(3, len(weights), labels))  # true positive, false positive, false negative
        return score(weights @ hits + cells[0], weights @ both + 2 * cells[0] + cells[1] + cells[2])

    estimate = score(hits.sum(axis=0)[np.newaxis], both.sum(axis=0)[np.newaxis])[0]
    return bayesian_interval(of_draws, len(references), resamples, float(estimate))


def f1_samples_interval(predictions: Values, references: Values, _: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of the mean over the examples of F1."""
    predicted, actual = predictions.astype(np.float64), references.astype(np.float64)
    both = (predicted + actual).sum(axis=1)
    scores = np.where(both > 0, 2 * (predicted * actual).sum(axis=1) / np.where(both > 0, both, 1), 1.0)

    def of_draws(random: np.random.Generator, weights: Numbers) -> Numbers:
        unseen = random.gamma(1, size=len(weights))  # one more example, as likely wrong as right
        return np.asarray((weights @ scores + unseen * random.random(len(weights))) / (weights.sum(axis=1) + unseen))

    return bayesian_interval(of_draws, len(scores), resamples, float(scores.mean()))


def average_precision_interval(probabilities: Values, references: Values, _: int | None, resamples: int) -> Interval:
    """Return the Bayesian bootstrap's interval of the mean of average precision over the labels that occur."""
    occurring = np.flatnonzero(references.any(axis=0))
    if not len(occurring):
        return Interval(None, None, BAYESIAN)
    orders = [np.argsort(-probabilities[:, label].astype(np.float64), kind="stable") for label in occurring]
    ends = [
        np.flatnonzero(np.append(np.diff(probabilities[order, label]) != 0, True))
        for label, order in zip(occurring, orders, strict=True)
    ]

    def of_draws(_random: np.random.Generator, weights: Numbers) -> Numbers:
        means = np.zeros(len(weights))
        for label, order, end in zip(occurring, orders, ends, strict=True):
            sorted_weights = weights[:, order]
            hits = np.cumsum(sorted_weights * (references[order, label] > 0), axis=1)[:, end]
            precision = hits / np.cumsum(sorted_weights, axis=1)[:, end]
            recall = hits / hits[:, -1:]
            means += (np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1)
        return means / len(occurring)

    estimate = float(of_draws(np.random.default_rng(SEED), np.ones((1, len(references))))[0])
    return bayesian_interval(of_draws, len(references), resamples, estimate)


def bayesian_interval(
    of_draws: Callable[[np.random.Generator, Numbers], Numbers], examples: int, resamples: int, estimate: float
) -> Interval:
    """Return the 95 % interval of a metric over draws of the examples' weights, extended to the metric itself.

    Args:
        of_draws: computes the metric of each draw from a generator and weights, [draws, examples].
        examples: their number; fewer than two determine no interval.
        resamples: the number of draws.
        estimate: the metric with equal weights.
    """
    if examples < 2:
        return Interval(None, None, BAYESIAN)
    random, batch = np.random.default_rng(SEED), max(1, min(BATCH, MAX_WEIGHTS // examples))
    scores = np.concatenate(
        [
            of_draws(random, random.standard_exponential((min(batch, resamples - done), examples)))
            for done in range(0, resamples, batch)
        ]
    )
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(min(float(low), estimate), max(float(high), estimate), BAYESIAN)


def bootstrap_interval(score: MetricFunction, predictions: Values, references: Values, resamples: int) -> Interval:
    """Return the bootstrap interval of a metric over resampled (prediction, reference) pairs.

    It is bias-corrected and accelerated (BCa; Efron & Tibshirani 1993, chapter 14) for up to BCA_MAX_EXAMPLES examples,
    and the percentile bootstrap beyond. There is none for fewer than two examples or equal resamples.
    """
    from scipy.stats import bootstrap

    bca = len(references) <= BCA_MAX_EXAMPLES
    undetermined = Interval(None, None, "BCa bootstrap" if bca else "percentile bootstrap")
    if len(references) < 2:
        return undetermined
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # equal resamples give bounds that are not finite
        found = bootstrap(
            (predictions, references),
            score,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method="BCa" if bca else "percentile",
            paired=True,
            vectorized=False,
            batch=BATCH,
            rng=np.random.default_rng(SEED),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return undetermined
    estimate = score(predictions, references)
    return Interval(min(low, estimate), max(high, estimate), undetermined.method)
