"""The process of `reprise serve`: it starts, drains under load at SIGTERM, and starts again after kill -9."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from reprise.core.files import read_json, write_json
from reprise.serve.server import open_socket
from served import make_texts
from tiny import ROOT, Run

Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start(exported: Callable[[str], Path], tmp_path: Path) -> Iterator[Start]:
    """Start a server and return it with its address; `start("--queue", "8")` takes options."""
    running: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "reprise", "serve", str(exported("classification")), "--port", "0", *options]
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"}
        log = (tmp_path / f"log{len(running)}").open("w+")
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log, text=True)
        running.append(process)
        for _ in range(1200):
            lines = Path(log.name).read_text().splitlines()
            if lines:
                return process, json.loads(lines[0])["url"]
            assert process.poll() is None, Path(log.name).read_text()
            time.sleep(0.05)
        raise AssertionError("the server does not start")

    yield start
    for process in running:
        process.kill()
        process.wait()


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return the log of the first server; every line is JSON."""
    return [json.loads(line) for line in (folder / "log0").read_text().splitlines()]


def test_no_answer_waits_for_an_acknowledgement() -> None:
    with open_socket("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_sigterm_under_load_answers_what_was_accepted_and_exits_0(start: Start, tmp_path: Path) -> None:
    process, url = start("--threads", "1")
    assert httpx2.get(f"{url}/ready").status_code == 200
    statuses: list[int | str] = []
    stop = threading.Event()

    def load() -> None:
        body = {"inputs": make_texts(28)}
        with httpx2.Client(timeout=30) as client:
            while not stop.is_set():
                try:
                    statuses.append(client.post(f"{url}/predict", json=body).status_code)
                except httpx2.ConnectError:  # the server has ended
                    return
                except httpx2.HTTPError as error:
                    statuses.append(repr(error))

    clients = [threading.Thread(target=load) for _ in range(6)]
    for client in clients:
        client.start()
    while statuses.count(200) < 12:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    stop.set()
    for client in clients:
        client.join()
    lines = logged(tmp_path)
    drained = next(index for index, line in enumerate(lines) if line["event"] == "drain")
    after = [line["status"] for line in lines[drained:] if line["event"] == "request"]
    assert set(after) <= {200, 503}
    # The server answered every request that it logged; a connection that it closed had none in flight.
    assert statuses.count(200) == sum(line.get("status") == 200 and line["path"] == "/predict" for line in lines)
    assert lines[-1]["event"] == "stop"
    assert "the film" not in (tmp_path / "log0").read_text()


def test_a_killed_server_starts_again(start: Start) -> None:
    process, url = start()
    port = url.rsplit(":", 1)[1]
    before = httpx2.post(f"{url}/predict", json={"inputs": "a funny film"}).json()
    process.kill()
    process.wait()
    _, again = start("--port", port)
    assert again == url
    assert httpx2.post(f"{url}/predict", json={"inputs": "a funny film"}).json() == before


def test_what_cannot_be_served_is_an_error_in_one_line(
    exported: Callable[[str], Path], reprise: Run, tmp_path: Path, start: Start
) -> None:
    def error(*arguments: str) -> str:
        return reprise(tmp_path, "serve", *arguments, code=2).stderr.strip()

    assert "no model in ONNX" in error(str(tmp_path))
    assert "not found" in error(str(tmp_path / "onnx/model.onnx"))
    changed = tmp_path / "changed"
    subprocess.run(["cp", "-r", exported("classification"), changed], check=True)
    write_json(changed / "config.json", read_json(changed / "config.json") | {"pad_token_id": 1})
    assert "not the file that onnx/evaluation.json judged" in error(str(changed))
    _, url = start()
    assert "cannot listen on 127.0.0.1" in error(str(exported("classification")), "--port", url.rsplit(":", 1)[1])
