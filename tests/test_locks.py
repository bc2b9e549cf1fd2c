"""The locks in docker/: whole, hashed, and in agreement with what was asked for."""

import ast
import re
import sys
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tiny import ROOT

DOCKER = ROOT / "docker"
ROOMS = sorted(lock.parent for lock in DOCKER.glob("*/torch.txt"))
OTHERS = [room for room in ROOMS if room.name != "cpu"]
WISHES = sorted(DOCKER.glob("*/*.in"))
LOCKS = sorted(lock for name in ("torch", "requirements", "dev") for lock in DOCKER.glob(f"*/{name}.txt"))
TORCH_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Pin:
    """One locked distribution: what the line asks for, and the hashes that may answer."""

    requirement: Requirement
    hashes: list[str]

    @property
    def version(self) -> Version:
        (only,) = self.requirement.specifier
        return Version(only.version)


def pins(lock: Path) -> dict[str, Pin]:
    """The pins of a lock by normalised name."""
    found: dict[str, Pin] = {}
    for line in lines(lock):
        if line == TORCH_INDEX:
            continue
        requirement, *options = re.split(r"\s+--hash=", line)
        name = canonicalize_name(Requirement(requirement).name)
        assert name not in found, f"{lock}: {name} stands twice"
        found[name] = Pin(Requirement(requirement), options)
    return found


def lines(file: Path) -> list[str]:
    """The lines of a requirements file, continuation lines joined and comments left out."""
    without_comments = re.sub(r"(^|\s)#.*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [line.strip() for line in without_comments.replace("\\\n", " ").splitlines() if line.strip()]


def wishes(file: Path) -> list[Requirement]:
    """What a .in file asks for, itself or in the files that it takes in with -r."""
    asked = [Requirement(line) for line in lines(file) if not line.startswith("-")]
    taken = [file.parent / line.removeprefix("-r ") for line in lines(file) if line.startswith("-r ")]
    return asked + [wish for other in taken for wish in wishes(other)]


def torch_of(room: Path) -> Version:
    return pins(room / "torch.txt")["torch"].version


def name_of(file: Path) -> str:
    return str(file.relative_to(DOCKER))


def test_every_room_has_all_its_locks_and_only_the_cpu_has_tools() -> None:
    assert {"cpu", "cuda", "tpu"} <= {room.name for room in ROOMS}
    assert [room.name for room in ROOMS if not (room / "requirements.txt").is_file()] == []
    wanted = [room / "requirements.in" for room in ROOMS]
    assert sorted([*wanted, DOCKER / "cpu/dev.in"]) == WISHES


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_every_room_asks_for_what_all_share_and_follows_the_cpu_s_versions(room: Path) -> None:
    options = [line for line in lines(room / "requirements.in") if line.startswith("-")]
    assert options == ["-r ../requirements.in"] + (["-c ../cpu/requirements.txt"] if room in OTHERS else [])


@pytest.mark.parametrize("file", WISHES, ids=name_of)
def test_everything_asked_for_is_locked_at_a_version_that_was_asked_for(file: Path) -> None:
    locked = pins(file.with_suffix(".txt")) | pins(file.with_name("torch.txt"))
    asked = wishes(file)
    assert len(asked) >= 8
    assert [wish.name for wish in asked if canonicalize_name(wish.name) not in locked] == []
    unlike = [
        f"{wish} is locked at {locked[canonicalize_name(wish.name)].version}"
        for wish in asked
        if not wish.specifier.contains(locked[canonicalize_name(wish.name)].version, prereleases=True)
    ]
    assert unlike == []


@pytest.mark.parametrize("lock", LOCKS, ids=name_of)
def test_every_locked_line_is_one_version_with_at_least_one_hash(lock: Path) -> None:
    locked = pins(lock)
    assert locked
    for name, pin in locked.items():
        assert [(only.operator, "*" in only.version) for only in pin.requirement.specifier] == [("==", False)], name
        assert pin.hashes, f"{name} has no hash"
        assert [digest for digest in pin.hashes if not re.fullmatch("sha256:[0-9a-f]{64}", digest)] == [], name


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_torch_is_locked_in_its_own_file_alone(room: Path) -> None:
    assert list(pins(room / "torch.txt")) == ["torch"]
    others = [lock for lock in LOCKS if lock.parent == room and lock.name != "torch.txt"]
    assert others
    assert [lock.name for lock in others if "torch" in pins(lock)] == []


@pytest.mark.parametrize("room", OTHERS, ids=name_of)
def test_the_libraries_are_resolved_for_the_torch_that_is_installed(room: Path) -> None:
    (asked,) = [wish for wish in wishes(room / "requirements.in") if wish.name == "torch"]
    assert str(asked.specifier) == f"=={torch_of(room)}"


def test_the_cpu_leaves_torch_out_of_the_resolution() -> None:
    (override,) = [Requirement(line) for line in lines(DOCKER / "cpu/overrides.txt")]
    assert override.name == "torch"
    assert override.marker
    assert not override.marker.evaluate()
    assert "torch" not in [wish.name for wish in wishes(DOCKER / "cpu/requirements.in")]
    assert torch_of(DOCKER / "cpu").local == "cpu"


@pytest.mark.parametrize("file", sorted({*DOCKER.rglob("*.txt"), *DOCKER.rglob("*.in")}), ids=name_of)
def test_no_file_names_a_place_to_download_from_but_the_cpu_s_torch(file: Path) -> None:
    options = [line for line in lines(file) if line.startswith("-") and line.split()[0] not in ("-c", "-r")]
    assert options == ([TORCH_INDEX] if name_of(file) == "cpu/torch.txt" else [])
    assert file.read_text(encoding="utf-8").count("://") == len(options)


@pytest.mark.parametrize("room", OTHERS, ids=name_of)
def test_what_a_room_shares_with_the_cpu_is_the_same_to_the_hash(room: Path) -> None:
    here, cpu = pins(room / "requirements.txt"), pins(DOCKER / "cpu/requirements.txt")
    shared = here.keys() & cpu.keys()
    assert len(shared) > 100
    unlike = [name for name in shared if here[name].version != cpu[name].version]
    assert unlike == []
    assert [name for name in shared if set(here[name].hashes) != set(cpu[name].hashes)] == []


def test_the_tpu_s_xla_is_of_the_minor_version_of_its_torch() -> None:
    xla = pins(DOCKER / "tpu/requirements.txt")["torch-xla"].version
    assert xla.release[:2] == torch_of(DOCKER / "tpu").release[:2]


def test_every_library_of_nvidia_is_of_the_cuda_toolkit_that_torch_asks_for() -> None:
    locked = pins(DOCKER / "cuda/requirements.txt")
    toolkit = locked["cuda-toolkit"].version
    # Most libraries count on their own: their name ends in CUDA's major version, or the toolkit itself pins them.
    text = (DOCKER / "cuda/requirements.txt").read_text(encoding="utf-8")
    entries = {entry.split("==")[0]: entry for entry in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)}
    libraries = [name for name in entries if name.startswith("nvidia-")]
    assert len(libraries) >= 10
    for name in libraries:
        suffix = re.search(r"-cu(\d+)$", name)
        if suffix:
            assert int(suffix[1]) == toolkit.major, name
        else:
            assert re.search(r"#.* cuda-toolkit$", entries[name], flags=re.MULTILINE), name
    assert locked["cuda-bindings"].version.major == toolkit.major
    assert locked["nvidia-nvjitlink"].version.release[:2] == toolkit.release[:2]  # the driver may know no newer one


