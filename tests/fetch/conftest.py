"""A folder in which the real fetch runs, cut off from every index, Hub and cache of the machine."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny import ROOT, Run, write_params

# A model in the Hub's layout. Fetch copies these files and does not look into them.
MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b'{"version": "1.0"}',
    "vocab.txt": b"[PAD]\n[UNK]\n",
}
TABLE = b"number,text,verdict,film\n1,a warm film,fresh,first\n"
EARLIER = {
    "data/raw/all/earlier.csv": b"text,verdict\nfrom an earlier run,fresh\n",
    "models/pretrained/model/model.safetensors": b"weights of an earlier run",
}


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden or not, by relative path; the value of a folder is None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def model_files() -> dict[str, bytes]:
    """The files of a complete model."""
    return dict(MODEL)


@pytest.fixture
def closed_port() -> str:
    """An address of this machine at which nothing answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(autouse=True)
def cut_off(tmp_path: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine reaches pip and the Hub's client; each test says where they may look."""
    for name in os.environ:
        if name.upper().startswith(("PIP_", "HF_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    (tmp_path / "scratch").mkdir()
    for name, value in {
        "PYTHONPATH": str(ROOT / "src"),
        "TMPDIR": str(tmp_path / "scratch"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "HF_ENDPOINT": closed_port,
        "HF_HOME": str(tmp_path / "hub-cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits: a client that sleeps before it tries again tries again at once."""
    patch = b"import time\n\nsleep = time.sleep\ntime.sleep = lambda seconds: sleep(seconds / 1000)\n"
    fill(tmp_path / "hurried", {"sitecustomize.py": patch})
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'hurried'}:{ROOT / 'src'}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the user's own table and model, which the tiny recipe names, and nothing fetched."""
    folder = tmp_path / "place"
    fill(folder, {"data/own/reviews.csv": TABLE} | {f"data/own/tiny/{name}": MODEL[name] for name in MODEL})
    return folder


@pytest.fixture
def earlier(place: Path) -> None:
    """An earlier run left its outputs in `place`."""
    fill(place, EARLIER)


@pytest.fixture
def run_fetch(run: Run, place: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Type `python -m reprise fetch` in `place`, with changes to the tiny recipe by dotted key."""

    def run_fetch(code: int = 0, **changes: Any) -> subprocess.CompletedProcess[str]:
        write_params(place, **changes)
        done = run(place, "python", "-m", "reprise", "fetch", code=code)
        assert contents(tmp_path / "scratch") == {}, "fetch left something in the system's folder for temporary files"
        return done

    return run_fetch


@pytest.fixture
def fetch(
    run_fetch: Callable[..., subprocess.CompletedProcess[str]], place: Path
) -> Callable[..., dict[str, bytes | None]]:
    """Fetch, and return what then lies in data/raw/ and models/pretrained/: only files, by path."""

    def fetch(**changes: Any) -> dict[str, bytes | None]:
        run_fetch(**changes)
        there = contents(place)
        assert not [name for name in there if name.endswith(".partial")]
        return {
            name: content
            for name, content in there.items()
            if content is not None and name.startswith(("data/raw/", "models/pretrained/"))
        }

    return fetch


@pytest.fixture
def refuse(
    run_fetch: Callable[..., subprocess.CompletedProcess[str]], place: Path, earlier: None
) -> Callable[..., str]:
    """Fetch what must be refused, after an earlier run; return the one line that says why.

    Whatever it is, the exit code is 2, and the folder is byte for byte as before: no output changed, none half-made.
    """

    def refuse(**changes: Any) -> str:
        write_params(place, **changes)
        before = contents(place)
        done = run_fetch(code=2, **changes)
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("reprise: error: ")
        assert contents(place) == before
        return lines[0].removeprefix("reprise: error: ")

    return refuse
