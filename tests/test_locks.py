"""The locks in docker/ are complete, have hashes and satisfy the requirements."""

import ast
import re
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tiny import ROOT

DOCKER = ROOT / "docker"
HARDWARE_DIRS = sorted(lock.parent for lock in DOCKER.glob("*/torch.txt"))
OTHER_DIRS = [hardware for hardware in HARDWARE_DIRS if hardware.name != "cpu"]
REQUIREMENTS = sorted(DOCKER.glob("*/*.in"))
GROUPS = ("dev", "docs", "sharing", "kernels", "onnx", "sweep", "tools", "trackers", "excel")  # beside what trains
LOCKS = sorted(lock for name in ("torch", "requirements", *GROUPS) for lock in DOCKER.glob(f"*/{name}.txt"))
TORCH_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Pin:
    """One locked distribution: its requirement and its accepted hashes."""

    requirement: Requirement
    hashes: list[str]

    @property
    def version(self) -> Version:
        (only,) = self.requirement.specifier
        return Version(only.version)


def pins(lock: Path) -> dict[str, Pin]:
    """Return the pins of a lock by normalized name."""
    found: dict[str, Pin] = {}
    for line in lines(lock):
        if line == TORCH_INDEX:
            continue
        requirement, *options = re.split(r"\s+--hash=", line)
        name = canonicalize_name(Requirement(requirement).name)
        assert name not in found, f"{lock}: {name} is pinned twice"
        found[name] = Pin(Requirement(requirement), options)
    return found


