"""environment.json: the installed software against its lock, and nothing that two colleagues do not share."""

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
    current_hardware,
    installed_version,
    locked_environment,
    pinned_versions,
    require_device,
)
from tiny import ROOT, Run, write_params


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """A copy of docker/, the test's own to change."""
    return Path(shutil.copytree(ROOT / "docker", tmp_path / "docker"))


def change_version(lock: Path, name: str, version: str) -> str:
    """Let the lock say another version of a package; return the one that it said."""
    text = lock.read_text(encoding="utf-8")
    (before,) = re.findall(rf"^{name}==(\S+)", text, flags=re.MULTILINE)
    lock.write_text(re.sub(rf"^{name}==\S+", f"{name}=={version}", text, flags=re.MULTILINE), encoding="utf-8")
    return str(before)


def leaves(tree: Any) -> Iterator[str]:
    """The values in a JSON object, however deep."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    else:
        yield str(tree)


def processor_models() -> set[str]:
    """What Linux calls this machine's processors; nothing where it has no name for them."""
    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return {name.strip() for name in re.findall(r"^model name\s*:(.*)$", listed, flags=re.MULTILINE)}


def test_it_describes_what_is_installed_and_that_is_what_is_locked() -> None:
    described = locked_environment("cpu", ROOT / "docker")
    locked = [
        line.split()[0].split("==")
        for lock in LOCKS
        for line in (ROOT / "docker/cpu" / lock).read_text(encoding="utf-8").splitlines()
        if re.match(r"\w", line)
    ]
    assert len(locked) > 100
    assert described["packages"] == dict(locked)
    assert described["packages"] == {name: importlib.metadata.version(name) for name, _ in locked}
    assert list(described["packages"]) == sorted(described["packages"])
    assert {"torch", "transformers", "datasets", "accelerate", "evaluate", "numpy"} <= described["packages"].keys()


def test_it_holds_the_kind_of_hardware_the_python_and_the_digests_of_the_locks(rooms: Path) -> None:
    described = locked_environment("cpu", rooms)
    assert described.keys() == {"hardware", "machine", "python", "locks", "packages"}
    assert described["hardware"] == "cpu"
    assert described["machine"] == platform.machine()
    assert described["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert described["locks"] == {
        name: hashlib.sha256((rooms / "cpu" / name).read_bytes()).hexdigest()
        for name in ("torch.txt", "requirements.txt")
    }


def test_it_says_nothing_of_the_machine_the_user_or_the_processor() -> None:
    secrets = {platform.node(), socket.gethostname(), getpass.getuser(), *processor_models(), str(ROOT)} - {""}
    told = [
        value
        for value in leaves(locked_environment("cpu", ROOT / "docker"))
        if any(secret in value for secret in secrets)
    ]
    assert told == []


def test_another_host_user_and_clock_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_lock_that_says_another_version_is_refused_with_both_and_what_to_do(rooms: Path) -> None:
    installed = change_version(rooms / "cpu/requirements.txt", "numpy", "0.0.1")
    with pytest.raises(UserError) as refused:
        locked_environment("cpu", rooms)
    assert str(refused.value) == (
        f"{rooms}/cpu: the lock pins numpy 0.0.1, installed is {installed}; "
        "expected them to agree: run `make setup`, or build the image again"
    )


def test_another_build_of_torch_is_refused_too(rooms: Path) -> None:
    installed = change_version(rooms / "cpu/torch.txt", "torch", "2.0.0+other")
    with pytest.raises(UserError, match=re.escape(f"the lock pins torch 2.0.0+other, installed is {installed};")):
        locked_environment("cpu", rooms)


def test_a_package_that_is_not_installed_is_named(rooms: Path) -> None:
    with (rooms / "cpu/requirements.txt").open("a", encoding="utf-8") as lock:
        lock.write("nobody-wrote-this==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(UserError, match=r"the lock pins nobody-wrote-this 1\.0, installed is none; .*`make setup`"):
        locked_environment("cpu", rooms)
    assert installed_version("nobody-wrote-this") is None


def test_only_whole_pins_are_read_from_a_lock() -> None:
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


def test_the_hardware_is_cpu_where_nothing_else_is_said(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRISE_HARDWARE", raising=False)
    assert current_hardware(rooms) == "cpu"
    shutil.copytree(rooms / "cpu", rooms / "abacus")
    monkeypatch.setenv("REPRISE_HARDWARE", "abacus")
    assert current_hardware(rooms) == "abacus"
    assert locked_environment("abacus", rooms) == {**locked_environment("cpu", rooms), "hardware": "abacus"}


def test_a_hardware_without_a_room_is_told_which_there_are(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(rooms / "cpu", rooms / "abacus")
    monkeypatch.setenv("REPRISE_HARDWARE", "quill")
    with pytest.raises(UserError) as refused:
        current_hardware(rooms)
    known = ", ".join(sorted({"abacus"} | {lock.parent.name for lock in (ROOT / "docker").glob("*/torch.txt")}))
    assert str(refused.value) == f"REPRISE_HARDWARE: no lock {rooms}/quill/torch.txt; expected one of {known}"


@pytest.mark.parametrize(("kind", "xla"), [("cpu", None), ("cpu", "TPU"), ("tpu", "CPU")])
def test_what_computes_on_the_processor_requires_no_device(
    kind: str, xla: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PJRT_DEVICE", raising=False)
    if xla:
        monkeypatch.setenv("PJRT_DEVICE", xla)
    require_device(kind)


def test_a_room_without_its_second_lock_is_refused(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_HARDWARE", "cpu")
    (rooms / "cpu/requirements.txt").unlink()
    with pytest.raises(UserError, match=r"requirements\.txt"):
        locked_environment(current_hardware(rooms), rooms)


def test_two_runs_write_the_same_bytes_and_another_lock_writes_others(rooms: Path, run: Run) -> None:
    folder = rooms.parent
    write_params(folder)

    def written(**env: str) -> bytes:
        source = {"PYTHONPATH": str(ROOT / "src"), "REPRISE_HARDWARE": "cpu"}
        run(folder, sys.executable, "-m", "reprise", "environment", env={**source, **env})
        return (folder / "environment.json").read_bytes()

    first = written()
    assert written(USER="other", HOSTNAME="other", TZ="Asia/Tokyo", LC_ALL="C") == first
    with (rooms / "cpu/requirements.txt").open("a", encoding="utf-8") as lock:
        lock.write("# another lock\n")
    before, after = json.loads(first), json.loads(written())
    assert before["locks"].pop("requirements.txt") != after["locks"].pop("requirements.txt")
    assert before == after
