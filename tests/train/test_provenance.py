"""metrics/provenance.json: where a run comes from, kept out of everything that is compared bit for bit."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from reprise.data.format import split_file
from reprise.train import provenance
from reprise.train.sampler import order_digest, plan_epoch
from tiny import Run, tiny_recipe, write_params

Cook = Callable[..., object]


def read(at: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((at / "metrics/provenance.json").read_text(encoding="utf-8"))
    return content


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def repository(at: Path, run: Run) -> Path:
    """The bench in git, with what the stage `environment` says of it."""
    run(at, "reprise", "environment")
    (at / ".gitignore").write_text("/data/\n/models/\n/metrics/\n/plots/\n/checkpoints/\n", encoding="utf-8")
    run(at, "git", "init", "-q")
    commit(at, run)
    return at


def commit(at: Path, run: Run) -> None:
    run(at, "git", "add", ".")
    run(at, "git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "-qm", "Commit")


def test_it_names_the_bytes_that_went_in_and_came_out(cook: Cook, at: Path) -> None:
    cook()
    (result,) = read(at)["results"]
    assert result["weights"] == {"model.safetensors": digest(at / "models/final/model.safetensors")}
    assert result["pretrained"] == {"model.safetensors": digest(at / "models/pretrained/model/model.safetensors")}
    splits = ("train", "validation", "test")
    assert result["data"] == {split: digest(at / split_file(split)) for split in splits}


def test_it_names_the_order_in_which_each_epoch_took_the_rows(cook: Cook, at: Path) -> None:
    cook()
    (result,) = read(at)["results"]
    recipe = tiny_recipe()
    lengths = np.asarray(Dataset.from_file(str(at / split_file("train")))["length"])
    size = recipe["train"]["batch_size"]
    orders = [
        order_digest(plan_epoch(lengths, seed=recipe["seed"], epoch=epoch, batch_size=size, micro_batch_size=size))
        for epoch in range(recipe["train"]["epochs"])
    ]
    assert result["data_order_sha256"] == orders
    assert len(set(orders)) == len(orders)


def test_it_says_what_was_computed_with(
    cook: Cook, repository: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_IMAGE", "reprise:cpu@sha256:1d")
    cook()
    (session,) = read(repository)["sessions"]
    assert session["commit"] == run(repository, "git", "rev-parse", "HEAD").stdout.strip()
    assert session["image"] == "reprise:cpu@sha256:1d"
    assert session["environment"] == json.loads((repository / "environment.json").read_text(encoding="utf-8"))
    assert (session["processes"], session["precision"], session["from_step"]) == (1, "fp32", 0)
    assert session["deterministic"]["algorithms"] is True
    assert session["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert session["devices"]
    assert all(device.startswith("cpu: ") for device in session["devices"])


def test_a_commit_whose_recipe_was_changed_since_is_called_dirty(cook: Cook, repository: Path, run: Run) -> None:
    cook()
    assert read(repository)["sessions"][0]["dirty"] is False
    write_params(repository, seed=7)
    cook()
    assert read(repository)["sessions"][0]["dirty"] is True
    commit(repository, run)
    cook()
    assert read(repository)["sessions"][0]["dirty"] is False


def test_without_git_it_says_nothing_of_a_commit(at: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert provenance.git("rev-parse", "HEAD") is None


def test_dvc_shows_none_of_it_among_the_metrics(served: Path, run: Run) -> None:
    shown = json.loads(run(served, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert (served / "metrics/provenance.json").is_file()
    assert not shown["metrics/provenance.json"].get("data")
    assert shown["metrics/evaluate.json"]["data"]["num_examples"] > 0
