"""Every answer of a server is the one of `reprise predict`, whatever else is asked at the same time."""

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reprise.core.files import read_json
from reprise.onnx.model import OnnxModel
from served import ask_all, make_texts, serving


def rows_of(columns: list[str], texts: list[str]) -> list[list[str]]:
    """Return a row of each text, or of each pair of neighbours."""
    return [[text] for text in texts] if len(columns) == 1 else [list(pair) for pair in pairwise(texts)]


@pytest.mark.parametrize("file", ["model.onnx", "model_quantized.onnx"])
@pytest.mark.parametrize(
    "kind",
    [
        "classification",
        "pairs",
        "entities",
        # An export takes seconds.
        *(pytest.param(kind, marks=pytest.mark.full) for kind in ("multi_label", "regression")),
    ],
)
def test_every_row_has_the_answer_of_predict_in_any_mix(exported: Callable[[str], Path], kind: str, file: str) -> None:
    folder = exported(kind)
    model = OnnxModel(folder / "onnx" / file)
    task = model.recipe.kind
    rows = rows_of(model.recipe.task.text_columns, make_texts(60))
    logits, words = model([tuple(row) for row in rows])
    expected = list(task.predictions(logits, None, words))
    bodies: list[Any] = []
    draw, asked = random.Random(1), []
    for _ in range(40):
        chosen = draw.choices(range(len(rows)), k=draw.randint(1, 9))
        asked.append(chosen)
        bodies.append({"inputs": [rows[index] for index in chosen]})
    with serving(folder, file) as service:
        answers = ask_all(service, bodies)
    assert {answer.status_code for answer in answers} == {200}
    for chosen, answer in zip(asked, answers, strict=True):
        for index, row in zip(chosen, answer.json(), strict=True):
            wanted = expected[index]
            if kind == "regression":
                assert row == [{"value": wanted["label"]}]
            elif kind == "entities":
                names = ("start", "end", "label", "score")
                assert [[each[name] for name in names] for each in row] == [
                    [each[name] for name in names] for each in wanted["entities"]
                ]
                assert [each["word"] for each in row] == [each["text"] for each in wanted["entities"]]
                assert all(each["entity_group"] == each["label"] for each in row)
            else:
                assert {each["label"]: each["score"] for each in row} == wanted["probabilities"]
                assert [each["score"] for each in row] == sorted((each["score"] for each in row), reverse=True)
                if kind == "multi_label":
                    assert {each["label"] for each in row if each["predicted"]} == set(wanted["labels"])
                else:
                    assert row[0]["label"] == wanted["label"]


def test_the_shapes_are_those_of_the_hub_and_of_tei(exported: Callable[[str], Path]) -> None:
    text = "a funny story"
    with serving(exported("classification")) as service:
        bodies = [
            {"inputs": text},
            {"inputs": [text, "dull"]},
            {"inputs": text, "parameters": {"top_k": 1}},
            {"inputs": text, "parameters": {}},
            {"inputs": text, "raw_scores": False},
            {"inputs": text, "truncate": True},
            {"inputs": [[text]], "truncate": True},
            {"inputs": text, "raw_scores": True},
        ]
        hub, batch, top, bare, tei, cut, tei_batch, raw = (answer.json() for answer in ask_all(service, bodies))
        logits, _ = service.model([(text,)])
    (labels,) = hub
    assert [each.keys() for each in labels] == [{"label", "score"}] * 2
    assert batch[0] == labels
    assert len(batch) == 2
    assert top == [labels[:1]]
    assert bare == [labels]
    assert tei == cut == labels
    assert tei_batch == [labels]
    assert sorted(each["score"] for each in raw) == pytest.approx(sorted(logits[0].tolist()), abs=1e-6)
    with serving(exported("pairs")) as service:
        hub, batch, tei = (
            answer.json()
            for answer in ask_all(
                service,
                [
                    {"inputs": [text, "dull"]},
                    {"inputs": [[text, "dull"]]},
                    {"inputs": [text, "dull"], "truncate": True},
                ],
            )
        )
    assert hub == batch
    assert tei == hub[0]
    with serving(exported("entities")) as service:
        alone, batch = (answer.json() for answer in ask_all(service, [{"inputs": text}, {"inputs": [text]}]))
    assert batch == [alone]


def test_a_text_that_is_too_long_is_cut_unless_the_request_forbids_it(exported: Callable[[str], Path]) -> None:
    long = "the film " * 20
    with serving(exported("classification")) as service:
        cut, refused, short = ask_all(
            service,
            [
                {"inputs": long},
                {"inputs": long, "truncate": False},
                {"inputs": "the film", "truncate": False},
            ],
        )
    assert (cut.status_code, refused.status_code, short.status_code) == (200, 413, 200)
    assert refused.json()["error"] == "a text is too long; expected at most 16 tokens, or `truncate: true`"


def test_info_describes_the_model(exported: Callable[[str], Path]) -> None:
    folder = exported("classification")
    with serving(folder) as service:
        info = service.info
    assert info["labels"] == ["rotten", "fresh"]
    assert info["precision"] == "fp32"
    assert info["sha256"] == {
        "onnx/model.onnx": read_json(folder / "onnx/evaluation.json")["files"]["model.onnx"]["sha256"],
        **read_json(folder / "onnx/evaluation.json")["beside"],
    }
    assert info["evaluation"] == {
        "split": "test", "num_examples": 8, "metric": "accuracy", "value": 0.75, "ci95": [0.5, 0.875],
    }  # fmt: skip
    assert info["attestations"] == []
    assert json.loads(json.dumps(info)) == info
