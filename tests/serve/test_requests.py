"""Bad requests have one kind of answer; the limits hold; logs have no texts, and metrics count."""

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from reprise.onnx.model import OnnxModel
from reprise.serve.app import Service, create_app
from served import ask_all, serving

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def service(exported: Callable[[str], Path]) -> Iterator[Service]:
    """A service with small limits."""
    with serving(exported("classification"), rows=4, chars=100, body=2000, queue=16) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        yield client


BAD: list[tuple[Any, int, str]] = [
    (b"", 400, "malformed JSON"),
    (b"{", 400, "malformed JSON"),
    (b'{"inputs": "a"} {}', 400, "malformed JSON"),
    (b'{"inputs": "\xff"}', 400, "malformed JSON"),
    (b'{"inputs": "\\ud800"}', 400, "malformed JSON"),
    (b'{"inputs": NaN}', 400, "malformed JSON"),
    (b'{"inputs": Infinity}', 400, "malformed JSON"),
    (b'{"inputs": "a", "raw_scores": 1e999}', 422, "raw_scores"),
    (b"[" * 1000, 400, "malformed JSON"),
    (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", 400, "malformed JSON"),
    (b'{"a":' * 300 + b"1" + b"}" * 300, 400, "malformed JSON"),
    ([], 422, "expected an object"),
    ("a", 422, "expected an object"),
    (None, 422, "expected an object"),
    ({}, 422, "no key `inputs`"),
    ({"inputs": None}, 422, "expected a text"),
    ({"inputs": 1}, 422, "expected a text"),
    ({"inputs": {"text": "a"}}, 422, "expected a text"),
    ({"inputs": ["a", 1]}, 422, "expected a text"),
    ({"inputs": ["a", ["b"]]}, 422, "expected a text"),
    ({"inputs": [["a"], "b"]}, 422, "expected a text"),
    ({"inputs": [[["a"]]]}, 422, "expected a text"),
    ({"inputs": []}, 400, "`inputs` is empty"),
    ({"inputs": [[]]}, 422, "row 0 has 0 texts; expected one text"),
    ({"inputs": [["a"], ["a", "b"]]}, 422, "row 1 has 2 texts; expected one text"),
    ({"inputs": "a", "input": "b"}, 422, "unknown key `input`"),
    ({"inputs": "a", "x" * 500: "b"}, 422, "unknown key `xxx"),
    ({"inputs": "a", "\x1b[2J\n": 1}, 422, r"unknown key `\x1b[2J\n`"),
    ({"inputs": "a", "parameters": {"k": 1}}, 422, "unknown key `parameters.k`"),
    ({"inputs": "a", "parameters": []}, 422, "parameters"),
    ({"inputs": "a", "parameters": {"top_k": 0}}, 422, "parameters.top_k"),
    ({"inputs": "a", "parameters": {"top_k": "1"}}, 422, "parameters.top_k"),
    ({"inputs": "a", "parameters": {"top_k": True}}, 422, "parameters.top_k"),
    ({"inputs": "a", "parameters": {"top_k": 1.5}}, 422, "parameters.top_k"),
    ({"inputs": "a", "raw_scores": "yes"}, 422, "raw_scores"),
    ({"inputs": "a", "truncate": 1}, 422, "truncate"),
    ({"inputs": "a", "truncate": None}, 422, "truncate"),
    ({"inputs": "a", "truncate": True, "parameters": {}}, 422, "expected either"),
    ({"inputs": ["a"] * 5}, 413, "5 rows; expected at most 4"),
    ({"inputs": "a" * 101}, 413, "expected at most 100 characters"),
    ({"inputs": "a" * 3000}, 413, "expected at most 2000 bytes"),
]


@pytest.mark.parametrize(("body", "status", "problem"), BAD, ids=lambda value: str(value)[:30])
def test_a_bad_request_is_answered_in_one_shape(client: TestClient, body: Any, status: int, problem: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/predict", content=content, headers=JSON)
    error = answer.json()
    assert (answer.status_code, error.keys()) == (status, {"error", "error_type"})
    assert problem in error["error"]
    assert len(error["error"]) < 200
    assert error["error"].isprintable()
    assert error["error_type"] == ("empty" if "is empty" in problem else "validation")


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        ("pairs", {"inputs": "a"}, "row 0 has 1 texts; expected two texts (first, second)"),
        ("pairs", {"inputs": ["a"]}, "row 0 has 1 texts"),
        ("pairs", {"inputs": ["a", "b", "c"]}, "row 0 has 3 texts"),
        ("entities", {"inputs": "a", "raw_scores": True}, "this one predicts entities"),
        ("entities", {"inputs": "a", "parameters": {"top_k": 1}}, "this one predicts entities"),
    ],
)
def test_what_a_model_cannot_answer_is_refused(
    exported: Callable[[str], Path], kind: str, body: Any, problem: str
) -> None:
    with serving(exported(kind)) as service:
        (answer,) = ask_all(service, [body])
    assert answer.status_code == 422
    assert problem in answer.json()["error"]


