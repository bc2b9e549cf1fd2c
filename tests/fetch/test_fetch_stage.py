"""What fetch leaves behind: outputs that are whole or absent."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Fetch = Callable[..., dict[str, bytes | None]]
Refuse = Callable[..., str]
RunFetch = Callable[..., subprocess.CompletedProcess[str]]

FETCHED = {
    "data/raw/all/reviews.csv",
    "models/pretrained/model/config.json",
    "models/pretrained/model/model.safetensors",
    "models/pretrained/tokenizer/config.json",
    "models/pretrained/tokenizer/tokenizer.json",
    "models/pretrained/tokenizer/vocab.txt",
}


def test_a_fetch_replaces_everything_that_an_earlier_one_left(fetch: Fetch, earlier: None) -> None:
    assert set(fetch()) == FETCHED


def test_what_was_fetched_is_told_with_its_size(run_fetch: RunFetch) -> None:
    lines = run_fetch().stdout.splitlines()
    assert lines == ["fetch: data/raw: 1 files, 0.0 MB", "fetch: models/pretrained: 5 files, 0.0 MB"]


@pytest.mark.parametrize(
    "changes",
    [{"task.source.train": "data/own/missing.csv"}, {"model.source.path": "data/own/missing"}],
    ids=["table", "model"],
)
def test_when_one_source_fails_neither_output_appears(
    run_fetch: RunFetch, place: Path, changes: dict[str, str]
) -> None:
    run_fetch(code=2, **changes)
    assert not [path for path in place.rglob("*") if path.name in ("raw", "pretrained", ".raw.partial")]
    assert not list(place.rglob("*.partial"))


def test_tables_that_came_through_wait_for_the_model(refuse: Refuse, place: Path) -> None:
    (place / "data/own/reviews.csv").write_text("text,verdict\nnewer than what an earlier run fetched,fresh\n")
    assert refuse(**{"model.source.path": "data/own/missing"}).startswith("data/own/missing: not found")


@pytest.mark.parametrize("changes", [{}, {"model.source.path": "data/own/missing"}], ids=["success", "failure"])
def test_what_a_killed_run_left_half_made_is_removed(
    run_fetch: RunFetch, place: Path, earlier: None, changes: dict[str, str]
) -> None:
    for partial in ("data/.raw.partial/train", "models/.pretrained.partial/model"):
        (place / partial).mkdir(parents=True)
        (place / partial / "half").write_bytes(b"ha")
    run_fetch(code=2 if changes else 0, **changes)
    assert not list(place.rglob("*.partial"))
    assert not list(place.rglob("half"))
