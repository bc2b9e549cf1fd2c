"""docker/run and the targets of make that call it: what a container engine is asked, and when it is not asked at all.

No engine is needed: a stand-in writes down its arguments and remembers the label of the image that it was to build.
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

from tiny import ROOT, Run

ROOMS = sorted(lock.parent.name for lock in (ROOT / "docker").glob("*/torch.txt"))
HARDWARE = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}  # as targets say it, and as docker/ does
IDENTITY = {  # of a caller whose own git configuration gives one
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "user.name",
    "GIT_CONFIG_VALUE_0": "Ada Lovelace",
    "GIT_CONFIG_KEY_1": "user.email",
    "GIT_CONFIG_VALUE_1": "ada@example.org",
}
COMMIT = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "-qam", "Change")

# FAIL names what it is asked in vain; RUNTIMES and SECURITY are what docker's info says of itself.
STAND_IN = r"""#!/bin/bash
here=${0%/*}
{ printf '%s\0' "${0##*/}" "$@"; printf '\x1e'; } >> "$here/calls"
[ "${FAIL-}" != "$1" ] || exit 7
case "$*" in
  "info --format {{json .Runtimes}}") echo "${RUNTIMES-}" ;;
  "info --format {{.SecurityOptions}}") echo "${SECURITY-}" ;;
  "image inspect --format {{.Id}} "*) echo sha256:1d ;;
  "image inspect "*) cat "$here/label" ;;
  "build "*) for word; do [[ $word != reprise.inputs=* ]] || echo "${word#*=}" > "$here/label"; done ;;
esac
"""
# All that may be on the PATH beside an engine.
TOOLS = ["bash", "cat", "cut", "dirname", "find", "git", "grep", "id", "make", "sed", "sha256sum", "sort", "xargs"]
TOOLS += ["mkdir", "mount", "touch", "unshare"]  # for the machines and users below

# The devices and CDI files of a machine are those that are named, whatever the real one has.
MACHINE = """
mount -t tmpfs none /run
[ ! -d /etc/cdi ] || mount -t tmpfs none /etc/cdi
mkdir /run/dev
for device in null zero full random urandom tty; do
  touch /run/dev/$device
  mount --bind /dev/$device /run/dev/$device
done
mount --rbind /run/dev /dev
for file in $0; do
  mkdir -p "${file%/*}"
  echo nvidia.com/gpu > "$file"
done
exec "$@"
"""
GPU, CDI, TPU, VFIO = "/dev/nvidiactl", "/run/cdi/nvidia.yaml", "/dev/accel0", "/dev/vfio/0"
TOOLKIT = '{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}'


def having(*files: str) -> tuple[str, ...]:
    """In front of a command: a machine with these devices and CDI files and no others."""
    return ("unshare", "--user", "--map-root-user", "--mount", "bash", "-ec", MACHINE, " ".join(files))


def being(user: int, group: int) -> tuple[str, ...]:
    """In front of a command: another user, 0 for root, who owns what the real one owns."""
    return ("unshare", "--user", f"--map-user={user}", f"--map-group={group}")


@dataclass(frozen=True)
class Desk:
    """A checkout, what is typed there, and what the engines were asked by it."""

    checkout: Path
    programs: Path

    def install(self, *names: str) -> None:
        for name in names:
            (self.programs / name).write_text(STAND_IN)
            (self.programs / name).chmod(0o755)

    def type(self, *command: str, code: int = 0, at: Path | None = None, **env: str) -> list[str]:
        """Type a command with nothing in the environment but `env`; the lines on stderr."""
        clean = {"PATH": str(self.programs), "HOME": str(self.programs), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        done = subprocess.run(command, cwd=at or self.checkout, env=clean | env, capture_output=True, text=True)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr.splitlines()

    def asked(self, verb: str = "") -> list[list[str]]:
        """The arguments of every call of an engine, its name first; only those that begin with `verb`."""
        record = self.programs / "calls"
        calls = record.read_text(encoding="utf-8").split("\x1e")[:-1] if record.exists() else []
        split = [call.split("\0")[:-1] for call in calls]
        return [call for call in split if not verb or call[1] == verb]

    def last(self, verb: str) -> list[str]:
        return self.asked(verb)[-1]


@pytest.fixture(scope="module")
def clone(kitchen: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A committed checkout without an identity of its own. Do not change; `own` gives a copy."""
    folder = tmp_path_factory.mktemp("clone").resolve() / "reprise"
    shutil.copytree(kitchen, folder, symlinks=True)
    run(folder, "git", "config", "--remove-section", "user")
    return folder


