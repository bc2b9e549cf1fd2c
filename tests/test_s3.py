"""A shared S3 remote as a team uses it, against a server that speaks S3 and checks every signature (`make test-s3`).

The server is moto's, a process of its own on this machine. Where a transfer must break in the middle, DVC reaches it
over a `Line`, which holds when so many bytes went over it.
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

REGION, BUCKET = "us-east-1", "shelf"


@dataclass(frozen=True)
class Shelf:
    """The server, and the one key that it lets in."""

    port: int
    key: str
    secret: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """The key as the environment says it."""
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def objects(self, prefix: str) -> dict[str, bytes]:
        """DVC's objects that lie under a prefix of the bucket, by name: the digest, and `.dir` for a folder's list."""
        s3 = client("s3", self.endpoint, self.key, self.secret)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/files/md5/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {"".join(key.split("/")[-2:]): s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


class Line:
    """A stretch of network to the server: it holds, with all on it, when so many bytes went over it; it can be cut."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.passed, self.limit, self.is_cut = 0, math.inf, False
        self.changed = threading.Condition()
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.listen, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    @property
    def held(self) -> bool:
        """Whether as many bytes came as may."""
        return self.passed > self.limit

    def mend(self, until: float = math.inf) -> None:
        """Let everything through, or so many bytes from now on."""
        with self.changed:
            self.is_cut, self.limit = False, self.passed + until
            self.changed.notify_all()

    def cut(self) -> None:
        """Break every connection, and each new one at once, until it is mended."""
        with self.changed:
            self.is_cut = True
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
                if self.is_cut:
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self.port))
                self.sockets += [here, there]
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        """Hand on what comes, a little at a time, until one side hangs up."""
        with suppress(OSError):  # cut
            while data := source.recv(2048):
                with self.changed:
                    self.passed += len(data)
                    self.changed.wait_for(lambda: self.is_cut or not self.held)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def client(service: str, endpoint: str, key: str, secret: str) -> Any:
    """Someone who speaks to the server directly, beside DVC."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests, and none of a cloud's machine: nothing but what a test gives."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The server, with an empty bucket. What it has is gone when it ends."""
    folder = tmp_path_factory.mktemp("server") / "empty"
    folder.mkdir()
    # It believes the first four requests, which make its one user and the bucket; from then on signatures count.
    server = Running(folder, "moto_server", "--port", "0", env={"INITIAL_NO_AUTH_ACTION_COUNT": "4"})
    with server:
        server.until(lambda: re.search(r"Running on http://127\.0\.0\.1:(\d+)", server.stderr))
        port = int(re.findall(r"Running on http://127\.0\.0\.1:(\d+)", server.stderr)[0])
        endpoint = f"http://127.0.0.1:{port}"
        iam = client("iam", endpoint, "any", "any")
        iam.create_user(UserName="cook")
        made = iam.create_access_key(UserName="cook")["AccessKey"]
        rights = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [rights]})
        iam.put_user_policy(UserName="cook", PolicyName="cook", PolicyDocument=policy)
        client("s3", endpoint, "any", "any").create_bucket(Bucket=BUCKET)
        yield Shelf(port, made["AccessKeyId"], made["SecretAccessKey"])


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A place in the bucket that is this test's own."""
    return re.sub(r"\W+", "-", request.node.name).strip("-")


@pytest.fixture
def shared(served: Path, shelf: Shelf, prefix: str, run: Run) -> Path:
    """The cooked kitchen, which says in a commit that its remote is that place."""
    run(served, "dvc", "remote", "add", "--default", "shelf", f"s3://{BUCKET}/{prefix}")
    run(served, "dvc", "remote", "modify", "shelf", "endpointurl", shelf.endpoint)
    run(served, "git", "commit", "-qam", "Share it")
    return served


def clone(repository: Path, folder: Path, run: Run) -> Path:
    run(folder.parent, "git", "clone", "-q", str(repository), str(folder))
    return folder


