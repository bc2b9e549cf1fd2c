"""Tests of docker/run and the make targets that call it: the arguments passed to a container engine.

No engine is needed: a fake engine records its arguments and stores the label of the image that it would build.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from reprise.core.errors import UserError
from reprise.gpus import Driver, Gpu
from reprise.hardware import check_device
from reprise.train.stage import read_processes
from tiny import ROOT, Run

HARDWARE_DIRS = sorted(lock.parent.name for lock in (ROOT / "docker").glob("*/torch.txt"))
# Of hardware.yaml, all optional.
FACTS = ("cuda", "device_files", "driver", "gpus", "no_device", "options", "packages", "python", "variable")
HARDWARE = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}  # suffix of a target: folder in docker/
IDENTITY = {  # the git configuration of a caller with a name and an e-mail address
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "user.name",
    "GIT_CONFIG_VALUE_0": "Ada Lovelace",
    "GIT_CONFIG_KEY_1": "user.email",
    "GIT_CONFIG_VALUE_1": "ada@example.org",
}
COMMIT = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "-qam", "Change")

# FAIL names the subcommand that fails; RUNTIMES and SECURITY are the output of `docker info`.
FAKE_ENGINE = r"""#!/bin/bash
here=${0%/*}
{ printf '%s\0' "${0##*/}" "$@"; printf '\x1e'; } >> "$here/calls"
[ "${FAIL-}" != "$1" ] || exit 7
case "$*" in
  "info --format {{json .Runtimes}}") echo "${RUNTIMES-}" ;;
  "info --format {{.SecurityOptions}}") echo "${SECURITY-}" ;;
  "image inspect --format {{.Id}} "*) [ "${0##*/}" = docker ] && echo sha256:1d || echo 1d ;;
  "image inspect "*) cat "$here/label" ;;
  "build "*) for word; do [[ $word != reprise.inputs=* ]] || echo "${word#*=}" > "$here/label"; done ;;
esac
"""
# The only programs on the PATH besides an engine.
TOOLS = ["bash", "cat", "cut", "dirname", "find", "git", "grep", "id", "make", "sed", "sha256sum", "sort", "xargs"]
TOOLS += ["mkdir", "mount", "touch", "unshare"]  # for the machines and users below

# Replaces the devices and CDI files of the machine by the named ones.
SIMULATE_MACHINE = """
mount -t tmpfs none /run
[ ! -d /etc/cdi ] || mount -t tmpfs none /etc/cdi
mkdir /run/dev
for device in null zero full random urandom tty; do
  touch /run/dev/$device
  mount --bind /dev/$device /run/dev/$device
done
if [ -d /dev/shm ]; then  # the folders of the tests may be there
  mkdir /run/dev/shm
  mount --bind /dev/shm /run/dev/shm
fi
mount --rbind /run/dev /dev
for file in $0; do
  mkdir -p "${file%/*}"
  echo nvidia.com/gpu > "$file"
