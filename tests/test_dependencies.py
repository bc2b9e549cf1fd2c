"""dvc.yaml against the code: a stage depends on exactly the files that it runs, and makes what is documented."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reprise.core import paths as places
from reprise.core.config import CHANGE_NO_BIT
from reprise.hardware import ENVIRONMENT
from reprise.train.checkpoint import train_sources
from tiny import ROOT

PACKAGE = ROOT / "src/reprise"
# The stages that have a room in the package; `environment` runs every time and depends on nothing.
STAGES = ("fetch", "prepare", "train", "evaluate")
OUTPUTS = {
    "environment": {"environment.json"},
    "fetch": {"data/raw", "models/pretrained"},
    "prepare": {"data/prepared"},
    "train": {
        "models/final",
        "plots/train.csv",
        "plots/validation.csv",
        "metrics/train.json",
        "metrics/speed.json",
        "metrics/provenance.json",
    },
    "evaluate": {
        "predictions",
        "plots/confusion.csv",
        "plots/pr.csv",
        "plots/calibration.csv",
        "metrics/evaluate.json",
    },
}
# What later stages and people compare from commit to commit stands in git; the rest in DVC's cache.
IN_GIT = ("environment.json", "metrics/", "plots/")


@pytest.fixture(scope="module")
def stages() -> dict[str, dict[str, Any]]:
    """The stages as dvc.yaml says them."""
    content: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return dict(content["stages"])


def outputs_of(stage: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything that a stage makes, with its options."""
    entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    with_options = [entry if isinstance(entry, dict) else {entry: {}} for entry in entries]
    return {path: options for entry in with_options for path, options in entry.items()}


def file_of(module: str) -> Path | None:
    """The file of a module of the package; None for a name that is none."""
    place = ROOT / "src" / module.replace(".", "/")
    found = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return found[0] if found else None


