"""`reprise train`: check the options, then train here or start one worker per rank.

torchrun starts several workers, because `accelerate launch` starts only one on the CPU. On a TPU, `accelerate launch`
starts one worker per core. The workers check their number before they train. Each of several hosts starts its own.

Nothing here imports torch before the options are checked.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reprise.core.config import PARAMS, Recipe, Train
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import scratch_dir
from reprise.core.paths import PREPARED, PRETRAINED, TEACHER
from reprise.data.format import stats_path
from reprise.gpus import check_compiler, check_gpus, read_driver
from reprise.hardware import (
    ENVIRONMENT,
    HARDWARE_DIR,
    check_device,
    installed_version,
    read_facts,
    require_device,
    require_driver,
)
from reprise.modeling.cpu_kernels import has_bf16
from reprise.modeling.portable import check_processor
from reprise.train.distributed.launch_config import LaunchConfig, torchrun_args, validate
from reprise.train.distributed.liveness import LivenessMonitor
from reprise.train.distributed.preemption import TrainingInterrupted, handle_signals, set_pdeathsig
from reprise.train.worker_env import WorkerEnv, read_message

if TYPE_CHECKING:
    from reprise.train.memory import Placement  # imports torch

SHUTDOWN_GRACE_S = 10  # seconds that torchrun has to clean up after failed workers
SINGLE_PROCESS = LaunchConfig()


def launch(
    recipe: Recipe,
    hardware: str,
    config: LaunchConfig = SINGLE_PROCESS,
    *,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Train in this process, or in as many as the command line or the launch profile gives.

    Args:
        recipe: what is trained; several processes read it from params.yaml.
        hardware: the folder in docker/.
        config: the options of the command line.
        check: called before outputs are replaced; raises if they may not be. Several processes have their own.

    Raises:
        UserError: the profile, the command line or the results of earlier stages cannot be used.
        SystemExit: a worker failed, or a signal stopped the training (143 for SIGTERM, 130 for SIGINT).
    """
    processes = check_launch(recipe, hardware, config)
    device, profile = require_device(hardware), profile_path(hardware, config.profile)
    needs = [stats_path(PREPARED), PRETRAINED / "model"]
    needs += [TEACHER] if recipe.train.distill else []
    needs += [ENVIRONMENT] if config.nodes > 1 else []
    for needed in needs:
        if not needed.exists():
            stages = "environment prepare teacher" if recipe.train.distill else "environment prepare"
            command = f"dvc repro {stages}" if config.node_rank else "dvc repro"
            expected = f"the results of the stages before train: run `{command}`"
            raise UserError("not found", file=needed, expected=expected)
    if recipe.train.precision == "bf16" and device == "cpu" and not has_bf16():
        echo(
            "train: this processor has no bf16 instructions: products of bf16 matrices are computed in fp32, so the "
            "result is the recipe's, and a step takes as long as in fp32"
        )
    try:
        if processes * config.nodes == 1 and not config.max_restarts:
            from reprise.train.worker import train_worker  # imports torch

            train_worker(recipe, device, check)
        else:
            spawn_workers(processes, device, profile, config)
    except TrainingInterrupted as interrupted:
        echo(f"reprise train: {interrupted}", err=True)
        sys.exit(128 + interrupted.signal)