done
exec "$@"
"""
GPU, CDI, TPU, VFIO = "/dev/nvidiactl", "/run/cdi/nvidia.yaml", "/dev/accel0", "/dev/vfio/0"
TOOLKIT = '{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}'


def with_devices(*files: str) -> tuple[str, ...]:
    """Return a command prefix that simulates a machine with exactly these devices and CDI files."""
    return ("unshare", "--user", "--map-root-user", "--mount", "bash", "-ec", SIMULATE_MACHINE, " ".join(files))


def as_user(user: int, group: int) -> tuple[str, ...]:
    """Return a command prefix that maps the current user to another one, 0 for root."""
    return ("unshare", "--user", f"--map-user={user}", f"--map-group={group}")


@dataclass(frozen=True)
class Machine:
    """A checkout, the commands run there, and the recorded calls of the engines."""

    checkout: Path
    programs: Path

    def install(self, *names: str) -> None:
        for name in names:
            (self.programs / name).write_text(FAKE_ENGINE)
            (self.programs / name).chmod(0o755)

    def run(self, *command: str, code: int = 0, cwd: Path | None = None, **env: str) -> list[str]:
        """Run a command with only `env` in the environment; return the lines of stderr."""
        clean = {"PATH": str(self.programs), "HOME": str(self.programs), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        done = subprocess.run(command, cwd=cwd or self.checkout, env=clean | env, capture_output=True, text=True)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr.splitlines()

    def calls(self, verb: str = "") -> list[list[str]]:
        """Return the arguments of all calls of an engine, its name first; only of subcommand `verb` if given."""
        record = self.programs / "calls"
        calls = record.read_text(encoding="utf-8").split("\x1e")[:-1] if record.exists() else []
        split = [call.split("\0")[:-1] for call in calls]
        return [call for call in split if not verb or call[1] == verb]

    def last(self, verb: str) -> list[str]:
        return self.calls(verb)[-1]


@pytest.fixture(scope="module")
def clone(repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A committed checkout without a git identity. Read-only; the fixture `writable` is a copy."""
    folder = tmp_path_factory.mktemp("clone").resolve() / "reprise"
    shutil.copytree(repo, folder, symlinks=True)
    run(folder, "git", "config", "--remove-section", "user")
    return folder


