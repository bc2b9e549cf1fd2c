"""Tests of the images: built from the unchanged Dockerfile on a Debian without registry or engine, and run.

`make test-images HARDWARE="cpu cuda tpu"` selects the images. They need root and up to 60 GB in /var/tmp. Everything
runs through the commands of the README, with another base image (docker/make-test-base) and settings of podman for
this machine.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reprise.hardware import LOCKS, pinned_versions
from tiny import ROOT

pytestmark = [pytest.mark.images, pytest.mark.timeout(3600)]

HARDWARE = os.environ.get("HARDWARE", "cpu").split()
TARGET = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
WORK = Path("/var/tmp/reprise-images")  # on disk: /tmp may be memory
BASE = "localhost/reprise-base"
CALLER = 1234  # the user who calls make: neither root nor the image's own user
TOKEN = "hf_not_to_be_found_in_any_layer"
STEPS, NOTHING = r"STEP|^(image|check-reproducible): ", "^$ "  # which lines of the output to print
SMALL = "-S task.max_examples=64 -S train.epochs=1"


@dataclass
class Images:
    """A clone, an empty image store, and the engine's settings for this machine."""

    clone: Path
    environment: dict[str, str]
    mounts: list[str]
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    def call(self, *command: str, code: int = 0, show: str = "", **environment: str) -> str:
        """Run a command in the clone; print the lines that match `show` as they come, return all output."""
        lines = []
        with subprocess.Popen(
            command,
            cwd=self.clone,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            assert running.stdout is not None
            for line in running.stdout:
                lines.append(line)
                if re.search(show, line):
                    print(line, end="", flush=True)
        assert running.returncode == code, f"{shlex.join(command)}: {running.returncode}\n{''.join(lines[-40:])}"
        return "".join(lines)

    def inside(self, hardware: str, *command: str, code: int = 0, options: tuple[str, ...] = ()) -> str:
        """Run a command in an image with the clone mounted, like docker/run but without its check for a device."""
        over = ("--rm", "--init", "--user", f"{CALLER}:{CALLER}", "--volume", f"{self.clone}:/reprise")
        return self.call("podman", "run", *over, *options, f"reprise:{hardware}", *command, code=code)

    def inspect(self, hardware: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(
            self.call("podman", "image", "inspect", f"reprise:{hardware}", show=NOTHING)
        )
        return found[0]


def pip_settings() -> dict[str, str]:
    """Return pip's settings for reaching packages from this machine, as pip reports them."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found = dict(
        re.findall(r"^[^.]+\.(cert|find-links|index-url|proxy|trusted-host)='(.*)'$", listed.stdout, re.MULTILINE)
    )
    return {"cert": "/etc/ssl/certs/ca-certificates.crt", **found}


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    """A new clone owned by CALLER and a store with only the test base image; both are removed afterwards."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.fail("make test-images needs root on Debian: it installs podman and builds a base image from packages")
    clone = WORK / "clone"
    environment = {
        **os.environ,
        "ENGINE": "podman",
        "BASE_IMAGE": BASE,
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_CONF": str(WORK / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(WORK / "storage.conf"),
        "HF_TOKEN": TOKEN,
        "PJRT_DEVICE": "CPU",
        "SUDO_UID": str(CALLER),
        "SUDO_GID": str(CALLER),
    }
    for name in ("MAKEFLAGS", "MAKELEVEL"):  # of the make that runs this test
        environment.pop(name, None)
    reset(environment)
    WORK.mkdir()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run(["chown", "-R", f"{CALLER}:{CALLER}", str(clone)], check=True)
    (WORK / "containers.conf").write_text(
        '[engine]\nruntime = "runc"\n'
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\nbase_hosts_file = "none"\n'
    )
    (WORK / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{WORK}/graph"\nrunroot = "{WORK}/run"\n'
    )
    settings = pip_settings()
    (WORK / "pip.conf").write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    reached = [settings["cert"], *filter(os.path.isdir, settings.get("find-links", "").split())]
    mounts = [f"--volume={path}:{path}:ro" for path in reached] + [f"--volume={WORK}/pip.conf:/etc/pip.conf:ro"]
    environment["BUILD_ARGS"] = shlex.join(["--pull=never", *mounts])
    images = Images(clone, environment, mounts)
    images.call("docker/make-test-base", BASE, *reached, "/etc/pip.conf")
    yield images
    for hardware, facts in images.facts.items():
        print(f"\n{hardware}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    reset(environment)


def reset(environment: dict[str, str]) -> None:
    """Remove the leftovers of an earlier run, its mounts first."""
    if (WORK / "storage.conf").exists() and shutil.which("podman"):
        subprocess.run(["podman", "system", "reset", "--force"], env=environment, check=True, capture_output=True)
    shutil.rmtree(WORK, ignore_errors=False) if WORK.exists() else None


@pytest.fixture(scope="module", params=HARDWARE)
def hardware(request: pytest.FixtureRequest, images: Images) -> str:
    """A hardware folder whose image was built by make, from scratch."""
    kind = str(request.param)
    start = time.monotonic()
    images.call("make", f"image-{TARGET[kind]}", show=STEPS)
    images.facts[kind] = {"build": f"{time.monotonic() - start:.0f} s"}
    return kind


def test_the_image_is_built_once_and_labelled_with_its_commit(images: Images, hardware: str) -> None:
    image = images.inspect(hardware)
    images.facts[hardware]["size"] = f"{image['Size'] / 1e9:.2f} GB"
    revision = images.call("git", "-c", "safe.directory=*", "rev-parse", "HEAD", show=NOTHING).strip()
    assert image["Config"]["Labels"]["org.opencontainers.image.revision"] == revision
    assert images.call("make", f"image-{TARGET[hardware]}") == f"image: reprise:{hardware} is up to date\n"
    assert images.inspect(hardware)["Id"] == image["Id"]


def test_it_has_exactly_the_packages_of_the_lock(images: Images, hardware: str) -> None:
    locked = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for lock in LOCKS
        for name, version in pinned_versions((ROOT / "docker" / hardware / lock).read_text()).items()
    }
    listing = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    printed = images.inside(hardware, "python", "-c", listing, options=("--network=none",))
    installed = [pin.split("==") for pin in printed.split()]
    assert {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed} == {
        **locked,
        "reprise": "0.1.0",
    }
    assert len(installed) == len(locked) + 1
    images.facts[hardware]["packages"] = str(len(installed))


def test_it_runs_as_an_unprivileged_user_and_has_no_compiler(images: Images, hardware: str) -> None:
    assert images.inspect(hardware)["Config"]["User"] == "10001:10001"
    container = ("podman", "run", "--rm", "--network=none", f"reprise:{hardware}")
    compilers = "command -v cc || command -v gcc || command -v c++ || command -v clang"
    assert images.call(*container, "id", "-u").strip() == "10001"
    images.call(*container, "bash", "-c", "touch /opt/venv/x || touch /usr/x || touch /etc/x", code=1)
    images.call(*container, "bash", "-c", compilers, code=1)


def test_it_has_no_traces_of_the_machine_or_the_caller(images: Images, hardware: str) -> None:
    layers, base = (
        Path(images.call("podman", "image", "mount", name, show=NOTHING).strip())
        for name in (f"reprise:{hardware}", BASE)
    )
    for mount in images.mounts:
        inner = mount.split(":")[1].lstrip("/")
        if (layers / inner).is_dir():
            assert list((layers / inner).iterdir()) == []
        else:
            assert (layers / inner).read_bytes() == (base / inner).read_bytes()
    assert [*(layers / "reprise").iterdir(), *(layers / "home/reprise").iterdir()] == []
    traces = [TOKEN, f"{WORK}/", f"{ROOT}/"]
    words = [word for trace in traces for word in ("-e", trace)]
    found = subprocess.run(["grep", "-rlF", "-D", "skip", *words, str(layers)], capture_output=True, text=True)
    assert found.stdout.splitlines() == []
    assert not [trace for trace in traces if trace in json.dumps(images.inspect(hardware)["Config"])]


def test_the_recipe_runs_in_it_and_a_second_run_has_nothing_to_do(images: Images, hardware: str) -> None:
    images.inside(hardware, "dvc", "repro", "fetch-data", "fetch-model", options=("--network=host", *images.mounts))
    if hardware == "cuda":  # there is no GPU here: the packages are as locked, and environment fails with one line
        printed = images.inside(hardware, "dvc", "repro", code=255, options=("--network=none",))
        assert re.findall(r"Running stage '([\w-]+)'", printed) == ["environment"]
        assert re.search(r"^reprise: error: cuda: no GPU; expected .*$", printed, re.MULTILINE)
        assert "Traceback" not in printed
        images.inside(hardware, "dvc", "repro", "prepare", options=("--network=none",))  # needs no device
        images.facts[hardware]["recipe"] = "stops at environment: no GPU"
        return
    offline = {"RUN_ARGS": "--network=none"}
    printed = images.call("make", f"train-{TARGET[hardware]}", f"ARGS={SMALL}", **offline)
    assert re.findall(r"Running stage '([\w-]+)'", printed)[-2:] == ["train", "evaluate"]
    assert f"environment: {hardware}, " in printed
    assert json.loads((images.clone / "metrics/evaluate.json").read_text())["num_examples"] == 64
    assert (images.clone / "models/final/model.safetensors").stat().st_size > 80_000_000
    assert {path.lstat().st_uid for path in images.clone.rglob("*")} == {CALLER}

    again = images.call("make", f"train-{TARGET[hardware]}", **offline)
    assert re.findall(r"Running stage '([\w-]+)'", again) == ["environment"]
    images.facts[hardware]["recipe"] = "trained"


@pytest.mark.skipif(not {"cpu", "tpu"} <= set(HARDWARE), reason='needs two images that can train: HARDWARE="cpu tpu"')
@pytest.mark.parametrize("hardware", HARDWARE[-1:], indirect=True)  # after all images are built
def test_another_image_retrains_and_the_first_one_is_restored_from_the_run_cache(images: Images, hardware: str) -> None:
    trained = {}
    for kind in ("cpu", "tpu", "cpu"):
        printed = images.call("make", f"train-{TARGET[kind]}", RUN_ARGS="--network=none")
        assert re.findall(r"Running stage '([\w-]+)'", printed) == ["environment"]
        assert "Stage 'prepare' didn't change, skipping" in printed
        weights = (images.clone / "models/final/model.safetensors").read_bytes()
        assert trained.setdefault(kind, weights) == weights
    assert trained["cpu"] != trained["tpu"]


@pytest.mark.full
def test_a_second_build_from_scratch_has_the_same_digest(images: Images, hardware: str) -> None:
    printed = images.call("make", f"check-image-{TARGET[hardware]}", show=STEPS)
    images.facts[hardware]["digest"] = re.findall(r"sha256:[0-9a-f]{12}", printed)[-1] + ", rebuilt equal"
    assert printed.endswith("check-reproducible: bit-identical\n")


# The image that serves, which is of no hardware.


@pytest.fixture(scope="module")
def server(images: Images) -> str:
    """The image that serves, built by make, from scratch."""
    start = time.monotonic()
    images.call("make", "image-serve", show=STEPS)
    images.facts["serve"] = {"build": f"{time.monotonic() - start:.0f} s"}
    return "serve"


# What deploy/kubernetes/serve/ allows a server, as another user.
CONFINED = ("--rm", "--user=4321:4321", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")


def test_the_server_has_exactly_the_packages_of_its_lock_and_none_that_trains(images: Images, server: str) -> None:
    locked = pinned_versions((ROOT / "docker/serve/requirements.txt").read_text())
    listing = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    printed = images.call("podman", "run", "--network=none", *CONFINED, "reprise:serve", "python", "-Ic", listing)
    installed = dict(re.findall(r"(\S+)==(\S+)", printed))
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed.items()}
    assert names == {**locked, "reprise": "0.1.0"}
    assert not {"torch", "transformers", "datasets", "dvc", "huggingface-hub", "pip", "setuptools"} & names.keys()
    images.facts[server]["packages"] = str(len(names))


def test_the_server_imports_all_that_it_needs_with_a_read_only_root_and_no_network(images: Images, server: str) -> None:
    container = ("podman", "run", "--network=none", *CONFINED, "reprise:serve")
    assert "Fine-tune a pretrained encoder" in images.call(*container, "reprise", "--help", show=NOTHING)
    assert "reprise 0.1.0\n" in images.call(*container, "reprise", "--version", show=NOTHING)
    imports = "import reprise.onnx.model, fastapi, uvicorn, prometheus_client"
    images.call(*container, "python", "-Ic", imports)
    images.call(*container, "sh", "-c", "touch /opt/venv/x || touch /model/x || touch /srv/x", code=1)
    images.call(*container, "sh", "-c", "! command -v git && ! command -v cc && ! command -v gcc")


def health_check() -> list[str]:
    """Return the command by which Docker asks a server for its health; podman's images have none."""
    text = (ROOT / "docker/serve/Dockerfile").read_text().replace("\\\n", "")
    (command,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.MULTILINE)
    return [str(word) for word in json.loads(command)]


def test_the_server_is_described_for_engines(images: Images, server: str) -> None:
    image = images.inspect(server)
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["ExposedPorts"] == {"8080/tcp": {}}
    assert image["Config"]["Cmd"][:3] == ["reprise", "serve", "/model"]
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == "Reprise serve"
    # Nobody serves in this container, so its health check fails.
    images.call("podman", "run", "--network=none", *CONFINED, "reprise:serve", *health_check(), code=1)
    assert images.call("make", "image-serve") == "image: reprise:serve is up to date\n"


@pytest.mark.skipif("cpu" not in HARDWARE, reason="compares with the image of the CPU")
@pytest.mark.parametrize("hardware", ["cpu"], indirect=True)
def test_the_server_has_at_most_a_fifth_of_the_size_of_what_trains(images: Images, hardware: str, server: str) -> None:
    serves, trains = (images.inspect(image)["Size"] for image in (server, hardware))
    images.facts[server]["size"] = f"{serves / 1e6:.0f} MB"
    assert serves <= trains / 5


def test_a_second_build_of_the_server_has_the_same_digest(images: Images, server: str) -> None:
    printed = images.call("make", "check-image-serve", show=STEPS)
    images.facts[server]["digest"] = re.findall(r"sha256:[0-9a-f]{12}", printed)[-1] + ", rebuilt equal"
    assert printed.endswith("check-reproducible: bit-identical\n")


@pytest.mark.skipif(not os.environ.get("MODEL"), reason="MODEL names no folder of `reprise export --format onnx`")
def test_the_server_answers_for_a_mounted_model_and_ends_with_0(images: Images, server: str) -> None:
    name = "reprise-served"
    model = f"--volume={Path(os.environ['MODEL']).resolve()}:/model:ro"
    images.call("podman", "run", "--detach", f"--name={name}", "--network=none", *CONFINED[1:], model, "reprise:serve")
    try:
        ask = (
            "from urllib.request import Request, urlopen; import sys; u = 'http://127.0.0.1:8080'; "
            "print(urlopen(u + '/ready').status, urlopen(Request(u + '/predict', sys.argv[1].encode(), "
            "{'Content-Type': 'application/json'})).read().decode())"
        )
        question = json.dumps({"inputs": "a moving story"})
        for _ in range(120):
            asked = ["podman", "exec", name, "python", "-Ic", ask, question]
            done = subprocess.run(asked, env=images.environment, capture_output=True, text=True)
            if done.returncode == 0:
                break
            time.sleep(1)
        assert re.match(r"200 .*\"label\"", done.stdout), done.stderr
        images.call("podman", "exec", name, *health_check())
        images.call("podman", "stop", "--time=60", name)
        assert images.call("podman", "wait", name).strip().endswith("0")
    finally:
        images.call("podman", "rm", "--force", name)
