"""Log a line of JSON for each request and each error of the server.

No line has a text, a key or a path of a client.
"""

import time
import traceback
from collections.abc import Awaitable, Callable, Container, MutableMapping
from datetime import UTC, datetime
from typing import Any

from reprise.core.display import echo, to_json
from reprise.serve.metrics import Metrics

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def log(event: str, **fields: Any) -> None:
    """Write a line to standard output."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    echo(to_json({"time": now, "event": event, **fields}))


class AccessLog:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, metrics: Metrics, paths: Container[str]) -> None:
        """Wrap an application; other paths than these are counted and logged as "unknown"."""
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request, count it and log it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            # Where, but not the message of the error, which may have a text.
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
            log("error", error=type(error).__name__, where=where)
        finally:
            seconds = time.perf_counter() - began
            path = scope["path"] if scope["path"] in self.paths else "unknown"
            rows = scope.get("state", {}).get("rows", 0)
            self.metrics.count_request(path, status, rows, seconds)
            method = scope["method"] if scope["method"] in METHODS else "other"
            log("request", method=method, path=path, status=status, rows=rows, ms=round(1000 * seconds, 1))
