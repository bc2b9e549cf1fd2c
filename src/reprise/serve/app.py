"""The routes of `reprise serve`.

FastAPI, since the pydantic models of schemas.py give it the OpenAPI description that /docs shows. Bodies are read
here, not by FastAPI: with a limit on bytes and seconds, and only for a request that has a place in the queue.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from reprise.core.display import to_json
from reprise.onnx.model import OnnxModel
from reprise.serve.access import AccessLog
from reprise.serve.metrics import TEXT_FORMAT, Metrics
from reprise.serve.pages import PLAYGROUND, PLAYGROUND_POLICY, REFERENCE_POLICY, render_reference
from reprise.serve.queue import BatchQueue, Job, QueueFullError
from reprise.serve.schemas import (
    Entity,
    Error,
    LabelScore,
    PredictRequest,
    RequestError,
    Value,
    Wanted,
    format_answers,
    parse_request,
)

RETRY_AFTER = "1"  # seconds, in which a full queue of short texts is answered
CLIENT_GONE = 499  # in logs and metrics only: nobody reads the answer


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes:
        rows: of a request.
        chars: of a text.
        body: bytes.
        queue: rows of all requests together that are not yet answered.
        seconds: from the first byte to the answer.
    """

    rows: int = 32
    chars: int = 100_000
    body: int = 1_000_000
    queue: int = 512
    seconds: float = 30


class Service:
    """A model, its queue and its metrics.

    Attributes:
        draining: whether the server ends after the requests that it has.
        in_flight: requests to /predict that are not answered.
    """

    def __init__(self, model: OnnxModel, info: dict[str, Any], limits: Limits) -> None:
        """Start the threads of the queue.

        Args:
            model: computes the logits.
            info: the content of /info, see `describe_model`.
            limits: of requests.
        """
        self.model, self.info, self.limits = model, info | {"limits": asdict(limits)}, limits
        self.kind = model.recipe.kind
        self.draining, self.in_flight = False, 0
        self.metrics = Metrics(lambda: self.queue.waiting())
        self.queue = BatchQueue(
            model.run,
            capacity=limits.queue,
            rows_per_batch=model.rows_per_run,
            threads=model.threads,
            on_batch=self.metrics.count_batch,
        )
        self.tokenizers = ThreadPoolExecutor(model.threads, thread_name_prefix="tokenizer")
        # The first call sets the limits of the tokenizer, which it cannot while another thread uses it; and it imports
        # what computes probabilities.
        logits, words = model([tuple("a" for _ in model.recipe.task.text_columns)])
        list(self.kind.predictions(logits, None, words))

    def close(self) -> None:
        """End the threads."""
        self.queue.close()
        self.tokenizers.shutdown()

    async def predict(self, request: Request) -> Response:
        """Answer texts with labels, entities or numbers."""
        self.in_flight += 1
        try:
            return await self._predict(request)
        except QueueFullError:
            raise RequestError(
                429, f"the queue of {self.limits.queue} rows is full", "overloaded", Retry_After=RETRY_AFTER
            ) from None
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        finally:
            self.in_flight -= 1

    async def _predict(self, request: Request) -> Response:
        """Read, check, queue and answer a request."""
        if self.draining:
            raise RequestError(503, "the server is shutting down", "unhealthy", Connection="close")
        check_content_type(request)
        ends = asyncio.get_running_loop().time() + self.limits.seconds
        with self.queue.admit(1) as admission:
            try:
                async with asyncio.timeout_at(ends):
                    body = await read_body(request, self.limits.body)
            except TimeoutError:
                raise RequestError(408, "the body did not arrive in time", "timeout", Connection="close") from None
            wanted = parse_request(body, self.model.recipe, max_rows=self.limits.rows, max_chars=self.limits.chars)
            request.state.rows = len(wanted.texts)
            admission.grow(len(wanted.texts))
            answer = asyncio.ensure_future(self._answer(wanted, admission.grow))
            gone = asyncio.ensure_future(wait_until_gone(request))
            try:
                async with asyncio.timeout_at(ends):
                    await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                raise RequestError(504, f"no answer within {self.limits.seconds:g} seconds", "timeout") from None
            finally:
                gone.cancel()
                if not answer.done():
                    answer.cancel()
                    with suppress(asyncio.CancelledError):
                        await answer
            if answer.cancelled():
                raise ClientDisconnect
            return json_response(answer.result())

    async def _answer(self, wanted: Wanted, grow: Callable[[int], None]) -> list[Any]:
        """Tokenize the texts of a request, and wait for its rows."""
        loop = asyncio.get_running_loop()
        columns, words = await loop.run_in_executor(self.tokenizers, self._tokenize, wanted)
        rows = self.model.rows(columns)
        if len(rows) > self.limits.queue:
            raise RequestError(413, f"the texts have {len(rows)} windows; expected at most {self.limits.queue}")
        grow(len(rows))
        job = Job(rows, lambda outputs: format_answers(self.kind, wanted, self.model.join(columns, outputs), words))
        self.queue.submit(job)
        try:
            answer: list[Any] = await asyncio.wrap_future(job.answer)
            return answer
        finally:
            if not job.answer.done() or job.answer.cancelled():
                self.queue.cancel(job)

    def _tokenize(self, wanted: Wanted) -> tuple[dict[str, Any], list[Any]]:
        """Tokenize the texts of a request; with `truncate: false`, texts that are too long are refused."""
        if not wanted.truncate and not self.model.fits(wanted.texts):
            tokens = self.model.recipe.train.max_length
            raise RequestError(413, f"a text is too long; expected at most {tokens} tokens, or `truncate: true`")
        return self.model.tokenize(wanted.texts)

    async def health(self) -> Response:
        """Answer while the process is alive."""
        return json_response({"status": "ok"})

    async def ready(self) -> Response:
        """Answer 200 if requests are welcome, 503 while the server shuts down."""
        if self.draining:
            raise RequestError(503, "the server is shutting down", "unhealthy")
        return json_response({"status": "ready"})

    async def describe(self) -> Response:
        """Describe the model: labels, precision, digests, and its metric on the evaluation split."""
        return json_response(self.info)

    async def prometheus(self) -> Response:
        """Return the metrics for Prometheus."""
        return Response(self.metrics.render(), media_type=TEXT_FORMAT)


