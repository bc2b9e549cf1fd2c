"""Judge an ensemble or a soup on the examples of its members, beside a single one of them. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reprise.ensemble.average import Scores, stored_scores
from reprise.results.statistics import (
    CONFIDENCE,
    McNemarResult,
    Summary,
    format_p,
    is_greater_better,
    mcnemar,
    paired_bootstrap_ci,
    summarize,
)
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.metrics.intervals import Interval
from reprise.tasks.metrics.registry import METRICS, confidence_interval, display_name, metric_function


@dataclass(frozen=True)
class Answers:
    """What a model answers about the evaluated examples.

    Attributes:
        predictions: decoded, [examples] or [examples, labels].
        probabilities: of each label, [examples, labels]; None in regression.
    """

    predictions: npt.NDArray[Any]
    probabilities: Scores | None

    def judged_by(self, metric: str) -> npt.NDArray[Any]:
        """Return what a metric takes: the predictions, or the probabilities."""
        if METRICS[metric].of_probabilities:
            assert self.probabilities is not None
            return self.probabilities
        return self.predictions


@dataclass(frozen=True)
class MetricJudgement:
    """A metric of the combined model, beside that of its members.

    Attributes:
        name: of the metric.
        value: of the combined model.
        interval: its 95 % interval over the choice of examples.
        single: of the member that the combined model is compared with.
        members: summary over all members.
        gain: 95 % interval of `value` minus `single` over the choice of examples; None if undefined.
    """

    name: str
    value: float
    interval: Interval
    single: float
    members: Summary
    gain: tuple[float, float] | None


@dataclass(frozen=True)
class Judgement:
    """The metrics of the recipe, and McNemar's test of the single member against the combined model.

    Attributes:
        num_examples: number of examples.
        metrics: in the order of the recipe.
        mcnemar: None in regression.
        constant: whether the combined model predicts the same for every example.
    """

    num_examples: int
    metrics: list[MetricJudgement]
    mcnemar: McNemarResult | None
    constant: bool


def stored_answers(table: pd.DataFrame, kind: TaskKind) -> Answers:
    """Return the answers in a table of predictions/."""
    predictions = kind.label_values(list(table["prediction"]))
    return Answers(predictions, stored_scores(table, kind) if kind.labels else None)


def answers_of_logits(logits: Logits, kind: TaskKind) -> Answers:
    """Return the answers that logits, [examples, outputs], stand for."""
    decoded = kind.decode(logits)
    return Answers(decoded if kind.labels else decoded.astype(np.float64), kind.probabilities(logits))


def judge(
    combined: Answers,
    members: Sequence[Answers],
    references: npt.NDArray[Any],
    kind: TaskKind,
    metrics: Sequence[str],
    resamples: int,
) -> Judgement:
    """Judge a combined model on the examples of its members.

    Args:
        combined: answers of the ensemble or the soup.
        members: answers of each member; the first is the one that it is compared with.
        references: the true labels, [examples] or [examples, labels].
        kind: of the task.
        metrics: names.
        resamples: how often a bootstrap draws the examples.
    """
    judged = []
    for name in metrics:
        score = metric_function(name, kind.positive)
        values = [score(each.judged_by(name), references) for each in members]
        interval = confidence_interval(
            name,
            combined.predictions,
            references,
            positive=kind.positive,
            resamples=resamples,
            probabilities=combined.probabilities,
        )
        gain = paired_bootstrap_ci(score, members[0].judged_by(name), combined.judged_by(name), references)
        value = score(combined.judged_by(name), references)
        judged.append(MetricJudgement(name, value, interval, values[0], summarize(values), gain))
    before, after = (kind.is_correct(each.predictions, references) for each in (members[0], combined))
    test = None if before is None or after is None else mcnemar(before, after)
    return Judgement(len(references), judged, test, kind.is_constant(combined.predictions, references))


def verdict(judgement: Judgement, combined: str, single: str, kind: TaskKind) -> str:
    """Say in a sentence whether the combined model is better than the single one, by the recipe's first metric.

    It is called better or worse only if the interval of the difference excludes 0 and, where there is a McNemar test,
    its p-value is below 0.05.

    Args:
        judgement: of both.
        combined: the subject of the sentence, such as "The ensemble of 5 runs".
        single: name of the single model.
        kind: of the task.
    """
    first, test = judgement.metrics[0], judgement.mcnemar
    difference, gain = first.value - first.single, first.gain
    shown = display_name(first.name, kind.positive_label, len(kind.labels))
    clear = gain is not None and (gain[0] > 0 or gain[1] < 0) and (test is None or test.p < 1 - CONFIDENCE)
    better = (difference > 0) == is_greater_better(first.name)
    between = f" [{gain[0]:+.4f}, {gain[1]:+.4f}]" if gain else ""
    tested = f", {format_p(test.p)} (McNemar, {test.only_after} examples against {test.only_before})" if test else ""
    words = f"is {'better' if better else 'worse'} than" if clear else "is not shown to differ from"
    return f"{combined} {words} {single}: {shown} {difference:+.4f}{between}{tested}."


def as_evaluation(judgement: Judgement, split: str) -> Mapping[str, Any]:
    """Return the metrics and intervals of the combined model as metrics/evaluate.json has those of a run."""
    return {
        "split": split,
        "num_examples": judgement.num_examples,
        **{each.name: each.value for each in judgement.metrics},
        "ci95": {each.name: {"low": each.interval.low, "high": each.interval.high} for each in judgement.metrics},
        "ci95_method": {each.name: each.interval.method for each in judgement.metrics},
    }