def check_launch(recipe: Recipe, hardware: str, config: LaunchConfig) -> int:
    """Check everything that a training needs, except the results of earlier stages, without importing torch.

    Returns:
        The number of processes on this host.

    Raises:
        UserError: the recipe, the profile, the options, the device and the installed trackers do not fit together.
    """
    facts = read_facts(hardware)
    device = facts["device"]
    validate(config, device)
    profile = profile_path(hardware, config.profile)
    validate_fsdp(recipe.train, profile)
    check_device(hardware)
    check_processor(recipe.train, device)
    processes = config.processes or read_processes(profile)
    if facts.get("gpus") == "nvidia":
        check_gpus(require_driver(hardware, facts).gpus, processes, config.nodes, recipe.train.precision)
        check_compiler()
    validate_engine(recipe.train, device, processes, config.nodes)
    for name in recipe.run.trackers:
        # MLflow's client has all that is used; trackio has no lock.
        if not any(installed_version(each) for each in (name, f"{name}-skinny")):
            lock = "--no-deps --require-hashes -r docker/cpu/trackers.txt"
            expected = f"it beside the locked software: pip install {name if name == 'trackio' else lock}"
            raise UserError(f"{name} is not installed", file=PARAMS, key="run.trackers", expected=expected)
    return processes


def find_placement(recipe: Recipe, hardware: str, config: LaunchConfig) -> "Placement | None":
    """Return the GPUs that the recipe is trained on, and their free memory; None on other devices.

    Raises:
        UserError: torch cannot use them, or what `check_launch` raises.
    """
    if read_facts(hardware)["device"] != "cuda":
        return None
    processes = check_launch(recipe, hardware, config)
    require_device(hardware)
    import torch

    from reprise.train.memory import Placement

    free, index = min((torch.cuda.mem_get_info(index)[0], index) for index in range(processes))
    sharded = bool(fsdp_env(profile_path(hardware, config.profile)))
    return Placement("cuda", torch.cuda.get_device_name(index), free, processes * config.nodes, sharded)


def validate_engine(train: Train, device: str, processes: int, nodes: int = 1) -> None:
    """Check that the engine can train on this type of device with this number of processes and hosts.

    Raises:
        UserError: it cannot.
    """
    if device == "xla" and train.engine != "accelerate":
        problem = f"{train.engine} does not train on XLA"
        raise UserError(problem, file=PARAMS, key="train.engine", expected="accelerate")
    if device == "xla" and train.gradient_checkpointing:
        raise UserError("torch has none for XLA", file=PARAMS, key="train.gradient_checkpointing", expected="false")
    if nodes > 1 and train.engine != "accelerate":
        problem = f"{train.engine} trains on one host, not on {nodes}"
        raise UserError(problem, file=PARAMS, key="train.engine", expected="accelerate")
    if processes > 1 and train.engine == "pytorch":
        problem = f"pytorch trains in one process, not in {processes}"
        raise UserError(problem, file=PARAMS, key="train.engine", expected="accelerate or trainer")


def validate_fsdp(train: Train, profile: Path) -> None:
    """Check that the recipe can train a sharded model if the profile asks for one.

    Raises:
        UserError: it cannot.
    """
    if not fsdp_env(profile):
        return
    if train.engine != "accelerate":
        problem = f"{train.engine} needs the full model on every rank, and {profile} shards it"
        raise UserError(problem, file=PARAMS, key="train.engine", expected="accelerate")
    if train.lora:
        problem = f"adapters cannot be merged into a model that {profile} shards"
        raise UserError(problem, file=PARAMS, key="train.lora", expected="null, or the profile accelerate")


