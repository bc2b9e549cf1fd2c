"""What the Hub's client may be sent: a server that stalls, sends without end, or names other places ends in one line.

The checks are hooks of the client, which sees every request and answer, also those of redirects and of further pages.
"""

import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils._http import default_client_factory

from reprise.core.errors import UserError

READ_TIMEOUT_S = 10.0  # without a byte; the client tries again a few times
STALL_S = 60.0  # without an answer or MIN_RATE, over all tries
MIN_RATE = 10_000  # bytes per second
MAX_WAIT_S = 300.0  # that the server may ask for with Retry-After, in all: the Hub counts requests per 5 minutes
LISTING_S = 300.0  # for the list of a repository's files, over all its pages
MAX_LISTING_BYTES = 2**27  # some 500,000 files
MAX_UNSIZED_BYTES = 2**26  # of an answer without a length; the Hub gives the length of every large file


class Limits:
    """The limits of one download, as hooks of its HTTP client.

    Args:
        place: what errors name, such as `tiny/encoder`.
        revision: the commit whose files may be sent.
        key: key of the recipe.
    """

    def __init__(self, place: str, revision: str, key: str) -> None:
        """Begin with the time that the server has to answer."""
        self.place, self.revision, self.key = place, revision, key
        self.started = self.since = time.monotonic()  # `since` the last progress
        self.received = 0  # bytes since then
        self.waited = 0.0
        self.listed = 0

    def client(self) -> httpx2.Client:
        """Return the Hub's own client with these hooks."""
        client = default_client_factory()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], self.check_request],
            "response": [*hooks["response"], self.check_response],
        }
        return client

    def check_request(self, request: httpx2.Request) -> None:
        """Refuse requests to other places than HTTP servers, and the token for others than the Hub.

        Raises:
            UserError: also if earlier requests took too long.
        """
        self.check_progress()
        endpoint, host = urlsplit(constants.ENDPOINT), request.url
        if host.scheme not in ("https", endpoint.scheme):
            raise self.error(f"is sent on to {host.scheme}://{host.host}", "https")
        if "authorization" in request.headers and host.netloc.decode() != endpoint.netloc:
            raise self.error(f"is sent on to {host.host} with the token", f"{endpoint.netloc} only")
        request.headers["Accept-Encoding"] = "identity"  # else a small answer could unpack to a large one
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            name: min(limits.get(name) or READ_TIMEOUT_S, READ_TIMEOUT_S)
            for name in ("connect", "read", "write", "pool")
        }

    def check_response(self, response: httpx2.Response) -> None:
        """Check the headers of an answer, and watch its content.

        Raises:
            UserError: the client would wait too long, write outside of its cache, or unpack the answer.
        """
        headers = response.headers
        if response.status_code >= 400:
            self.check_wait(headers)
        else:
            self.since, self.received = time.monotonic(), 0
        etag = headers.get("X-Linked-Etag") or headers.get("ETag") or ""
        if not re.fullmatch(r'(W/)?"?[\w.+=:-]{,200}"?', etag, re.ASCII) or ".." in etag:
            raise self.error(f"has the ETag {etag[:80]!r}", "a digest")
        if (commit := headers.get("X-Repo-Commit", self.revision)) != self.revision:
            raise self.error(f"sends a file of the commit {commit[:80]!r}", self.revision)
        if headers.get("Content-Encoding", "identity") != "identity":
            raise self.error(f"is packed with {headers['Content-Encoding'][:20]}, unasked", "the file itself")
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Watched(response.stream, self, response)

    def check_wait(self, headers: httpx2.Headers) -> None:
        """Count the seconds that the server asks to wait."""
        asked = [headers.get("Retry-After", ""), *re.findall(r"(?<![a-z])t=(\d+)", headers.get("RateLimit", ""))]
        wait = max((float(text[:9]) for text in asked if re.fullmatch(r"\d+", text, re.ASCII)), default=0.0)
        self.waited += wait
        if self.waited > MAX_WAIT_S:
            raise self.error(f"asks to wait {wait:,.0f} s", f"at most {MAX_WAIT_S:.0f} s in all; try again later")
        self.since += wait

    def check_progress(self, received: int = 0) -> None:
        """Count received bytes; raise an error if they are too few for the time."""
        self.received += received
        elapsed = time.monotonic() - self.since
        if elapsed > STALL_S:
            if self.received < MIN_RATE * elapsed:
                raise self.error(
                    f"stalls: {self.received:,} bytes in {elapsed:.0f} s",
                    f"{MIN_RATE:,} bytes per second; try again later",
                )
            self.since, self.received = time.monotonic(), 0

    def check_listing(self, received: int) -> None:
        """Count the bytes of the list of files."""
        self.listed += received
        if self.listed > MAX_LISTING_BYTES or time.monotonic() - self.started - self.waited > LISTING_S:
            expected = f"one of at most {MAX_LISTING_BYTES:,} bytes in {LISTING_S:.0f} s"
            raise self.error("has a list of files without an end", expected)

    def error(self, problem: str, expected: str) -> UserError:
        """Return the error about the server's answers."""
        return UserError(f"{self.place} {problem}", key=self.key, expected=expected)


class _Watched(httpx2.SyncByteStream):
    """The content of an answer, counted while it is read."""

    def __init__(self, stream: httpx2.SyncByteStream, limits: Limits, response: httpx2.Response) -> None:
        self.stream, self.limits = stream, limits
        self.listing = response.request.url.path.startswith("/api/")
        self.sized = "Content-Length" in response.headers

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        for chunk in self.stream:
            total += len(chunk)
            self.limits.check_progress(len(chunk))
            if self.listing:
                self.limits.check_listing(len(chunk))
            if not self.sized and total > MAX_UNSIZED_BYTES:
                raise self.limits.error(f"sends more than {MAX_UNSIZED_BYTES:,} bytes of unknown length", "a length")
            yield chunk

    def close(self) -> None:
        self.stream.close()
