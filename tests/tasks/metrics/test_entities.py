"""Entities are found and counted as conlleval and seqeval do."""

import random

import numpy as np
import pytest

from reprise.tasks.labels import ragged
from reprise.tasks.metrics.entities import count_entities, find_entities, repair
from reprise.tasks.metrics.registry import METRICS, confidence_interval
from reprise.tasks.token_classification import TokenClassification

KIND = TokenClassification(("MISC", "PER", "LOC"))


def tags(*examples: str) -> np.ndarray:
    """Return the ids of tags between spaces, of each example."""
    return KIND.label_values([example.split() for example in examples])


def spans(example: str) -> list[tuple[str, int, int]]:
    """Return label, first word and last word of each entity."""
    found = find_entities(tags(example))
    return [
        (KIND.labels[label], start, end - 1)
        for label, start, end in zip(found.type, found.start, found.end, strict=True)
    ]


# What seqeval 1.2.2 finds in the same sequences, in its default mode.
@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("B-PER I-PER I-PER", [("PER", 0, 2)]),
        ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        ("O O O B-MISC I-MISC I-MISC O", [("MISC", 3, 5)]),
        ("I-PER I-PER O I-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("O O", []),
    ],
)
def test_entities_are_those_of_seqeval(example: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans(example) == expected


# The example of seqeval's README; its F1 of both texts together is 0.5.
TRUE = tags("O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O")
FOUND = tags("O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O")


def test_metrics_are_those_of_seqevals_example() -> None:
    values = {name: METRICS[name].function(FOUND, TRUE, None) for name in METRICS if name.startswith("entity")}
    assert values == {"entity_f1": 0.5, "entity_precision": 0.5, "entity_recall": 0.5}
    assert METRICS["token_accuracy"].function(FOUND, TRUE, None) == 8 / 10


def test_an_entity_is_counted_by_example_and_type() -> None:
    counts = count_entities(FOUND, TRUE, types=3)
    assert counts.correct.tolist() == [[0, 0, 0], [0, 1, 0]]
    assert counts.predicted.tolist() == counts.actual.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_the_right_words_with_the_wrong_type_are_wrong() -> None:
    counts = count_entities(tags("B-PER I-PER"), tags("B-LOC I-LOC"))
    assert (counts.correct.sum(), counts.predicted.sum(), counts.actual.sum()) == (0, 1, 1)


def test_an_entity_does_not_reach_into_the_next_example() -> None:
    assert len(find_entities(tags("B-PER", "I-PER")).start) == 2


def test_repaired_tags_have_the_same_entities_and_begin_each() -> None:
    draw = random.Random(0)
    given = KIND.label_values([draw.choices(KIND.tags, k=draw.randint(0, 9)) for _ in range(200)])
    repaired = ragged(repair(given))
    before, after = find_entities(given), find_entities(repaired)
    assert [list(each) for each in (before.start, before.end, before.type)] == [
        list(each) for each in (after.start, after.end, after.type)
    ]
    assert np.array_equal(repair(repaired)[3], repaired[3])
    for example in repaired:
        before_tag = 0
        for tag in example:
            assert tag % 2 == 1 or tag == 0 or before_tag in (tag, tag - 1)
            before_tag = tag


def test_texts_without_entities_have_scores_of_zero() -> None:
    nothing = tags("O O", "O")
    assert METRICS["entity_f1"].function(nothing, nothing, None) == 0.0
    assert confidence_interval("entity_f1", nothing, nothing, positive=None, resamples=100).low is not None


def test_the_interval_holds_the_metric_of_new_examples_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)

    def sample(size: int) -> tuple[np.ndarray, np.ndarray]:
        truth = [draw.choice([0, 0, 1, 3], size=6) for _ in range(size)]
        return ragged([np.where(draw.random(6) < 0.8, each, 0) for each in truth]), ragged(truth)

    target = METRICS["entity_f1"].function(*sample(20_000), None)
    hits = 0
    for _ in range(100):
        found = confidence_interval("entity_f1", *sample(60), positive=None, resamples=200)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= target <= found.high
    assert hits >= 88  # of 95 expected; fewer than 88 has a probability of 0.2 %
