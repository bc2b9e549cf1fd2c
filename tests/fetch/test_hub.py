"""Download from the Hub: the real client against a local Hub that records the requests."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from hub import COMMIT, LocalHub, serving
from tiny import flip_a_bit, write_params

Fetch = Callable[..., dict[str, bytes | None]]
Refuse = Callable[..., str]

OTHER_COMMIT = "f" * 40

TABLES = {
    "mrpc/train-00000-of-00002.parquet": b"first rows to train on",
    "mrpc/train-00001-of-00002.parquet": b"more rows to train on",
    "mrpc/validation-00000-of-00001.parquet": b"rows to validate on",
    "mrpc/test-00000-of-00001.parquet": b"rows to test on",
}
MODEL_EXTRAS = {
    "README.md": b"# A card",
    "modeling_tiny.py": b"raise SystemExit('code of a model ran')",
    "pytorch_model.bin": b"a pickle",
    "tf_model.h5": b"weights for another library",
    "generation_config.json": b"{}",
    "1_Pooling/config.json": b"{}",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """Start an empty local Hub and point HF_ENDPOINT to it."""
    with serving(LocalHub()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def tables(config: str = "mrpc", revision: str = COMMIT, repo: str = "tiny/pairs", **splits: str) -> dict[str, Any]:
    """Return the recipe change that takes the tables from the Hub; `splits` maps our names to the Hub's."""
    source = {"kind": "hub", "repo": repo, "config": config, "revision": revision, "splits": splits or None}
    return {"task.source": source, "evaluate.split": "validation"}


def model(revision: str = COMMIT, repo: str = "tiny/encoder") -> dict[str, Any]:
    """Return the recipe change that takes the model from the Hub."""
    return {"model.source": {"kind": "hub", "repo": repo, "revision": revision}}


SOURCES = pytest.mark.parametrize(
    ("kind", "key", "source"),
    [("dataset", "task.source", tables), ("model", "model.source", model)],
    ids=["dataset", "model"],
)


def test_a_dataset_is_stored_by_split(fetch: Fetch, hub: LocalHub) -> None:
    hub.add("dataset", "tiny/pairs", TABLES)
    fetched = fetch(**tables())
    assert {name: content for name, content in fetched.items() if name.startswith("data/")} == {
        f"data/raw/{Path(name).name.split('-')[0]}/{Path(name).name}": content for name, content in TABLES.items()
    }


def test_only_the_tables_of_the_configuration_are_requested(fetch: Fetch, hub: LocalHub) -> None:
    others = {"README.md": b"# A card", "cola/train-00000-of-00001.parquet": b"others", "mrpc/script.py": b"code"}
    hub.add("dataset", "tiny/pairs", TABLES | others)
    fetch(**tables())
    assert hub.requested() == hub.downloads() == set(TABLES)
    assert [request for request in hub.requests if "/resolve/" not in request] == [
        f"GET /api/datasets/tiny/pairs/tree/{COMMIT}"
    ]


def test_a_configuration_without_tables_is_rejected(refuse: Refuse, hub: LocalHub) -> None:
    hub.add("dataset", "tiny/pairs", TABLES)
    assert refuse(**tables(config="mrcp")) == (
        f"task.source.config: no Parquet files in 'mrcp' of tiny/pairs at {COMMIT}"
    )
    assert hub.requested() == set()


def test_only_the_listed_splits_are_downloaded_under_the_recipes_names(fetch: Fetch, hub: LocalHub) -> None:
    hub.add("dataset", "tiny/pairs", TABLES)
    fetched = fetch(**tables(train="train", validation="test"))
    assert {name: content for name, content in fetched.items() if name.startswith("data/")} == {
        "data/raw/train/train-00000-of-00002.parquet": b"first rows to train on",
        "data/raw/train/train-00001-of-00002.parquet": b"more rows to train on",
        "data/raw/validation/test-00000-of-00001.parquet": b"rows to test on",
    }
    assert "mrpc/validation-00000-of-00001.parquet" not in hub.requested()