def create_app(service: Service) -> Callable[..., Awaitable[None]]:
    """Return the ASGI application of a service."""
    app = FastAPI(
        title=f"Reprise: {service.info['model']}",
        version=service.info["version"],
        description="Predictions of a model that `reprise export` wrote.",
        docs_url=None,  # FastAPI's page loads its scripts from another host; /docs is our own
        redoc_url=None,
    )
    app.router.redirect_slashes = False
    answers = {
        "content": {"application/json": {"schema": {"anyOf": [
            {"type": "array", "items": {"type": "array", "items": {"anyOf": [
                {"$ref": f"#/components/schemas/{model.__name__}"} for model in (LabelScore, Entity, Value)
            ]}}},
            {"type": "array", "items": {"$ref": "#/components/schemas/LabelScore"}},
        ]}}},
        "description": "A list with the answer to each row: labels, best first; entities; or one value. The answer to "
        "a single text is that of the row, if the request has TEI's keys or the model finds entities.",
    }  # fmt: skip
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/PredictRequest"}}}
    app.add_api_route(
        "/predict",
        service.predict,
        methods=["POST"],
        response_model=None,
        responses={200: answers, **{status: {"model": Error, "description": HTTPStatus(status).phrase} for status in (
            400, 408, 413, 415, 422, 429, 503, 504,
        )}},
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )  # fmt: skip
    for path, answer in (
        ("/health", service.health),
        ("/ready", service.ready),
        ("/info", service.describe),
        ("/metrics", service.prometheus),
    ):
        app.add_api_route(path, answer, methods=["GET"], response_model=None)
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        """Add the models of /predict, which FastAPI does not see."""
        if not app.openapi_schema:
            found: dict[str, Any] = generated()
            models = [(each, "validation") for each in (PredictRequest, LabelScore, Entity, Value)]
            _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
            found["components"]["schemas"] |= schemas["$defs"]
            app.openapi_schema = found
        return dict(app.openapi_schema)

    app.openapi = openapi
    reference = render_reference(openapi())
    for path, page, policy in (("/", PLAYGROUND, PLAYGROUND_POLICY), ("/docs", reference, REFERENCE_POLICY)):
        app.add_api_route(
            path, partial(html_page, page, policy), methods=["GET"], response_model=None, include_in_schema=False
        )
    app.add_exception_handler(RequestError, answer_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(Exception, answer_failure)
    return AccessLog(app, service.metrics, {route.path for route in app.routes})


async def html_page(page: str, policy: str) -> Response:
    """Return a page that may load nothing from elsewhere."""
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(page, headers=headers)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return JSON, as `reprise predict` writes it."""
    return Response(
        to_json(content), status, {"X-Content-Type-Options": "nosniff"} | (headers or {}), "application/json"
    )


async def answer_error(_: Request, error: RequestError) -> Response:
    """Answer a request that is refused."""
    return json_response({"error": error.problem, "error_type": error.error_type}, error.status, error.headers)


async def answer_http_error(_: Request, error: HTTPException) -> Response:
    """Answer an unknown path or a wrong method."""
    content = {"error": error.detail, "error_type": "validation"}
    return json_response(content, error.status_code, dict(error.headers or {}))


async def answer_failure(_: Request, __: Exception) -> Response:
    """Answer after an error of the server, which access.py logs."""
    return json_response({"error": "internal error", "error_type": "backend"}, 500)


def check_content_type(request: Request) -> None:
    """Check that a request says that it is JSON; a form of another site cannot.

    Raises:
        RequestError: it does not.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "expected the header `Content-Type: application/json`", Connection="close")


async def read_body(request: Request, limit: int) -> bytes:
    """Read a body.

    Raises:
        RequestError: it has more bytes than the limit.
        ClientDisconnect: the client has closed the connection.
    """
    too_large = RequestError(413, f"the body is too large; expected at most {limit} bytes", Connection="close")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


async def wait_until_gone(request: Request) -> None:
    """Return when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
