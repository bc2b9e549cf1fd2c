"""Run the real `reprise fetch` in a temporary folder, isolated from package indexes, the Hub and caches."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from tiny import ROOT, Run, write_params

# A model in the Hub's layout.
MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": save({"embeddings.word_embeddings.weight": np.zeros((3, 2), np.float32)}),
    "tokenizer.json": Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "warm": 2}, "[UNK]")).to_str().encode(),
    "vocab.txt": b"[PAD]\n[UNK]\nwarm\n",
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
    """Return all paths below a folder, hidden ones too, with their content; None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def model_files() -> dict[str, bytes]:
    """Return the files of a complete model."""
    return dict(MODEL)


@pytest.fixture
def closed_port() -> str:
    """Return a local URL on which no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(autouse=True)
def cut_off(tmp_path: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate pip and the Hub's client from the machine's settings; each test sets its own sources."""
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
    monkeypatch.setattr(tempfile, "tempdir", None)  # read TMPDIR again in this process


@pytest.fixture
def fast_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the sleeps between a client's retries."""
    patch = b"import time\n\nsleep = time.sleep\ntime.sleep = lambda seconds: sleep(seconds / 1000)\n"
    fill(tmp_path / "fast_retries", {"sitecustomize.py": patch})
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'fast_retries'}:{ROOT / 'src'}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with the table and the model of the tiny recipe, before any fetch."""
    folder = tmp_path / "place"
    fill(folder, {"data/own/reviews.csv": TABLE} | {f"data/own/tiny/{name}": MODEL[name] for name in MODEL})
    return folder


@pytest.fixture
def earlier(place: Path) -> None:
    """Put the outputs of an earlier run into `place`."""
    fill(place, EARLIER)


@pytest.fixture
def command(run: Run) -> Run:
    """Run `reprise …` in a process of its own, in which pip and the Hub's client read the settings of `cut_off`."""
    return lambda folder, *arguments, **options: run(folder, "python", "-m", "reprise", *arguments, **options)


@pytest.fixture
def run_fetch(command: Run, place: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `reprise fetch` in `place`, with changes to the tiny recipe by dotted key."""

    def run_fetch(*part: str, code: int = 0, **changes: Any) -> subprocess.CompletedProcess[str]:
        write_params(place, **changes)
        done = command(place, "fetch", *part, code=code)
        assert contents(tmp_path / "scratch") == {}, "fetch left temporary files behind"
        return done

    return run_fetch


@pytest.fixture
def fetch(
    run_fetch: Callable[..., subprocess.CompletedProcess[str]], place: Path
) -> Callable[..., dict[str, bytes | None]]:
    """Fetch, and return the content of all files in data/raw/ and models/pretrained/ by path."""

    def fetch(**changes: Any) -> dict[str, bytes | None]:
        run_fetch(**changes)
        found = contents(place)
        assert not [name for name in found if name.endswith(".partial")]
        return {
            name: content
            for name, content in found.items()
            if content is not None and name.startswith(("data/raw/", "models/pretrained/"))
        }

    return fetch


@pytest.fixture
def refuse(
    run_fetch: Callable[..., subprocess.CompletedProcess[str]], place: Path, earlier: None
) -> Callable[..., str]:
    """Fetch what must be rejected, after an earlier run; return the error message of one line.

    Checks that the exit code is 2 and that no file was changed, added or left incomplete.
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