@pytest.fixture
def desk(clone: Path, tmp_path: Path) -> Desk:
    """The clone on a machine without an engine."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (programs / tool).symlink_to(found)
    return Desk(clone, programs)


@pytest.fixture
def docker(desk: Desk) -> Desk:
    """The clone on a machine with docker."""
    desk.install("docker")
    return desk


@pytest.fixture
def own(docker: Desk, tmp_path: Path) -> Desk:
    """A checkout of the test's own to change, on a machine with docker."""
    copied = shutil.copytree(docker.checkout, tmp_path.resolve() / "reprise", symlinks=True)
    return Desk(Path(copied), docker.programs)


def change(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("a", encoding="utf-8") as text:
        text.write("\n# changed\n")


def values(call: list[str], option: str) -> list[str]:
    """What follows an option, every time that it is given."""
    return [value for name, value in pairwise(call) if name == option]


# The engine


@pytest.mark.parametrize("command", ["docker/run cpu true", "make train-cpu"])
@pytest.mark.parametrize(
    ("installed", "env", "line"),
    [
        ([], {}, "no container engine is installed; expected docker or podman"),
        (["docker"], {"ENGINE": "lxc"}, "expected docker or podman, got lxc"),
        (["docker"], {"ENGINE": "podman"}, "podman is not installed; expected docker or podman on the PATH"),
        (["docker"], {"FAIL": "info"}, "docker is installed but does not answer; `docker info` says why"),
    ],
    ids=["none", "unknown", "not installed", "not running"],
)
def test_without_a_usable_engine_one_line_says_so_and_nothing_is_built(
    desk: Desk, command: str, installed: list[str], env: dict[str, str], line: str
) -> None:
    desk.install(*installed)
    said, *more = desk.type(*command.split(), code=2, **env)
    assert said == f"reprise: error: ENGINE: {line}"
    assert [rest for rest in more if not rest.startswith("make: ")] == []
    assert desk.asked("build") == desk.asked("run") == []


@pytest.mark.parametrize(
    ("installed", "env", "chosen"),
    [
        (["docker", "podman"], {}, "docker"),
        (["podman"], {}, "podman"),
        (["docker", "podman"], {"ENGINE": "podman"}, "podman"),
    ],
)
def test_the_engine_is_the_first_that_is_installed_or_the_one_that_is_named(
    desk: Desk, installed: list[str], env: dict[str, str], chosen: str
) -> None:
    desk.install(*installed)
    desk.type("docker/run", "cpu", "true", **env)
    assert {call[0] for call in desk.asked()} == {chosen}


@pytest.mark.parametrize(("fails", "then_runs"), [("build", 0), ("run", 1)])
def test_the_engine_s_failure_is_handed_on_and_a_failed_build_runs_nothing(
    docker: Desk, fails: str, then_runs: int
) -> None:
    docker.type("docker/run", "cpu", "true", code=7, FAIL=fails)
    assert len(docker.asked("run")) == then_runs


# The hardware


@pytest.mark.parametrize("command", ["docker/run abacus true", "docker/run", "docker/run --build"])
def test_unknown_hardware_is_told_which_there_is(docker: Desk, command: str) -> None:
    (line,) = docker.type(*command.split(), code=2)
    given = "abacus" if "abacus" in command else ""
    assert line == f"reprise: error: docker/run: expected one of cpu cuda tpu, got '{given}'"
    assert docker.asked() == []


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
def test_without_the_device_one_line_says_so_and_nothing_is_built(docker: Desk, command: str, line: str) -> None:
    said, *more = docker.type(*having(), "make", command, code=2)
    assert said == f"reprise: error: {line}"
    assert [rest for rest in more if not rest.startswith("make: ")] == []
    assert docker.asked("build") == docker.asked("run") == []


@pytest.mark.parametrize(
    ("installed", "files", "env", "line"),
    [
        ("docker", [GPU], {}, "docker cannot hand on the GPU; expected the NVIDIA Container Toolkit"),
        ("podman", [GPU], {}, "podman cannot hand on the GPU; expected a CDI file: nvidia-ctk cdi generate"),
        ("docker", [GPU], {"GPUS": "two"}, "GPUS: expected all, or numbers such as 0 or 0,1; got two"),
        ("docker", [GPU], {"GPUS": "0,"}, "GPUS: expected all, or numbers such as 0 or 0,1; got 0,"),
        ("podman", [GPU, CDI], {"GPUS": "0 1"}, "GPUS: expected all, or numbers such as 0 or 0,1; got 0 1"),
    ],
    ids=["docker without toolkit", "podman without CDI", "words", "trailing comma", "blank"],
)
def test_a_gpu_that_the_engine_cannot_hand_on_is_refused(
    desk: Desk, installed: str, files: list[str], env: dict[str, str], line: str
) -> None:
    desk.install(installed)
    (said,) = desk.type(*having(*files), "docker/run", "cuda", "true", code=2, **env)
    assert line in said
    assert desk.asked("build") == desk.asked("run") == []


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
def test_docker_is_given_the_gpus_that_are_asked_for(docker: Desk, env: dict[str, str], gpus: str) -> None:
    docker.type(*having(GPU), "make", "train-gpu", RUNTIMES=TOOLKIT, **env)
    assert values(docker.last("run"), "--gpus") == [gpus]
    assert values(docker.last("run"), "--shm-size") == ["1g"]


def test_the_toolkit_s_own_program_is_enough_where_docker_lists_no_runtime(docker: Desk) -> None:
    docker.install("nvidia-container-cli")
    docker.type(*having(GPU), "docker/run", "cuda", "true", RUNTIMES='{"runc":{"path":"runc"}}')
    assert values(docker.last("run"), "--gpus") == ['"device=0"']


@pytest.mark.parametrize(("gpus", "devices"), [("", ["0"]), ("0,1", ["0", "1"]), ("all", ["all"])])
def test_podman_is_given_the_gpus_by_their_names_in_the_cdi_file(desk: Desk, gpus: str, devices: list[str]) -> None:
    desk.install("podman")
    desk.type(*having(GPU, CDI), "docker/run", "cuda", "true", GPUS=gpus)
    assert values(desk.last("run"), "--device") == [f"nvidia.com/gpu={device}" for device in devices]


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
def test_a_tpu_asks_for_privileges_and_the_processor_in_its_place_does_not(
    docker: Desk, files: list[str], env: dict[str, str], privileged: bool
) -> None:
    docker.type(*having(*files), "make", "train-tpu", **env)
    call = docker.last("run")
    assert [option in call for option in ("--privileged", "--net=host")] == [privileged] * 2
    assert "PJRT_DEVICE" in values(call, "--env")


@pytest.mark.parametrize(
    ("files", "xla", "code"),
    [([], {}, 1), ([], {"PJRT_DEVICE": "TPU"}, 1), ([], {"PJRT_DEVICE": "CPU"}, 0), ([TPU], {}, 0), ([VFIO], {}, 0)],
    ids=["none", "TPU asked for", "CPU asked for", "accel", "vfio"],
)
def test_inside_the_stages_look_for_the_same_tpu(
    docker: Desk, files: list[str], xla: dict[str, str], code: int
) -> None:
    look = "from reprise.hardware import require_device; require_device('tpu')"
    env = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", **xla}
    said = docker.type(*having(*files), sys.executable, "-c", look, code=code, **env)
    assert ["UserError: tpu: no TPU in /dev; expected one" in line for line in said[-1:]] == [True] * code


def test_the_cpu_asks_for_no_device_and_no_privilege(docker: Desk) -> None:
    docker.type(*having(GPU, TPU, CDI), "make", "train-cpu", RUNTIMES=TOOLKIT)
    assert not {"--gpus", "--device", "--privileged", "--net=host"} & set(docker.last("run"))


def test_what_says_how_many_train_together_reaches_the_command_and_several_hosts_share_their_network(
    docker: Desk,
) -> None:
    alone = {"REPRISE_PROCESSES": "2", "REPRISE_MAX_RESTARTS": "1"}
    docker.type("docker/run", "cpu", "true", **alone)
    assert {name for name in values(docker.last("run"), "--env") if "=" not in name} == {"HF_TOKEN", *alone}
    assert "--net=host" not in docker.last("run")
    hosts = {"REPRISE_NODES": "2", "REPRISE_NODE_RANK": "1", "REPRISE_RENDEZVOUS": "a:1", "GLOO_SOCKET_IFNAME": "eth0"}
    docker.type("docker/run", "cpu", "true", **hosts)
    assert {name for name in values(docker.last("run"), "--env") if "=" not in name} == {"HF_TOKEN", *hosts}
    assert "--net=host" in docker.last("run")


def test_make_hands_on_how_many_processes(docker: Desk) -> None:
    docker.type("make", "train-cpu", "PROCESSES=2")
    assert "REPRISE_PROCESSES" in values(docker.last("run"), "--env")


# Who runs it, and on what


@pytest.mark.parametrize(
    ("engine", "caller", "env", "user", "mapped"),
    [
        ("docker", being(1234, 5678), {}, "1234:5678", []),
        ("docker", being(0, 0), {}, "0:0", []),
        ("docker", being(0, 0), {"SUDO_UID": "1234", "SUDO_GID": "5678"}, "1234:5678", []),
        ("docker", being(1234, 5678), {"SECURITY": "[name=seccomp,profile=builtin name=rootless]"}, "0:0", []),
        ("podman", being(1234, 5678), {}, "1234:5678", ["keep-id"]),
        ("podman", being(0, 0), {}, "0:0", []),
        ("podman", being(0, 0), {"SUDO_UID": "1234", "SUDO_GID": "5678"}, "1234:5678", []),
    ],
    ids=["docker", "docker as root", "sudo docker", "rootless docker", "podman", "podman as root", "sudo podman"],
)
def test_files_will_belong_to_the_caller(
    desk: Desk, engine: str, caller: tuple[str, ...], env: dict[str, str], user: str, mapped: list[str]
) -> None:
    desk.install(engine)
    desk.type(*caller, "docker/run", "cpu", "true", **env)
    assert values(desk.last("run"), "--user") == [user]
    assert values(desk.last("run"), "--userns") == mapped


def test_the_checkout_is_mounted_from_wherever_the_script_is_called(docker: Desk, tmp_path: Path) -> None:
    docker.type(f"{docker.checkout}/docker/run", "cpu", "true", at=tmp_path)
    assert values(docker.last("run"), "--volume") == [f"{docker.checkout}:/reprise"]


def test_a_worktree_also_mounts_the_repository_that_it_belongs_to(own: Desk, tmp_path: Path) -> None:
    worktree = tmp_path.resolve() / "worktree"
    own.type("git", "worktree", "add", "-q", str(worktree))
    own.type("docker/run", "cpu", "true", at=worktree)
    git = own.checkout / ".git"
    assert values(own.last("run"), "--volume") == [f"{worktree}:/reprise", f"{git}:{git}"]


def test_the_image_is_named_to_what_runs_in_it(docker: Desk) -> None:
    docker.type("docker/run", "cpu", "true")
    assert "REPRISE_IMAGE=reprise:cpu@sha256:1d" in values(docker.last("run"), "--env")


def test_the_token_is_handed_on_by_name_to_run_and_to_nothing_else(docker: Desk) -> None:
    docker.type("docker/run", "cpu", "true", HF_TOKEN="hf_secret")
    assert "HF_TOKEN" in values(docker.last("run"), "--env")
    assert not [word for word in docker.last("build") if "HF_TOKEN" in word]
    assert not [word for call in docker.asked() for word in call if "hf_secret" in word]


@pytest.mark.parametrize(
    ("env", "handed"),
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
def test_the_commits_of_experiments_carry_the_caller_s_name_if_git_knows_one(
    docker: Desk, env: dict[str, str], handed: set[str]
) -> None:
    docker.type("docker/run", "cpu", "true", **env)
    assert {value for value in values(docker.last("run"), "--env") if value.startswith("GIT_")} == handed


# The image


@pytest.mark.parametrize(("engine", "times"), [("docker", "--build-arg"), ("podman", "--timestamp")])
@pytest.mark.parametrize("kind", HARDWARE)
def test_image_builds_without_the_device_and_does_not_run(desk: Desk, kind: str, engine: str, times: str) -> None:
    desk.install(engine)
    desk.type(*having(), "make", f"image-{kind}")
    (call,) = desk.asked("build")
    assert desk.asked("run") == []
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
def test_the_image_is_built_again_only_after_a_change_in_what_it_is_made_of(
    own: Desk, changed: str | None, builds: int
) -> None:
    own.type("make", "train-cpu")
    if changed:
        change(own.checkout / changed)
    own.type("make", "train-cpu")
    assert len(own.asked("build")) == builds
    assert len(own.asked("run")) == 2


def test_another_base_builds_the_image_again(docker: Desk) -> None:
    for base in ("", "debian:made-up", "debian:made-up"):
        docker.type("docker/run", "cpu", "true", BASE_IMAGE=base)
    given = [
        [value for value in values(call, "--build-arg") if "BASE_IMAGE" in value] for call in docker.asked("build")
    ]
    assert given == [[], ["BASE_IMAGE=debian:made-up"]]


def test_the_image_says_which_commit_it_is_of_and_whether_its_files_are_the_commit_s(own: Desk, run: Run) -> None:
    def revision() -> str:
        own.type("docker/run", "--build", "cpu")
        (said,) = [value for value in values(own.last("build"), "--build-arg") if value.startswith("REVISION=")]
        return said.removeprefix("REVISION=")

    head = run(own.checkout, "git", "rev-parse", "HEAD").stdout.strip()
    change(own.checkout / "README.md")  # not what the image is made of
    assert revision() == head
    change(own.checkout / "docker/Dockerfile")
    assert revision() == f"{head}-dirty"
    own.type(*COMMIT)
    (own.programs / "label").unlink()  # the image was removed
    assert revision() == run(own.checkout, "git", "rev-parse", "HEAD").stdout.strip() != head


# What runs in it


@pytest.mark.parametrize(
    ("typed", "script"),
    [
        ([], ["dvc repro", "reprise summary"]),
        (["TASK=mrpc"], ["reprise recipe task=mrpc", "dvc repro", "reprise summary"]),
        (
            ["TASK=mrpc", "MODEL=bert-base-uncased", "ARGS=-S train.epochs=3"],
            [
                "reprise recipe task=mrpc model=bert-base-uncased",
                "dvc exp run -S train.epochs=3",
                "reprise summary",
            ],
        ),
        # What is only queued has no figures yet.
        (
            ["ARGS=-S 'train.learning_rate=2e-5,5e-5' --queue"],
            ["dvc exp run -S 'train.learning_rate=2e-5,5e-5' --queue"],
        ),
    ],
    ids=["default", "task", "experiment", "queue"],
)
def test_train_cooks_in_the_image_what_is_asked_for(docker: Desk, typed: list[str], script: list[str]) -> None:
    docker.type("make", "train-cpu", *typed)
    call = docker.last("run")
    program, option, text = call[call.index("reprise:cpu") + 1 :]
    assert (program, option) == ("bash", "-ec")
    assert text.strip().splitlines() == script


@pytest.mark.parametrize("kind", HARDWARE)
def test_shell_is_a_shell_in_the_image_of_that_hardware(docker: Desk, kind: str) -> None:
    docker.type(*having(GPU, TPU), "make", f"shell-{kind}", RUNTIMES=TOOLKIT)
    call = docker.last("run")
    assert call[call.index(f"reprise:{HARDWARE[kind]}") + 1 :] == ["bash"]


# The files that belong together


def test_every_room_has_targets() -> None:
    assert sorted(HARDWARE.values()) == ROOMS
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {f"{verb}-{kind}" for verb in ("train", "shell", "image", "check-image") for kind in HARDWARE}
    assert targets <= set(re.findall(r"[a-z]+-[a-z]+", helped))


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_whole_and_has_an_image(room: str) -> None:
    needed = {"README.md", "accelerate.yaml", "requirements.in", "requirements.txt", "torch.txt"}
    assert needed <= {file.name for file in (ROOT / "docker" / room).iterdir()}
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", (ROOT / "docker/Dockerfile").read_text(), flags=re.MULTILINE)
    assert ("runtime", room) in stages


def test_nothing_enters_a_build_that_is_not_named() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    named = [rule[1:] for rule in rules if rule.startswith("!")]
    assert named == ["docker/*", "pyproject.toml", "src"]


def test_bake_names_every_room() -> None:
    bake = (ROOT / "docker/docker-bake.hcl").read_text()
    lists = re.findall(r'\[("\w+"(?:, "\w+")+)\]', bake)
    assert [json.loads(f"[{names}]") for names in lists] == [ROOMS, ROOMS]  # the group's and the matrix's


def test_bake_makes_a_target_of_every_room() -> None:
    buildx = ["docker", "buildx"]
    if not shutil.which("docker") or subprocess.run([*buildx, "version"], capture_output=True).returncode:
        pytest.skip("docker's buildx plugin is not installed")
    command = [*buildx, "bake", "--file", "docker/docker-bake.hcl", "--print"]
    env = {name: value for name, value in os.environ.items() if name not in ("BASE_IMAGE", "SOURCE_DATE_EPOCH")}
    printed = subprocess.run(command, cwd=ROOT, env=env | {"REVISION": "abc"}, capture_output=True, check=True).stdout
    targets = json.loads(printed)["target"]
    assert sorted(targets) == ROOMS
    for room, target in targets.items():
        assert target["dockerfile"] == "docker/Dockerfile"
        assert target["tags"] == [f"reprise:{room}"]
        # BASE_IMAGE is null or left out: the Dockerfile's own
        given = {name: value for name, value in target["args"].items() if value is not None}
        assert given == {"HARDWARE": room, "REVISION": "abc", "SOURCE_DATE_EPOCH": "315532800"}