@pytest.fixture
def machine(clone: Path, tmp_path: Path) -> Machine:
    """The clone on a machine without an engine."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (programs / tool).symlink_to(found)
    return Machine(clone, programs)


@pytest.fixture
def docker(machine: Machine) -> Machine:
    """The clone on a machine with docker."""
    machine.install("docker")
    return machine


@pytest.fixture
def writable(docker: Machine, tmp_path: Path) -> Machine:
    """A writable checkout on a machine with docker."""
    copied = shutil.copytree(docker.checkout, tmp_path.resolve() / "reprise", symlinks=True)
    return Machine(Path(copied), docker.programs)


def change(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("a", encoding="utf-8") as text:
        text.write("\n# changed\n")


def values(call: list[str], option: str) -> list[str]:
    """Return the values of all occurrences of an option."""
    return [value for name, value in pairwise(call) if name == option]


# The engine


@pytest.mark.parametrize("command", ["docker/run cpu true", "make train-cpu"])
@pytest.mark.parametrize(
    ("installed", "env", "line"),
    [
        ([], {}, "no container engine is installed; expected docker or podman"),
        (["docker"], {"ENGINE": "lxc"}, "expected docker or podman, got lxc"),
        (["docker"], {"ENGINE": "podman"}, "podman is not installed; expected docker or podman on the PATH"),
        (["docker"], {"FAIL": "info"}, "docker is installed but does not answer; run `docker info` for the reason"),
    ],
    ids=["none", "unknown", "not installed", "not running"],
)
def test_without_a_usable_engine_one_line_is_printed_and_nothing_is_built(
    machine: Machine, command: str, installed: list[str], env: dict[str, str], line: str
) -> None:
    machine.install(*installed)
    line_printed, *more = machine.run(*command.split(), code=2, **env)
    assert line_printed == f"reprise: error: ENGINE: {line}"
    assert [rest for rest in more if not rest.startswith("make: ")] == []
    assert machine.calls("build") == machine.calls("run") == []


@pytest.mark.parametrize(
    ("installed", "env", "chosen"),
    [
        (["docker", "podman"], {}, "docker"),
        (["podman"], {}, "podman"),
        (["docker", "podman"], {"ENGINE": "podman"}, "podman"),
    ],
)
def test_the_engine_is_the_first_one_installed_or_the_one_named(
    machine: Machine, installed: list[str], env: dict[str, str], chosen: str
) -> None:
    machine.install(*installed)
    machine.run("docker/run", "cpu", "true", **env)
    assert {call[0] for call in machine.calls()} == {chosen}


@pytest.mark.parametrize(("fails", "then_runs"), [("build", 0), ("run", 1)])
def test_the_exit_code_of_the_engine_is_returned_and_a_failed_build_runs_nothing(
    docker: Machine, fails: str, then_runs: int
) -> None:
    docker.run("docker/run", "cpu", "true", code=7, FAIL=fails)
    assert len(docker.calls("run")) == then_runs


# The hardware


@pytest.mark.parametrize("command", ["docker/run abacus true", "docker/run", "docker/run --build"])
def test_unknown_hardware_fails_with_the_list_of_known_ones(docker: Machine, command: str) -> None:
    (line,) = docker.run(*command.split(), code=2)
    given = "abacus" if "abacus" in command else ""
    assert line == f"reprise: error: docker/run: expected one of cpu cuda tpu, got '{given}'"
    assert docker.calls() == []


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("train-gpu", "make train-gpu: this machine has no NVIDIA GPU, or no driver for it (no /dev/nvidiactl)"),
        (
            "train-tpu",
            "make train-tpu: this machine has no TPU (no /dev/accel*, no /dev/vfio/*); "
            "expected a TPU VM, or PJRT_DEVICE=CPU to try",
        ),
    ],
)
def test_without_the_device_one_line_is_printed_and_nothing_is_built(docker: Machine, command: str, line: str) -> None:
    line_printed, *more = docker.run(*with_devices(), "make", command, code=2)
    assert line_printed == f"reprise: error: {line}"
    assert [rest for rest in more if not rest.startswith("make: ")] == []
    assert docker.calls("build") == docker.calls("run") == []


@pytest.mark.parametrize(
    ("installed", "files", "env", "line"),
    [
        ("docker", [GPU], {}, "docker cannot pass the GPU through; expected the NVIDIA Container Toolkit"),
        ("podman", [GPU], {}, "podman cannot pass the GPU through; expected a CDI file: nvidia-ctk cdi generate"),
        ("docker", [GPU], {"GPUS": "two"}, "GPUS: expected all, or numbers such as 0 or 0,1; got two"),
        ("docker", [GPU], {"GPUS": "0,"}, "GPUS: expected all, or numbers such as 0 or 0,1; got 0,"),
        ("podman", [GPU, CDI], {"GPUS": "0 1"}, "GPUS: expected all, or numbers such as 0 or 0,1; got 0 1"),
    ],
    ids=["docker without toolkit", "podman without CDI", "words", "trailing comma", "blank"],
)
def test_a_gpu_that_the_engine_cannot_pass_through_is_an_error(
    machine: Machine, installed: str, files: list[str], env: dict[str, str], line: str
) -> None:
    machine.install(installed)
    (printed,) = machine.run(*with_devices(*files), "docker/run", "cuda", "true", code=2, **env)
    assert line in printed
    assert machine.calls("build") == machine.calls("run") == []


@pytest.mark.parametrize(
    ("env", "gpus"),
    [
        ({}, '"device=0"'),
        ({"GPUS": "1"}, '"device=1"'),
        ({"GPUS": "0,1"}, '"device=0,1"'),  # the quotes are docker's: a comma would end the value
        ({"GPUS": "all"}, "all"),
    ],
    ids=["default", "one", "two", "all"],
)
def test_docker_gets_the_requested_gpus(docker: Machine, env: dict[str, str], gpus: str) -> None:
    docker.run(*with_devices(GPU), "make", "train-gpu", RUNTIMES=TOOLKIT, **env)
    assert values(docker.last("run"), "--gpus") == [gpus]
    assert values(docker.last("run"), "--shm-size") == ["1g"]


def test_the_program_of_the_toolkit_is_enough_if_docker_lists_no_runtime(docker: Machine) -> None:
    docker.install("nvidia-container-cli")
    docker.run(*with_devices(GPU), "docker/run", "cuda", "true", RUNTIMES='{"runc":{"path":"runc"}}')
    assert values(docker.last("run"), "--gpus") == ['"device=0"']


@pytest.mark.parametrize(("gpus", "devices"), [("", ["0"]), ("0,1", ["0", "1"]), ("all", ["all"])])
def test_podman_gets_the_gpus_by_their_cdi_names(machine: Machine, gpus: str, devices: list[str]) -> None:
    machine.install("podman")
    machine.run(*with_devices(GPU, CDI), "docker/run", "cuda", "true", GPUS=gpus)
    assert values(machine.last("run"), "--device") == [f"nvidia.com/gpu={device}" for device in devices]


@pytest.mark.parametrize(
    ("files", "env", "privileged"),
    [
        ([TPU], {}, True),
        ([VFIO], {"PJRT_DEVICE": "TPU"}, True),
        ([], {"PJRT_DEVICE": "CPU"}, False),
        ([TPU], {"PJRT_DEVICE": "CPU"}, False),
    ],
    ids=["accel", "vfio", "CPU", "CPU beside a TPU"],
)
def test_a_tpu_needs_privileges_and_xla_on_the_cpu_does_not(
    docker: Machine, files: list[str], env: dict[str, str], privileged: bool
) -> None:
    docker.run(*with_devices(*files), "make", "train-tpu", **env)
    call = docker.last("run")
    assert [option in call for option in ("--privileged", "--net=host")] == [privileged] * 2
    assert "PJRT_DEVICE" in values(call, "--env")


@pytest.mark.parametrize(
    ("files", "xla", "code"),
    [([], {}, 1), ([], {"PJRT_DEVICE": "TPU"}, 1), ([], {"PJRT_DEVICE": "CPU"}, 0), ([TPU], {}, 0), ([VFIO], {}, 0)],
    ids=["none", "TPU asked for", "CPU asked for", "accel", "vfio"],
)
def test_the_stages_detect_the_same_tpu(docker: Machine, files: list[str], xla: dict[str, str], code: int) -> None:
    look = "from reprise.hardware import require_device; require_device('tpu')"
    env = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", **xla}
    printed = docker.run(*with_devices(*files), sys.executable, "-c", look, code=code, **env)
    assert ["UserError: tpu: this machine has no TPU" in line for line in printed[-1:]] == [True] * code


def test_the_cpu_gets_no_device_and_no_privilege(docker: Machine) -> None:
    docker.run(*with_devices(GPU, TPU, CDI), "make", "train-cpu", RUNTIMES=TOOLKIT)
    assert not {"--gpus", "--device", "--privileged", "--net=host"} & set(docker.last("run"))


def test_launch_variables_reach_the_command_and_several_hosts_use_the_host_network(
    docker: Machine,
) -> None:
    single_host = {"REPRISE_PROCESSES": "2", "REPRISE_MAX_RESTARTS": "1"}
    docker.run("docker/run", "cpu", "true", **single_host)
    assert {name for name in values(docker.last("run"), "--env") if "=" not in name} == {"HF_TOKEN", *single_host}
    assert "--net=host" not in docker.last("run")
    hosts = {"REPRISE_NODES": "2", "REPRISE_NODE_RANK": "1", "REPRISE_RENDEZVOUS": "a:1", "GLOO_SOCKET_IFNAME": "eth0"}
    docker.run("docker/run", "cpu", "true", **hosts)
    assert {name for name in values(docker.last("run"), "--env") if "=" not in name} == {"HF_TOKEN", *hosts}
    assert "--net=host" in docker.last("run")


def test_make_passes_the_number_of_processes(docker: Machine) -> None:
    docker.run("make", "train-cpu", "PROCESSES=2")
    assert "REPRISE_PROCESSES" in values(docker.last("run"), "--env")


# The user and the mounts


@pytest.mark.parametrize(
    ("engine", "caller", "env", "user", "mapped"),
    [
        ("docker", as_user(1234, 5678), {}, "1234:5678", []),
        ("docker", as_user(0, 0), {}, "0:0", []),
        ("docker", as_user(0, 0), {"SUDO_UID": "1234", "SUDO_GID": "5678"}, "1234:5678", []),
        ("docker", as_user(1234, 5678), {"SECURITY": "[name=seccomp,profile=builtin name=rootless]"}, "0:0", []),
        ("podman", as_user(1234, 5678), {}, "1234:5678", ["keep-id"]),
        ("podman", as_user(0, 0), {}, "0:0", []),
        ("podman", as_user(0, 0), {"SUDO_UID": "1234", "SUDO_GID": "5678"}, "1234:5678", []),
    ],
    ids=["docker", "docker as root", "sudo docker", "rootless docker", "podman", "podman as root", "sudo podman"],
)
def test_files_will_belong_to_the_caller(
    machine: Machine, engine: str, caller: tuple[str, ...], env: dict[str, str], user: str, mapped: list[str]
) -> None:
    machine.install(engine)
    machine.run(*caller, "docker/run", "cpu", "true", **env)
    assert values(machine.last("run"), "--user") == [user]
    assert values(machine.last("run"), "--userns") == mapped


def test_the_checkout_is_mounted_from_any_working_directory(docker: Machine, tmp_path: Path) -> None:
    docker.run(f"{docker.checkout}/docker/run", "cpu", "true", cwd=tmp_path)
    assert values(docker.last("run"), "--volume") == [f"{docker.checkout}:/reprise"]


def test_a_worktree_also_mounts_its_repository(writable: Machine, tmp_path: Path) -> None:
    worktree = tmp_path.resolve() / "worktree"
    writable.run("git", "worktree", "add", "-q", str(worktree))
    writable.run("docker/run", "cpu", "true", cwd=worktree)
    git = writable.checkout / ".git"
    assert values(writable.last("run"), "--volume") == [f"{worktree}:/reprise", f"{git}:{git}"]


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_command_gets_the_name_of_its_image(machine: Machine, engine: str) -> None:
    machine.install(engine)
    machine.run("docker/run", "cpu", "true")
    assert "REPRISE_IMAGE=reprise:cpu@sha256:1d" in values(machine.last("run"), "--env")


def test_the_token_is_passed_by_name_to_run_only(docker: Machine) -> None:
    docker.run("docker/run", "cpu", "true", HF_TOKEN="hf_secret")
    assert "HF_TOKEN" in values(docker.last("run"), "--env")
    assert not [word for word in docker.last("build") if "HF_TOKEN" in word]
    assert not [word for call in docker.calls() for word in call if "hf_secret" in word]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (
            IDENTITY,
            {
                *("GIT_AUTHOR_NAME=Ada Lovelace", "GIT_COMMITTER_NAME=Ada Lovelace"),
                *("GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_EMAIL=ada@example.org"),
            },
        ),
        ({}, set()),
    ],
    ids=["with", "without"],
)
def test_experiments_are_committed_with_the_identity_of_the_caller_if_git_has_one(
    docker: Machine, env: dict[str, str], expected: set[str]
) -> None:
    docker.run("docker/run", "cpu", "true", **env)
    assert {value for value in values(docker.last("run"), "--env") if value.startswith("GIT_")} == expected


# The image


@pytest.mark.parametrize(("engine", "times"), [("docker", "--build-arg"), ("podman", "--timestamp")])
@pytest.mark.parametrize("kind", HARDWARE)
def test_image_builds_without_the_device_and_does_not_run(machine: Machine, kind: str, engine: str, times: str) -> None:
    machine.install(engine)
    machine.run(*with_devices(), "make", f"image-{kind}")
    (call,) = machine.calls("build")
    assert machine.calls("run") == []
    assert f"HARDWARE={HARDWARE[kind]}" in values(call, "--build-arg")
    assert values(call, "--tag") == [f"reprise:{HARDWARE[kind]}"]
    assert values(call, "--file") == ["docker/Dockerfile"]
    assert call[-1] == "."
    assert [value.removeprefix("SOURCE_DATE_EPOCH=") for value in values(call, times)][-1] == "315532800"


@pytest.mark.parametrize(
    ("changed", "builds"),
    [
        ("docker/Dockerfile", 2),
        ("docker/cpu/requirements.txt", 2),
        ("docker/cpu/torch.txt", 2),
        ("pyproject.toml", 2),
        ("src/reprise/cli.py", 2),
        ("src/reprise/new.py", 2),
        (None, 1),
        ("README.md", 1),
        ("tests/test_cli.py", 1),
        ("docker/cpu/accelerate.yaml", 1),
        ("docker/cuda/requirements.txt", 1),
        ("src/reprise/__pycache__/cli.cpython-311.pyc", 1),
        ("src/reprise.egg-info/PKG-INFO", 1),
    ],
)
def test_the_image_is_rebuilt_only_after_a_change_of_its_inputs(
    writable: Machine, changed: str | None, builds: int
) -> None:
    writable.run("make", "train-cpu")
    if changed:
        change(writable.checkout / changed)
    writable.run("make", "train-cpu")
    assert len(writable.calls("build")) == builds
    assert len(writable.calls("run")) == 2


def test_another_base_rebuilds_the_image(docker: Machine) -> None:
    for base in ("", "debian:other", "debian:other"):
        docker.run("docker/run", "cpu", "true", BASE_IMAGE=base)
    given = [
        [value for value in values(call, "--build-arg") if "BASE_IMAGE" in value] for call in docker.calls("build")
    ]
    assert given == [[], ["BASE_IMAGE=debian:other"]]


def test_the_image_is_labelled_with_its_commit_and_dirty_if_its_inputs_were_edited(writable: Machine, run: Run) -> None:
    def revision() -> str:
        writable.run("docker/run", "--build", "cpu")
        (label,) = [value for value in values(writable.last("build"), "--build-arg") if value.startswith("REVISION=")]
        return label.removeprefix("REVISION=")

    head = run(writable.checkout, "git", "rev-parse", "HEAD").stdout.strip()
    change(writable.checkout / "README.md")  # no input of the image
    assert revision() == head
    change(writable.checkout / "docker/Dockerfile")
    assert revision() == f"{head}-dirty"
    writable.run(*COMMIT)
    (writable.programs / "label").unlink()  # the image was removed
    assert revision() == run(writable.checkout, "git", "rev-parse", "HEAD").stdout.strip() != head


# The image that serves


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like an exported one, with a space in its name."""
    folder = tmp_path / "my model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx/model.onnx").touch()
    return folder


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_serve_builds_its_own_image_for_no_hardware(machine: Machine, engine: str) -> None:
    machine.install(engine)
    machine.run("make", "image-serve")
    (call,) = machine.calls("build")
    assert machine.calls("run") == []
    assert values(call, "--file") == ["docker/serve/Dockerfile"]
    assert values(call, "--tag") == ["reprise:serve"]
    assert not [value for value in values(call, "--build-arg") if value.startswith("HARDWARE=")]


