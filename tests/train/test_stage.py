"""The launcher: profiles, workers, the processor's flags, and interruptions."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.train import stage, worker_env
from reprise.train.distributed.launch_config import LaunchConfig, parse_endpoint, torchrun_args
from reprise.train.stage import SINGLE_PROCESS, read_processes
from reprise.train.worker import check_world_size
from tiny import ROOT, Run, tiny_recipe, write_params

Train = Callable[..., object]


def test_number_of_processes_is_read_from_the_profile(tmp_path: Path) -> None:
    profile = tmp_path / "accelerate.yaml"
    profile.write_text("distributed_type: MULTI_CPU\nnum_processes: 3\n")
    assert read_processes(profile) == 3


@pytest.mark.parametrize(("hardware", "processes"), [("cpu", 1), ("cuda", 3), ("tpu", 1)])
def test_default_profile_starts_one_process_or_one_per_gpu(
    hardware: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reprise.train.stage.count_gpus", lambda: 3)
    assert read_processes(ROOT / "docker" / hardware / "accelerate.yaml") == processes


@pytest.mark.parametrize("text", ["num_processes: 0\n", "num_processes: two\n", "use_cpu: true\n", "[", "- 1\n", None])
def test_profile_without_a_valid_number_of_processes_is_refused(tmp_path: Path, text: str | None) -> None:
    profile = tmp_path / "accelerate.yaml"
    if text is not None:
        profile.write_text(text)
    with pytest.raises(UserError, match="num_processes") as refused:
        read_processes(profile)
    assert refused.value.file == str(profile)


def started(
    workdir: Path, hardware: str, monkeypatch: pytest.MonkeyPatch, config: LaunchConfig = SINGLE_PROCESS
) -> tuple[list[str], dict[str, str]]:
    """Launch with a profile of two processes; return Python's arguments and its environment."""
    python = workdir / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\nenv > environment\n')
    python.chmod(0o755)
    profile = workdir / "docker" / hardware / "accelerate.yaml"
    profile.write_text(re.sub("num_processes: .*", "num_processes: 2", profile.read_text()))
    monkeypatch.setenv("PJRT_DEVICE", "CPU")  # XLA then looks for no TPU
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(sys, "executable", str(python))
    stage.launch(check_recipe(tiny_recipe(), "params.yaml"), hardware, config)
    environment = dict(line.split("=", 1) for line in Path("environment").read_text().splitlines() if "=" in line)
    return Path("arguments").read_text().splitlines(), environment


