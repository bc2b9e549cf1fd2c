"""The record of a sweep: what is read is what was written, and what was damaged is one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from factories import make_record
from reprise.core.errors import UserError
from reprise.sweep.record import RECORD, read_record, sweep_names, write_record


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    for record in (make_record(), make_record(trials=(), finals=(), importance=None, answer=None)):
        write_record(tmp_path, record)
        assert read_record(tmp_path) == record


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda content: content.pop("metric"), "metric"),
        (lambda content: content.update(more=1), "more"),
        (lambda content: content["trials"][0].update(metric="high"), "trials.0.metric"),
        (lambda content: content["trials"][0].update(metric=float("nan")), "trials.0.metric"),
        (lambda content: content["trials"][0].update(values=["16"]), "trials.1"),
        (lambda content: content["trials"][0].update(values=["16", "fast"]), "trials.1.train.learning_rate"),
        (lambda content: content["trials"][0].update(values=["16", "-1"]), "trials.1.train.learning_rate"),
        (lambda content: content["trials"][0].update(values=["17", "1e-4"]), "trials.1.train.batch_size"),
        (lambda content: content["dimensions"][1].update(values=["1", "1"]), "dimensions.train.learning_rate"),
        (lambda content: content["dimensions"][1].update(values=["0", "1"]), "dimensions.train.learning_rate"),
        (lambda content: content["dimensions"][0].update(values=[]), "dimensions.train.batch_size"),
        (lambda content: content["finals"][1].update(trial=99), "finals"),
        (lambda content: content["finals"][1].update(metrics=[]), "finals"),
    ],
)
def test_an_edited_record_is_refused_with_the_key(tmp_path: Path, change: Any, key: str) -> None:
    write_record(tmp_path, make_record())
    content = json.loads((tmp_path / RECORD).read_text())
    change(content)
    (tmp_path / RECORD).write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_record(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / RECORD}: {key}: damaged; expected what `reprise sweep` writes")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_damaged_record_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(UserError, match=r"trials\.json.*damaged"):
        read_record(tmp_path)


def test_sweeps_are_the_folders_with_a_record_and_the_name_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep_names() == []
    for name in ("b", "a", "no name"):
        write_record(Path("sweeps") / name, make_record())
    Path("sweeps/empty").mkdir()
    assert sweep_names() == ["a", "b"]
