"""A sharded model: the results of an unsharded one, and checkpoints for any number of ranks."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from interrupts import Running, checkpoints, position, results, set_processes, take_results
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.train.fsdp import assign_files, load_model_state, save_sharded, wrap_classes
from reprise.train.stage import fsdp_env, validate_fsdp
from tiny import ROOT, Run, tiny_recipe, write_params

Train = Callable[..., Recipe]

FSDP = {"REPRISE_PROFILE": "fsdp", "OMP_NUM_THREADS": "1"}
# 18 steps; two micro-batches for each of two processes, so gradients are accumulated before they are exchanged.
CHANGES: dict[str, Any] = {"train.micro_batch_size": 4, "run.save_steps": 3}
LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}


def set_fsdp_processes(folder: Path, processes: int) -> None:
    """Set the number of processes in the profile fsdp."""
    profile = folder / "docker/cpu/fsdp.yaml"
    profile.write_text(re.sub("num_processes: .*", f"num_processes: {processes}", profile.read_text()))


def curve(folder: Path) -> pd.DataFrame:
    """The rows of plots/train.csv by step."""
    return pd.read_csv(folder / "plots/train.csv").set_index("step")


def shard_files(checkpoint: Path) -> list[Path]:
    """The files with the ranks' shards, in the order of the ranks."""
    return sorted(checkpoint.glob("shard-*.safetensors"))


