"""`reprise train`: start the processes that docker/<hardware>/accelerate.yaml or the command line asks for.

Several are started with torchrun, as `accelerate launch` runs a single one on the CPU whatever it is asked; on a TPU
with `accelerate launch`, which starts one for each of its cores. Either way they count themselves before they train.
Of several hosts each starts its own, and they meet at an address of host 0.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reprise.core.config import Recipe, Train
from reprise.core.errors import UserError
from reprise.core.paths import PREPARED, PRETRAINED
from reprise.data.format import stats_path
from reprise.hardware import ENVIRONMENT, HARDWARE_DIR, require_device
from reprise.train.distributed.launch_config import LaunchConfig, torchrun_args, validate
from reprise.train.distributed.liveness import LIVENESS_FILE, LivenessMonitor
from reprise.train.distributed.preemption import STOP_FILE, TrainingInterrupted, handle_signals, set_pdeathsig
from reprise.train.trackers import check_trackers

# How the launcher tells its processes how many they should be, on all hosts; see check_world_size in worker.py.
WORLD_SIZE = "REPRISE_WORLD_SIZE"
# And for how many seconds they wait for one another.
TIMEOUT = "REPRISE_TIMEOUT"
# Where they leave what all of them were refused for.
ERROR_FILE = "REPRISE_ERROR_FILE"
SHUTDOWN_GRACE_S = 10  # seconds for which torchrun may tidy up after processes that failed
SINGLE_PROCESS = LaunchConfig()


def launch(recipe: Recipe, hardware: str, share: LaunchConfig = SINGLE_PROCESS) -> None:
    """Train in this process, or in as many as the profile or the command line says.

    Raises:
        UserError: the profile, the command line or what the earlier stages made cannot be used.
        SystemExit: one of several processes failed, or a signal stopped the training (143 for SIGTERM, 130 for SIGINT).
    """
    require_device(hardware)
    validate(share, hardware)
    profile = profile_path(hardware, share.profile)
    processes = share.processes or read_processes(profile)
    if hardware == "cuda" and processes > torch.cuda.device_count():
        raise UserError(
            f"--processes: expected one for a GPU, of which there are {torch.cuda.device_count()}; got {processes}"
        )
    validate_engine(recipe.train, hardware, processes, share.nodes)
    validate_fsdp(recipe.train, profile)
    check_trackers(recipe.run)
    for needed in (stats_path(PREPARED), PRETRAINED / "model", *([ENVIRONMENT] if share.nodes > 1 else [])):
        if not needed.exists():
            how = "dvc repro environment prepare" if share.node_rank else "dvc repro"
            raise UserError(f"{needed}: not found; expected what the stages before train make: run `{how}`")
    if recipe.train.precision == "bf16" and hardware == "cpu" and not has_bf16(Path("/proc/cpuinfo")):
        print(
            "train: this processor has no bf16 instructions: the result is the recipe's, but expect it to take several "
            "times longer; fp32 is faster here: dvc exp run -S train.precision=fp32",
            flush=True,
        )
    try:
        if processes * share.nodes == 1 and not share.max_restarts:
            from reprise.train.worker import train_worker

            train_worker(recipe, hardware)
        else:
            spawn_workers(processes, hardware, share)
    except TrainingInterrupted as stopped:
        print(f"reprise train: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal)


def validate_engine(train: Train, hardware: str, processes: int, nodes: int = 1) -> None:
    """Raise an UserError where the recipe asks for what this hardware or so many processes and hosts cannot do."""
    if hardware == "tpu" and train.engine != "accelerate":
        raise UserError(f"params.yaml: train.engine: {train.engine} does not train on XLA; expected accelerate")
    if hardware == "tpu" and train.gradient_checkpointing:
        raise UserError("params.yaml: train.gradient_checkpointing: torch has none for XLA; expected false")
    if nodes > 1 and train.engine != "accelerate":
        raise UserError(
            f"params.yaml: train.engine: {train.engine} trains on one host, not on {nodes}; expected accelerate"
        )
    if processes > 1 and train.engine == "pytorch":
        raise UserError(
            f"params.yaml: train.engine: pytorch trains in one process, not in {processes}; "
            "expected accelerate or trainer"
        )


def validate_fsdp(train: Train, profile: Path) -> None:
    """Raise an UserError where the profile divides the model between processes and the recipe asks for what cannot be.

    Even on one process: how many there are changes nothing about what is refused.
    """
    if not fsdp_env(profile):
        return
    if train.engine != "accelerate":
        raise UserError(
            f"params.yaml: train.engine: {train.engine} has every process hold the whole model, and {profile} divides "
            "it; expected accelerate"
        )
    if train.lora:
        raise UserError(
            f"params.yaml: train.lora: it has no weights to add to in a model that {profile} divides; expected null, "
            "or the profile accelerate"
        )


def spawn_workers(processes: int, hardware: str, share: LaunchConfig) -> None:
    """Train in processes that torchrun starts, or `accelerate launch` on a TPU; they share the cores of a CPU.

    Raises:
        UserError: all of them were refused for the same reason.
        Stopped: they were stopped by a signal that this process or another host's took.
        SystemExit: one of them failed.
    """
    profile = profile_path(hardware, share.profile)
    environment = {**os.environ, **fsdp_env(profile)}
    environment |= {WORLD_SIZE: str(processes * share.nodes), TIMEOUT: str(share.timeout)}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # worker.py asks on purpose for what torch warns of
    if share.max_restarts:  # else those that start again find the addresses of those before
        environment.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if hardware == "cpu":
        environment["ACCELERATE_USE_CPU"] = "1"
    launcher = torchrun_args(processes, share)
    if share.nodes > 1:
        print(f"train: host {share.node_rank} of {share.nodes}, they meet at {share.rendezvous}", flush=True)
    if hardware == "tpu":
        launcher = ["accelerate.commands.launch", "--tpu", "--config_file", str(profile)]
    with tempfile.TemporaryDirectory() as folder, handle_signals() as stop:
        stop_file, refused_file, alive_file = (Path(folder) / name for name in ("stop", "refused", "alive"))
        watch = LivenessMonitor(alive_file, share.timeout if share.max_restarts else SHUTDOWN_GRACE_S)
        running = subprocess.Popen(
            [sys.executable, "-m", *launcher, "--module", "reprise.train.worker"],
            env={
                **environment,
                STOP_FILE: str(stop_file),
                ERROR_FILE: str(refused_file),
                LIVENESS_FILE: str(alive_file),
            },
            start_new_session=True,  # Ctrl-C reaches us alone: launchers end their processes in the middle of a step
            preexec_fn=partial(set_pdeathsig, signal.SIGTERM),
        )
        try:
            while running.poll() is None:
                time.sleep(0.1)
                if stop.signal:
                    stop_file.touch()
                if share.nodes > 1 and watch.is_dead():
                    running.kill()
        finally:
            running.terminate()
            code = running.wait()
        said, refused = (
            file.read_text(encoding="utf-8") if file.exists() else "" for file in (stop_file, refused_file)
        )
    if refused:
        raise UserError(refused)
    if said:
        raise TrainingInterrupted(said, stop.signal or signal.SIGTERM)
    if code:
        where = f" on {share.nodes} hosts" if share.nodes > 1 else ""
        print(
            f"reprise train: one of {processes * share.nodes} processes{where} failed or was lost; its error stands "
            "above, and the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        sys.exit(max(code, 1))


def profile_path(hardware: str, name: str) -> Path:
    """A launch profile of a kind of hardware.

    Raises:
        UserError: there is none of that name.
    """
    profile = HARDWARE_DIR / hardware / f"{name}.yaml"
    if not profile.is_file():
        others = ", ".join(sorted(file.stem for file in profile.parent.glob("*.yaml")))
        raise UserError(f"{profile}: not found; expected one of the profiles of {hardware}: {others}")
    return profile


def read_profile(profile: Path) -> dict[str, Any]:
    """A profile as `accelerate config` writes it."""
    try:
        settings = YAML(typ="safe").load(profile.read_text(encoding="utf-8"))
    except (OSError, YAMLError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{profile}: expected an Accelerate profile with the key num_processes")
    return settings


def read_processes(profile: Path) -> int:
    """The number of processes in a profile: with `gpu_ids: all`, one for each GPU."""
    settings = read_profile(profile)
    if "num_processes" not in settings and settings.get("gpu_ids") != "all":
        raise UserError(f"{profile}: expected an Accelerate profile with the key num_processes")
    processes = torch.cuda.device_count() if settings.get("gpu_ids") == "all" else settings["num_processes"]
    if not isinstance(processes, int) or processes < 1:
        raise UserError(f"{profile}: num_processes: expected a whole number of at least 1, got {processes!r}")
    return processes


def fsdp_env(profile: Path) -> dict[str, str]:
    """What tells Accelerate, as environment variables, that it divides the model and how; {} where it does not.

    Raises:
        UserError: the profile asks for another way than FSDP2.
    """
    settings = read_profile(profile)
    if settings.get("distributed_type") != "FSDP":
        return {}
    chosen = settings.get("fsdp_config") or {}
    if chosen.get("fsdp_version") != 2:
        raise UserError(f"{profile}: fsdp_config.fsdp_version: expected 2, got {chosen.get('fsdp_version')!r}")
    return {"ACCELERATE_USE_FSDP": "true"} | {key.upper(): str(value) for key, value in chosen.items()}


def has_bf16(cpuinfo: Path) -> bool:
    """Whether the processor multiplies bf16 natively, by the flags that Linux lists (x86-64 and Arm)."""
    try:
        words = set(cpuinfo.read_text().split())
    except OSError:
        return True  # not Linux: nothing is known, so nothing is claimed
    return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})