@pytest.mark.parametrize(
    ("changed", "builds"),
    [
        ("docker/serve/Dockerfile", 2),
        ("docker/serve/requirements.txt", 2),
        ("src/reprise/cli.py", 2),
        ("docker/Dockerfile", 1),
        ("docker/cpu/torch.txt", 1),
    ],
)
def test_the_image_that_serves_is_rebuilt_after_a_change_of_its_own_inputs(
    writable: Machine, changed: str, builds: int
) -> None:
    writable.run("make", "image-serve")
    change(writable.checkout / changed)
    writable.run("make", "image-serve")
    assert len(writable.calls("build")) == builds


def test_serve_runs_with_a_read_only_model_and_without_privileges(docker: Machine, model: Path) -> None:
    docker.run("make", "serve", f"DIR={model}")
    call = docker.last("run")
    assert values(call, "--volume") == [f"{model}:/model:ro"]
    assert values(call, "--publish") == ["127.0.0.1:8080:8080"]
    assert values(call, "--cap-drop") == ["all"]
    assert "--read-only" in call
    assert not values(call, "--env")
    assert call[-1] == "reprise:serve"


@pytest.mark.parametrize("folder", ["", "absent", "src"])
def test_serve_without_an_exported_model_is_refused_before_anything_is_built(docker: Machine, folder: str) -> None:
    (line, *_) = docker.run("make", "serve", f"DIR={folder}", code=2)
    assert line.startswith("reprise: error: docker/run serve: expected a folder that `reprise export --format onnx`")
    assert docker.calls("build") == []


