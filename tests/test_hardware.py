"""environment.json describes the locked software and nothing specific to one machine."""

import getpass
import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reprise.core.errors import UserError
from reprise.hardware import (
    LOCKS,
    check_installed,
    current_hardware,
    installed_version,
    locked_environment,
    locked_versions,
    pinned_versions,
    require_device,
)
from tiny import ROOT, Run, flip_a_bit, write_params


@pytest.fixture
def hardware_dir(tmp_path: Path) -> Path:
    """Return a copy of docker/ that the test may change."""
    return Path(shutil.copytree(ROOT / "docker", tmp_path / "docker"))


def change_version(lock: Path, name: str, version: str) -> str:
    """Replace the pinned version of a package in a lock; return the previous one."""
    text = lock.read_text(encoding="utf-8")
    (before,) = re.findall(rf"^{name}==(\S+)", text, flags=re.MULTILINE)
    lock.write_text(re.sub(rf"^{name}==\S+", f"{name}=={version}", text, flags=re.MULTILINE), encoding="utf-8")
    return str(before)


def leaves(tree: Any) -> Iterator[str]:
    """Yield all values of a nested JSON object as text."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    else:
        yield str(tree)


def processor_models() -> set[str]:
    """Return the names of this machine's processor models, if Linux has any."""
    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return {name.strip() for name in re.findall(r"^model name\s*:(.*)$", listed, flags=re.MULTILINE)}


def test_the_packages_are_those_of_the_locks_and_installed() -> None:
    environment = locked_environment("cpu", ROOT / "docker")
    locked = [
        line.split()[0].split("==")
        for lock in LOCKS
        for line in (ROOT / "docker/cpu" / lock).read_text(encoding="utf-8").splitlines()
        if re.match(r"\w", line)
    ]
    assert len(locked) > 100
    assert environment["packages"] == dict(locked)
    assert environment["packages"] == {name: importlib.metadata.version(name) for name, _ in locked}
    assert list(environment["packages"]) == sorted(environment["packages"])
    assert {"torch", "transformers", "datasets", "accelerate", "evaluate", "numpy"} <= environment["packages"].keys()


def test_it_has_hardware_python_and_lock_digests(hardware_dir: Path) -> None:
    environment = locked_environment("cpu", hardware_dir)
    assert environment.keys() == {"hardware", "machine", "python", "locks", "packages"}
    assert environment["hardware"] == "cpu"
    assert environment["machine"] == platform.machine()
    assert environment["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert environment["locks"] == {
        name: hashlib.sha256((hardware_dir / "cpu" / name).read_bytes()).hexdigest()
        for name in ("torch.txt", "requirements.txt")
    }


def test_it_has_no_information_about_machine_user_or_processor() -> None:
    secrets = {platform.node(), socket.gethostname(), getpass.getuser(), *processor_models(), str(ROOT)} - {""}
    found = [
        value
        for value in leaves(locked_environment("cpu", ROOT / "docker"))
        if any(secret in value for secret in secrets)
    ]
    assert found == []