def lines(file: Path) -> list[str]:
    """Return the lines of a requirements file without comments, with continuation lines joined."""
    without_comments = re.sub(r"(^|\s)#.*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [line.strip() for line in without_comments.replace("\\\n", " ").splitlines() if line.strip()]


def requirements_of(file: Path) -> list[Requirement]:
    """Return the requirements of a .in file and of the files that it includes with -r."""
    own = [Requirement(line) for line in lines(file) if not line.startswith("-")]
    included = [file.parent / line.removeprefix("-r ") for line in lines(file) if line.startswith("-r ")]
    return own + [requirement for other in included for requirement in requirements_of(other)]


def torch_of(hardware: Path) -> Version:
    return pins(hardware / "torch.txt")["torch"].version


def name_of(file: Path) -> str:
    return str(file.relative_to(DOCKER))


def test_every_hardware_folder_has_its_locks_and_only_the_cpu_has_tools() -> None:
    assert {"cpu", "cuda", "tpu"} <= {hardware.name for hardware in HARDWARE_DIRS}
    assert [hardware.name for hardware in HARDWARE_DIRS if not (hardware / "requirements.txt").is_file()] == []
    wanted = [hardware / "requirements.in" for hardware in HARDWARE_DIRS]
    others = [*(DOCKER / f"cpu/{group}.in" for group in GROUPS), DOCKER / "serve/requirements.in"]
    assert sorted([*wanted, *others]) == REQUIREMENTS


@pytest.mark.parametrize("hardware", HARDWARE_DIRS, ids=name_of)
def test_every_hardware_includes_the_common_requirements_with_the_versions_of_the_cpu(hardware: Path) -> None:
    options = [line for line in lines(hardware / "requirements.in") if line.startswith("-")]
    assert options == ["-r ../requirements.in"] + (["-c ../cpu/requirements.txt"] if hardware in OTHER_DIRS else [])


@pytest.mark.parametrize("file", REQUIREMENTS, ids=name_of)
def test_every_requirement_is_locked_at_a_version_that_satisfies_it(file: Path) -> None:
    locked = pins(file.with_suffix(".txt")) | (
        pins(file.with_name("torch.txt")) if file.parent in HARDWARE_DIRS else {}
    )
    required = requirements_of(file)
    assert len(required) >= {"docs": 1, "excel": 1, "kernels": 1, "onnx": 3, "sweep": 1, "tools": 2, "trackers": 5}.get(
        file.stem, 8
    )
    assert [requirement.name for requirement in required if canonicalize_name(requirement.name) not in locked] == []
    mismatches = [
        f"{requirement} is locked at {locked[canonicalize_name(requirement.name)].version}"
        for requirement in required
        if not requirement.specifier.contains(locked[canonicalize_name(requirement.name)].version, prereleases=True)
    ]
    assert mismatches == []


@pytest.mark.parametrize("lock", LOCKS, ids=name_of)
def test_every_locked_line_is_one_version_with_at_least_one_hash(lock: Path) -> None:
    locked = pins(lock)
    assert locked
    for name, pin in locked.items():
        assert [(only.operator, "*" in only.version) for only in pin.requirement.specifier] == [("==", False)], name
        assert pin.hashes, f"{name} has no hash"
        assert pin.requirement.marker is None, f"{name} is not for every Python and architecture"
        assert [digest for digest in pin.hashes if not re.fullmatch("sha256:[0-9a-f]{64}", digest)] == [], name


@pytest.mark.parametrize("hardware", HARDWARE_DIRS, ids=name_of)
def test_torch_is_locked_only_in_its_own_file(hardware: Path) -> None:
    assert list(pins(hardware / "torch.txt")) == ["torch"]
    others = [lock for lock in LOCKS if lock.parent == hardware and lock.name != "torch.txt"]
    assert others
    assert [lock.name for lock in others if "torch" in pins(lock)] == []


@pytest.mark.parametrize("hardware", OTHER_DIRS, ids=name_of)
def test_the_libraries_are_resolved_for_the_locked_torch(hardware: Path) -> None:
    (required,) = [
        requirement for requirement in requirements_of(hardware / "requirements.in") if requirement.name == "torch"
    ]
    assert str(required.specifier) == f"=={torch_of(hardware)}"


def test_the_resolution_for_the_cpu_excludes_torch() -> None:
    (override,) = [Requirement(line) for line in lines(DOCKER / "cpu/overrides.txt")]
    assert override.name == "torch"
    assert override.marker
    assert not override.marker.evaluate()
    assert "torch" not in [requirement.name for requirement in requirements_of(DOCKER / "cpu/requirements.in")]
    assert torch_of(DOCKER / "cpu").local == "cpu"


@pytest.mark.parametrize("file", sorted({*DOCKER.rglob("*.txt"), *DOCKER.rglob("*.in")}), ids=name_of)
def test_only_the_lock_of_torch_for_the_cpu_names_an_index(file: Path) -> None:
    options = [line for line in lines(file) if line.startswith("-") and line.split()[0] not in ("-c", "-r")]
    assert options == ([TORCH_INDEX] if name_of(file) == "cpu/torch.txt" else [])
    assert file.read_text(encoding="utf-8").count("://") == len(options)


@pytest.mark.parametrize("hardware", OTHER_DIRS, ids=name_of)
def test_packages_common_with_the_cpu_have_equal_versions_and_hashes(hardware: Path) -> None:
    here, cpu = pins(hardware / "requirements.txt"), pins(DOCKER / "cpu/requirements.txt")
    shared = here.keys() & cpu.keys()
    assert len(shared) > 100
    mismatches = [name for name in shared if here[name].version != cpu[name].version]
    assert mismatches == []
    assert [name for name in shared if set(here[name].hashes) != set(cpu[name].hashes)] == []


@pytest.mark.parametrize("hardware", HARDWARE_DIRS, ids=name_of)
def test_torch_has_a_hash_for_every_supported_python_and_architecture(hardware: Path) -> None:
    (pythons,) = re.findall(r"^python: (.+)$", (hardware / "hardware.yaml").read_text(), flags=re.MULTILINE)
    architectures = 1 if hardware.name == "tpu" else 2
    assert len(pins(hardware / "torch.txt")["torch"].hashes) == len(pythons.split()) * architectures
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert all(SpecifierSet(supported).contains(python) for python in pythons.split())


def test_torch_xla_has_the_minor_version_of_the_torch_for_the_tpu() -> None:
    xla = pins(DOCKER / "tpu/requirements.txt")["torch-xla"].version
    assert xla.release[:2] == torch_of(DOCKER / "tpu").release[:2]


def test_every_nvidia_library_has_the_cuda_version_that_torch_requires() -> None:
    locked = pins(DOCKER / "cuda/requirements.txt")
    toolkit = locked["cuda-toolkit"].version
    # Most libraries have their own versions: their name ends in CUDA's major version, or the toolkit pins them.
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
    # The driver may not support a newer version.
    assert locked["nvidia-nvjitlink"].version.release[:2] == toolkit.release[:2]


@pytest.mark.parametrize(
    ("group", "other"),
    [
        ("dev", "requirements"),
        ("docs", "requirements"),
        ("docs", "dev"),
        ("trackers", "requirements"),
        ("trackers", "dev"),
        ("sharing", "requirements"),
        ("sharing", "dev"),
        ("onnx", "requirements"),
        ("onnx", "dev"),
        ("sweep", "requirements"),
        ("sweep", "dev"),
        ("sweep", "trackers"),
        ("excel", "dev"),
        ("kernels", "../cuda/requirements"),
    ],
)
def test_groups_that_are_installed_together_have_equal_versions(group: str, other: str) -> None:
    here, there = (pins(DOCKER / f"cpu/{name}.txt") for name in (group, other))
    shared = here.keys() & there.keys()
    assert shared
    assert {name: here[name].version for name in shared} == {name: there[name].version for name in shared}


def test_pip_and_setuptools_that_build_and_install_are_locked_for_every_hardware() -> None:
    for hardware in HARDWARE_DIRS:
        assert {"pip", "setuptools"} <= pins(hardware / "requirements.txt").keys()
    assert {"pip", "pip-audit", "uv"} <= pins(DOCKER / "cpu/tools.txt").keys()


@pytest.mark.parametrize(
    ("file", "least"),
    [("Makefile", 1), ("docker/make-venv", 7), ("docker/Dockerfile", 4), ("docker/serve/Dockerfile", 3)],
)
def test_every_pip_install_is_by_hash_or_of_reprise_itself(file: str, least: int) -> None:
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [
        line.strip()
        for line in re.split(r"\n|&&|;|\|\|", text)
        if re.search(r"pip (--python \S+ )?install [^i]|install_packages --", f"{line} ")
    ]
    assert len(commands) >= least
    # The function of docker/make-venv through which its other lines install: those are held to the hashes.
    unpinned = [line for line in commands if "--require-hashes" not in line and not line.endswith('--no-deps "$@"')]
    assert all(re.search(r"(--no-deps|install_packages).* \.$", line) for line in unpinned), unpinned
    assert all("--no-deps" in line or "install_packages" in line for line in commands)


ONNX = {"onnx", "onnx_ir", "onnxruntime"}
SERVER = {"fastapi", "starlette", "uvicorn", "prometheus_client"}


def imported(tree: ast.AST) -> set[str]:
    """Return the packages that are imported anywhere in `tree`, also in functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


SOURCE = {file: ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "src/reprise").rglob("*.py")}


def test_every_package_that_the_source_imports_is_locked() -> None:
    # torch_xla and triton are locked for their hardware, others in groups; mlflow is optional and has no lock.
    others = {"reprise", "torch_xla", "triton", "mlflow", "openpyxl", "optuna", *ONNX, *SERVER}
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


def test_packages_for_onnx_are_locked_in_their_group_and_imported_in_one_folder() -> None:
    importers = {file.parent for file, tree in SOURCE.items() if imported(tree) & ONNX}
    assert importers == {ROOT / "src/reprise/onnx"}
    assert {name.replace("_", "-") for name in ONNX} <= pins(DOCKER / "cpu/onnx.txt").keys()
    assert not {name.replace("_", "-") for name in ONNX} & pins(DOCKER / "cpu/requirements.txt").keys()


def test_optuna_is_locked_in_its_group_and_imported_in_one_folder() -> None:
    importers = {file.parent for file, tree in SOURCE.items() if "optuna" in imported(tree)}
    assert importers == {ROOT / "src/reprise/sweep"}
    assert "optuna" in pins(DOCKER / "cpu/sweep.txt")
    assert "optuna" not in pins(DOCKER / "cpu/requirements.txt")


def test_packages_of_the_server_are_locked_for_its_image_and_imported_in_one_folder() -> None:
    importers = {file.parent for file, tree in SOURCE.items() if imported(tree) & SERVER}
    assert importers == {ROOT / "src/reprise/serve"}
    assert {name.replace("_", "-") for name in SERVER} <= pins(DOCKER / "serve/requirements.txt").keys()


@pytest.mark.parametrize("lock", ["cpu/requirements.txt", "cpu/onnx.txt", "cpu/dev.txt"])
def test_the_server_has_the_versions_of_training(lock: str) -> None:
    here, there = pins(DOCKER / "serve/requirements.txt"), pins(DOCKER / lock)
    shared = here.keys() & there.keys()
    assert shared
    assert {name: here[name].version for name in shared} == {name: there[name].version for name in shared}


def test_triton_is_locked_where_the_kernels_run_and_imported_in_their_modules() -> None:
    importers = {str(file.relative_to(ROOT)) for file, tree in SOURCE.items() if "triton" in imported(tree)}
    assert importers == {f"src/reprise/train/{name}_kernel.py" for name in ("attention", "dropout")}
    assert "triton" in pins(DOCKER / "cuda/requirements.txt")
    assert "triton" not in pins(DOCKER / "cpu/requirements.txt")


def test_torch_xla_is_only_locked_for_the_tpu_and_imported_in_functions_of_one_module() -> None:
    locked_for = [hardware.name for hardware in HARDWARE_DIRS if "torch-xla" in pins(hardware / "requirements.txt")]
    importers = [str(file.relative_to(ROOT)) for file, tree in SOURCE.items() if "torch_xla" in imported(tree)]
    assert (locked_for, importers) == (["tpu"], ["src/reprise/modeling/xla.py"])
    (file,) = importers
    top_level = [node for node in SOURCE[ROOT / file].body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert "torch_xla" not in set().union(*map(imported, top_level))