# The command


def test_train_runs_the_requested_commands_in_the_image(docker: Machine) -> None:
    docker.run("make", "train-cpu", "TASK=mrpc", "MODEL=bert-base-uncased", "TRAIN=lora", "ARGS=-S train.epochs=3")
    call = docker.last("run")
    program, option, script, *arguments = call[call.index("reprise:cpu") + 1 :]
    assert (program, option) == ("bash", "-ec")
    assert "dvc exp run" in script  # tests/test_makefile.py runs it
    assert arguments == ["make", "mrpc", "bert-base-uncased", "lora", "-S train.epochs=3", ""]


@pytest.mark.parametrize("kind", HARDWARE)
def test_shell_opens_a_shell_in_the_image_of_the_hardware(docker: Machine, kind: str) -> None:
    docker.run(*with_devices(GPU, TPU), "make", f"shell-{kind}", RUNTIMES=TOOLKIT)
    call = docker.last("run")
    assert call[call.index(f"reprise:{HARDWARE[kind]}") + 1 :] == ["bash"]


# Consistency of the files


def test_every_hardware_folder_has_targets() -> None:
    assert sorted(HARDWARE.values()) == HARDWARE_DIRS
    helped = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = {f"{verb}-{kind}" for verb in ("train", "shell", "image", "check-image") for kind in HARDWARE}
    listed = re.findall(r"([a-z-]+)-\{cpu,gpu,tpu\}", helped)
    assert targets == {f"{verb}-{kind}" for verb in listed for kind in HARDWARE}


