"""`reprise new`: a project with the code and the catalog of this repository, without what is about itself."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from reprise.commands.new import create_project, shorten_makefile
from reprise.core.errors import UserError
from tiny import ROOT, Run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the recipe of the table that is shipped. Read-only."""
    folder = tmp_path_factory.mktemp("projects") / "reviews"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        create_project(folder, ["task=custom", "train.epochs=1"])
    return folder


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_project_has_one_commit_a_recipe_and_its_own_name(project: Path) -> None:
    assert len(git(project, "log", "--format=%h").split()) == 1
    assert git(project, "status", "--porcelain") == ""
    assert (project / "params.yaml").read_text().startswith("# Made by: reprise compose task=custom train.epochs=1\n")
    readme = (project / "README.md").read_text()
    assert readme.startswith("# reviews\n")
    assert git(ROOT, "rev-parse", "HEAD").strip() in readme


def test_a_project_has_no_results_tests_or_documentation_of_this_repository(project: Path) -> None:
    names = {name.partition("/")[0] for name in git(project, "ls-files").split()}
    assert {"src", "docker", "recipes", "deploy", "data", "dvc.yaml", "Makefile", ".dvc"} <= names
    others = {
        "tests",
        "benchmarks",
        "docs",
        "metrics",
        "plots",
        "reference",
        "notebooks",
        "dvc.lock",
        "environment.json",
    }
    assert names & (others | {".ci", "mkdocs.yml", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"}) == set()


def test_every_target_of_its_makefile_has_its_files(project: Path) -> None:
    listed = subprocess.run(["make", "help"], cwd=project, capture_output=True, text=True, check=True).stdout
    assert "make train " in listed
    assert "make verify " in listed
    text = (project / "Makefile").read_text()
    for name in ("tests", "pytest", "benchmarks", "mkdocs", "ruff", "dev.in", "docs.in", ".dev:"):
        assert name not in text.partition("clean:")[0], name
    phony = next(line for line in text.splitlines() if line.startswith(".PHONY:")).split()
    assert {"train", "verify", "clean"} <= set(phony)
    assert not [name for name in phony if name.startswith(("test", "bench", "prove", "lint", "docs"))]


def test_a_makefile_keeps_the_paragraphs_of_other_targets() -> None:
    kept = "train: setup  ## Train\n\techo train\n"
    text = f".PHONY: train test-full \\\n  bench\n\n# Slow.\ntest-full: $(VENV)/.dev\n\tpytest\n\n{kept}"
    assert shorten_makefile(text) == f".PHONY: train\n\n{kept}"


@pytest.mark.parametrize(
    ("overrides", "key"), [(["task=nothing"], "task=nothing"), (["train.epochs=0"], "train.epochs")]
)
def test_a_wrong_recipe_creates_nothing(
    overrides: list[str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as caught:
        create_project(tmp_path / "mine", overrides)
    assert caught.value.key == key
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_or_in_this_repository_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError) as caught:
        create_project(tmp_path, [])
    assert (caught.value.file, caught.value.expected) == (str(tmp_path), "a folder that is empty or does not exist")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError) as caught:
        create_project(ROOT / "mine", [])
    assert caught.value.expected == "a folder outside it"


@pytest.mark.full
@pytest.mark.timeout(900)  # it trains twice
def test_a_project_trains_and_verifies_its_own_recipe(repo: Path, run: Run, tmp_path: Path) -> None:
    clone, target = tmp_path / "clone", tmp_path / "my reviews"
    run(tmp_path, "git", "clone", "-q", str(repo), str(clone))
    recipe = "name: tiny\nsource: {kind: local, path: data/own/tiny}\n"
    (clone / "recipes/model/tiny.yaml").write_text(recipe)
    run(clone, "git", "add", ".")
    overrides = ("task=custom", "model=tiny", "train.max_length=16", "train.precision=fp32")
    made = run(clone / "src", "reprise", "new", str(target), *overrides)
    assert f"cd '{target}' && make train" in made.stdout
    run(target, "dvc", "repro")
    metrics = json.loads((target / "metrics/evaluate.json").read_text())
    assert metrics["num_examples"] == 24
    assert run(target, "dvc", "repro").stdout.count("Running stage") == 1
    run(target, "git", "add", ".")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    run(target, "git", *identity, "commit", "-qm", "First result")
    assert "Verdict: identical" in run(target, "reprise", "verify").stdout
    shutil.rmtree(target)
