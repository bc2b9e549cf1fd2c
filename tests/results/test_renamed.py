"""Runs that were committed before keys and files were renamed can still be read, compared and verified."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from reprise.core.config import RENAMED_KEYS
from reprise.report.run import read_run_files
from reprise.results.renamed import (
    ADDED_PARAMS,
    RENAMED_METRICS,
    with_current_metrics,
    with_current_params,
    with_implied_params,
)
from reprise.results.run import FileReader, commit_reader, read_result
from tiny import ROOT, Run, tiny_recipe

# The last commit with the old names, of the default recipe.
BEFORE = "951657d131171718ba1ecc938c8863728437a5c8"


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> FileReader:
    """The files of the last commit with the old names."""
    monkeypatch.chdir(ROOT)
    if subprocess.run(["git", "cat-file", "-e", f"{BEFORE}^{{commit}}"], capture_output=True).returncode:
        pytest.skip("a shallow clone has no earlier commits")
    return commit_reader(BEFORE)


def test_a_key_and_its_subkeys_get_the_new_name() -> None:
    old = {"task.keep.category": ["a"], "task.labels": ["a"], "train.warmup": 0.1, "task.source.kind": "files"}
    assert with_current_params(old) == {
        "task.filter.category": ["a"], "task.labels": ["a"], "train.warmup_ratio": 0.1, "task.source.kind": "local"
    }  # fmt: skip


@pytest.mark.parametrize(("labels", "positive"), [(["rotten", "fresh"], "fresh"), (["a", "b", "c"], None), ([], None)])
def test_a_recipe_without_a_positive_label_had_the_second_of_two(labels: list[str], positive: str | None) -> None:
    implied = with_implied_params({"task.labels": labels})
    checks = {key: value for key, value in implied.items() if key.startswith("data.checks.")}
    assert checks["data.checks.near_duplicates.fail"] is None
    assert implied == {"task.labels": labels, "task.positive_label": positive, **ADDED_PARAMS, **checks}
    explicit = {"task.labels": labels, **ADDED_PARAMS, "task.positive_label": "rotten", "train.threads": 2, **checks}
    assert with_implied_params(explicit) == explicit
    assert with_implied_params({}) == {}


def test_no_new_name_is_an_old_one() -> None:
    assert not set(RENAMED_KEYS.values()) & set(RENAMED_KEYS)
    for file, names in RENAMED_METRICS.items():
        assert with_current_metrics(file, dict.fromkeys(names.values())) == dict.fromkeys(names.values())


def test_an_earlier_commit_is_read_with_current_names(before: FileReader) -> None:
    result, files = read_result(before, "before"), read_run_files(before)
    assert result.recipe["train.warmup_ratio"] == 0.06
    assert not result.recipe.keys() & RENAMED_KEYS.keys()
    assert result.task_kind.positive_label == "fresh"  # implied: of two labels, F1 was of the second
    assert result.metrics["evaluate"].keys() == {"accuracy", "f1"}
    assert result.provenance["cpu_capability"]
    assert files["evaluated"]["num_examples"] == 1273
    assert files["trained"]["best_epoch"] in (1, 2)
    assert set(files["tables"]["precision_recall"]["label"]) == {"fresh"}


@pytest.mark.full
@pytest.mark.usefixtures("before")
def test_an_earlier_commit_is_verified_by_its_own_code(repo_copy: Path, run: Run) -> None:
    """The earlier commit keeps the current lock files, because these are installed."""
    code = ["src", "dvc.yaml", ".dvc/plots"]
    for name in (*code, "metrics", "plots", "dvc.lock"):
        run(repo_copy, "rm", "-r", name)
    archive = subprocess.run(["git", "archive", BEFORE, *code], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "--extract"], cwd=repo_copy, input=archive.stdout, check=True)
    with (repo_copy / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(earlier_recipe(), file)
    run(repo_copy, "dvc", "repro")
    run(repo_copy, "git", "add", ".")
    run(repo_copy, "git", "commit", "-qm", "Run with the old names")
    run(repo_copy, "git", "checkout", "-q", "HEAD~", "--", ".")  # the current code
    run(repo_copy, "git", "commit", "-qam", "Rename the keys")
    done = run(repo_copy, "reprise", "verify", "HEAD~")
    assert "plots/pr.csv          │ identical" in done.stdout
    assert done.stdout.endswith("Verdict: identical\n")


def earlier_recipe() -> dict[str, Any]:
    """The tiny recipe with the old names."""
    recipe = tiny_recipe(**{"task.source.kind": "files", "model.source.kind": "files"})
    for old, new in RENAMED_KEYS.items():
        (old_section, old_key), (section, key) = old.split("."), new.split(".")
        recipe[old_section][old_key] = recipe[section].pop(key)
    del recipe["run"], recipe["task"]["positive_label"]  # keys that came later
    return recipe
