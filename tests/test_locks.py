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
WISHES = sorted(DOCKER.glob("*/*.in"))
LOCKS = sorted(DOCKER.glob("*/*.txt"))


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
    """The lines of a lock by normalised name, continuation lines joined and comments left out."""
    found: dict[str, Pin] = {}
    for line in lines(lock):
        requirement, *options = re.split(r"\s+--hash=", line)
        name = canonicalize_name(Requirement(requirement).name)
        assert name not in found, f"{lock}: {name} stands twice"
        found[name] = Pin(Requirement(requirement), options)
    return found


def lines(file: Path) -> list[str]:
    """The logical lines of a requirements file."""
    without_comments = re.sub(r"(^|\s)#.*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [line.strip() for line in without_comments.replace("\\\n", " ").splitlines() if line.strip()]


def wishes(file: Path) -> list[Requirement]:
    """What a .in file asks for."""
    return [Requirement(line) for line in lines(file) if not line.startswith("-")]


def name_of(file: Path) -> str:
    return str(file.relative_to(DOCKER))


def test_every_room_has_all_its_locks() -> None:
    assert [room.name for room in ROOMS if not (room / "requirements.txt").is_file()] == []
    assert (DOCKER / "cpu/dev.txt").is_file()
    assert {file.with_suffix(".txt") for file in WISHES} <= set(LOCKS)


@pytest.mark.parametrize("file", WISHES, ids=name_of)
def test_everything_asked_for_is_locked_at_a_version_that_was_asked_for(file: Path) -> None:
    locked = pins(file.with_suffix(".txt"))
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
def test_torch_stands_in_its_own_lock_alone(room: Path) -> None:
    assert list(pins(room / "torch.txt")) == ["torch"]
    elsewhere = [file for file in (*room.glob("*.txt"), *room.glob("*.in")) if file.name != "torch.txt"]
    assert len(elsewhere) >= 2
    naming = [file.name for file in elsewhere if any(re.match(r"torch\b(?!-)", line) for line in lines(file))]
    assert naming == []


@pytest.mark.parametrize("file", sorted({*LOCKS, *WISHES, *DOCKER.glob("*.txt")}), ids=name_of)
def test_no_lock_names_a_place_to_download_from(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "://" not in text
    options = [line for line in lines(file) if line.startswith("-")]
    assert [line for line in options if line.split()[0] not in ("-c", "-r")] == []


@pytest.mark.parametrize("dev", sorted(DOCKER.glob("*/dev.txt")), ids=name_of)
def test_what_the_tests_need_agrees_with_what_the_pipeline_needs(dev: Path) -> None:
    tests, pipeline = pins(dev), pins(dev.with_name("requirements.txt"))
    shared = tests.keys() & pipeline.keys()
    assert shared, "pytest and the pipeline both need packaging"
    assert {name: tests[name].version for name in shared} == {name: pipeline[name].version for name in shared}


def test_all_that_the_source_imports_is_locked() -> None:
    imported: set[str] = set()
    for file in (ROOT / "src/reprise").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"reprise"}
    assert {"torch", "transformers", "datasets", "accelerate", "evaluate", "hydra"} <= third_party
    locked = pins(DOCKER / "cpu/requirements.txt").keys() | {"torch"}
    distributions = packages_distributions()
    unlocked = [
        module
        for module in sorted(third_party)
        if not {canonicalize_name(name) for name in distributions.get(module, [])} & locked
    ]
    assert unlocked == []