def test_tpu_workers_are_started_by_accelerate_with_the_profile(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = started(workdir, "tpu", monkeypatch)
    output = ["--tpu", "--config_file", "docker/tpu/accelerate.yaml", "--module", "reprise.train.worker"]
    assert arguments == ["-m", "accelerate.commands.launch", *output]
    parsed = launch_command_parser().parse_args(output)
    assert (parsed.tpu, parsed.module, parsed.training_script) == (True, True, "reprise.train.worker")
    assert environment[worker_env.WORLD_SIZE] == "2"
    assert "ACCELERATE_USE_CPU" not in environment


def test_cpu_workers_are_started_by_torchrun(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = started(workdir, "cpu", monkeypatch)
    assert arguments == [
        "-m", "reprise.train.distributed.torchrun", "--nproc-per-node=2", "--max-restarts=0", "--standalone",
        "--module", "reprise.train.worker"
    ]  # fmt: skip
    assert environment[worker_env.WORLD_SIZE] == "2"
    assert environment["ACCELERATE_USE_CPU"] == "1"


def test_command_line_overrides_the_number_of_processes(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = started(workdir, "cpu", monkeypatch, LaunchConfig(processes=3, max_restarts=1, timeout=60))
    assert {"--nproc-per-node=3", "--max-restarts=1", "--standalone"} < set(arguments)
    assert (environment[worker_env.WORLD_SIZE], environment[worker_env.TIMEOUT]) == ("3", "60")


def test_single_process_with_restarts_is_started_by_torchrun(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = started(workdir, "cpu", monkeypatch, LaunchConfig(processes=1, max_restarts=2))
    assert {"--nproc-per-node=1", "--max-restarts=2"} < set(arguments)
    assert environment[worker_env.WORLD_SIZE] == "1"


def test_hosts_meet_at_the_rendezvous_and_count_all_processes(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workdir / "environment.json").write_text("{}")
    arguments, environment = started(workdir, "cpu", monkeypatch, LaunchConfig(2, 3, 1, "10.0.0.1:29500", timeout=60))
    parsed = get_args_parser().parse_args(arguments[2:])
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.max_restarts) == ("3", "2", 0)
    assert (parsed.rdzv_backend, parsed.rdzv_endpoint) == ("c10d", "10.0.0.1:29500")
    assert parsed.rdzv_conf == "is_host=0,join_timeout=60,read_timeout=60"
    assert environment[worker_env.WORLD_SIZE] == "6"


@pytest.mark.parametrize("first", ["10.0.0.1", "train-0.train.default.svc", "fd00::1", "node~7"])
def test_addresses_of_hosts_sort_by_their_rank(first: str) -> None:
    endpoint = f"[{first}]:1" if ":" in first else f"{first}:1"
    addresses = [
        get_args_parser().parse_args([*torchrun_args(1, LaunchConfig(1, 12, rank, endpoint))[1:], "script"]).local_addr
        for rank in range(12)
    ]
    assert addresses[0] == first
    assert sorted(addresses) == addresses
    assert len(set(addresses)) == 12


@pytest.mark.parametrize(("rendezvous", "address"), [("a-b.c:1", ("a-b.c", 1)), ("[::1]:65535", ("::1", 65535))])
def test_endpoint_is_a_host_and_a_port(rendezvous: str, address: tuple[str, int]) -> None:
    assert parse_endpoint(rendezvous) == address


@pytest.mark.parametrize(
    "rendezvous", ["", "host", "host:", ":1", "host:0", "host:65536", "host:port", "::1:1", "a b:1"]
)
def test_invalid_endpoint_is_refused(rendezvous: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_endpoint(rendezvous)
    assert (refused.value.key, refused.value.problem) == ("--rendezvous", f"got {rendezvous!r}")
    assert refused.value.expected.startswith("HOST:PORT")


@pytest.mark.parametrize(("expected", "started"), [(2, 1), (1, 2)])
def test_world_of_another_size_is_refused(expected: int, started: int) -> None:
    with pytest.raises(UserError, match=rf"{started} process\(es\) started") as refused:
        check_world_size(started, expected)
    assert refused.value.expected == str(expected)
    check_world_size(expected, expected)


def test_failed_worker_is_reported_and_keeps_the_earlier_model(train: Train, workdir: Path, run: Run) -> None:
    train()
    before = hashlib.sha256((workdir / "models/final/model.safetensors").read_bytes()).hexdigest()
    (workdir / "docker/cpu/accelerate.yaml").write_text("num_processes: 2\n")
    (workdir / "data/prepared/validation.arrow").unlink()
    failed = run(workdir, "reprise", "train", code=1)
    assert re.search(r"^train: process [01] ended with exit code 70$", failed.stderr, flags=re.MULTILINE)
    assert re.search(r"^reprise: internal error: .*; the traceback is in ", failed.stderr, flags=re.MULTILINE)
    assert "ChildFailedError" not in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stderr.endswith(
        "reprise train: one of 2 processes failed or was lost; its error is printed above, and the same command "
        "resumes from the last checkpoint\n"
    )
    assert hashlib.sha256((workdir / "models/final/model.safetensors").read_bytes()).hexdigest() == before
    assert not list(workdir.rglob("*.partial"))


def test_a_processor_without_bf16_is_said_and_trains(
    train: Train, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "has_bf16", lambda: False)
    train(**{"train.precision": "bf16", "train.max_steps": 1})
    output = capsys.readouterr().out
    assert "no bf16 instructions" in output
    assert (workdir / "models/final/model.safetensors").is_file()
    train(**{"train.precision": "fp32", "train.max_steps": 1})
    assert "bf16" not in capsys.readouterr().out


def test_ctrl_c_exits_with_130_and_keeps_the_earlier_model(train: Train, workdir: Path) -> None:
    train()
    before = {file: file.read_bytes() for file in sorted((workdir / "models/final").iterdir())}
    write_params(workdir, **{"train.epochs": 500})
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    training = subprocess.Popen(
        ["reprise", "train"], cwd=workdir, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert training.stdout is not None
    assert any("validation accuracy" in line for line in training.stdout)  # it is in the middle of its epochs
    training.send_signal(signal.SIGINT)
    _, errors = training.communicate(timeout=60)
    assert training.returncode == 130
    assert re.fullmatch(
        r"train: SIGINT: finishing the step and writing a checkpoint\n"
        r"reprise train: stopped after step \d+/4500; `dvc repro` resumes from there\n",
        errors,
    )
    assert {file: file.read_bytes() for file in sorted((workdir / "models/final").iterdir())} == before
    assert not list(workdir.rglob("*.partial"))


def test_training_turns_tf32_off(train: Train) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    train(**{"train.max_steps": 1})
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_missing_device_is_an_error_before_any_work(verb: str, workdir: Path, run: Run) -> None:
    refused = run(workdir, "reprise", verb, code=2, env={"REPRISE_HARDWARE": "cuda", "CUDA_VISIBLE_DEVICES": ""})
    (line,) = refused.stderr.splitlines()
    assert line.startswith("reprise: error: cuda: no GPU; expected ")


def test_missing_result_of_an_earlier_stage_is_named(workdir: Path, reprise: Run) -> None:
    (workdir / "data/prepared/stats.json").unlink()
    failed = reprise(workdir, "train", code=2)
    (line,) = failed.stderr.splitlines()
    assert line.startswith("reprise: error: data/prepared/stats.json: not found; expected ")
    assert line.endswith("`dvc repro`")


def test_progress_without_a_terminal_is_plain_lines(
    train: Train, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reprise.train.progress.LOG_EVERY_S", -1.0)
    train()
    lines = [line for line in capsys.readouterr().out.splitlines() if ", step " in line]
    assert [line.split(",")[1] for line in lines] == [" step 9/18", " step 18/18"]
    assert all("examples/s" in line and line.endswith("left") for line in lines)


def test_speed_is_kept_apart_from_the_metrics(train: Train, workdir: Path) -> None:
    train()
    speed = json.loads((workdir / "metrics/speed.json").read_text())
    assert set(speed) == {
        "run",
        "sha256",
        "train_seconds",
        "median_step_seconds",
        "examples_per_second",
        "tokens_per_second",
        "padding_fraction",
        "peak_memory_mib",
        "processes",
        "threads",
    }
    assert 0 < speed["padding_fraction"] < 0.3
    assert "second" not in (workdir / "metrics/train.json").read_text()