@pytest.mark.parametrize("dev", sorted(DOCKER.glob("*/dev.txt")), ids=name_of)
def test_what_the_tests_need_agrees_with_what_the_pipeline_needs(dev: Path) -> None:
    tests, pipeline = pins(dev), pins(dev.with_name("requirements.txt"))
    shared = tests.keys() & pipeline.keys()
    assert shared, "pytest and the pipeline both need packaging"
    assert {name: tests[name].version for name in shared} == {name: pipeline[name].version for name in shared}


def imported(tree: ast.AST) -> set[str]:
    """The packages that are imported anywhere in `tree`, within functions too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


SOURCE = {file: ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "src/reprise").rglob("*.py")}


def test_all_that_the_source_imports_is_locked() -> None:
    others = {"reprise", "torch_xla", "mlflow"}  # of which one has a lock of its own, and one is a tracker, in no lock
    third_party = set().union(*map(imported, SOURCE.values())) - set(sys.stdlib_module_names) - others
    assert {"torch", "transformers", "datasets", "accelerate", "evaluate", "hydra"} <= third_party
    locked = pins(DOCKER / "cpu/requirements.txt").keys() | {"torch"}
    distributions = packages_distributions()
    unlocked = [
        module
        for module in sorted(third_party)
        if not {canonicalize_name(name) for name in distributions.get(module, [])} & locked
    ]
    assert unlocked == []


def test_what_only_the_lock_of_the_tpu_has_is_imported_by_one_module_and_only_where_it_is_needed() -> None:
    rooms = [room.name for room in ROOMS if "torch-xla" in pins(room / "requirements.txt")]
    importers = [str(file.relative_to(ROOT)) for file, tree in SOURCE.items() if "torch_xla" in imported(tree)]
    assert (rooms, importers) == (["tpu"], ["src/reprise/modeling/xla.py"])
    (file,) = importers
    at_once = [node for node in SOURCE[ROOT / file].body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert "torch_xla" not in set().union(*map(imported, at_once))
