"""The process of `reprise serve`: its socket, its signals, and its end."""

import asyncio
import gc
import logging
import signal
import socket
import sys
from typing import Any

import uvicorn

from reprise.core.errors import UserError
from reprise.serve.access import log
from reprise.serve.app import Service, create_app

CLOSE_SECONDS = 5  # for clients that read their answer slowly; then connections are cut
POLL_SECONDS = 0.05


class JsonHandler(logging.Handler):
    """Log the warnings of uvicorn, such as an invalid request, as lines of JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, without a traceback: access.py logs errors."""
        log("server", level=record.levelname.lower(), message=record.getMessage())


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        UserError: it cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error}",
            key="serve --host, --port",
            expected="a free port of this machine",
        ) from None
    # Connections inherit it. asyncio sets it only for sockets that it makes; without, the second answer on a connection
    # waits 40 ms for the client's acknowledgement of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def run(service: Service, listening: socket.socket) -> None:
    """Serve until a signal, and then until the accepted requests are answered; a second signal ends at once."""
    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.level, logger.propagate = [JsonHandler()], logging.WARNING, False
    # Python's collector would search the model, the tokenizer and all modules again and again.
    gc.collect()
    gc.freeze()
    asyncio.run(_serve(service, listening))
    service.close()


async def _serve(service: Service, listening: socket.socket) -> None:
    """Run uvicorn, which ends by itself once the service has drained."""
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    server = uvicorn.Server(config)

    # Uvicorn's own handler closes the socket at once, so that nobody could see at /ready that the server drains, and
    # ends the process with the signal instead of 0.
    def stop(number: int, _: Any) -> None:
        if service.draining:
            sys.exit(128 + number)
        service.draining = True

    server.handle_exit = stop

    async def stop_when_drained() -> None:
        while not service.draining:
            await asyncio.sleep(POLL_SECONDS)
        log("drain", in_flight=service.in_flight)
        while service.in_flight:
            await asyncio.sleep(POLL_SECONDS)
        server.should_exit = True

    host, port = listening.getsockname()[:2]
    log("start", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", model=service.info["model"])
    for number in (signal.SIGINT, signal.SIGTERM):  # until uvicorn has set them
        signal.signal(number, stop)
    watch = asyncio.create_task(stop_when_drained())
    await server.serve(sockets=[listening])
    await watch
    log("stop")