def test_wrong_paths_methods_and_types_have_the_same_shape(client: TestClient) -> None:
    answers = [
        (client.get("/nothing"), 404),
        (client.get("/predict/"), 404),
        (client.get("/predict"), 405),
        (client.put("/predict", json={}), 405),
        (client.post("/health"), 405),
        (client.post("/predict", data={"inputs": "a"}), 415),
        (client.post("/predict", content=b'{"inputs": "a"}'), 415),
        (client.post("/predict", content=b'{"inputs": "a"}', headers={"content-type": "text/plain"}), 415),
    ]
    for answer, status in answers:
        assert answer.status_code == status
        assert answer.json().keys() == {"error", "error_type"}
    typed = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/predict", content=b'{"inputs": "a"}', headers=typed).status_code == 200


def test_a_body_without_a_length_is_limited_too(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    assert client.post("/predict", content=chunks(), headers=JSON).status_code == 413


class SlowModel:
    """A model whose batches wait until the test lets them pass."""

    def __init__(self, model: OnnxModel) -> None:
        self.model, self.pass_on = model, threading.Event()

    def run(self, rows: list[Any]) -> Any:
        self.pass_on.wait(30)
        return self.model.run(rows)


def hold(service: Service) -> SlowModel:
    """Let the threads of a service wait."""
    slow = SlowModel(service.model)
    service.queue._run = slow.run
    return slow


def test_a_full_queue_refuses_further_rows_until_others_are_answered(exported: Callable[[str], Path]) -> None:
    with serving(exported("classification"), queue=6) as service:
        slow = hold(service)

        async def ask() -> list[httpx2.Response]:
            transport = httpx2.ASGITransport(app=create_app(service))
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                first = [asyncio.create_task(client.post("/predict", json={"inputs": ["a", "b"]})) for _ in range(3)]
                while service.queue.admitted < 6:
                    await asyncio.sleep(0.01)
                refused = await client.post("/predict", json={"inputs": "c"})
                alive = await client.get("/health")
                slow.pass_on.set()
                answered = [await each for each in first]
                return [refused, alive, *answered, await client.post("/predict", json={"inputs": "c"})]

        refused, *others = asyncio.run(ask())
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json() == {"error": "the queue of 6 rows is full", "error_type": "overloaded"}
        assert [answer.status_code for answer in others] == [200] * 5
        assert service.queue.admitted == 0


def test_a_request_that_takes_too_long_is_answered_and_its_rows_leave_the_queue(
    exported: Callable[[str], Path],
) -> None:
    with serving(exported("classification"), seconds=0.3) as service:
        slow = hold(service)
        answers = ask_all(service, [{"inputs": ["a", "b"]}] * 8)
        assert {answer.status_code for answer in answers} == {504}
        assert answers[0].json() == {"error": "no answer within 0.3 seconds", "error_type": "timeout"}
        assert (service.queue.waiting(), service.queue.admitted, service.in_flight) == (0, 0, 0)
        slow.pass_on.set()
        (later,) = ask_all(service, [{"inputs": "a"}])
        assert later.status_code == 200


def test_an_error_of_the_library_is_answered_and_the_threads_stay(
    exported: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(exported("classification")) as service:
        run = service.queue._run

        def fail(rows: list[Any]) -> Any:
            raise RuntimeError("a secret text")

        service.queue._run = fail
        failed = ask_all(service, [{"inputs": ["a", "b", "c"]}] * 4)
        service.queue._run = run
        (later,) = ask_all(service, [{"inputs": "a"}])
    assert [(each.status_code, each.json()) for each in failed] == [
        (500, {"error": "internal error", "error_type": "backend"})
    ] * 4
    assert later.status_code == 200
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["error"] for line in logged if line["event"] == "error"] == ["RuntimeError"] * 4
    assert "secret" not in json.dumps(logged)


def test_logs_are_json_without_texts_and_metrics_count(
    exported: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(exported("classification"), rows=2) as service:
        bodies = [
            {"inputs": ["secretword", "film"]},
            {"inputs": "secretword"},
            {"secretword": 1},
            {"inputs": ["a"] * 3},
        ]
        ask_all(service, bodies, at_once=1)
        with TestClient(create_app(service)) as client:
            client.get("/secretword?secretword")
            metrics = client.get("/metrics")
    out = capsys.readouterr().out
    assert "secretword" not in out
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["method"], line["path"], line["status"], line["rows"]) for line in lines] == [
        ("POST", "/predict", 200, 2),
        ("POST", "/predict", 200, 1),
        ("POST", "/predict", 422, 0),
        ("POST", "/predict", 413, 0),
        ("GET", "unknown", 404, 0),
        ("GET", "/metrics", 200, 0),
    ]
    assert all(line.keys() == {"time", "event", "method", "path", "status", "rows", "ms"} for line in lines)
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "secretword" not in metrics.text
    values = dict(line.rsplit(" ", 1) for line in metrics.text.splitlines() if not line.startswith("#"))
    assert values['reprise_requests_total{path="/predict",status="200"}'] == "2.0"
    assert values['reprise_requests_total{path="/predict",status="422"}'] == "1.0"
    assert values["reprise_rows_total"] == "3.0"
    assert values["reprise_batch_rows_sum"] == "3.0"
    assert values["reprise_queue_rows"] == "0.0"
    assert values['reprise_request_seconds_count{path="/predict"}'] == "4.0"


