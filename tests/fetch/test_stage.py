"""Outputs of `reprise fetch` are complete or absent."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny import Run

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


@pytest.fixture
def command(reprise: Run) -> Run:
    """Run `reprise …` in this process: nothing here asks pip or the Hub."""
    return reprise


def test_a_fetch_replaces_all_earlier_outputs(fetch: Fetch, earlier: None) -> None:
    assert set(fetch()) == FETCHED


def test_the_number_and_size_of_files_are_printed(run_fetch: RunFetch) -> None:
    lines = run_fetch().stdout.splitlines()
    assert lines == ["fetch: data/raw: 1 files, 0.0 MB", "fetch: models/pretrained: 5 files, 0.0 MB"]


@pytest.mark.parametrize(
    "changes",
    [{"task.source.train": "data/own/missing.csv"}, {"model.source.path": "data/own/missing"}],
    ids=["table", "model"],
)
def test_if_one_source_fails_neither_output_is_written(
    run_fetch: RunFetch, place: Path, changes: dict[str, str]
) -> None:
    run_fetch(code=2, **changes)
    assert not [path for path in place.rglob("*") if path.name in ("raw", "pretrained", ".raw.partial")]
    assert not list(place.rglob("*.partial"))


def test_tables_are_not_replaced_if_the_model_fails(refuse: Refuse, place: Path) -> None:
    (place / "data/own/reviews.csv").write_text("text,verdict\nnewer than what an earlier run fetched,fresh\n")
    message = refuse(**{"model.source.path": "data/own/missing"})
    assert message.startswith("data/own/missing: model.source.path: not found")


@pytest.mark.parametrize(
    ("part", "fetched", "kept"), [("data", "data/raw", "models/pretrained"), ("model", "models/pretrained", "data/raw")]
)
def test_data_and_model_are_fetched_apart(
    run_fetch: RunFetch, place: Path, earlier: None, part: str, fetched: str, kept: str
) -> None:
    other = {"data": "model.source.path", "model": "task.source.train"}[part]
    before = {file: file.read_bytes() for file in (place / kept).rglob("*") if file.is_file()}
    assert before
    done = run_fetch(part, **{other: "data/own/missing"})
    assert [line.split(":")[1].strip() for line in done.stdout.splitlines()] == [fetched]
    assert {file: file.read_bytes() for file in (place / kept).rglob("*") if file.is_file()} == before
    assert {str(file.relative_to(place)) for file in (place / fetched).rglob("*") if file.is_file()} == {
        name for name in FETCHED if name.startswith(fetched)
    }


@pytest.mark.parametrize("changes", [{}, {"model.source.path": "data/own/missing"}], ids=["success", "failure"])
def test_partial_outputs_of_a_killed_run_are_removed(
    run_fetch: RunFetch, place: Path, earlier: None, changes: dict[str, str]
) -> None:
    for partial in ("data/.raw.partial/train", "models/.pretrained.partial/model"):
        (place / partial).mkdir(parents=True)
        (place / partial / "half").write_bytes(b"ha")
    run_fetch(code=2 if changes else 0, **changes)
    assert not list(place.rglob("*.partial"))
    assert not list(place.rglob("half"))