def test_host_user_and_clock_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = locked_environment("cpu", ROOT / "docker")
    for name in ("USER", "LOGNAME", "HOSTNAME", "HOME", "TZ"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    monkeypatch.setattr(platform, "processor", lambda: "elsewhere")
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr("time.time", lambda: 0.0)
    after = locked_environment("cpu", ROOT / "docker")
    assert after == before
    assert "elsewhere" not in json.dumps(after)


def test_a_version_that_differs_from_the_lock_is_rejected(hardware_dir: Path) -> None:
    installed = change_version(hardware_dir / "cpu/requirements.txt", "numpy", "0.0.1")
    with pytest.raises(UserError, match="`make setup`") as refused:
        locked_environment("cpu", hardware_dir)
    assert (refused.value.file, refused.value.key) == (f"{hardware_dir}/cpu", "numpy")
    assert refused.value.problem == f"the lock pins 0.0.1, installed is {installed}"


def test_another_build_of_torch_is_rejected(hardware_dir: Path) -> None:
    installed = change_version(hardware_dir / "cpu/torch.txt", "torch", "2.0.0+other")
    with pytest.raises(UserError) as refused:
        locked_environment("cpu", hardware_dir)
    assert refused.value.key == "torch"
    assert refused.value.problem == f"the lock pins 2.0.0+other, installed is {installed}"


def test_a_missing_package_is_reported(hardware_dir: Path) -> None:
    with (hardware_dir / "cpu/requirements.txt").open("a", encoding="utf-8") as lock:
        lock.write("nobody-wrote-this==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(UserError) as refused:
        locked_environment("cpu", hardware_dir)
    assert refused.value.key == "nobody-wrote-this"
    assert refused.value.problem == "the lock pins 1.0, installed is none"
    assert installed_version("nobody-wrote-this") is None


def test_only_exact_pins_are_read_from_a_lock() -> None:
    lock = (
        "# heading==0\n"
        "plain==1.2.3\n"
        "hashed==1.0+cpu --hash=sha256:00\n"
        "Marked.Name_x==2.0 ; python_version < '4' \\\n"
        "    --hash=sha256:00\n"
        "    # via other==9\n"
        "loose>=1\n"
    )
    assert pinned_versions(lock) == {"plain": "1.2.3", "hashed": "1.0+cpu", "Marked.Name_x": "2.0"}


def test_the_default_hardware_is_cpu(hardware_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRISE_HARDWARE", raising=False)
    assert current_hardware(hardware_dir) == "cpu"
    shutil.copytree(hardware_dir / "cpu", hardware_dir / "abacus")
    monkeypatch.setenv("REPRISE_HARDWARE", "abacus")
    assert current_hardware(hardware_dir) == "abacus"
    assert locked_environment("abacus", hardware_dir) == {
        **locked_environment("cpu", hardware_dir),
        "hardware": "abacus",
    }


def test_an_unknown_hardware_is_reported_with_the_known_ones(
    hardware_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(hardware_dir / "cpu", hardware_dir / "abacus")
    monkeypatch.setenv("REPRISE_HARDWARE", "quill")
    with pytest.raises(UserError, match=r"quill/torch\.txt") as refused:
        current_hardware(hardware_dir)
    known = ", ".join(sorted({"abacus"} | {lock.parent.name for lock in (ROOT / "docker").glob("*/torch.txt")}))
    assert (refused.value.key, refused.value.expected) == ("REPRISE_HARDWARE", f"one of {known}")


@pytest.mark.parametrize(
    ("kind", "xla", "device"), [("cpu", None, "cpu"), ("cpu", "TPU", "cpu"), ("tpu", "CPU", "xla")]
)
def test_computing_on_the_cpu_requires_no_device(
    kind: str, xla: str | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PJRT_DEVICE", raising=False)
    if xla:
        monkeypatch.setenv("PJRT_DEVICE", xla)
    assert require_device(kind, ROOT / "docker") == device


@pytest.mark.parametrize(("present", "variable"), [(True, None), (False, "OFF"), (False, None)])
def test_a_new_hardware_is_a_folder_whose_facts_name_its_device(
    hardware_dir: Path, monkeypatch: pytest.MonkeyPatch, *, present: bool, variable: str | None
) -> None:
    (hardware_dir / "abacus").mkdir()
    (hardware_dir / "abacus/hardware.yaml").write_text(
        f"device: xla\ndevice_files: {hardware_dir}/beads[0-9]\nno_device: no beads\nvariable: ABACUS=ON\n"
    )
    if present:
        (hardware_dir / "beads0").touch()
    if variable:
        monkeypatch.setenv("ABACUS", variable)
    if present or variable:
        assert require_device("abacus", hardware_dir) == "xla"
    else:
        with pytest.raises(UserError, match="no beads") as refused:
            require_device("abacus", hardware_dir)
        assert refused.value.key == "abacus"


def test_a_hardware_without_facts_is_rejected(hardware_dir: Path) -> None:
    (hardware_dir / "cpu/hardware.yaml").unlink()
    with pytest.raises(UserError, match="not found") as refused:
        require_device("cpu", hardware_dir)
    assert refused.value.file == str(hardware_dir / "cpu/hardware.yaml")


@pytest.mark.parametrize("text", ["", "[", "target: cpu\n", "device: abacus\n"])
def test_facts_without_a_known_device_are_rejected(hardware_dir: Path, text: str) -> None:
    file = hardware_dir / "cpu/hardware.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        require_device("cpu", hardware_dir)
    assert (refused.value.file, refused.value.key, refused.value.expected) == (
        str(file), "device", "one of cpu, cuda, xla"
    )  # fmt: skip


def test_a_hardware_folder_without_its_second_lock_is_rejected(
    hardware_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_HARDWARE", "cpu")
    (hardware_dir / "cpu/requirements.txt").unlink()
    with pytest.raises(UserError, match=r"requirements\.txt"):
        locked_environment(current_hardware(hardware_dir), hardware_dir)


def test_two_runs_write_the_same_bytes_and_another_lock_changes_them(hardware_dir: Path, run: Run) -> None:
    folder = hardware_dir.parent
    write_params(folder)

    def environment_json(**env: str) -> bytes:
        source = {"PYTHONPATH": str(ROOT / "src"), "REPRISE_HARDWARE": "cpu"}
        run(folder, sys.executable, "-m", "reprise", "environment", env={**source, **env})
        return (folder / "environment.json").read_bytes()

    first = environment_json()
    assert environment_json(USER="other", HOSTNAME="other", TZ="Asia/Tokyo", LC_ALL="C") == first
    with (hardware_dir / "cpu/requirements.txt").open("a", encoding="utf-8") as lock:
        lock.write("# another lock\n")
    before, after = json.loads(first), json.loads(environment_json())
    assert before["locks"].pop("requirements.txt") != after["locks"].pop("requirements.txt")
    assert before == after


def test_an_installed_file_that_was_edited_is_rejected_until_it_is_as_before(installed_package: Path) -> None:
    environment = locked_environment("abacus")
    installed_package.write_text("VALUE = 2\n")
    for _ in range(2):  # what was refused once is not remembered as checked
        with pytest.raises(UserError, match="`make setup`") as refused:
            locked_environment("abacus")
        assert (refused.value.file, refused.value.key) == (str(installed_package), "locked")
    installed_package.write_text("VALUE = 1\n")
    assert locked_environment("abacus") == environment


def test_a_missing_installed_file_is_rejected(installed_package: Path) -> None:
    locked_environment("abacus")
    installed_package.unlink()
    with pytest.raises(UserError) as refused:
        locked_environment("abacus")
    assert (refused.value.file, refused.value.key) == (str(installed_package), "locked")


def test_a_package_without_a_record_is_rejected(installed_package: Path) -> None:
    installed_package.with_name("locked-1.0.dist-info").joinpath("RECORD").unlink()
    with pytest.raises(UserError) as refused:
        locked_environment("abacus")
    assert refused.value.key == "locked"


def test_the_list_of_certificate_authorities_may_have_others_added(installed_package: Path) -> None:
    record = installed_package.with_name("locked-1.0.dist-info") / "RECORD"
    record.write_text(record.read_text().replace("locked.py,", "certifi/cacert.pem,"))
    locked_environment("abacus")


def test_unchanged_files_are_hashed_once_and_all_of_them_by_a_complete_check(
    installed_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked_environment("abacus")
    flip_a_bit(installed_package)  # as a rotten disk does: size and time stay
    locked_environment("abacus")
    with pytest.raises(UserError) as refused:
        check_installed(locked_versions("abacus"), complete=True)
    assert refused.value.file == str(installed_package)


def test_the_stamp_is_beside_the_repository_where_the_environment_is_read_only(
    installed_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "nowhere"))  # root can write anywhere else
    locked_environment("abacus")
    assert not (tmp_path / ".dvc").exists()
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    locked_environment("abacus")
    assert (tmp_path / ".dvc/tmp/.reprise-installed").is_file()
