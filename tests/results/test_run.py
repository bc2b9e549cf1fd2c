"""Results are read alike from a folder and from a commit, and committed files are hashed again."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reprise.core.errors import UserError
from reprise.core.files import read_json, sha256, write_json
from reprise.results.run import (
    RECORDED,
    VOLATILE,
    commit_reader,
    describe_early_end,
    flatten,
    folder_reader,
    read_recorded,
    read_result,
)
from tiny import Run


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


def test_a_folder_and_its_commit_give_the_same_result(trained_repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained_repo)
    folder, commit = read_result(folder_reader(Path()), "here"), read_result(commit_reader("HEAD"), "HEAD")
    assert folder.outputs == commit.outputs
    assert (folder.recipe, folder.code, folder.metrics) == (commit.recipe, commit.code, commit.metrics)
    np.testing.assert_array_equal(folder.losses, commit.losses)


def test_a_result_holds_inputs_and_outputs_of_the_stages(trained_repo: Path) -> None:
    result = read_result(folder_reader(trained_repo), "here")
    assert result.outputs["metrics/evaluate.json"].md5 == md5(trained_repo / "metrics/evaluate.json")
    stages = {
        "sources", "fetch-data", "fetch-model", "prepare", "check-data", "teacher", "preflight", "train", "evaluate",
    }  # fmt: skip
    assert {output.stage for output in result.outputs.values()} == stages
    assert not VOLATILE & result.outputs.keys()
    assert (result.recipe["seed"], result.recipe["task.split.group_by"]) == (42, "film")
    assert {"data/own/reviews.csv", "data/own/tiny", "src/reprise/train", "src/reprise/core"} <= result.code.keys()
    assert result.code["data/own/reviews.csv"] == sha256(trained_repo / "data/own/reviews.csv")
    assert "data/own" not in result.code
    assert not [path for path in result.code if path.startswith(("data/raw", "data/prepared", "models/", "env"))]
    scores = read_json(trained_repo / "metrics/train.json")["validation"]
    assert result.metrics["train"] == {"loss": result.losses.mean(), **scores}
    assert result.metrics["evaluate"].keys() == {"accuracy", "f1"}
    assert result.provenance["environment.hardware"] == "cpu"


def test_losses_are_exact(trained_repo: Path) -> None:
    text = pd.read_csv(trained_repo / "plots/train.csv", dtype=str)["loss"]
    assert read_result(folder_reader(trained_repo), "here").losses.tolist() == [float(value) for value in text]


def test_a_committed_file_is_hashed_again(repo_copy: Path) -> None:
    file = repo_copy / "metrics/evaluate.json"
    file.write_text(
        file.read_text(encoding="utf-8").replace('"num_examples": 48', '"num_examples": 49'), encoding="utf-8"
    )
    assert read_result(folder_reader(repo_copy), "here").outputs["metrics/evaluate.json"].md5 == md5(file)


def test_an_emptied_file_differs_from_the_lock(repo_copy: Path) -> None:
    (repo_copy / "plots/precision_recall.csv").write_bytes(b"")
    assert read_result(folder_reader(repo_copy), "here").outputs["plots/precision_recall.csv"].md5 == md5(
        repo_copy / "plots/precision_recall.csv"
    )


def test_missing_results_are_refused_in_one_line(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo)
    with pytest.raises(UserError, match="not found") as refused:
        read_result(commit_reader("HEAD"), "HEAD")
    assert refused.value.file == "HEAD: dvc.lock"
    assert "`dvc repro`" in refused.value.expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dvc.lock", "<<<<<<< HEAD\nstages:\n"),
        ("dvc.lock", "schema: '2.0'\n"),
        ("metrics/train.json", '{"loss": '),
        ("metrics/evaluate.json", "{}"),
        ("plots/train.csv", "step\n1\n"),
    ],
)
def test_a_damaged_result_is_refused_in_one_line(repo_copy: Path, name: str, text: str) -> None:
    (repo_copy / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="damaged") as refused:
        read_result(folder_reader(repo_copy), "here")
    assert refused.value.file == f"here: {name}"
    assert "`dvc repro`" in refused.value.expected


def test_results_without_provenance_are_read(repo_copy: Path, run: Run) -> None:
    (repo_copy / "metrics/provenance.json").unlink()
    environment = flatten({"environment": read_json(repo_copy / "environment.json")})
    assert read_result(folder_reader(repo_copy), "here").provenance == environment
    (repo_copy / "environment.json").write_text("{}")  # not the one that train read
    assert read_result(folder_reader(repo_copy), "here").provenance == {}


def test_a_name_with_a_line_break_is_no_second_request_to_git(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo)
    read = commit_reader("HEAD")
    assert read(Path("nothing\nHEAD:params.yaml")) is None
    assert read(Path("nothing")) is None


@pytest.mark.parametrize("path", ["models/final", "environment.json", "src/reprise/train"])
def test_speed_and_provenance_of_another_run_are_not_read(repo_copy: Path, path: str) -> None:
    lock = repo_copy / "dvc.lock"
    locked = read_json(repo_copy / RECORDED[0])["run"][path]
    assert None not in [read_recorded(folder_reader(repo_copy), file) for file in RECORDED]
    lock.write_text(lock.read_text().replace(locked, locked[::-1]))
    assert [read_recorded(folder_reader(repo_copy), file) for file in RECORDED] == [None, None]
    assert read_result(folder_reader(repo_copy), "here").edited == ([path] if path == "environment.json" else [])


@pytest.mark.parametrize("file", RECORDED, ids=str)
def test_edited_speed_and_provenance_are_named_and_not_read(repo_copy: Path, file: Path) -> None:
    content = read_json(repo_copy / file)
    write_json(repo_copy / file, dict(reversed(content.items())))  # no edit
    assert read_recorded(folder_reader(repo_copy), file) == content
    write_json(repo_copy / file, content | {"threads": 99})
    assert read_recorded(folder_reader(repo_copy), file) is None
    assert read_result(folder_reader(repo_copy), "here").edited == [str(file)]


def test_speed_of_an_earlier_commit_is_the_output_in_its_lock() -> None:
    lock = b"stages:\n  train:\n    cmd: reprise train\n    outs:\n    - {path: metrics/speed.json, md5: '1'}\n"
    files = {Path("dvc.lock"): lock, Path("metrics/speed.json"): b'{"padding_share": 0.5}'}
    assert read_recorded(files.get, Path("metrics/speed.json")) == {"padding_fraction": 0.5}


@pytest.mark.parametrize(
    ("epochs", "planned", "max_steps", "end"),
    [
        ([1, 1, 2, 2], 2, None, None),
        ([1, 1, 2, 2], 4, None, "stopped after epoch 2 of 4: early stopping"),
        ([1, 1, 2], 4, 3, "stopped in epoch 2 of 4: train.max_steps"),
        ([1, 1, 2], 2, 3, "stopped in epoch 2 of 2: train.max_steps"),
        ([1, 1, 2, 2], 2, 4, None),
        ([1, 1, 2, 2], 2, 9, None),
        ([1, 1], 1, 2, "stopped in epoch 1 of 1: train.max_steps"),
    ],
)
def test_what_ended_a_training_is_seen_in_its_curve(
    epochs: list[int], planned: int, max_steps: int | None, end: str | None
) -> None:
    curve = pd.DataFrame({"step": range(1, len(epochs) + 1), "epoch": epochs}).to_csv(index=False).encode()
    assert describe_early_end({"train.epochs": planned, "train.max_steps": max_steps}, curve) == end


def test_nested_keys_become_dotted() -> None:
    nested = {"a": {"b": 1, "c": {"d": [2]}, "f": {}}, "e": None}
    assert flatten(nested) == {"a.b": 1, "a.c.d": [2], "e": None}
    assert flatten(nested, keep_empty=True) == {"a.b": 1, "a.c.d": [2], "a.f": {}, "e": None}
