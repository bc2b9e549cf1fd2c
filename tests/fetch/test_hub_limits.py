"""A server in place of the Hub that stalls, sends without end, or names other places: one line, in bounded time."""

import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub import COMMIT, LocalHub, serving, use_hub
from reprise.core.config import HubDataset
from reprise.core.errors import UserError
from reprise.fetch.hub import download_dataset
from reprise.hub import limits as hub_limits

FILES = {
    "pairs/train-00000-of-00001.parquet": b"rows to train on",
    "pairs/validation-00000-of-00001.parquet": b"rows to validate on",
}
LIST, FILE = "/api/datasets/", "/resolve/"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A local Hub, which the client of this process asks; all patience is short, and retries are at once."""
    sleep = time.sleep
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: sleep(min(seconds, 0.05)))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for name, value in {"READ_TIMEOUT_S": 0.3, "STALL_S": 1.0, "LISTING_S": 1.5}.items():
        monkeypatch.setattr(hub_limits, name, value)
    with serving(LocalHub()) as server:
        use_hub(server, tmp_path / "cache", monkeypatch)
        server.add("dataset", "tiny/pairs", FILES)
        yield server


def download() -> list[tuple[str, Path]]:
    return download_dataset(HubDataset("hub", "tiny/pairs", "pairs", COMMIT))


def refused(within: float = 10) -> UserError:
    """Download what must be refused in so short a time; return the error."""
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        download()
    assert time.perf_counter() - start < within
    assert caught.value.key == "task.source"
    assert "hf_secret" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return caught.value


def change(server: LocalHub, of: str, method: str = "", **headers: str) -> None:
    """Change headers of the answers to some requests."""

    def lies(request: str, status: int, sent: dict[str, str], body: bytes) -> Any:
        return status, sent | (headers if of in request and request.startswith(method) else {}), body

    server.lies = lies


def replace(
    server: LocalHub, of: str, content: Any, status: int | None = None, method: str = "", **headers: str
) -> None:
    """Replace the content of the answers to some requests."""

    def lies(request: str, given: int, sent: dict[str, str], body: bytes) -> Any:
        if of not in request or not request.startswith(method):
            return given, sent, body
        made = content() if callable(content) else content
        length = {"Content-Length": str(len(made))} if isinstance(made, bytes) else {}
        return status or given, sent | length | headers, made

    server.lies = lies


def pieces(piece: bytes, pause: float) -> Iterator[bytes]:
    while True:
        yield piece
        time.sleep(pause)


def test_an_honest_server_passes(server: LocalHub) -> None:
    assert {split: file.read_bytes() for split, file in download()} == {
        "train": b"rows to train on",
        "validation": b"rows to validate on",
    }


@pytest.mark.parametrize("of", [LIST, FILE])
@pytest.mark.parametrize("pause", [0.02, 60], ids=["a byte at a time", "nothing more"])
def test_a_server_that_stalls_is_refused(server: LocalHub, of: str, pause: float) -> None:
    replace(server, of, lambda: pieces(b" ", pause), method="GET")
    assert refused()


def test_a_list_of_files_without_end_is_refused(server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    change(server, LIST, Link=f'<{server.endpoint}/api/datasets/tiny/pairs/tree/{COMMIT}?again>; rel="next"')
    assert "without an end" in refused().problem
    monkeypatch.setattr(hub_limits, "MAX_LISTING_BYTES", 2**22)
    replace(server, LIST, lambda: pieces(b" " * 2**20, 0))
    assert "without an end" in refused().problem


def test_a_file_without_a_length_and_an_end_is_refused(server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_limits, "MAX_UNSIZED_BYTES", 2**22)
    replace(server, FILE, lambda: pieces(b" " * 2**20, 0), method="GET")
    assert "4,194,304" in refused().problem


@pytest.mark.parametrize("of", [LIST, FILE])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "headers", [{"Retry-After": "86400"}, {"Retry-After": "9" * 5000}, {"RateLimit": '"api";r=0;t=86400'}]
)
def test_a_server_that_asks_to_wait_a_day_is_refused(
    server: LocalHub, of: str, status: int, headers: dict[str, str]
) -> None:
    replace(server, of, b"", status, **headers)
    assert "asks to wait" in refused().problem


def test_many_short_waits_are_bounded_together(server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_limits, "MAX_WAIT_S", 50.0)
    replace(server, LIST, b"", 429, **{"Retry-After": "20"})
    assert "asks to wait 20 s" in refused().problem


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 404, 401, 403, 418, 204, 304, 302])
@pytest.mark.parametrize("of", [LIST, FILE])
def test_every_status_of_a_server_is_one_line(server: LocalHub, of: str, status: int) -> None:
    replace(server, of, b"", status)
    assert refused()


@pytest.mark.parametrize(
    "content",
    [b"<html>Sign in to this network</html>", b"", b"null", b"[1]", b"[{}]", b"[" * 100_000, b"9" * 5000, b"\xff"],
    ids=["page", "nothing", "null", "number", "empty", "deep", "digits", "bytes"],
)
def test_something_else_in_place_of_the_list_of_files_is_one_line(server: LocalHub, content: bytes) -> None:
    replace(server, LIST, content)
    assert refused()


def test_a_file_that_the_disk_cannot_hold_is_refused_before_it_fills(server: LocalHub) -> None:
    change(server, FILE, "HEAD", **{"X-Linked-Size": str(10**18)})
    assert "Not enough free disk space" in refused().problem


def test_a_page_in_place_of_a_file_is_refused(server: LocalHub, tmp_path: Path) -> None:
    replace(server, FILE, b"<html>Sign in to this network</html>")
    assert "rows" not in refused().problem
    server.lies = None
    assert dict(download())["train"].read_bytes() == b"rows to train on"  # nothing of it is left in the cache


@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag"])
@pytest.mark.parametrize("etag", ['"../../../../escaped"', '"/tmp/escaped"', '"' + "a" * 3000 + '"', '"a/b"', '".."'])
def test_an_etag_that_leaves_the_cache_of_the_client_is_refused(
    server: LocalHub, tmp_path: Path, header: str, etag: str
) -> None:
    change(server, FILE, **{header: etag})
    assert "ETag" in refused().problem
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "scratch"}


def test_a_file_of_another_commit_is_refused(server: LocalHub) -> None:
    for commit in ("f" * 40, "../../../escaped"):
        change(server, FILE, **{"X-Repo-Commit": commit})
        assert refused().expected == COMMIT


@pytest.mark.parametrize(
    "path", ["../train.parquet", "/tmp/train.parquet", "pairs/../../train-0.parquet", "pairs/..-0.parquet"]
)
def test_paths_outside_of_the_repository_are_not_downloaded(server: LocalHub, tmp_path: Path, path: str) -> None:
    server.repositories.clear()
    server.add("dataset", "tiny/pairs", {path: b"escaped"})
    with pytest.raises(UserError):
        download()
    assert {file.name for file in tmp_path.iterdir()} == {"cache", "scratch"}


@pytest.mark.parametrize("of", [LIST, FILE])
@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http:///", "//", "/", "http://[", "x" * 9000]
)
def test_a_redirect_to_no_web_server_is_one_line(server: LocalHub, of: str, location: str) -> None:
    replace(server, of, b"", 302, Location=location)
    assert refused()


def test_the_token_is_sent_to_no_other_server(server: LocalHub) -> None:
    with serving(LocalHub()) as other:
        seen: list[str] = []
        other.add("dataset", "tiny/pairs", FILES)
        other.lies = lambda request, status, headers, body: (seen.append(request), (status, headers, body))[1]
        change(server, LIST, Link=f'<{other.endpoint}/api/datasets/tiny/pairs/tree/{COMMIT}>; rel="next"')
        assert "with the token" in refused().problem
        assert seen == []


def test_an_answer_packed_unasked_is_refused(server: LocalHub) -> None:
    packed = gzip.compress(b" " * 2**20)
    for of in (LIST, FILE):
        replace(server, of, packed, **{"Content-Encoding": "gzip"})
        assert "packed with gzip" in refused().problem


def test_more_files_than_a_table_may_have_are_refused(server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reprise.hub.client.MAX_FILES", 1)
    assert "2 such files" in refused().problem
