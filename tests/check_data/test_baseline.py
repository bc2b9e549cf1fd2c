"""The linear baseline: what scikit-learn's own two lines give, limits, and folds."""

import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from reprise.check_data import baseline
from reprise.check_data.baseline import WORDS, features, limited, out_of_fold, predict
from reprise.data.text import hash_texts
from reprise.tasks.registry import task_kind

DRAW = np.random.default_rng(0)
VOCABULARY = np.array([f"word{number}" for number in range(50)])
TEXTS = [" ".join(VOCABULARY[DRAW.integers(0, 50, 12)]) for _ in range(300)]
LABELS = np.array([int("word7" in text.split() or "word3" in text.split()) for text in TEXTS])


def test_the_baseline_is_scikit_learns_own() -> None:
    kind = task_kind(["no", "yes"], "yes")
    matrix, (others,) = features(TEXTS[:200], [TEXTS[200:]], 2)
    (outputs,) = predict(kind, matrix, LABELS[:200], [others])
    vectorizer = TfidfVectorizer()
    model = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(TEXTS[:200]), LABELS[:200])
    assert outputs == pytest.approx(model.predict_proba(vectorizer.transform(TEXTS[200:])))
    assert (kind.decode(outputs) == model.predict(vectorizer.transform(TEXTS[200:]))).all()


def test_the_baseline_of_numbers_is_ridge_regression() -> None:
    kind, numbers = task_kind([]), np.array([float(len(set(text.split()))) for text in TEXTS])
    matrix, (others,) = features(TEXTS[:200], [TEXTS[200:]], 1)
    (outputs,) = predict(kind, matrix, numbers[:200], [others])
    vectorizer = TfidfVectorizer()
    model = Ridge().fit(vectorizer.fit_transform(TEXTS[:200]), numbers[:200])
    assert kind.decode(outputs) == pytest.approx(model.predict(vectorizer.transform(TEXTS[200:])))


def test_a_label_without_training_examples_is_never_predicted() -> None:
    kind = task_kind(["absent", "no", "yes", "also absent"])
    matrix, (others,) = features(TEXTS[:200], [TEXTS[200:]], 4)
    (outputs,) = predict(kind, matrix, LABELS[:200] + 1, [others])
    assert outputs.shape == (100, 4)
    assert not outputs[:, [0, 3]].any()
    (outputs,) = predict(kind, matrix, np.full(200, 2), [others])
    assert (kind.decode(outputs) == 2).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a 5-star film, a", ["it", "star", "film"]),
        ("naïve Café", ["naïve", "café"]),
        ("好电影", ["好", "电", "影"]),
        ("映画 good", ["映", "画", "good"]),
        ("ok电影", ["ok", "电", "影"]),
    ],
)
def test_words_are_scikit_learns_and_single_characters_where_no_spaces_are_written(text: str, words: list[str]) -> None:
    assert re.findall(WORDS, text.lower()) == words


def test_texts_without_a_word_give_no_baseline() -> None:
    assert features(["!", "?"], [["."]], 2) == (None, [])


def test_the_examples_that_are_used_do_not_depend_on_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = hash_texts([TEXTS])
    assert len(limited(hashes, 2, 1000)) == 300
    few = limited(hashes, 2, 20)
    order = DRAW.permutation(300)
    assert set(order[limited(hashes[order], 2, 20)]) == set(few)
    monkeypatch.setattr(baseline, "MAX_OUTPUTS", 100)
    assert len(limited(hashes, 4, 1000)) == 25


def test_equal_texts_are_in_one_fold_so_that_a_wrong_label_does_not_confirm_its_copy() -> None:
    kind, texts = task_kind(["no", "yes"], "yes"), [*TEXTS, TEXTS[0], TEXTS[0]]
    labels = np.array([*LABELS, 1 - LABELS[0], 1 - LABELS[0]])
    labels[0] = 1 - LABELS[0]
    matrix, _ = features(texts, [], 2)
    outputs = out_of_fold(kind, matrix, labels, hash_texts([texts]))
    assert outputs.sum(axis=1) == pytest.approx(np.ones(302))
    assert (kind.decode(outputs)[[0, 300, 301]] == LABELS[0]).all()


def test_labels_that_were_flipped_are_found() -> None:
    kind, flipped = task_kind(["no", "yes"], "yes"), np.arange(0, 300, 25)
    labels = LABELS.copy()
    labels[flipped] = 1 - labels[flipped]
    matrix, _ = features(TEXTS, [], 2)
    doubted = kind.suspect_labels(labels, out_of_fold(kind, matrix, labels, hash_texts([TEXTS])))
    assert set(doubted[:6]) <= set(flipped)
    assert len(set(doubted) & set(flipped)) >= 9
    assert len(doubted) < 60