def test_splits_with_a_common_name_prefix_are_not_confused(fetch: Fetch, hub: LocalHub) -> None:
    others = {"mrpc/validation_other-00000-of-00001.parquet": b"rows of other sources"}
    hub.add("dataset", "tiny/pairs", TABLES | others)
    fetched = fetch(**tables(train="train", validation="validation", validation_other="validation_other"))
    assert {Path(name).parent.name: Path(name).name for name in fetched if "/raw/validation" in name} == {
        "validation": "validation-00000-of-00001.parquet",
        "validation_other": "validation_other-00000-of-00001.parquet",
    }


def test_cached_files_of_an_earlier_fetch_are_not_included(fetch: Fetch, hub: LocalHub) -> None:
    hub.add("dataset", "tiny/pairs", TABLES)
    fetch(**tables())
    fetched = fetch(**tables(train="train", validation="validation"))
    assert not [name for name in fetched if name.startswith("data/raw/test")]


def test_a_missing_split_is_reported_with_the_available_ones(refuse: Refuse, hub: LocalHub) -> None:
    hub.add("dataset", "tiny/pairs", TABLES | {"cola/dev-00000-of-00001.parquet": b"others"})
    assert refuse(**tables(train="train", validation="dev")) == (
        "task.source.splits.validation: tiny/pairs has no 'dev' in 'mrpc'; expected one of test, train, validation"
    )


def test_an_unknown_configuration_is_reported_before_missing_splits(refuse: Refuse, hub: LocalHub) -> None:
    hub.add("dataset", "tiny/pairs", TABLES)
    assert refuse(**tables(config="mrcp", train="train", validation="validation")) == (
        f"task.source.config: no Parquet files in 'mrcp' of tiny/pairs at {COMMIT}"
    )


def test_only_a_models_config_safetensors_and_tokenizer_are_downloaded(
    fetch: Fetch, hub: LocalHub, model_files: dict[str, bytes]
) -> None:
    hub.add("model", "tiny/encoder", model_files | MODEL_EXTRAS)
    fetched = fetch(**model())
    assert {name: content for name, content in fetched.items() if name.startswith("models/")} == {
        "models/pretrained/model/config.json": model_files["config.json"],
        "models/pretrained/model/model.safetensors": model_files["model.safetensors"],
        "models/pretrained/tokenizer/config.json": model_files["config.json"],
        "models/pretrained/tokenizer/tokenizer.json": model_files["tokenizer.json"],
        "models/pretrained/tokenizer/vocab.txt": model_files["vocab.txt"],
    }
    assert hub.requested() == hub.downloads() == set(model_files)


def test_sharded_weights_include_their_index(fetch: Fetch, hub: LocalHub, model_files: dict[str, bytes]) -> None:
    del model_files["model.safetensors"]
    parts = {"one": "model-00001-of-00002.safetensors", "other": "model-00002-of-00002.safetensors"}
    shards = {file: save({name: np.zeros(2)}) for name, file in parts.items()}
    shards["model.safetensors.index.json"] = json.dumps({"weight_map": parts}).encode()
    hub.add("model", "tiny/encoder", model_files | shards)
    fetched = fetch(**model())
    assert (
        shards.items() <= {Path(name).name: content for name, content in fetched.items() if "/model/" in name}.items()
    )


def test_weights_in_subfolders_of_a_model_are_not_requested(
    fetch: Fetch, hub: LocalHub, model_files: dict[str, bytes]
) -> None:
    hub.add("model", "tiny/encoder", model_files | {"2_Dense/model.safetensors": b"weights of something else"})
    fetch(**model())
    assert hub.requested() == set(model_files)


def test_a_model_without_safetensors_is_rejected(refuse: Refuse, hub: LocalHub, model_files: dict[str, bytes]) -> None:
    del model_files["model.safetensors"]
    hub.add("model", "tiny/encoder", model_files | MODEL_EXTRAS)
    message = refuse(**model())
    assert message.startswith(
        f"tiny/encoder at {COMMIT}: no weights; pickled ones are never loaded; expected model.safetensors"
    )
    assert "pytorch_model.bin" not in hub.requested()


