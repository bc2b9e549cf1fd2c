"""metrics/provenance.json: where a run comes from."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from reprise.core.dvc_lock import read_stages
from reprise.core.files import read_json, write_json
from reprise.data.format import split_file
from reprise.train import outputs, provenance
from reprise.train.sampler import order_digest, plan_epoch
from tiny import Run, tiny_recipe, write_params

Train = Callable[..., object]


def read(workdir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((workdir / "metrics/provenance.json").read_text(encoding="utf-8"))
    return content


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def repository(workdir: Path, run: Run) -> Path:
    """The prepared folder as a git repository, with environment.json."""
    run(workdir, "reprise", "environment")
    (workdir / ".gitignore").write_text("/data/\n/models/\n/metrics/\n/plots/\n/checkpoints/\n", encoding="utf-8")
    run(workdir, "git", "init", "-q")
    commit(workdir, run)
    return workdir


def commit(workdir: Path, run: Run) -> None:
    run(workdir, "git", "add", ".")
    run(workdir, "git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "-qm", "Commit")


def test_provenance_has_the_digests_of_inputs_and_weights(train: Train, workdir: Path) -> None:
    train()
    (result,) = read(workdir)["results"]
    assert result["weights"] == {"model.safetensors": digest(workdir / "models/final/model.safetensors")}
    assert result["pretrained"] == {"model.safetensors": digest(workdir / "models/pretrained/model/model.safetensors")}
    splits = ("train", "validation", "test")
    assert result["data"] == {split: digest(workdir / split_file(split)) for split in splits}


def test_provenance_has_the_sample_order_of_each_epoch(train: Train, workdir: Path) -> None:
    train()
    (result,) = read(workdir)["results"]
    recipe = tiny_recipe()
    lengths = np.asarray(Dataset.from_file(str(workdir / split_file("train")))["length"])
    size = recipe["train"]["batch_size"]
    orders = [
        order_digest(plan_epoch(lengths, seed=recipe["seed"], epoch=epoch, batch_size=size, micro_batch_size=size))
        for epoch in range(recipe["train"]["epochs"])
    ]
    assert result["data_order_sha256"] == orders
    assert len(set(orders)) == len(orders)


def test_provenance_describes_the_session(
    train: Train, repository: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_IMAGE", "reprise:cpu@sha256:1d")
    train()
    (session,) = read(repository)["sessions"]
    assert session["commit"] == run(repository, "git", "rev-parse", "HEAD").stdout.strip()
    assert session["image"] == "reprise:cpu@sha256:1d"
    assert session["environment"] == json.loads((repository / "environment.json").read_text(encoding="utf-8"))
    assert (session["processes"], session["precision"], session["from_step"]) == (1, "fp32", 0)
    assert session["deterministic"]["algorithms"] is True
    assert session["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert session["devices"]
    assert all(device.startswith("cpu: ") for device in session["devices"])


def test_commit_with_a_changed_recipe_is_dirty(train: Train, repository: Path, run: Run) -> None:
    train()
    assert read(repository)["sessions"][0]["dirty"] is False
    write_params(repository, seed=7)
    train()
    assert read(repository)["sessions"][0]["dirty"] is True
    commit(repository, run)
    train()
    assert read(repository)["sessions"][0]["dirty"] is False


def test_without_git_there_is_no_commit(workdir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert provenance.git("rev-parse", "HEAD") is None


def test_dvc_metrics_show_no_provenance(repo_copy: Path, run: Run) -> None:
    shown = json.loads(run(repo_copy, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert (repo_copy / "metrics/provenance.json").is_file()
    assert not {"metrics/provenance.json", "metrics/speed.json"} & shown.keys()
    assert shown["metrics/evaluate.json"]["data"]["num_examples"] > 0


def test_the_digests_of_the_run_are_those_of_dvc(trained_repo: Path) -> None:
    train = read_stages((trained_repo / "dvc.lock").read_bytes())["train"]
    locked = {entry["path"]: entry["md5"] for entry in (*train["deps"], *train["outs"])}
    listed = {path for path in locked if path.startswith("src/")} | {"models/final", "environment.json"}
    for name in ("speed", "provenance"):
        assert read_json(trained_repo / f"metrics/{name}.json")["run"] == {path: locked[path] for path in listed}


@pytest.mark.parametrize(
    ("interrupted", "left"),
    [
        ("train.json", {"provenance.json": "first", "speed.json": "first"}),
        ("provenance.json", {"provenance.json": "first"}),
        ("speed.json", {"provenance.json": "second"}),
    ],
)
def test_an_interruption_leaves_no_speed_beside_the_provenance_of_another_run(
    train: Train, workdir: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str, left: dict[str, str]
) -> None:
    train()
    first = {name: (workdir / "metrics" / name).read_bytes() for name in ("provenance.json", "speed.json")}

    def write(file: Path, content: dict[str, Any]) -> None:
        if file.name == interrupted:
            raise KeyboardInterrupt
        write_json(file, content | {"second": True})

    monkeypatch.setattr(outputs, "write_json", write)
    with pytest.raises(KeyboardInterrupt):
        train()
    found = {name: workdir / "metrics" / name for name in first}
    assert left == {
        name: "first" if file.read_bytes() == first[name] else "second"
        for name, file in found.items()
        if file.is_file()
    }