def spawn_workers(processes: int, device: str, profile: Path, config: LaunchConfig) -> None:
    """Train in workers of torchrun, or of `accelerate launch` with XLA; they divide the cores.

    Raises:
        UserError: all ranks raised the same error.
        TrainingInterrupted: a signal to this process or to another host's launcher stopped them.
        SystemExit: a worker failed.
    """
    world_size = processes * config.nodes
    environment = {**os.environ, **fsdp_env(profile)}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    environment.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # torch warns about options that accelerate.py sets on purpose
    if config.max_restarts:  # else restarted workers find the addresses of the earlier ones
        environment.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "1"
    launcher = torchrun_args(processes, config)
    if config.nodes > 1:
        echo(f"train: host {config.node_rank} of {config.nodes}, rendezvous at {config.rendezvous}")
    if device == "xla":
        launcher = ["accelerate.commands.launch", "--tpu", "--config_file", str(profile)]
    with scratch_dir("train") as folder, handle_signals() as stop:
        stop_file, error_file, liveness_file = (folder / name for name in ("stop", "error", "liveness"))
        worker_env = WorkerEnv(world_size, config.timeout, stop_file, error_file, liveness_file)
        monitor = LivenessMonitor(liveness_file, config.timeout if config.max_restarts else SHUTDOWN_GRACE_S)
        running = subprocess.Popen(
            [sys.executable, "-m", *launcher, "--module", "reprise.train.worker"],
            env=environment | worker_env.variables(),
            start_new_session=True,  # Ctrl-C reaches this process only: launchers kill workers in the middle of a step
            preexec_fn=partial(set_pdeathsig, signal.SIGTERM),
        )
        try:
            while running.poll() is None:
                time.sleep(0.1)
                if stop.signal:
                    stop_file.touch()
                if config.nodes > 1 and monitor.is_dead():
                    running.kill()
        finally:
            running.terminate()
            code = running.wait()
        stop_message, error_message = read_message(stop_file), read_message(error_file)
    if error_message:
        raise UserError(error_message)
    if stop_message:
        raise TrainingInterrupted(stop_message, stop.signal or signal.SIGTERM)
    if code:
        where = f" on {config.nodes} hosts" if config.nodes > 1 else ""
        echo(
            f"reprise train: one of {world_size} processes{where} failed or was lost; its error is printed above, and "
            "the same command resumes from the last checkpoint",
            err=True,
        )
        sys.exit(max(code, 1))


def profile_path(hardware: str, name: str) -> Path:
    """Return the file of a launch profile.

    Raises:
        UserError: the hardware has no profile of that name.
    """
    profile = HARDWARE_DIR / hardware / f"{name}.yaml"
    if not profile.is_file():
        others = ", ".join(sorted(file.stem for file in profile.parent.glob("*.yaml") if file.stem != "hardware"))
        raise UserError("not found", file=profile, expected=f"one of the profiles of {hardware}: {others}")
    return profile


def read_profile(profile: Path) -> dict[str, Any]:
    """Read a launch profile, as `accelerate config` writes it.

    Raises:
        UserError: the file is not one.
    """
    try:
        content = YAML(typ="safe").load(profile.read_text(encoding="utf-8"))
    except (OSError, YAMLError):
        content = None
    if not isinstance(content, dict):
        raise UserError(file=profile, expected="an Accelerate profile with the key num_processes")
    return content


def read_processes(profile: Path) -> int:
    """Read the number of processes from a profile; with `gpu_ids: all`, one per GPU.

    Raises:
        UserError: the profile has no valid number.
    """
    content = read_profile(profile)
    if "num_processes" not in content and content.get("gpu_ids") != "all":
        raise UserError(file=profile, expected="an Accelerate profile with the key num_processes")
    processes = count_gpus() if content.get("gpu_ids") == "all" else content["num_processes"]
    if not isinstance(processes, int) or processes < 1:
        raise UserError(f"got {processes!r}", file=profile, key="num_processes", expected="an integer of at least 1")
    return processes


def count_gpus() -> int:
    """Return the number of GPUs that the driver offers to this process."""
    driver = read_driver()
    return len(driver.gpus) if driver else 0


def fsdp_env(profile: Path) -> dict[str, str]:
    """Return the variables with which Accelerate shards the model; {} if the profile does not.

    Raises:
        UserError: the profile asks for another version than FSDP2.
    """
    content = read_profile(profile)
    if content.get("distributed_type") != "FSDP":
        return {}
    options = content.get("fsdp_config") or {}
    if options.get("fsdp_version") != 2:
        got = options.get("fsdp_version")
        raise UserError(f"got {got!r}", file=profile, key="fsdp_config.fsdp_version", expected="2")
    return {"ACCELERATE_USE_FSDP": "true"} | {key.upper(): str(value) for key, value in options.items()}