@pytest.fixture(scope="module")
def sharded(prepared_dir: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder in which two ranks have trained a sharded model. Do not change."""
    folder = Path(shutil.copytree(prepared_dir, tmp_path_factory.mktemp("sharded") / "prepared"))
    write_params(folder, **CHANGES)
    run(folder, "reprise", "train", env=FSDP)
    return folder


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.full)])
def test_sharded_model_has_the_metrics_and_weights_of_an_unsharded_one(
    sharded: Path, workdir: Path, type_train: Callable[[int], str], processes: int
) -> None:
    write_params(workdir, **CHANGES)
    set_processes(workdir, processes)
    type_train(processes)
    for column in ("loss", "grad_norm", "learning_rate"):
        np.testing.assert_allclose(curve(sharded)[column], curve(workdir)[column], rtol=1e-5)
    ours, theirs = (load_file(folder / "models/final/model.safetensors") for folder in (sharded, workdir))
    assert ours.keys() == theirs.keys()
    # AdamW's steps are as large for tiny gradients, which consist of rounding errors.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert json.loads((sharded / "metrics/train.json").read_text())["best_epoch"] == 2  # the same on all ranks


@pytest.mark.full
def test_sharded_model_trained_in_part_resumes_and_has_the_metrics_of_an_unsharded_one(
    workdir: Path, train: Train, run: Run
) -> None:
    changes = CHANGES | {"train.freeze": 1, "train.layer_decay": 0.8, "train.dropout": 0.2}
    train(**changes)
    unsharded, expected = curve(workdir), load_file(workdir / "models/final/model.safetensors")
    take_results(workdir)
    write_params(workdir, **changes)
    with Running(workdir, "reprise", "train", env=FSDP) as killed:
        killed.until(lambda: checkpoints(workdir))
        killed.kill(killed.groups())
    assert "resuming from step" in run(workdir, "reprise", "train", env=FSDP).stdout
    for column in ("loss", "grad_norm", "learning_rate"):
        np.testing.assert_allclose(curve(workdir)[column], unsharded[column], rtol=1e-5)
    weights = load_file(workdir / "models/final/model.safetensors")
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-4)
    frozen = [name for name in weights if name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))]
    assert all(torch.equal(weights[name], expected[name]) for name in frozen)


def test_sharded_model_is_exported_to_one_file_that_evaluate_reads(sharded: Path, workdir: Path, reprise: Run) -> None:
    shutil.copytree(sharded / "models/final", workdir / "models/final")
    write_params(workdir, **CHANGES)
    assert [file.name for file in (workdir / "models/final").glob("*.safetensors")] == ["model.safetensors"]
    assert json.loads((workdir / "models/final/config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]
    _, report = AutoModelForSequenceClassification.from_pretrained(workdir / "models/final", output_loading_info=True)
    assert {name: list(problems) for name, problems in report.items() if problems} == {}
    reprise(workdir, "evaluate")
    found = pd.read_parquet(workdir / "predictions/test.parquet")
    reprise(workdir, "train")
    reprise(workdir, "evaluate")
    expected = pd.read_parquet(workdir / "predictions/test.parquet")
    np.testing.assert_allclose(*(np.stack(table["probabilities"]) for table in (found, expected)), atol=1e-4)


@pytest.mark.full
def test_gradient_checkpointing_changes_nothing(sharded: Path, workdir: Path, run: Run) -> None:
    write_params(workdir, **CHANGES, **{"train.gradient_checkpointing": True})
    run(workdir, "reprise", "train", env=FSDP)
    assert curve(workdir).equals(curve(sharded))


@pytest.mark.full
def test_sharded_model_in_bf16_differs_only_by_rounding(workdir: Path, run: Run) -> None:
    write_params(workdir, **CHANGES, **{"train.precision": "bf16"})
    set_processes(workdir, 2)
    run(workdir, "reprise", "train", env={"OMP_NUM_THREADS": "1"})
    unsharded = curve(workdir)
    run(workdir, "reprise", "train", env=FSDP)
    assert curve(workdir)["loss"][1] == pytest.approx(unsharded["loss"][1], rel=1e-6)  # before the weights differ
    # Sums in another order differ in the last bits of fp32, and sometimes round to another bf16, by 2⁻⁸.
    np.testing.assert_allclose(curve(workdir)["loss"], unsharded["loss"], rtol=1e-2)


@pytest.mark.full
def test_killed_sharded_run_with_a_corrupt_checkpoint_ends_with_the_same_bits(sharded: Path, workdir: Path) -> None:
    write_params(workdir, **CHANGES)
    with Running(workdir, "reprise", "train", env=FSDP) as killed:
        killed.until(lambda: len(checkpoints(workdir)) == 2)
        killed.kill(killed.groups())
    before, newest = checkpoints(workdir)
    steps, _ = position(before)
    other = shard_files(newest)[1]
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with Running(workdir, "reprise", "train", env=FSDP) as again:
        output = again.end()
    assert (
        f"skipping corrupt checkpoint {newest.relative_to(workdir)}: {other.name} has changed since it was written\n"
        in output
    )
    assert f"train: resuming from step {steps}/18, from {before.relative_to(workdir)}\n" in output
    assert results(workdir) == results(sharded)
    assert not list((workdir / "checkpoints").iterdir())


def test_each_rank_writes_its_shards_without_pickles(workdir: Path) -> None:
    write_params(workdir, **CHANGES)
    with Running(workdir, "reprise", "train", env=FSDP) as killed:
        killed.until(lambda: any(position(checkpoint) >= (9, 1) for checkpoint in checkpoints(workdir)))
        killed.kill(killed.groups())
    newest = checkpoints(workdir)[-1]
    files = [file for file in newest.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".json", ".npy"}
    assert all(len(np.load(file, allow_pickle=False)) for file in files if file.suffix == ".npy")
    first, second = (file.stat().st_size for file in shard_files(newest))
    assert first == pytest.approx(second, rel=0.1)
    stored: dict[str, int] = {}
    for file in shard_files(newest):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                stored[name] = stored.get(name, 0) + opened.get_tensor(name).numel()
    weights = load_file(newest / "best/model.safetensors")
    assert {name: stored[name] for name in weights} == {name: tensor.numel() for name, tensor in weights.items()}
    listed = set(json.loads((newest / "manifest.json").read_text())["files"])
    assert {str(file.relative_to(newest)) for file in files} == listed | {"manifest.json"}


@pytest.mark.parametrize(
    "world_sizes",
    [(1, 2, 1), pytest.param((2, 3, 1, 2), marks=pytest.mark.full)],
    ids=lambda world_sizes: str(world_sizes),
)
def test_sharded_run_resumes_with_any_number_of_ranks(
    workdir: Path, train: Train, world_sizes: tuple[int, ...]
) -> None:
    changes = CHANGES | {"train.epochs": 2 * len(world_sizes)}
    train(**changes)
    unsharded = curve(workdir)
    take_results(workdir)
    write_params(workdir, **changes)
    steps = 0
    for number, processes in enumerate(world_sizes, start=1):
        set_fsdp_processes(workdir, processes)
        with Running(workdir, "reprise", "train", env=FSDP) as running:
            if number == len(world_sizes):
                output = running.end()
            else:
                running.until(lambda: checkpoints(workdir) and position(checkpoints(workdir)[-1])[0] > steps)  # noqa: B023
                running.kill(running.groups())
                output = running.stdout
        assert (f"resuming from step {steps}/" in output) == (number > 1)
        assert f"processes: {processes}, " in output
        found = checkpoints(workdir)
        if found:
            steps, _ = position(found[-1])
            assert len(shard_files(found[-1])) == (processes if processes > 1 else 0)
    for column in ("loss", "grad_norm"):
        np.testing.assert_allclose(curve(workdir)[column], unsharded[column], rtol=1e-5)


@pytest.mark.full
def test_sharded_run_resumes_without_sharding(workdir: Path, train: Train, run: Run) -> None:
    train(**CHANGES)
    unsharded = curve(workdir)
    take_results(workdir)
    write_params(workdir, **CHANGES)
    with Running(workdir, "reprise", "train", env=FSDP) as killed:
        killed.until(lambda: checkpoints(workdir))
        killed.kill(killed.groups())
    steps, _ = position(checkpoints(workdir)[-1])
    set_processes(workdir, 2)
    output = run(workdir, "reprise", "train", env={"OMP_NUM_THREADS": "1"}).stdout
    assert f"resuming from step {steps}/18" in output
    np.testing.assert_allclose(curve(workdir)["loss"], unsharded["loss"], rtol=1e-5)


@pytest.mark.full
def test_full_disk_is_one_line_for_a_sharded_run(workdir: Path, run: Run) -> None:
    write_params(workdir, **CHANGES)
    typed = """
        mkdir -p checkpoints && mount -t tmpfs -o size=640k tmpfs checkpoints
        reprise train; echo "exit code $?"
        find checkpoints -mindepth 2 -maxdepth 2 -name '*step-*'
        mount -o remount,size=64m checkpoints
        reprise train
    """
    done = run(workdir, "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", typed, env=FSDP)
    _, after = re.split(r"exit code \d\n", done.stdout)
    assert re.search(
        r"reprise: error: checkpoints/[^:]*: No space left on device; expected space for a checkpoint; earlier ones "
        r"are kept, and `dvc repro` resumes from there\n",
        done.stderr,
    ), done.stderr
    assert ".partial" not in after
    assert re.search(r"resuming from step [36]/18", after)


def test_shard_that_cannot_be_written_raises_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        save_sharded(tmp_path / "file/below", {"weight": torch.zeros(2)})


def test_tensors_are_assigned_to_files_in_order_of_about_equal_size() -> None:
    assert assign_files({"a": 10, "b": 10, "c": 5, "d": 30, "e": 1}, 20) == {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3}


def test_shards_in_several_files_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reprise.train.fsdp.MAX_FILE_BYTES", 256)
    written, read = (torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)) for _ in range(2))
    save_sharded(tmp_path, written.state_dict())
    assert len(shard_files(tmp_path)) == 3
    torch.testing.assert_close(load_model_state(tmp_path, read), dict(written.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("bert", ["BertLayer"]),
        ("distilbert", ["TransformerBlock"]),
        ("roberta", ["RobertaLayer"]),
        ("modernbert", ["ModernBertEncoderLayer"]),
    ],
)
def test_every_model_family_of_the_catalog_is_sharded_by_layers(family: str, layers: list[str]) -> None:
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family))
    assert wrap_classes(model) == layers


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train.engine": "trainer"}, "accelerate"),
        ({"train.engine": "pytorch"}, "accelerate"),
        ({"train.lora": LORA}, "null, or the profile accelerate"),
    ],
    ids=["trainer", "pytorch", "lora"],
)
@pytest.mark.parametrize("hardware", ["cpu", "cuda"])
def test_recipe_that_cannot_be_sharded_is_refused(hardware: str, changes: dict[str, Any], expected: str) -> None:
    train = check_recipe(tiny_recipe(**changes), "params.yaml").train
    with pytest.raises(UserError, match=f"docker/{hardware}/fsdp.yaml shards") as refused:
        validate_fsdp(train, ROOT / f"docker/{hardware}/fsdp.yaml")
    assert (refused.value.file, refused.value.key, refused.value.expected) == ("params.yaml", *changes, expected)
    validate_fsdp(train, ROOT / f"docker/{hardware}/accelerate.yaml")


def test_refused_recipe_writes_nothing(workdir: Path, run: Run) -> None:
    write_params(workdir, **{"train.engine": "trainer"})
    refused = run(workdir, "reprise", "train", code=2, env=FSDP)
    assert refused.stdout == ""
    assert re.fullmatch(r"reprise: error: params.yaml: train.engine: trainer needs [^\n]*\n", refused.stderr)
    assert not (workdir / "checkpoints").exists()


def test_unknown_profile_is_refused_with_the_known_ones(workdir: Path, run: Run) -> None:
    refused = run(workdir, "reprise", "train", "--profile", "fdsp", code=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("reprise: error: docker/cpu/fdsp.yaml: not found; expected ")
    assert line.endswith(": accelerate, fsdp")


@pytest.mark.parametrize("config", ["", "fsdp_config: {fsdp_version: 1}\n"], ids=["none", "FSDP1"])
def test_other_fsdp_version_is_refused(tmp_path: Path, config: str) -> None:
    profile = tmp_path / "fsdp.yaml"
    profile.write_text(f"distributed_type: FSDP\nnum_processes: 2\n{config}")
    with pytest.raises(UserError) as refused:
        fsdp_env(profile)
    assert (refused.value.file, refused.value.key) == (str(profile), "fsdp_config.fsdp_version")
    assert refused.value.expected == "2"