def cached(folder: Path) -> dict[str, bytes]:
    """The objects in a repository's own cache, by name."""
    files = (folder / ".dvc/cache/files/md5").glob("*/*")
    return {"".join(file.parts[-2:]): file.read_bytes() for file in files}


def to_share(folder: Path) -> set[str]:
    """The names of what a push must bring: each file that DVC keeps for a stage, and a list for each of its folders."""
    places = ("data/raw", "data/prepared", "models/pretrained", "models/final", "predictions")
    files = [file for place in places for file in (folder / place).rglob("*") if file.is_file()]
    lists = {name for name in cached(folder) if name.endswith(".dir")}
    assert len(lists) >= len(places)
    return {hashlib.md5(file.read_bytes()).hexdigest() for file in files} | lists


def assert_whole(objects: dict[str, bytes]) -> None:
    """Every object is what its name says: none is torn."""
    digests = {name: hashlib.md5(content).hexdigest() for name, content in objects.items()}
    assert digests == {name: name.removesuffix(".dir") for name in objects}


def in_environment(there: Path, home: Path, shelf: Shelf, run: Run) -> dict[str, str]:
    return shelf.credentials


def in_home(there: Path, home: Path, shelf: Shelf, run: Run) -> dict[str, str]:
    file = configparser.ConfigParser()
    file["default"] = {name.lower(): value for name, value in shelf.credentials.items()}
    (home / ".aws").mkdir()
    with (home / ".aws/credentials").open("w") as target:
        file.write(target)
    return {}


def in_local_config(there: Path, home: Path, shelf: Shelf, run: Run) -> dict[str, str]:
    run(there, "dvc", "remote", "modify", "--local", "shelf", "access_key_id", shelf.key)
    run(there, "dvc", "remote", "modify", "--local", "shelf", "secret_access_key", shelf.secret)
    assert shelf.secret in (there / ".dvc/config.local").read_text()
    return {}


@pytest.mark.parametrize("give", [in_environment, in_home, in_local_config])
def test_a_colleague_pulls_with_credentials_of_their_own_and_has_nothing_to_run(
    give: Any, shared: Path, shelf: Shelf, prefix: str, run: Run, tmp_path: Path
) -> None:
    run(shared, "dvc", "push", env=shelf.credentials)
    assert shelf.objects(prefix).keys() == to_share(shared)
    home = tmp_path / "colleague"
    home.mkdir()
    there = clone(shared, tmp_path / "clone", run)
    env = {"HOME": str(home), "DVC_SITE_CACHE_DIR": str(home / "site"), **give(there, home, shelf, run)}
    run(there, "dvc", "pull", env=env)
    cooking = run(there, "dvc", "repro", env=env).stdout
    assert re.findall(r"Running stage '(\w+)'", cooking) == ["environment"]
    assert results(there) == results(shared)
    assert run(there, "git", "status", "--porcelain").stdout == ""


def test_two_who_push_at_once_leave_a_remote_with_everything_of_both(
    shared: Path, shelf: Shelf, prefix: str, run: Run, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(shared, tmp_path / "other", symlinks=True))
    run(other, "dvc", "exp", "run", "-S", "evaluate.split=validation")
    run(other, "git", "commit", "-qam", "Look at other rows")
    lines = [Line(shelf.port), Line(shelf.port)]
    people = []
    for folder, line in zip((shared, other), lines, strict=True):
        run(folder, "dvc", "remote", "modify", "--local", "shelf", "endpointurl", line.endpoint)
        line.mend(until=60_000)
        people.append(Running(folder, "dvc", "push", env=shelf.credentials))
    with people[0], people[1]:
        for person, line in zip(people, lines, strict=True):
            person.until(lambda line=line: line.held)  # both are in the middle now
        for line in lines:
            line.mend()
        for person in people:
            person.end()
    objects = shelf.objects(prefix)
    assert_whole(objects)
    assert objects.keys() == to_share(shared) | to_share(other)
    assert to_share(shared) != to_share(other)
    for number, folder in enumerate((shared, other)):
        there = clone(folder, tmp_path / f"clone-{number}", run)
        run(there, "dvc", "pull", env=shelf.credentials)
        assert results(there) == results(folder)