@SOURCES
def test_an_unknown_repository_is_reported(
    refuse: Refuse, hub: LocalHub, kind: str, key: str, source: Callable[..., dict[str, Any]]
) -> None:
    hub.add(kind, "tiny/heard-of", TABLES)
    message = refuse(**source(repo="tiny/unheard-of"))
    assert message == f"{key}: tiny/unheard-of is not on the Hub, or is private and HF_TOKEN gives no access"


def test_an_invalid_repository_name_is_rejected(refuse: Refuse, hub: LocalHub) -> None:
    message = refuse(**model(repo="tiny/encoder/main"))
    assert message.startswith("model.source")
    assert "tiny/encoder/main" in message
    assert hub.requests == []


@SOURCES
def test_an_unknown_revision_is_reported(
    refuse: Refuse, hub: LocalHub, kind: str, key: str, source: Callable[..., dict[str, Any]]
) -> None:
    config = source(revision=OTHER_COMMIT)
    repo = config[key]["repo"]
    hub.add(kind, repo, TABLES)
    assert refuse(**config) == f"{key}: {repo} has no commit {OTHER_COMMIT}"


def test_the_error_for_a_gated_repository_explains_what_to_do(
    refuse: Refuse, hub: LocalHub, model_files: dict[str, bytes]
) -> None:
    hub.add("model", "tiny/encoder", model_files, gated=True)
    message = refuse(**model())
    assert message == "model.source: tiny/encoder is gated: accept its terms on the Hub and set HF_TOKEN"


def test_without_network_the_error_names_the_address(refuse: Refuse, closed_port: str, fast_retries: None) -> None:
    assert refuse(**tables()) == (
        f"task.source: tiny/pairs cannot be reached at {closed_port}; downloads need the network"
    )


@pytest.mark.parametrize(("key", "source"), [("task.source", tables), ("model.source", model)])
def test_a_cache_that_cannot_be_written_is_named(
    refuse: Refuse,
    hub: LocalHub,
    monkeypatch: pytest.MonkeyPatch,
    model_files: dict[str, bytes],
    key: str,
    source: Callable[..., dict[str, Any]],
) -> None:
    hub.add("dataset", "tiny/pairs", TABLES)
    hub.add("model", "tiny/encoder", model_files)
    monkeypatch.setenv("HF_HOME", "/proc/none")
    message = refuse(**source())
    assert message.startswith(f"{key}: ")
    assert "/proc/none" in message
    assert message.endswith("; expected HF_HOME to be a writable folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"], ids=["git's SHA-1", "SHA-256 of Git LFS"])
def test_a_file_of_a_mirror_that_differs_in_a_bit_is_refused_and_fetched_again_once_removed(
    refuse: Refuse, fetch: Fetch, hub: LocalHub, model_files: dict[str, bytes], earlier: None, place: Path, name: str
) -> None:
    hub.add("model", "tiny/encoder", model_files)
    other = bytearray(model_files[name])
    other[-1] ^= 1
    hub.repositories["model", "tiny/encoder"].served[name] = bytes(other)
    message = refuse(**model())
    assert f"model.source: tiny/encoder lists {name} with the digest " in message
    assert_earlier_outputs(place)
    damaged = Path(message.split(": model.source: ")[0])
    assert damaged.read_bytes() == bytes(other)
    hub.repositories["model", "tiny/encoder"].served.clear()
    assert name in refuse(**model())  # it is still in the client's cache
    damaged.unlink()
    assert fetch(**model())[f"models/pretrained/model/{name}"] == model_files[name]