@pytest.mark.parametrize("folder", HARDWARE_DIRS)
def test_every_hardware_folder_is_complete_and_has_an_image(folder: str) -> None:
    needed = {"README.md", "accelerate.yaml", "hardware.yaml", "requirements.in", "requirements.txt", "torch.txt"}
    assert needed <= {file.name for file in (ROOT / "docker" / folder).iterdir()}
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", (ROOT / "docker/Dockerfile").read_text(), flags=re.MULTILINE)
    assert ("runtime", folder) in stages


@pytest.mark.parametrize("folder", HARDWARE_DIRS)
def test_bash_reads_the_facts_of_a_hardware_as_a_yaml_parser_does(folder: str) -> None:
    file = ROOT / "docker" / folder / "hardware.yaml"
    facts = YAML(typ="safe").load(file)
    assert {"target", "device"} <= facts.keys() <= {*FACTS, "target", "device"}
    assert ("device_files" in facts) == ("no_device" in facts)
    for key in (*FACTS, "target"):
        printed = subprocess.run(["sed", "-n", f"s/^{key}: //p", file], capture_output=True, text=True, check=True)
        assert printed.stdout.rstrip("\n") == str(facts.get(key, ""))


def test_a_new_folder_is_a_hardware_of_make_and_docker_run_without_an_edit(writable: Machine) -> None:
    folder = Path(shutil.copytree(writable.checkout / "docker/tpu", writable.checkout / "docker/abacus"))
    (folder / "hardware.yaml").write_text(
        "target: beads\ndevice: cpu\ndevice_files: /dev/bead*\nno_device: no beads\noptions: --cpus 1 --memory 2g\n"
    )
    printed, *_ = writable.run(*with_devices(), "make", "shell-beads", code=2)
    assert printed == "reprise: error: make train-beads: no beads"
    writable.run(*with_devices("/dev/bead7"), "make", "shell-beads")
    call = writable.last("run")
    assert call[-2:] == ["reprise:abacus", "bash"]
    assert (values(call, "--cpus"), values(call, "--memory")) == (["1"], ["2g"])