def imported_modules(tree: ast.AST, importer: Path) -> Iterator[str]:
    """The package's modules that are imported anywhere in `tree`, within functions too."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = list(importer.relative_to(ROOT / "src").parts[: -node.level]) if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from reprise.fetch import hub` means a module, `from reprise.core.errors import UserError` does not.
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "reprise":  # importing a.b.c runs a and a.b too
                yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def files_reached(start: list[tuple[ast.AST, Path]]) -> set[Path]:
    """All files of the package that are imported from `start`, directly or through others."""
    reached: set[Path] = set()
    waiting = list(start)
    while waiting:
        tree, importer = waiting.pop()
        for module in imported_modules(tree, importer):
            file = file_of(module)
            if file is not None and file not in reached:
                reached.add(file)
                waiting.append((parsed(file), file))
    return reached


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def verb(stage: str) -> ast.FunctionDef:
    """The function of the command line that runs a stage: it imports what it needs within itself."""
    (found,) = [
        node for node in parsed(PACKAGE / "cli.py").body if isinstance(node, ast.FunctionDef) and node.name == stage
    ]
    return found


def as_dependency(file: Path) -> str:
    """How dvc.yaml names a file: by the folder of the package that it lies in, or by itself."""
    return f"src/reprise/{file.relative_to(PACKAGE).parts[0]}"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_runs(stages: dict[str, dict[str, Any]], name: str) -> None:
    room = sorted((PACKAGE / name).rglob("*.py"))
    start = [(verb(name), PACKAGE / "cli.py"), *((parsed(file), file) for file in room)]
    reached = files_reached(start) | set(room)
    # The package's own head is run by all and says nothing; see the test below.
    expected = {as_dependency(file) for file in reached - {PACKAGE / "__init__.py"}}
    listed = [dependency for dependency in stages[name]["deps"] if dependency.startswith("src/")]
    assert sorted(listed) == sorted(expected)


def test_a_checkpoint_is_bound_to_the_code_that_training_depends_on(stages: dict[str, dict[str, Any]]) -> None:
    sources = train_sources(ROOT)
    assert {str(file.relative_to(ROOT)) for file in sources.values()} == sources.keys()
    listed = {dependency for dependency in stages["train"]["deps"] if dependency.startswith("src/")}
    assert {as_dependency(file) for file in sources.values()} == listed
    assert {file for file in PACKAGE.rglob("*.py") if as_dependency(file) in listed} == set(sources.values())


def test_the_walk_over_the_imports_sees_what_stands_in_functions_and_behind_folders() -> None:
    launcher = PACKAGE / "train/stage.py"
    reached = {str(file.relative_to(PACKAGE)) for file in files_reached([(parsed(launcher), launcher)])}
    assert {
        "hardware.py",
        "train/worker.py",
        "train/engines/accelerate.py",
        "metrics/__init__.py",
        "modeling/classifier.py",
    } <= reached
    assert "cli.py" not in reached
    assert "evaluate/stage.py" not in reached


def test_the_head_of_the_package_is_nothing_but_words() -> None:
    (only,) = parsed(PACKAGE / "__init__.py").body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)


@pytest.mark.parametrize("name", STAGES)
def test_every_dependency_in_the_source_is_there(stages: dict[str, dict[str, Any]], name: str) -> None:
    listed = [dependency for dependency in stages[name]["deps"] if dependency.startswith("src/")]
    assert [dependency for dependency in listed if not (ROOT / dependency).exists()] == []
    assert len(set(listed)) == len(listed)


def test_no_stage_depends_on_the_room_of_another(stages: dict[str, dict[str, Any]]) -> None:
    rooms = {
        name: [room for room in STAGES if f"src/reprise/{room}" in stage.get("deps", [])]
        for name, stage in stages.items()
    }
    assert rooms == {"environment": [], **{name: [name] for name in STAGES}}


def test_no_module_that_stages_share_imports_the_room_of_one() -> None:
    shared = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] not in STAGES]
    shared = [file for file in shared if file.name not in ("cli.py", "__main__.py")]
    assert len(shared) > 8
    reached = files_reached([(parsed(file), file) for file in shared])
    assert [file for file in reached if file.relative_to(PACKAGE).parts[0] in STAGES] == []


def test_the_software_is_a_dependency_of_training_and_judging_alone(stages: dict[str, dict[str, Any]]) -> None:
    depending = [name for name, stage in stages.items() if "environment.json" in stage.get("deps", [])]
    assert depending == ["train", "evaluate"]
    assert stages["environment"]["always_changed"] is True


def test_the_stages_make_what_is_documented_and_nothing_else(stages: dict[str, dict[str, Any]]) -> None:
    assert {name: set(outputs_of(stage)) for name, stage in stages.items()} == OUTPUTS


def test_the_code_and_dvc_name_the_same_places(stages: dict[str, dict[str, Any]]) -> None:
    in_code = {value for value in vars(places).values() if isinstance(value, Path)} | {ENVIRONMENT}
    made = {Path(path) for stage in stages.values() for path in outputs_of(stage)}
    assert {place for place in in_code if not any(path.is_relative_to(place) for path in made)} == set()
    assert {path for path in made if not any(path.is_relative_to(place) for place in in_code)} == set()


def test_every_stage_reads_what_an_earlier_one_made_or_what_is_given(stages: dict[str, dict[str, Any]]) -> None:
    made: list[Path] = [Path("data/own")]
    for name, stage in stages.items():
        data = [Path(path) for path in stage.get("deps", []) if not path.startswith("src/")]
        assert [path for path in data if not any(path.is_relative_to(place) for place in made)] == [], name
        made += [Path(path) for path in outputs_of(stage)]


def test_small_results_are_kept_in_git_and_the_rest_in_the_cache_of_dvc(stages: dict[str, dict[str, Any]]) -> None:
    options = {path: said for stage in stages.values() for path, said in outputs_of(stage).items()}
    assert {path for path, said in options.items() if said.get("cache") is False} == {
        path for path in options if path.startswith(IN_GIT)
    }
    # DVC's run cache restores only what is not marked so.
    assert [path for path, said in options.items() if "persist" in said] == []


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_of_a_stage_is_a_key_of_the_recipe(stages: dict[str, dict[str, Any]], name: str) -> None:
    recipe: Any = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key in stages[name]["params"]:
        section = recipe
        for part in key.split("."):
            assert part in section, key
            section = section[part]


def test_every_key_that_changes_a_result_is_a_parameter_of_a_stage(stages: dict[str, dict[str, Any]]) -> None:
    recipe: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    keys = {f"{section}.{key}" for section in recipe if section != "seed" for key in recipe[section]} | {"seed"}
    watched = [key for stage in stages.values() for key in stage.get("params", [])]
    unwatched = {
        key for key in keys if not any(key == parameter or key.startswith(f"{parameter}.") for parameter in watched)
    }
    # A name is shown and never computed with; checkpoints and trackers change no bit; no stage hands in to a benchmark.
    assert unwatched == {"model.name", *(f"train.{key}" for key in CHANGE_NO_BIT), "task.submission"}


def test_prepare_depends_on_every_key_of_the_task_that_it_reads(stages: dict[str, dict[str, Any]]) -> None:
    nodes = [node for file in (PACKAGE / "prepare").glob("*.py") for node in ast.walk(parsed(file))]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    read = {node.attr for node in attributes if ast.unparse(node.value) == "task"}
    listed = {key.removeprefix("task.") for key in stages["prepare"]["params"] if key.startswith("task.")}
    assert read - {"regression"} == listed  # which is what task.labels says


def test_the_command_of_each_stage_is_its_verb(stages: dict[str, dict[str, Any]]) -> None:
    assert {name: stage["cmd"] for name, stage in stages.items()} == {
        name: f"reprise {name}" for name in ("environment", *STAGES)
    }
