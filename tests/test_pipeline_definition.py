"""In dvc.yaml, a stage depends on exactly the code that it runs, and has the documented outputs."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reprise.core import paths
from reprise.hardware import ENVIRONMENT
from reprise.results.run import RECORDED
from reprise.train.checkpoint import train_sources
from tiny import ROOT

PACKAGE = ROOT / "src/reprise"
# The command of each stage; `environment` runs every time and has no dependencies.
COMMANDS = {
    "sources": "sources",
    "fetch-data": "fetch",
    "fetch-model": "fetch",
    "prepare": "prepare",
    "check-data": "check_data",
    "teacher": "teacher",
    "preflight": "preflight",
    "train": "train",
    "evaluate": "evaluate",
}
# The folder of each stage's code.
FOLDERS = COMMANDS | {"sources": "fetch", "preflight": "train"}
STAGES = tuple(COMMANDS)
OUTPUTS = {
    "environment": {"environment.json"},
    "sources": {"data/sources.json"},
    "fetch-data": {"data/raw"},
    "fetch-model": {"models/pretrained"},
    "prepare": {"data/prepared"},
    "check-data": {"data/checks"},
    "teacher": {"data/teacher"},
    "preflight": {"metrics/preflight.json"},
    "train": {
        "models/final",
        "plots/train.csv",
        "plots/validation.csv",
        "metrics/train.json",
    },
    "evaluate": {
        "predictions",
        "plots/confusion.csv",
        "plots/per_class.csv",
        "plots/precision_recall.csv",
        "plots/calibration.csv",
        "plots/residuals.csv",
        "metrics/evaluate.json",
    },
}
# Files compared between commits are in git, the others in DVC's cache.
IN_GIT = ("environment.json", "data/sources.json", "metrics/", "plots/")


@pytest.fixture(scope="module")
def stages() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml."""
    content: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return dict(content["stages"])


def outputs_of(stage: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all outputs of a stage with their options."""
    entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    with_options = [entry if isinstance(entry, dict) else {entry: {}} for entry in entries]
    return {path: options for entry in with_options for path, options in entry.items()}


def file_of(module: str) -> Path | None:
    """Return the file of a module of the package; None if there is no such module."""
    path = ROOT / "src" / module.replace(".", "/")
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return found[0] if found else None


def imported_modules(tree: ast.AST, importer: Path) -> Iterator[str]:
    """Yield the modules of the package that are imported anywhere in `tree`, also in functions."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = list(importer.relative_to(ROOT / "src").parts[: -node.level]) if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            # `from reprise.fetch import hub` imports a module, `from reprise.core.errors import UserError` does not.
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "reprise":  # importing a.b.c also runs a and a.b
                yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def files_reached(start: list[tuple[ast.AST, Path]]) -> set[Path]:
    """Return all files of the package imported from `start`, directly or indirectly."""
    reached: set[Path] = set()
    pending = list(start)
    while pending:
        tree, importer = pending.pop()
        for module in imported_modules(tree, importer):
            file = file_of(module)
            if file is not None and file not in reached:
                reached.add(file)
                pending.append((parsed(file), file))
    return reached


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def command(stage: str) -> ast.FunctionDef:
    """Return the command-line function of a stage; its imports are inside the function."""
    (found,) = [
        node
        for node in parsed(PACKAGE / "cli.py").body
        if isinstance(node, ast.FunctionDef) and node.name == COMMANDS[stage]
    ]
    return found


def as_dependency(file: Path) -> str:
    """Return the dependency of dvc.yaml that covers a file: its top-level folder in the package, or itself."""
    return f"src/reprise/{file.relative_to(PACKAGE).parts[0]}"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_stage_depends_on_exactly_the_code_that_it_runs(stages: dict[str, dict[str, Any]], name: str) -> None:
    # A command of another name than its folder runs only what it imports of it.
    folder = sorted((PACKAGE / COMMANDS[name]).rglob("*.py"))
    start = [(command(name), PACKAGE / "cli.py"), *((parsed(file), file) for file in folder)]
    reached = files_reached(start) | set(folder)
    # The package's __init__.py is run by all stages and has no code; see the test below.
    expected = {as_dependency(file) for file in reached - {PACKAGE / "__init__.py"}}
    listed = [dependency for dependency in stages[name]["deps"] if dependency.startswith("src/")]
    assert sorted(listed) == sorted(expected)


def test_a_checkpoint_is_bound_to_the_code_that_training_depends_on(stages: dict[str, dict[str, Any]]) -> None:
    sources = train_sources(ROOT)
    assert {str(file.relative_to(ROOT)) for file in sources.values()} == sources.keys()
    listed = {dependency for dependency in stages["train"]["deps"] if dependency.startswith("src/")}
    assert {as_dependency(file) for file in sources.values()} == listed
    assert {file for file in PACKAGE.rglob("*.py") if as_dependency(file) in listed} == set(sources.values())


def test_the_import_walk_finds_imports_in_functions_and_in_packages() -> None:
    launcher = PACKAGE / "train/stage.py"
    reached = {str(file.relative_to(PACKAGE)) for file in files_reached([(parsed(launcher), launcher)])}
    assert {
        "hardware.py",
        "train/worker.py",
        "train/engines/accelerate.py",
        "tasks/registry.py",
        "modeling/classifier.py",
    } <= reached
    assert "cli.py" not in reached
    assert "evaluate/stage.py" not in reached


def test_the_init_file_of_the_package_is_only_a_docstring() -> None:
    (only,) = parsed(PACKAGE / "__init__.py").body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)