def documented_folder(machine: Machine, name: str) -> Path:
    """Make a hardware folder of the blocks of docs/guides/gpus.md that name its files, in a copy of docker/cuda."""
    page = (ROOT / "docs/guides/gpus.md").read_text(encoding="utf-8")
    folder = Path(shutil.copytree(machine.checkout / "docker/cuda", machine.checkout / "docker" / name))
    blocks = re.findall(rf"^```\w+\n# docker/{name}/(\S+)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    for file, content in blocks:
        (folder / file).write_text(content, encoding="utf-8")
    return folder


def test_the_documented_folder_for_rocm_is_a_hardware_of_make_and_docker_run(writable: Machine) -> None:
    folder = documented_folder(writable, "rocm")
    printed, *_ = writable.run(*with_devices(), "make", "shell-rocm", code=2)
    assert printed.startswith("reprise: error: make train-rocm: this machine has no AMD GPU")
    writable.run(*with_devices("/dev/kfd"), "make", "shell-rocm")
    call = writable.last("run")
    assert call[-2:] == ["reprise:rocm", "bash"]
    assert values(call, "--device") == ["/dev/kfd", "/dev/dri"]
    assert read_processes(folder / "accelerate.yaml") == 1
    with pytest.raises(UserError, match="this machine has no AMD GPU"):
        check_device("rocm", folder.parent)


def test_the_documented_folder_for_an_older_cuda_takes_an_older_driver(
    writable: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = documented_folder(writable, "cuda126")
    writable.run(*with_devices(GPU), "make", "shell-gpu-cuda126", RUNTIMES=TOOLKIT)
    assert values(writable.last("run"), "--gpus") == ['"device=0"']
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    older = Driver("535.183.01", (12, 2), 1, (Gpu("NVIDIA L4", (8, 9), 24 * 10**9),))
    monkeypatch.setattr("reprise.hardware.read_driver", lambda: older)
    assert check_device("cuda126", folder.parent) == "cuda"
    with pytest.raises(UserError, match="driver 580 or newer"):
        check_device("cuda", folder.parent)


@pytest.mark.parametrize("lock", ["torch.txt", "requirements.txt"])
def test_a_folder_without_its_locks_is_one_line(lock: str, writable: Machine) -> None:
    (writable.checkout / "docker/tpu" / lock).unlink()
    printed = writable.run(*with_devices(TPU), "docker/run", "tpu", code=2)
    assert printed == [
        f"reprise: error: docker/run: docker/tpu/{lock}: not found; expected the lock, made as docs/guides/gpus.md "
        "describes"
    ]


def test_the_build_context_has_only_named_files() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    named = [rule[1:] for rule in rules if rule.startswith("!")]
    assert named == ["docker/*", "pyproject.toml", "src"]


def test_bake_lists_every_hardware_folder() -> None:
    bake = (ROOT / "docker/docker-bake.hcl").read_text()
    lists = re.findall(r'\[("\w+"(?:, "\w+")+)\]', bake)
    assert [json.loads(f"[{names}]") for names in lists] == [
        [*HARDWARE_DIRS, "serve"],
        HARDWARE_DIRS,
    ]  # of the group and of the matrix


def test_bake_has_a_target_for_every_hardware_folder() -> None:
    buildx = ["docker", "buildx"]
    if not shutil.which("docker") or subprocess.run([*buildx, "version"], capture_output=True).returncode:
        pytest.skip("docker's buildx plugin is not installed")
    command = [*buildx, "bake", "--file", "docker/docker-bake.hcl", "--print"]
    env = {name: value for name, value in os.environ.items() if name not in ("BASE_IMAGE", "SOURCE_DATE_EPOCH")}
    printed = subprocess.run(command, cwd=ROOT, env=env | {"REVISION": "abc"}, capture_output=True, check=True).stdout
    targets = json.loads(printed)["target"]
    assert sorted(targets) == sorted([*HARDWARE_DIRS, "serve"])
    for folder, target in targets.items():
        assert target["dockerfile"] == f"docker/{'serve/' * (folder == 'serve')}Dockerfile"
        assert target["tags"] == [f"reprise:{folder}"]
        # BASE_IMAGE is null or left out: the Dockerfile's own
        given = {name: value for name, value in target["args"].items() if value is not None}
        hardware = {} if folder == "serve" else {"HARDWARE": folder}
        assert given == {**hardware, "REVISION": "abc", "SOURCE_DATE_EPOCH": "315532800"}
