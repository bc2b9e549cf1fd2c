"""A model divided between processes: the numbers of a whole one, and checkpoints that any number of processes read."""

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

Cook = Callable[..., Recipe]

DIVIDED = {"REPRISE_PROFILE": "fsdp", "OMP_NUM_THREADS": "1"}
# 18 steps; two micro-batches for each of two processes, so gradients are gathered before they travel.
CHANGES: dict[str, Any] = {"train.micro_batch_size": 4, "run.save_steps": 3}
LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}


def divide_between(folder: Path, processes: int) -> None:
    """Have the profile fsdp start so many processes."""
    profile = folder / "docker/cpu/fsdp.yaml"
    profile.write_text(re.sub("num_processes: .*", f"num_processes: {processes}", profile.read_text()))


def curve(folder: Path) -> pd.DataFrame:
    """What plots/train.csv says of each step."""
    return pd.read_csv(folder / "plots/train.csv").set_index("step")


def shares(checkpoint: Path) -> list[Path]:
    """The files in which processes wrote their shares, the first process's first."""
    return sorted(checkpoint.glob("shard-*.safetensors"))


@pytest.fixture(scope="module")
def divided(bench: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder in which two processes have trained a model that was divided between them. Do not change."""
    folder = Path(shutil.copytree(bench, tmp_path_factory.mktemp("divided") / "bench"))
    write_params(folder, **CHANGES)
    run(folder, "reprise", "train", env=DIVIDED)
    return folder


def test_a_divided_model_has_the_losses_the_norms_and_the_weights_of_a_whole_one(
    divided: Path, at: Path, run: Run
) -> None:
    write_params(at, **CHANGES)
    set_processes(at, 2)
    run(at, "reprise", "train", env={"OMP_NUM_THREADS": "1"})
    for column in ("loss", "grad_norm", "learning_rate"):
        np.testing.assert_allclose(curve(divided)[column], curve(at)[column], rtol=1e-5)
    ours, theirs = (load_file(folder / "models/final/model.safetensors") for folder in (divided, at))
    assert ours.keys() == theirs.keys()
    # A step of AdamW is as large for a tiny gradient as for a large one, and tiny ones are made of rounding.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert json.loads((divided / "metrics/train.json").read_text())["epoch"] == 2  # chosen on all processes alike


def test_the_model_is_exported_whole_into_one_file_with_which_evaluate_works(
    divided: Path, at: Path, cook: Cook, run: Run
) -> None:
    shutil.copytree(divided / "models/final", at / "models/final")
    write_params(at, **CHANGES)
    assert [file.name for file in (at / "models/final").glob("*.safetensors")] == ["model.safetensors"]
    assert json.loads((at / "models/final/config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]
    _, report = AutoModelForSequenceClassification.from_pretrained(at / "models/final", output_loading_info=True)
    assert {name: list(problems) for name, problems in report.items() if problems} == {}
    run(at, "reprise", "evaluate")
    found = pd.read_parquet(at / "predictions/test.parquet")
    cook(**CHANGES)
    run(at, "reprise", "evaluate")
    expected = pd.read_parquet(at / "predictions/test.parquet")
    np.testing.assert_allclose(*(np.stack(table["probabilities"]) for table in (found, expected)), atol=1e-4)


def test_activations_that_are_computed_again_change_nothing(divided: Path, at: Path, run: Run) -> None:
    write_params(at, **CHANGES, **{"train.gradient_checkpointing": True})
    run(at, "reprise", "train", env=DIVIDED)
    assert curve(at).equals(curve(divided))


@pytest.mark.thorough
def test_in_bf16_a_divided_model_differs_from_a_whole_one_by_rounding(at: Path, run: Run) -> None:
    write_params(at, **CHANGES, **{"train.precision": "bf16"})
    set_processes(at, 2)
    run(at, "reprise", "train", env={"OMP_NUM_THREADS": "1"})
    whole = curve(at)
    run(at, "reprise", "train", env=DIVIDED)
    assert curve(at)["loss"][1] == pytest.approx(whole["loss"][1], rel=1e-6)  # before the weights differ
    # A sum in another order changes fp32's last bits, and now and then what bf16 rounds them to, by 2⁻⁸.
    np.testing.assert_allclose(curve(at)["loss"], whole["loss"], rtol=1e-2)


def test_killed_and_with_its_newest_checkpoint_damaged_a_divided_run_ends_with_the_bits_of_an_unbroken_one(
    divided: Path, at: Path
) -> None:
    write_params(at, **CHANGES)
    with Running(at, "reprise", "train", env=DIVIDED) as killed:
        killed.until(lambda: len(checkpoints(at)) == 2)
        killed.kill(killed.groups())
    before, newest = checkpoints(at)
    steps, _ = position(before)
    other = shares(newest)[1]
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with Running(at, "reprise", "train", env=DIVIDED) as again:
        said = again.end()
    assert f"{newest.relative_to(at)} is left out: {other.name} is not as it was written\n" in said
    assert f"train: goes on after step {steps}/18, from {before.relative_to(at)}\n" in said
    assert results(at) == results(divided)
    assert not list((at / "checkpoints").iterdir())


def test_each_process_writes_its_share_in_files_that_hold_no_code(at: Path) -> None:
    write_params(at, **CHANGES)
    with Running(at, "reprise", "train", env=DIVIDED) as killed:
        killed.until(lambda: any(position(checkpoint) >= (9, 1) for checkpoint in checkpoints(at)))
        killed.kill(killed.groups())
    newest = checkpoints(at)[-1]
    files = [file for file in newest.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".json", ".npy"}
    assert all(len(np.load(file, allow_pickle=False)) for file in files if file.suffix == ".npy")
    first, second = (file.stat().st_size for file in shares(newest))
    assert first == pytest.approx(second, rel=0.1)
    stored: dict[str, int] = {}
    for file in shares(newest):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                stored[name] = stored.get(name, 0) + opened.get_tensor(name).numel()
    weights = load_file(newest / "best/model.safetensors")
    assert {name: stored[name] for name in weights} == {name: tensor.numel() for name, tensor in weights.items()}
    told = set(json.loads((newest / "manifest.json").read_text())["files"])
    assert {str(file.relative_to(newest)) for file in files} == told | {"manifest.json"}


@pytest.mark.parametrize(
    "worlds", [(1, 2, 1), pytest.param((2, 3, 1, 2), marks=pytest.mark.thorough)], ids=lambda worlds: str(worlds)
)
def test_a_run_goes_on_with_any_number_of_processes(at: Path, cook: Cook, worlds: tuple[int, ...]) -> None:
    changes = CHANGES | {"train.epochs": 2 * len(worlds)}
    cook(**changes)
    whole = curve(at)
    take_results(at)
    write_params(at, **changes)
    steps = 0
    for number, processes in enumerate(worlds, start=1):
        divide_between(at, processes)
        with Running(at, "reprise", "train", env=DIVIDED) as running:
            if number == len(worlds):
                said = running.end()
            else:
                running.until(lambda: checkpoints(at) and position(checkpoints(at)[-1])[0] > steps)  # noqa: B023
                running.kill(running.groups())
                said = running.stdout
        assert (f"goes on after step {steps}/" in said) == (number > 1)
        assert f"processes: {processes}, " in said
        found = checkpoints(at)
        if found:
            steps, _ = position(found[-1])
            assert len(shares(found[-1])) == (processes if processes > 1 else 0)
    for column in ("loss", "grad_norm"):
        np.testing.assert_allclose(curve(at)[column], whole[column], rtol=1e-5)


def test_a_run_goes_on_under_the_other_profile(at: Path, cook: Cook, run: Run) -> None:
    cook(**CHANGES)
    whole = curve(at)
    take_results(at)
    write_params(at, **CHANGES)
    with Running(at, "reprise", "train", env=DIVIDED) as killed:
        killed.until(lambda: checkpoints(at))
        killed.kill(killed.groups())
    steps, _ = position(checkpoints(at)[-1])
    set_processes(at, 2)
    said = run(at, "reprise", "train", env={"OMP_NUM_THREADS": "1"}).stdout
    assert f"goes on after step {steps}/18" in said
    np.testing.assert_allclose(curve(at)["loss"], whole["loss"], rtol=1e-5)


@pytest.mark.thorough
def test_a_full_disk_is_one_line_of_a_divided_run_too(at: Path, run: Run) -> None:
    write_params(at, **CHANGES)
    typed = """
        mkdir -p checkpoints && mount -t tmpfs -o size=640k tmpfs checkpoints
        reprise train; echo "exit code $?"
        find checkpoints -mindepth 2 -maxdepth 2 -name '*step-*'
        mount -o remount,size=64m checkpoints
        reprise train
    """
    done = run(at, "unshare", "--user", "--map-root-user", "--mount", "bash", "-c", typed, env=DIVIDED)
    _, after = re.split(r"exit code \d\n", done.stdout)
    assert re.search(
        r"reprise: error: checkpoints/[^:]*: No space left on device; expected room for a checkpoint; those before are "
        r"kept, and `dvc repro` goes on from there\n",
        done.stderr,
    ), done.stderr
    assert ".partial" not in after
    assert re.search(r"goes on after step [36]/18", after)


def test_a_share_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        save_sharded(tmp_path / "file/below", {"weight": torch.zeros(2)})


def test_tensors_go_to_files_in_turn_of_about_a_piece_each() -> None:
    assert assign_files({"a": 10, "b": 10, "c": 5, "d": 30, "e": 1}, 20) == {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3}


def test_shares_in_several_pieces_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reprise.train.fsdp.MAX_FILE_BYTES", 256)
    written, read = (torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)) for _ in range(2))
    save_sharded(tmp_path, written.state_dict())
    assert len(shares(tmp_path)) == 3
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
def test_every_family_of_the_shelf_is_divided_by_its_layers(family: str, layers: list[str]) -> None:
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family))
    assert wrap_classes(model) == layers


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train.engine": "trainer"}, "params.yaml: train.engine: trainer has every process hold the whole model"),
        ({"train.engine": "pytorch"}, "params.yaml: train.engine: pytorch has every process hold the whole model"),
        ({"train.lora": LORA}, "params.yaml: train.lora: "),
    ],
    ids=["trainer", "pytorch", "lora"],
)
@pytest.mark.parametrize("room", ["cpu", "cuda"])
def test_what_cannot_train_a_divided_model_is_refused(room: str, changes: dict[str, Any], problem: str) -> None:
    train = check_recipe(tiny_recipe(**changes), "params.yaml").train
    with pytest.raises(UserError, match=re.escape(problem)):
        validate_fsdp(train, ROOT / f"docker/{room}/fsdp.yaml")
    validate_fsdp(train, ROOT / f"docker/{room}/accelerate.yaml")


def test_a_recipe_that_is_refused_begins_nothing(at: Path, run: Run) -> None:
    write_params(at, **{"train.engine": "trainer"})
    refused = run(at, "reprise", "train", code=2, env=DIVIDED)
    assert refused.stdout == ""
    assert re.fullmatch(r"reprise: error: params.yaml: train.engine: trainer has [^\n]*\n", refused.stderr)
    assert not (at / "checkpoints").exists()


def test_a_profile_that_is_not_there_is_refused_with_those_that_are(at: Path, run: Run) -> None:
    refused = run(at, "reprise", "train", "--profile", "fdsp", code=2)
    known = "docker/cpu/fdsp.yaml: not found; expected one of the profiles of cpu: accelerate, fsdp"
    assert refused.stderr == f"reprise: error: {known}\n"


@pytest.mark.parametrize("config", ["", "fsdp_config: {fsdp_version: 1}\n"], ids=["none", "FSDP1"])
def test_another_way_to_divide_than_fsdp2_is_refused(tmp_path: Path, config: str) -> None:
    profile = tmp_path / "fsdp.yaml"
    profile.write_text(f"distributed_type: FSDP\nnum_processes: 2\n{config}")
    with pytest.raises(UserError, match=r"fsdp.yaml: fsdp_config.fsdp_version: expected 2, got "):
        fsdp_env(profile)
