"""A local Hub with the endpoints that the real client needs; its downloads can break or stall, its answers lie.

It takes uploads, too, with the protocol of Git LFS: a client that uses it has HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """One repository at one commit."""

    files: dict[str, bytes]
    gated: bool = False  # its files are listed, but downloads are refused
    private: bool = False
    served: dict[str, bytes] = field(default_factory=dict)  # what is sent instead of a listed file


def digests(path: str, content: bytes) -> dict[str, Any]:
    """Return the digests of a file in the Hub's list: git's SHA-1 and, of weights, the SHA-256 of Git LFS."""
    oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    if not path.endswith((".safetensors", ".parquet")):
        return {"oid": oid}
    sha256 = hashlib.sha256(content).hexdigest()
    return {"oid": oid, "lfs": {"oid": sha256, "size": len(content), "pointerSize": 134}}


@dataclass
class LocalHub:
    """State and request log of a local Hub that serves one commit."""

    commit: str = COMMIT  # of every repository
    endpoint: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # "METHOD PATH" of repository requests, in order
    token: str = ""  # that uploads need
    owner: str = "me"  # whose repositories the token may write to
    uploaded: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256, also of no commit
    created: list[dict[str, Any]] = field(default_factory=list)  # what the client asked to create
    commits: list[str] = field(default_factory=list)  # summaries of uploaded commits
    loses: str = ""  # the file that an uploaded commit lacks
    refuses_commits: bool = False
    breaks_off: str | None = None  # "closed" or "reset": how the connection ends in the middle of a download
    stalls: bool = False  # a download pauses in the middle until `released` is set
    # Changes an answer: takes the request (such as "GET /api/models/…"), status, headers and content, and returns the
    # last three. Content in pieces is sent without a length, each piece once the iterator yields it.
    lies: Callable[[str, int, dict[str, str], bytes], tuple[int, dict[str, str], bytes | Iterable[bytes]]] | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def add(self, kind: str, repo: str, files: dict[str, bytes], gated: bool = False) -> None:
        self.repositories[kind, repo] = Repository(files, gated)

    def downloads(self) -> set[str]:
        """Return the files whose content was requested."""
        return {
            request.split(f"/{self.commit}/")[1] for request in self.requests if re.match("GET /.+/resolve/", request)
        }

    def requested(self) -> set[str]:
        """Return the files of all requests, with or without content."""
        return {request.split(f"/{self.commit}/")[1] for request in self.requests if "/resolve/" in request}


class Handler(BaseHTTPRequestHandler):
    hub: LocalHub

    def log_message(self, *args: Any) -> None:
        """Print nothing; `hub.requests` is the log."""

    def do_GET(self) -> None:
        self.handle_request()

    def do_HEAD(self) -> None:
        self.handle_request()

    def do_POST(self) -> None:
        self.handle_upload()

    def do_PUT(self) -> None:
        self.handle_upload()

    def handle_request(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if listing := re.fullmatch(r"/api/(model|dataset)s/(.+)/tree/(\w+)", path):
            kind, repo, commit = listing.groups()
            name = None
        elif file := re.fullmatch(r"/(?:(dataset)s/)?(.+)/resolve/(\w+)/(.+)", path):
            kind, repo, commit, name = file.groups(default="model")
        elif info := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/main)?", path):
            self.hub.requests.append(f"{self.command} {path}")
            found = self.hub.repositories.get(("model", info[1]))
            if found is None or (found.private and not self.is_authorized()):
                self.answer(HTTPStatus.NOT_FOUND, {"X-Error-Code": "RepoNotFound"})
            else:
                self.answer_json({"id": info[1], "sha": self.hub.commit, "private": found.private})
            return
        else:
            self.answer(HTTPStatus.NOT_FOUND)  # the client also sends other API requests
            return
        self.is_retry = f"{self.command} {path}" in self.hub.requests
        self.hub.requests.append(f"{self.command} {path}")
        repository = self.hub.repositories.get((kind, repo))
        if repository is None:
            self.answer(HTTPStatus.NOT_FOUND, {"X-Error-Code": "RepoNotFound"})
        elif commit != self.hub.commit:
            self.answer(HTTPStatus.NOT_FOUND, {"X-Error-Code": "RevisionNotFound"})
        elif name is None:
            entries = [
                {"type": "file", "path": path, "size": len(content), **digests(path, content)}
                for path, content in repository.files.items()
            ]
            self.answer(HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(entries).encode())
        elif repository.gated:
            self.answer(HTTPStatus.FORBIDDEN, {"X-Error-Code": "GatedRepo"})
        else:
            content = repository.served.get(name, repository.files[name])
            etag = hashlib.sha1(repository.files[name]).hexdigest()
            self.answer(HTTPStatus.OK, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, content, download=True)

    def is_authorized(self) -> bool:
        return bool(self.hub.token) and self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def answer_json(self, content: Any) -> None:
        self.answer(HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def handle_upload(self) -> None:
        """Create a repository, and take its files and its commit."""
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"{self.command} {path}")
        if stored := re.fullmatch(r"/upload/(\w+)", path):  # its address is the permission
            self.hub.uploaded[stored[1]] = body
            self.answer(HTTPStatus.OK)
            return
        if not self.is_authorized():
            self.answer(HTTPStatus.UNAUTHORIZED, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": [{"message": "no license"}]})
        elif path == "/api/repos/create":
            self.create_repository(json.loads(body))
        elif named := re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+?)(?:\.git)?/(info/lfs|preupload|commit)/.+", path):
            repo, action = named.groups()
            if repo.partition("/")[0] != self.hub.owner:
                self.answer(HTTPStatus.FORBIDDEN)
            elif action == "preupload":
                self.choose_modes(self.hub.repositories["model", repo], json.loads(body))
            elif action == "info/lfs":
                self.offer_uploads(json.loads(body))
            else:
                self.take_commit(repo, [json.loads(line) for line in body.splitlines()])
        else:
            self.answer(HTTPStatus.NOT_FOUND)

    def create_repository(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != self.hub.owner:
            self.answer(HTTPStatus.FORBIDDEN)
        elif ("model", repo) in self.hub.repositories:
            self.answer(HTTPStatus.CONFLICT)
        else:
            self.hub.created.append(asked)
            created = Repository({".gitattributes": b"*.safetensors filter=lfs\n"})
            created.private = asked.get("visibility") == "private"
            self.hub.repositories["model", repo] = created
            self.answer_json({"url": f"{self.hub.endpoint}/{repo}"})

    def choose_modes(self, repository: Repository, asked: dict[str, Any]) -> None:
        files = []
        for path in (file["path"] for file in asked["files"]):
            listed = digests(path, repository.files.get(path, b""))
            mode = "lfs" if "lfs" in listed else "regular"
            oid = {"oid": listed.get("lfs", listed)["oid"]} if path in repository.files else {}
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **oid})
        self.answer_json({"files": files})

    def offer_uploads(self, asked: dict[str, Any]) -> None:
        objects = []
        for entry in asked["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.hub.endpoint}/upload/{entry['oid']}"}}}
            objects.append(entry if entry["oid"] in self.hub.uploaded else entry | upload)
        self.answer_json({"transfer": "basic", "objects": objects})

    def take_commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        repository, header = self.hub.repositories["model", repo], lines[0]["value"]
        if self.hub.refuses_commits or header.get("parentCommit") != self.hub.commit:
            refused = HTTPStatus.INTERNAL_SERVER_ERROR if self.hub.refuses_commits else HTTPStatus.PRECONDITION_FAILED
            self.answer(refused)
            return
        for key, value in ((line["key"], line["value"]) for line in lines[1:]):
            if key == "deletedFile":
                del repository.files[value["path"]]
            elif value["path"] != self.hub.loses:
                stored = base64.b64decode(value["content"]) if key == "file" else self.hub.uploaded[value["oid"]]
                repository.files[value["path"]] = stored
        self.hub.commits.append(header["summary"])
        self.hub.commit = hashlib.sha1(repr((self.hub.commit, repository.files)).encode()).hexdigest()
        url = f"{self.hub.endpoint}/{repo}/commit/{self.hub.commit}"
        self.answer_json({"commitUrl": url, "commitOid": self.hub.commit})

    def answer(
        self, status: HTTPStatus, headers: dict[str, str] | None = None, body: bytes = b"", download: bool = False
    ) -> None:
        faulty = download and self.command == "GET"
        if faulty and self.hub.breaks_off and self.is_retry:
            return  # the connection stays broken: close retries without an answer
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        if self.hub.lies:
            self.lie(status, headers, body)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        if faulty and self.hub.stalls:
            self.hub.stalled.set()
            self.hub.released.wait(60)
        if faulty and self.hub.breaks_off:
            if self.hub.breaks_off == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            return
        with suppress(ConnectionError):  # the client may have been killed
            self.wfile.write(body[half:])

    def lie(self, status: int, headers: dict[str, str], body: bytes) -> None:
        assert self.hub.lies
        request = f"{self.command} {self.path}"
        status, headers, content = self.hub.lies(request, status, headers, body)
        if not isinstance(content, bytes):
            headers.pop("Content-Length", None)
        self.close_connection = True
        with suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for piece in ([content] if isinstance(content, bytes) else content) if self.command != "HEAD" else ():
                self.wfile.write(piece)
                self.wfile.flush()


def use_hub(hub: LocalHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client of this process ask a local Hub, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )


@contextmanager
def serving(hub: LocalHub) -> Iterator[LocalHub]:
    """Serve `hub` on a free port; its `endpoint` is for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