def test_a_file_that_rots_in_the_clients_cache_is_refused(
    refuse: Refuse, fetch: Fetch, hub: LocalHub, tmp_path: Path
) -> None:
    hub.add("dataset", "tiny/pairs", TABLES)
    fetch(**tables())
    (rotten,) = (tmp_path / "hub-cache").rglob("snapshots/*/mrpc/test-00000-of-00001.parquet")
    flip_a_bit(rotten.resolve())
    message = refuse(**tables())
    assert message.startswith(f"{rotten.resolve()}: task.source: tiny/pairs lists mrpc/test-00000-of-00001.parquet ")


@pytest.mark.parametrize("how", ["closed", pytest.param("reset", marks=pytest.mark.full)])
def test_a_broken_download_leaves_no_partial_output_and_succeeds_later(
    refuse: Refuse, fetch: Fetch, hub: LocalHub, model_files: dict[str, bytes], fast_retries: None, how: str
) -> None:
    hub.add("model", "tiny/encoder", model_files)
    hub.breaks_off = how
    assert refuse(**model()).startswith("model.source: tiny/encoder could not be downloaded")
    hub.breaks_off = None
    assert fetch(**model())["models/pretrained/model/model.safetensors"] == model_files["model.safetensors"]


def test_a_second_fetch_sends_no_request(fetch: Fetch, hub: LocalHub, model_files: dict[str, bytes]) -> None:
    hub.add("dataset", "tiny/pairs", TABLES)
    hub.add("model", "tiny/encoder", model_files)
    first = fetch(**tables(), **model())
    assert hub.downloads() == set(TABLES) | set(model_files)
    hub.requests.clear()
    assert fetch(**tables(), **model()) == first
    assert hub.requests == []


@pytest.fixture
def halfway(
    hub: LocalHub,
    place: Path,
    earlier: None,
    tmp_path: Path,
    model_files: dict[str, bytes],
) -> Iterator[subprocess.Popen[str]]:
    """Start a fetch that stalls during the model's download, after an earlier run."""
    hub.add("model", "tiny/encoder", model_files)
    hub.stalls = True
    write_params(place, **model())
    fetching = subprocess.Popen(
        [sys.executable, "-m", "reprise", "fetch"],
        cwd=place,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        ),  # background processes ignore Ctrl-C by default
    )
    with fetching:
        assert hub.stalled.wait(60)
        assert list(place.rglob("*.partial"))
        yield fetching
        fetching.kill()


def assert_earlier_outputs(place: Path) -> None:
    assert (place / "data/raw/all/earlier.csv").is_file()
    assert (place / "models/pretrained/model/model.safetensors").read_bytes() == b"weights of an earlier run"


def test_a_killed_fetch_keeps_earlier_outputs_and_the_next_one_cleans_up(
    halfway: subprocess.Popen[str], fetch: Fetch, hub: LocalHub, place: Path, model_files: dict[str, bytes]
) -> None:
    halfway.kill()
    halfway.wait()
    assert_earlier_outputs(place)
    assert list(place.rglob("*.partial"))
    hub.stalls = False
    fetched = fetch(**model())
    assert fetched["models/pretrained/model/model.safetensors"] == model_files["model.safetensors"]
    assert "data/raw/all/earlier.csv" not in fetched


def test_an_interrupted_fetch_keeps_earlier_outputs_and_cleans_up(
    halfway: subprocess.Popen[str], hub: LocalHub, place: Path
) -> None:
    halfway.send_signal(signal.SIGINT)
    hub.released.set()
    _, stderr = halfway.communicate(timeout=60)
    assert halfway.returncode == 130
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("reprise")
    assert "interrupted" in stderr
    assert not list(place.rglob("*.partial"))
    assert_earlier_outputs(place)


def test_ctrl_c_ends_a_stalled_download_at_the_first_press(halfway: subprocess.Popen[str], place: Path) -> None:
    halfway.send_signal(signal.SIGINT)
    _, stderr = halfway.communicate(timeout=8)  # the server is silent for a minute, and the client's patience is 10 s
    assert halfway.returncode == 130
    assert len(stderr.splitlines()) == 1
    assert not list(place.rglob("*.partial"))
    assert_earlier_outputs(place)
