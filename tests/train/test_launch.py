"""Starting the processes: the profile, the world that came up, the processor's own words, and being interrupted."""

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
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.train import stage as launching
from reprise.train.distributed.launch_config import LaunchConfig, parse_endpoint, torchrun_args
from reprise.train.stage import SINGLE_PROCESS, has_bf16, read_processes
from reprise.train.worker import check_world_size
from tiny import ROOT, Run, tiny_recipe, write_params

Cook = Callable[..., object]


def test_the_profile_says_how_many_processes(tmp_path: Path) -> None:
    profile = tmp_path / "accelerate.yaml"
    profile.write_text("distributed_type: MULTI_CPU\nnum_processes: 3\n")
    assert read_processes(profile) == 3


@pytest.mark.parametrize(("room", "processes"), [("cpu", 1), ("cuda", 3), ("tpu", 1)])
def test_the_profile_of_a_room_asks_for_one_process_or_for_one_on_each_gpu(
    room: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert read_processes(ROOT / "docker" / room / "accelerate.yaml") == processes


@pytest.mark.parametrize("text", ["num_processes: 0\n", "num_processes: two\n", "use_cpu: true\n", "[", "- 1\n", None])
def test_a_profile_without_a_usable_number_of_processes_is_refused(tmp_path: Path, text: str | None) -> None:
    profile = tmp_path / "accelerate.yaml"
    if text is not None:
        profile.write_text(text)
    with pytest.raises(UserError, match="num_processes"):
        read_processes(profile)


def started(
    at: Path, hardware: str, monkeypatch: pytest.MonkeyPatch, share: LaunchConfig = SINGLE_PROCESS
) -> tuple[list[str], dict[str, str]]:
    """What `launch` runs where the profile says two processes: the arguments of Python, and its environment."""
    python = at / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\nenv > environment\n')
    python.chmod(0o755)
    profile = at / "docker" / hardware / "accelerate.yaml"
    profile.write_text(re.sub("num_processes: .*", "num_processes: 2", profile.read_text()))
    monkeypatch.setenv("PJRT_DEVICE", "CPU")  # a TPU's software looks for no TPU then
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(sys, "executable", str(python))
    launching.launch(check_recipe(tiny_recipe(), "params.yaml"), hardware, share)
    environment = dict(line.split("=", 1) for line in Path("environment").read_text().splitlines() if "=" in line)
    return Path("arguments").read_text().splitlines(), environment


def test_the_cores_of_a_tpu_are_started_by_accelerate_with_the_profile_of_the_room(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, environment = started(at, "tpu", monkeypatch)
    said = ["--tpu", "--config_file", "docker/tpu/accelerate.yaml", "--module", "reprise.train.worker"]
    assert arguments == ["-m", "accelerate.commands.launch", *said]
    understood = launch_command_parser().parse_args(said)
    assert (understood.tpu, understood.module, understood.training_script) == (True, True, "reprise.train.worker")
    assert environment[launching.WORLD_SIZE] == "2"
    assert "ACCELERATE_USE_CPU" not in environment


def test_the_processes_of_a_cpu_are_started_by_torchrun(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = started(at, "cpu", monkeypatch)
    assert arguments == [
        "-m", "reprise.train.distributed.torchrun", "--nproc-per-node=2", "--max-restarts=0", "--standalone",
        "--module", "reprise.train.worker"
    ]  # fmt: skip
    assert environment[launching.WORLD_SIZE] == "2"
    assert environment["ACCELERATE_USE_CPU"] == "1"


def test_the_command_line_says_how_many_processes_before_the_profile_does(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, environment = started(at, "cpu", monkeypatch, LaunchConfig(processes=3, max_restarts=1, timeout=60))
    assert {"--nproc-per-node=3", "--max-restarts=1", "--standalone"} < set(arguments)
    assert (environment[launching.WORLD_SIZE], environment[launching.TIMEOUT]) == ("3", "60")


def test_one_process_that_may_start_again_is_started_by_torchrun_too(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, environment = started(at, "cpu", monkeypatch, LaunchConfig(processes=1, max_restarts=2))
    assert {"--nproc-per-node=1", "--max-restarts=2"} < set(arguments)
    assert environment[launching.WORLD_SIZE] == "1"


def test_several_hosts_meet_at_the_address_of_the_first_and_are_counted_together(
    at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (at / "environment.json").write_text("{}")
    arguments, environment = started(at, "cpu", monkeypatch, LaunchConfig(2, 3, 1, "10.0.0.1:29500", timeout=60))
    understood = get_args_parser().parse_args(arguments[2:])
    assert (understood.nnodes, understood.nproc_per_node, understood.max_restarts) == ("3", "2", 0)
    assert (understood.rdzv_backend, understood.rdzv_endpoint) == ("c10d", "10.0.0.1:29500")
    assert understood.rdzv_conf == "is_host=0,join_timeout=60,read_timeout=60"
    assert environment[launching.WORLD_SIZE] == "6"


@pytest.mark.parametrize("first", ["10.0.0.1", "train-0.train.default.svc", "fd00::1", "node~7"])
def test_torchrun_numbers_the_hosts_as_we_do_since_their_addresses_sort_so(first: str) -> None:
    endpoint = f"[{first}]:1" if ":" in first else f"{first}:1"
    addresses = [
        get_args_parser().parse_args([*torchrun_args(1, LaunchConfig(1, 12, rank, endpoint))[1:], "script"]).local_addr
        for rank in range(12)
    ]
    assert addresses[0] == first
    assert sorted(addresses) == addresses
    assert len(set(addresses)) == 12


@pytest.mark.parametrize(("rendezvous", "address"), [("a-b.c:1", ("a-b.c", 1)), ("[::1]:65535", ("::1", 65535))])
def test_the_address_at_which_hosts_meet_is_a_host_and_a_port(rendezvous: str, address: tuple[str, int]) -> None:
    assert parse_endpoint(rendezvous) == address


@pytest.mark.parametrize(
    "rendezvous", ["", "host", "host:", ":1", "host:0", "host:65536", "host:port", "::1:1", "a b:1"]
)
def test_anything_else_is_no_address_at_which_hosts_meet(rendezvous: str) -> None:
    with pytest.raises(UserError, match="--rendezvous: expected HOST:PORT, such as"):
        parse_endpoint(rendezvous)


@pytest.mark.parametrize(("asked", "came"), [("2", 1), ("1", 2)])
def test_a_world_of_another_size_than_asked_for_fails(asked: str, came: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launching.WORLD_SIZE, asked)
    with pytest.raises(UserError, match=rf"{came} process\(es\) came up, expected {asked}"):
        check_world_size(came)
    check_world_size(int(asked))


def test_a_process_that_fails_is_told_and_leaves_the_earlier_model(cook: Cook, at: Path, run: Run) -> None:
    cook()
    before = hashlib.sha256((at / "models/final/model.safetensors").read_bytes()).hexdigest()
    (at / "docker/cpu/accelerate.yaml").write_text("num_processes: 2\n")
    (at / "data/prepared/validation.arrow").unlink()
    failed = run(at, "reprise", "train", code=1)
    assert re.search(r"^train: process [01] ended with exit code 1$", failed.stderr, flags=re.MULTILINE)
    assert "ChildFailedError" not in failed.stderr
    assert failed.stderr.endswith(
        "reprise train: one of 2 processes failed or was lost; its error stands above, and the same command goes on "
        "from the last checkpoint\n"
    )
    assert hashlib.sha256((at / "models/final/model.safetensors").read_bytes()).hexdigest() == before
    assert not list(at.rglob("*.partial"))


@pytest.mark.parametrize(
    ("cpuinfo", "answer"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 rdpid\n", True),
        ("flags\t\t: fpu amx_tile amx_bf16\n", True),
        ("Features\t: fp asimd i8mm bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
    ],
)
def test_bf16_instructions_are_found_among_the_processors_flags(tmp_path: Path, cpuinfo: str, answer: bool) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert has_bf16(tmp_path / "cpuinfo") is answer
    assert has_bf16(tmp_path / "missing") is True


def test_a_processor_without_bf16_is_told_how_to_cook_in_fp32_and_cooks_on(
    cook: Cook, at: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "has_bf16", lambda _: False)
    cook(**{"train.precision": "bf16", "train.max_steps": 1})
    said = capsys.readouterr().out
    assert "no bf16 instructions" in said
    assert "dvc exp run -S train.precision=fp32" in said
    assert (at / "models/final/model.safetensors").is_file()
    cook(**{"train.precision": "fp32", "train.max_steps": 1})
    assert "bf16" not in capsys.readouterr().out


def test_ctrl_c_ends_with_130_says_what_is_kept_and_leaves_the_earlier_model(cook: Cook, at: Path) -> None:
    cook()
    before = {file: file.read_bytes() for file in sorted((at / "models/final").iterdir())}
    write_params(at, **{"train.epochs": 500})
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    training = subprocess.Popen(
        ["reprise", "train"], cwd=at, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert training.stdout is not None
    assert any("validation accuracy" in line for line in training.stdout)  # it is in the middle of its epochs
    training.send_signal(signal.SIGINT)
    _, errors = training.communicate(timeout=60)
    assert training.returncode == 130
    assert re.fullmatch(
        r"train: SIGINT: finishing the step and keeping a checkpoint\n"
        r"reprise train: stopped after step \d+/4500; `dvc repro` goes on from there\n",
        errors,
    )
    assert {file: file.read_bytes() for file in sorted((at / "models/final").iterdir())} == before
    assert not list(at.rglob("*.partial"))


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_without_the_device_of_the_hardware_no_stage_begins(verb: str, at: Path, run: Run) -> None:
    refused = run(at, "reprise", verb, code=2, env={"REPRISE_HARDWARE": "cuda", "CUDA_VISIBLE_DEVICES": ""})
    assert refused.stderr == (
        "reprise: error: cuda: PyTorch sees no GPU; expected one with its driver, as `make train-gpu` passes it on\n"
    )


def test_training_before_the_earlier_stages_names_what_is_missing(at: Path, run: Run) -> None:
    (at / "data/prepared/stats.json").unlink()
    failed = run(at, "reprise", "train", code=2)
    assert failed.stderr == (
        "reprise: error: data/prepared/stats.json: not found; "
        "expected what the stages before train make: run `dvc repro`\n"
    )


def test_progress_is_a_plain_line_now_and_then_where_there_is_no_terminal(
    cook: Cook, at: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reprise.train.history.LOG_EVERY_S", -1.0)
    cook()
    lines = [line for line in capsys.readouterr().out.splitlines() if ", step " in line]
    assert [line.split(",")[1] for line in lines] == [" step 9/18", " step 18/18"]
    assert all("examples/s" in line and line.endswith("left") for line in lines)


def test_the_speed_is_measured_apart_from_the_metrics(cook: Cook, at: Path) -> None:
    cook()
    speed = json.loads((at / "metrics/speed.json").read_text())
    assert set(speed) == {
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
    assert "second" not in (at / "metrics/train.json").read_text()