def test_a_server_that_drains_is_alive_but_not_ready(exported: Callable[[str], Path]) -> None:
    with serving(exported("classification")) as service, TestClient(create_app(service)) as client:
        assert client.get("/ready").status_code == 200
        service.draining = True
        assert [client.get(path).status_code for path in ("/health", "/ready", "/info")] == [200, 503, 200]
        refused = client.post("/predict", json={"inputs": "a"})
        assert (refused.status_code, refused.json()["error_type"]) == (503, "unhealthy")


def test_a_client_that_leaves_takes_its_rows_along(exported: Callable[[str], Path]) -> None:
    with serving(exported("classification")) as service:
        slow = hold(service)
        sent: list[Any] = []

        async def ask() -> None:
            messages = [
                {"type": "http.request", "body": b'{"inputs": ["a", "b", "c"]}', "more_body": False},
                {"type": "http.disconnect"},
            ]

            async def receive() -> Any:
                if len(messages) == 1:
                    while service.queue.admitted < 3:
                        await asyncio.sleep(0.01)
                return messages.pop(0)

            async def send(message: Any) -> None:
                sent.append(message)

            headers = [(b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
            await asyncio.wait_for(create_app(service)(scope, receive, send), 10)

        began = time.monotonic()
        asyncio.run(ask())
        assert time.monotonic() - began < 10
        assert (service.queue.waiting(), service.queue.admitted) == (0, 0)
        assert sent[0]["status"] == 499
        slow.pass_on.set()


def test_the_description_of_the_api_is_complete_and_its_page_loads_nothing(client: TestClient) -> None:
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {"/predict", "/health", "/ready", "/info", "/metrics"}
    named = set(api["components"]["schemas"])
    assert {"PredictRequest", "Parameters", "LabelScore", "Entity", "Value", "Error"} <= named
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(api))) <= named
    page = client.get("/docs")
    assert "script" not in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "://" not in page.text


SERVE = """
import sys
from pathlib import Path
import reprise.cli, reprise.commands.serve, reprise.serve.server
from reprise.onnx.files import check_judged
from reprise.onnx.model import OnnxModel
from reprise.serve.app import Limits, Service, create_app
from reprise.serve.info import describe_model

file = Path(sys.argv[1])
model = OnnxModel(file, 1)
service = Service(model, describe_model(file, model.recipe, check_judged(file)), Limits())
create_app(service)
service.close()
print(sorted({"torch", "transformers", "datasets", "pandas", "pyarrow", "sklearn", "onnx"} & set(sys.modules)))
"""


@pytest.mark.parametrize("kind", ["classification", "entities"])
def test_serving_imports_neither_torch_nor_transformers(exported: Callable[[str], Path], kind: str) -> None:
    command = [sys.executable, "-c", SERVE, str(exported(kind) / "onnx/model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_random_bodies_are_never_an_error_of_the_server(service: Service) -> None:
    draw = np.random.default_rng(0)
    valid = b'{"inputs": [["a film"], ["b"]], "parameters": {"top_k": 1}, "truncate": true}'
    bodies: list[Any] = []
    for _ in range(100):
        body = bytearray(valid)
        for place in draw.integers(0, len(body), draw.integers(1, 6)).tolist():
            body[place] = int(draw.integers(0, 256))
        bodies.append(bytes(body[: int(draw.integers(1, len(body) + 1))]))
    statuses = {answer.status_code for answer in ask_all(service, bodies)}
    assert statuses <= {200, 400, 413, 422}
