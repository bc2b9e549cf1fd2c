"""Tests of a shared S3 remote, with an S3 server that checks every signature (`make test-s3`).

The server is moto's, in its own process on this machine. To interrupt a transfer, DVC connects through a `Proxy`, which
blocks after a number of bytes.
"""

import configparser
import hashlib
import json
import math
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from interrupts import Running, results
from tiny import Run

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1200)]

REGION, BUCKET = "us-east-1", "results"


@dataclass(frozen=True)
class Server:
    """The server and its only valid access key."""

    port: int
    key: str
    secret: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """The access key as environment variables."""
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return DVC's objects under a prefix of the bucket, by name: the digest, with `.dir` for a folder's list."""
        s3 = client("s3", self.endpoint, self.key, self.secret)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/files/md5/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {"".join(key.split("/")[-2:]): s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


class Proxy:
    """A TCP proxy to the server that can block after a number of bytes and can be disconnected."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.passed, self.limit, self.disconnected = 0, math.inf, False
        self.changed = threading.Condition()
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.listen, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def blocked(self) -> bool:
        """Whether the byte limit was reached."""
        return self.passed > self.limit

    def restore(self, limit: float = math.inf) -> None:
        """Forward everything, or up to `limit` bytes from now on."""
        with self.changed:
            self.disconnected, self.limit = False, self.passed + limit
            self.changed.notify_all()

    def disconnect(self) -> None:
        """Close all connections and refuse new ones until it is restored."""
        with self.changed:
            self.disconnected = True
            while self.sockets:
                end = self.sockets.pop()
                with suppress(OSError):  # the other side has closed it
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            self.changed.notify_all()

    def listen(self) -> None:
        while True:
            here, _ = self.listener.accept()
            with self.changed:
                if self.disconnected:
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self.port))
                self.sockets += [here, there]
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self.forward, args=ends, daemon=True).start()

    def forward(self, source: socket.socket, sink: socket.socket) -> None:
        """Forward data in small pieces until one side closes the connection."""
        with suppress(OSError):  # disconnected
            while data := source.recv(2048):
                with self.changed:
                    self.passed += len(data)
                    self.changed.wait_for(lambda: self.disconnected or not self.blocked)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def client(service: str, endpoint: str, key: str, secret: str) -> Any:
    """Return a client that talks to the server directly, without DVC."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove credentials of the user and of a cloud machine; a test sets its own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an empty bucket; its objects are lost when it stops."""
    folder = tmp_path_factory.mktemp("server") / "empty"
    folder.mkdir()
    # The first four requests, which create the user and the bucket, need no signature.
    server = Running(folder, "moto_server", "--port", "0", env={"INITIAL_NO_AUTH_ACTION_COUNT": "4"})
    with server:
        server.until(lambda: re.search(r"Running on http://127\.0\.0\.1:(\d+)", server.stderr))
        port = int(re.findall(r"Running on http://127\.0\.0\.1:(\d+)", server.stderr)[0])
        endpoint = f"http://127.0.0.1:{port}"
        iam = client("iam", endpoint, "any", "any")
        iam.create_user(UserName="trainer")
        made = iam.create_access_key(UserName="trainer")["AccessKey"]
        rights = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [rights]})
        iam.put_user_policy(UserName="trainer", PolicyName="trainer", PolicyDocument=policy)
        client("s3", endpoint, "any", "any").create_bucket(Bucket=BUCKET)
        yield Server(port, made["AccessKeyId"], made["SecretAccessKey"])


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A prefix in the bucket for this test only."""
    return re.sub(r"\W+", "-", request.node.name).strip("-")


@pytest.fixture
def shared(repo_copy: Path, s3_server: Server, prefix: str, run: Run) -> Path:
    """A repository with results and a commit that sets its remote to the prefix."""
    run(repo_copy, "dvc", "remote", "add", "--default", "shared", f"s3://{BUCKET}/{prefix}")
    run(repo_copy, "dvc", "remote", "modify", "shared", "endpointurl", s3_server.endpoint)
    run(repo_copy, "git", "commit", "-qam", "Share it")
    return repo_copy


def clone(repository: Path, folder: Path, run: Run) -> Path:
    run(folder.parent, "git", "clone", "-q", str(repository), str(folder))
    return folder


def cached(folder: Path) -> dict[str, bytes]:
    """Return the objects in the cache of a repository, by name."""
    files = (folder / ".dvc/cache/files/md5").glob("*/*")
    return {"".join(file.parts[-2:]): file.read_bytes() for file in files}


def expected_objects(folder: Path) -> set[str]:
    """Return the names of all objects of a push: every output file of a stage, and a list for each folder."""
    folders = ("data/raw", "data/prepared", "data/checks", "data/teacher", "models/pretrained", "models/final",
               "predictions")  # fmt: skip
    files = [file for name in folders for file in (folder / name).rglob("*") if file.is_file()]
    lists = {name for name in cached(folder) if name.endswith(".dir")}
    assert len(lists) >= len(folders)
    return {hashlib.md5(file.read_bytes()).hexdigest() for file in files} | lists


def assert_complete(objects: dict[str, bytes]) -> None:
    """Assert that the digest of every object is its name: none is truncated."""
    digests = {name: hashlib.md5(content).hexdigest() for name, content in objects.items()}
    assert digests == {name: name.removesuffix(".dir") for name in objects}


def in_environment(clone_dir: Path, home: Path, s3_server: Server, run: Run) -> dict[str, str]:
    return s3_server.credentials


def in_home(clone_dir: Path, home: Path, s3_server: Server, run: Run) -> dict[str, str]:
    file = configparser.ConfigParser()
    file["default"] = {name.lower(): value for name, value in s3_server.credentials.items()}
    (home / ".aws").mkdir()
    with (home / ".aws/credentials").open("w") as target:
        file.write(target)
    return {}


def in_local_config(clone_dir: Path, home: Path, s3_server: Server, run: Run) -> dict[str, str]:
    run(clone_dir, "dvc", "remote", "modify", "--local", "shared", "access_key_id", s3_server.key)
    run(clone_dir, "dvc", "remote", "modify", "--local", "shared", "secret_access_key", s3_server.secret)
    assert s3_server.secret in (clone_dir / ".dvc/config.local").read_text()
    return {}


@pytest.mark.parametrize(
    "configure", [in_environment, *(pytest.param(each, marks=pytest.mark.full) for each in (in_home, in_local_config))]
)
def test_a_colleague_pulls_with_their_own_credentials_and_has_nothing_to_run(
    configure: Any, shared: Path, s3_server: Server, prefix: str, run: Run, tmp_path: Path
) -> None:
    run(shared, "dvc", "push", env=s3_server.credentials)
    assert s3_server.objects(prefix).keys() == expected_objects(shared)
    home = tmp_path / "colleague"
    home.mkdir()
    there = clone(shared, tmp_path / "clone", run)
    env = {"HOME": str(home), "DVC_SITE_CACHE_DIR": str(home / "site"), **configure(there, home, s3_server, run)}
    run(there, "dvc", "pull", env=env)
    repro = run(there, "dvc", "repro", env=env).stdout
    assert re.findall(r"Running stage '([\w-]+)'", repro) == ["environment"]
    assert results(there) == results(shared)
    assert run(there, "git", "status", "--porcelain").stdout == ""


def test_two_concurrent_pushes_leave_the_objects_of_both_in_the_remote(
    shared: Path, s3_server: Server, prefix: str, run: Run, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(shared, tmp_path / "other", symlinks=True))
    run(other, "dvc", "exp", "run", "-S", "evaluate.split=validation")
    run(other, "git", "commit", "-qam", "Evaluate on validation")
    proxies = [Proxy(s3_server.port), Proxy(s3_server.port)]
    pushes = []
    for folder, proxy in zip((shared, other), proxies, strict=True):
        run(folder, "dvc", "remote", "modify", "--local", "shared", "endpointurl", proxy.endpoint)
        proxy.restore(limit=60_000)
        pushes.append(Running(folder, "dvc", "push", env=s3_server.credentials))
    with pushes[0], pushes[1]:
        for push, proxy in zip(pushes, proxies, strict=True):
            push.until(lambda proxy=proxy: proxy.blocked)  # both are partly transferred now
        for proxy in proxies:
            proxy.restore()
        for push in pushes:
            push.end()
    objects = s3_server.objects(prefix)
    assert_complete(objects)
    assert objects.keys() == expected_objects(shared) | expected_objects(other)
    assert expected_objects(shared) != expected_objects(other)
    for number, folder in enumerate((shared, other)):
        there = clone(folder, tmp_path / f"clone-{number}", run)
        run(there, "dvc", "pull", env=s3_server.credentials)
        assert results(there) == results(folder)


@pytest.mark.parametrize("failure", ["disconnected", pytest.param("killed", marks=pytest.mark.full)])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_an_interrupted_transfer_resumes_with_the_same_command(
    verb: str, failure: str, shared: Path, s3_server: Server, prefix: str, run: Run, tmp_path: Path
) -> None:
    folder, proxy, wanted = shared, Proxy(s3_server.port), expected_objects(shared)
    size = sum(len(content) for name, content in cached(shared).items() if name in wanted)
    if verb == "pull":
        run(shared, "dvc", "push", env=s3_server.credentials)
        folder = clone(shared, tmp_path / "clone", run)
    run(folder, "dvc", "remote", "modify", "--local", "shared", "endpointurl", proxy.endpoint)
    env = {**s3_server.credentials, "AWS_MAX_ATTEMPTS": "1"}  # fail within seconds
    for _ in range(3):
        proxy.restore(limit=size / 5)
        with Running(folder, "dvc", verb, env=env) as transfer:
            transfer.until(lambda: proxy.blocked)
            if failure == "killed":
                transfer.kill(transfer.groups())
                proxy.disconnect()
            else:
                proxy.disconnect()
                assert transfer.process.wait() in (1, 255)
                assert "ERROR: " in transfer.stderr
        there, here = s3_server.objects(prefix), cached(folder)
        assert_complete(there)
        arrived = len(there if verb == "push" else here)
        assert arrived < len(wanted)
        print(f"\n{verb} {failure}: {arrived} of {len(wanted)} objects have arrived", transfer.stderr[:300])
    proxy.restore()
    run(folder, "dvc", verb, env=env)
    for objects in (
        s3_server.objects(prefix),
        {name: content for name, content in cached(folder).items() if name in wanted},
    ):
        assert_complete(objects)
        assert objects.keys() == wanted
    assert run(folder, "dvc", "status", "--cloud", env=env).stdout.endswith("in sync.\n")


def test_the_secret_is_only_where_the_user_stored_it(shared: Path, s3_server: Server, run: Run, tmp_path: Path) -> None:
    env = {**s3_server.credentials, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    done = [
        run(shared, *command, env=env)
        for command in (
            ("dvc", "repro", "--force", "train"),
            ("dvc", "repro"),
            ("dvc", "push", "-vv"),
            ("dvc", "pull", "-vv", "--force"),
            ("dvc", "doctor"),
            ("dvc", "exp", "run", "-S", "evaluate.split=validation"),
            ("reprise", "report"),
            ("git", "add", "--all"),
            ("git", "commit", "-qm", "Train with the key in the environment"),
        )
    ]
    files = [file for folder in (shared, *tmp_path.iterdir()) for file in folder.rglob("*") if file.is_file()]
    assert {"provenance.json", "index.html", "config"} <= {file.name for file in files}
    contents = {str(file): file.read_bytes() for file in files}
    contents |= {" ".join(each.args): (each.stdout + each.stderr).encode() for each in done}
    assert any(s3_server.endpoint.encode() in content for content in contents.values())  # a secret would be found
    assert [name for name, content in contents.items() if s3_server.secret.encode() in content] == []
    commits = run(shared, "git", "rev-list", "--all").stdout.split()  # including the experiment's
    assert run(shared, "git", "grep", "--text", "--files-with-matches", s3_server.secret, *commits, code=1).stdout == ""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("no credentials", "Unable to locate credentials"),
        ("wrong secret", "An error occurred (403) when calling the HeadObject operation: Forbidden"),
        ("wrong bucket", "The specified bucket does not exist"),
    ],
)
def test_a_rejected_push_prints_the_reason_and_loses_nothing(
    error: str, message: str, shared: Path, s3_server: Server, prefix: str, run: Run
) -> None:
    before, kept = results(shared), cached(shared)
    env = {} if error == "no credentials" else s3_server.credentials
    if error == "wrong secret":
        env = {**env, "AWS_SECRET_ACCESS_KEY": "guessed"}
    if error == "wrong bucket":
        run(shared, "dvc", "remote", "modify", "--local", "shared", "url", f"s3://no-{BUCKET}/{prefix}")
    failed = run(shared, "dvc", "push", env=env, code=255)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (results(shared), cached(shared)) == (before, kept)
    (shared / ".dvc/config.local").unlink(missing_ok=True)
    run(shared, "dvc", "push", env=s3_server.credentials)
    assert s3_server.objects(prefix).keys() == expected_objects(shared)