@pytest.mark.parametrize("name", STAGES)
def test_every_code_dependency_exists(stages: dict[str, dict[str, Any]], name: str) -> None:
    listed = [dependency for dependency in stages[name]["deps"] if dependency.startswith("src/")]
    assert [dependency for dependency in listed if not (ROOT / dependency).exists()] == []
    assert len(set(listed)) == len(listed)


def test_no_stage_depends_on_the_folder_of_another(stages: dict[str, dict[str, Any]]) -> None:
    folders = {
        name: [folder for folder in set(FOLDERS.values()) if f"src/reprise/{folder}" in stage.get("deps", [])]
        for name, stage in stages.items()
    }
    assert folders == {"environment": [], **{name: [folder] for name, folder in FOLDERS.items()}}


def test_no_shared_module_imports_the_folder_of_a_stage() -> None:
    folders = set(FOLDERS.values())
    shared = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] not in folders]
    shared = [file for file in shared if file.name not in ("cli.py", "__main__.py")]
    assert len(shared) > 8
    reached = files_reached([(parsed(file), file) for file in shared])
    assert [file for file in reached if file.relative_to(PACKAGE).parts[0] in folders] == []


def test_only_stages_that_compute_with_numbers_depend_on_the_environment(stages: dict[str, dict[str, Any]]) -> None:
    depending = [name for name, stage in stages.items() if "environment.json" in stage.get("deps", [])]
    assert depending == ["check-data", "teacher", "preflight", "train", "evaluate"]
    assert stages["environment"]["always_changed"] is True


def test_the_stages_have_exactly_the_documented_outputs(stages: dict[str, dict[str, Any]]) -> None:
    assert {name: set(outputs_of(stage)) for name, stage in stages.items()} == OUTPUTS


def test_the_code_and_dvc_name_the_same_paths(stages: dict[str, dict[str, Any]]) -> None:
    named = {value for value in vars(paths).values() if isinstance(value, Path)}
    in_code = {path for path in named if path.suffix != ".lock"} - set(RECORDED) | {ENVIRONMENT}
    made = {Path(path) for stage in stages.values() for path in outputs_of(stage)}
    assert {path for path in in_code if not any(output.is_relative_to(path) for output in made)} == set()
    assert {output for output in made if not any(output.is_relative_to(path) for path in in_code)} == set()


def test_every_stage_reads_outputs_of_earlier_stages_or_local_data(stages: dict[str, dict[str, Any]]) -> None:
    made: list[Path] = [Path("data/own")]
    for name, stage in stages.items():
        data = [Path(path) for path in stage.get("deps", []) if not path.startswith("src/")]
        assert [path for path in data if not any(path.is_relative_to(output) for output in made)] == [], name
        made += [Path(path) for path in outputs_of(stage)]


def test_small_results_are_in_git_and_the_others_in_the_cache_of_dvc(stages: dict[str, dict[str, Any]]) -> None:
    options = {path: each for stage in stages.values() for path, each in outputs_of(stage).items()}
    assert {path for path, each in options.items() if each.get("cache") is False} == {
        path for path in options if path.startswith(IN_GIT)
    }
    # DVC's run cache does not restore outputs marked `persist`.
    assert [path for path, each in options.items() if "persist" in each] == []


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_of_a_stage_is_a_key_of_the_recipe(stages: dict[str, dict[str, Any]], name: str) -> None:
    recipe: Any = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key in [key for key in stages[name]["params"] if isinstance(key, str)]:
        section = recipe
        for part in key.split("."):
            assert part in section, key
            section = section[part]


def test_every_key_that_changes_a_result_is_a_parameter_of_a_stage(stages: dict[str, dict[str, Any]]) -> None:
    recipe: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    keys = {f"{section}.{key}" for section in recipe if section != "seed" for key in recipe[section]} | {"seed"}
    listed = [key for stage in stages.values() for key in stage.get("params", [])]
    unlisted = {
        key for key in keys if not any(key == parameter or key.startswith(f"{parameter}.") for parameter in listed)
    }
    # The name of the model is only displayed; checkpoints and trackers change no bit; no stage uses the submission.
    assert unlisted == {"model.name", "run.save_steps", "run.trackers", "task.submission"}


def test_prepare_depends_on_every_key_of_the_task_that_it_reads(stages: dict[str, dict[str, Any]]) -> None:
    nodes = [node for file in (PACKAGE / "prepare").glob("*.py") for node in ast.walk(parsed(file))]
    # No output depends on the source: it only gives errors about a copy in data/raw the name of the user's own file.
    (naming,) = (node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "_users_file")
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and node not in set(ast.walk(naming))]
    read = {node.attr for node in attributes if ast.unparse(node.value) == "task"}
    listed = {key.removeprefix("task.") for key in stages["prepare"]["params"] if key.startswith("task.")}
    assert read - {"kind"} == listed  # derived from task.labels


def test_the_command_of_each_stage_has_its_name(stages: dict[str, dict[str, Any]]) -> None:
    assert {name: stage["cmd"] for name, stage in stages.items()} == {
        name: f"reprise {name.replace('fetch-', 'fetch ')}" for name in ("environment", *STAGES)
    }


def test_a_stage_that_reads_the_users_files_depends_on_the_digests_of_its_own_only(
    stages: dict[str, dict[str, Any]],
) -> None:
    depending = {
        name: [key for key in stage.get("params", []) if isinstance(key, dict)] for name, stage in stages.items()
    }
    assert {name: keys for name, keys in depending.items() if keys} == {
        "fetch-data": [{str(paths.SOURCES): ["task"]}],
        "fetch-model": [{str(paths.SOURCES): ["model"]}],
        "teacher": [{str(paths.SOURCES): ["teacher"]}],
    }
    assert [name for name, stage in stages.items() if "data/own" in stage.get("deps", [])] == ["sources"]