@pytest.mark.parametrize("accident", ["cut", "killed"])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_transfer_that_broke_goes_on_with_the_same_command(
    verb: str, accident: str, shared: Path, shelf: Shelf, prefix: str, run: Run, tmp_path: Path
) -> None:
    folder, line, wanted = shared, Line(shelf.port), to_share(shared)
    size = sum(len(content) for name, content in cached(shared).items() if name in wanted)
    if verb == "pull":
        run(shared, "dvc", "push", env=shelf.credentials)
        folder = clone(shared, tmp_path / "clone", run)
    run(folder, "dvc", "remote", "modify", "--local", "shelf", "endpointurl", line.endpoint)
    env = {**shelf.credentials, "AWS_MAX_ATTEMPTS": "1"}  # it gives up within seconds
    for _ in range(3):
        line.mend(until=size / 5)
        with Running(folder, "dvc", verb, env=env) as transfer:
            transfer.until(lambda: line.held)
            if accident == "killed":
                transfer.kill(transfer.groups())
                line.cut()
            else:
                line.cut()
                assert transfer.process.wait() in (1, 255)
                assert "ERROR: " in transfer.stderr
        there, here = shelf.objects(prefix), cached(folder)
        assert_whole(there)
        arrived = len(there if verb == "push" else here)
        assert arrived < len(wanted)
        print(f"\n{verb} {accident}: {arrived} of {len(wanted)} objects have arrived", transfer.stderr[:300])
    line.mend()
    run(folder, "dvc", verb, env=env)
    for place in (shelf.objects(prefix), {name: content for name, content in cached(folder).items() if name in wanted}):
        assert_whole(place)
        assert place.keys() == wanted
    assert run(folder, "dvc", "status", "--cloud", env=env).stdout.endswith("in sync.\n")


def test_the_secret_is_nowhere_but_where_the_user_put_it(shared: Path, shelf: Shelf, run: Run, tmp_path: Path) -> None:
    env = {**shelf.credentials, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    said = [
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
            ("git", "commit", "-qm", "Cook it with the key at hand"),
        )
    ]
    files = [file for place in (shared, *tmp_path.iterdir()) for file in place.rglob("*") if file.is_file()]
    assert {"provenance.json", "index.html", "config"} <= {file.name for file in files}
    contents = {str(file): file.read_bytes() for file in files}
    contents |= {" ".join(done.args): (done.stdout + done.stderr).encode() for done in said}
    assert any(shelf.endpoint.encode() in content for content in contents.values())  # it would be found
    assert [name for name, content in contents.items() if shelf.secret.encode() in content] == []
    commits = run(shared, "git", "rev-list", "--all").stdout.split()  # the experiment's, too
    assert run(shared, "git", "grep", "--text", "--files-with-matches", shelf.secret, *commits, code=1).stdout == ""


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("no credentials", "Unable to locate credentials"),
        ("wrong secret", "An error occurred (403) when calling the HeadObject operation: Forbidden"),
        ("wrong bucket", "The specified bucket does not exist"),
    ],
)
def test_a_push_that_may_not_be_says_why_and_loses_nothing(
    mistake: str, message: str, shared: Path, shelf: Shelf, prefix: str, run: Run
) -> None:
    before, kept = results(shared), cached(shared)
    env = {} if mistake == "no credentials" else shelf.credentials
    if mistake == "wrong secret":
        env = {**env, "AWS_SECRET_ACCESS_KEY": "guessed"}
    if mistake == "wrong bucket":
        run(shared, "dvc", "remote", "modify", "--local", "shelf", "url", f"s3://no-{BUCKET}/{prefix}")
    failed = run(shared, "dvc", "push", env=env, code=255)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (results(shared), cached(shared)) == (before, kept)
    (shared / ".dvc/config.local").unlink(missing_ok=True)
    run(shared, "dvc", "push", env=shelf.credentials)
    assert shelf.objects(prefix).keys() == to_share(shared)
