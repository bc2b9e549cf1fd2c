"""The images: built from the unchanged Dockerfile on a Debian without registry or engine, and cooked in.

`make test-images HARDWARE="cpu cuda tpu"` says which; root, and up to 60 GB in /var/tmp, are needed. Everything goes
through the commands of the README; the base image is another (docker/make-test-base), and podman is told what it may do here.
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
CALLER = 1234  # who calls make: neither root nor the image's own user
TOKEN = "hf_not_to_be_found_in_any_layer"
STEPS, NOTHING = r"STEP|^(image|rebuild): ", "^$ "  # of what is said, what to show
SMALL = "-S task.limit=64 -S train.epochs=1"


@dataclass
class Images:
    """A clone with an empty store of images beside it, and what the engine must be told on this machine."""

    clone: Path
    environment: dict[str, str]
    mounts: list[str]
    facts: dict[str, dict[str, str]] = field(default_factory=dict)

    def call(self, *command: str, code: int = 0, show: str = "", **environment: str) -> str:
        """Run a command in the clone; show those of its lines that match as it goes, return all of both streams."""
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
        """Run a command in an image over the clone as docker/run does, but without asking for its device first."""
        over = ("--rm", "--init", "--user", f"{CALLER}:{CALLER}", "--volume", f"{self.clone}:/reprise")
        return self.call("podman", "run", *over, *options, f"reprise:{hardware}", *command, code=code)

    def inspect(self, hardware: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(
            self.call("podman", "image", "inspect", f"reprise:{hardware}", show=NOTHING)
        )
        return found[0]


def pip_settings() -> dict[str, str]:
    """How pip reaches its packages from this machine: its own files and environment, as it reports them."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found = dict(
        re.findall(r"^[^.]+\.(cert|find-links|index-url|proxy|trusted-host)='(.*)'$", said.stdout, re.MULTILINE)
    )
    return {"cert": "/etc/ssl/certs/ca-certificates.crt", **found}


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    """A new clone that belongs to CALLER, an empty store with the stand-in base; both gone afterwards."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.fail("make test-images needs root on a Debian: it installs podman and makes a base image from packages")
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
    """Take away what an earlier run left, its mounts first."""
    if (WORK / "storage.conf").exists() and shutil.which("podman"):
        subprocess.run(["podman", "system", "reset", "--force"], env=environment, check=True, capture_output=True)
    shutil.rmtree(WORK, ignore_errors=False) if WORK.exists() else None


@pytest.fixture(scope="module", params=HARDWARE)
def hardware(request: pytest.FixtureRequest, images: Images) -> str:
    """A kind of hardware whose image was built by make, from nothing."""
    kind = str(request.param)
    start = time.monotonic()
    images.call("make", f"image-{TARGET[kind]}", show=STEPS)
    images.facts[kind] = {"build": f"{time.monotonic() - start:.0f} s"}
    return kind


def test_the_image_is_built_once_and_says_what_it_is_made_of(images: Images, hardware: str) -> None:
    image = images.inspect(hardware)
    images.facts[hardware]["size"] = f"{image['Size'] / 1e9:.2f} GB"
    revision = images.call("git", "-c", "safe.directory=*", "rev-parse", "HEAD", show=NOTHING).strip()
    assert image["Config"]["Labels"]["org.opencontainers.image.revision"] == revision
    assert images.call("make", f"image-{TARGET[hardware]}") == f"image: reprise:{hardware} is up to date\n"
    assert images.inspect(hardware)["Id"] == image["Id"]


def test_it_holds_the_packages_of_the_lock_and_no_other(images: Images, hardware: str) -> None:
    locked = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for lock in LOCKS
        for name, version in pinned_versions((ROOT / "docker" / hardware / lock).read_text()).items()
    }
    listing = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    said = images.inside(hardware, "python", "-c", listing, options=("--network=none",))
    installed = [pin.split("==") for pin in said.split()]
    assert {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed} == {
        **locked,
        "reprise": "0.1.0",
    }
    assert len(installed) == len(locked) + 1
    images.facts[hardware]["packages"] = str(len(installed))


def test_it_runs_as_a_user_without_rights_and_has_no_compiler(images: Images, hardware: str) -> None:
    assert images.inspect(hardware)["Config"]["User"] == "10001:10001"
    nobody = ("podman", "run", "--rm", "--network=none", f"reprise:{hardware}")
    assert images.call(*nobody, "id", "-u").strip() == "10001"
    images.call(*nobody, "bash", "-c", "touch /opt/venv/x || touch /usr/x || touch /etc/x", code=1)
    images.call(*nobody, "bash", "-c", "command -v cc || command -v gcc || command -v c++ || command -v clang", code=1)


def test_nothing_of_the_machine_or_the_caller_is_in_it(images: Images, hardware: str) -> None:
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


def test_the_recipe_is_cooked_in_it_and_a_second_run_cooks_nothing(images: Images, hardware: str) -> None:
    images.inside(hardware, "dvc", "repro", "fetch", options=("--network=host", *images.mounts))
    if hardware == "cuda":  # no device here: the environment says what it is, and train that it cannot
        said = images.inside(hardware, "dvc", "repro", code=255, options=("--network=none",))
        assert re.search(r"^environment: cuda, \d+ packages as locked$", said, re.MULTILINE)
        assert re.search(r"^reprise: error: cuda: PyTorch sees no GPU; expected .*$", said, re.MULTILINE)
        assert "Traceback" not in said
        assert json.loads((images.clone / "environment.json").read_text())["hardware"] == "cuda"
        images.facts[hardware]["recipe"] = "stops at train: no GPU"
        return
    offline = {"RUN_ARGS": "--network=none"}
    said = images.call("make", f"train-{TARGET[hardware]}", f"ARGS={SMALL}", **offline)
    assert re.findall(r"Running stage '(\w+)'", said)[-2:] == ["train", "evaluate"]
    assert f"environment: {hardware}, " in said
    assert json.loads((images.clone / "metrics/evaluate.json").read_text())["rows"] == 64
    assert (images.clone / "models/final/model.safetensors").stat().st_size > 80_000_000
    assert {path.lstat().st_uid for path in images.clone.rglob("*")} == {CALLER}

    again = images.call("make", f"train-{TARGET[hardware]}", **offline)
    assert re.findall(r"Running stage '(\w+)'", again) == ["environment"]
    images.facts[hardware]["recipe"] = "cooked"


@pytest.mark.skipif(not {"cpu", "tpu"} <= set(HARDWARE), reason='takes two images that cook: HARDWARE="cpu tpu"')
@pytest.mark.parametrize("hardware", HARDWARE[-1:], indirect=True)  # when all images are built
def test_another_image_trains_anew_and_the_way_back_is_taken_from_the_run_cache(images: Images, hardware: str) -> None:
    trained = {}
    for kind in ("cpu", "tpu", "cpu"):
        said = images.call("make", f"train-{TARGET[kind]}", RUN_ARGS="--network=none")
        assert re.findall(r"Running stage '(\w+)'", said) == ["environment"]
        assert "Stage 'prepare' didn't change, skipping" in said
        weights = (images.clone / "models/final/model.safetensors").read_bytes()
        assert trained.setdefault(kind, weights) == weights
    assert trained["cpu"] != trained["tpu"]


def test_built_again_from_nothing_it_has_the_same_digest(images: Images, hardware: str) -> None:
    said = images.call("make", f"rebuild-{TARGET[hardware]}", show=STEPS)
    images.facts[hardware]["digest"] = re.findall(r"sha256:[0-9a-f]{12}", said)[-1] + ", rebuilt equal"
    assert said.endswith("rebuild: the same, bit for bit\n")
