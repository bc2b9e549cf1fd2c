"""The CI definitions run targets of make that exist, on the whole history, with actions pinned by commit."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tiny import ROOT, Run, write_params

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
GITLAB = ROOT / ".gitlab-ci.yml"
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_by_commit_and_the_whole_history_is_checked_out(file: Path) -> None:
    for step in steps(YAML(typ="safe").load(file)):
        name, _, revision = step.get("uses", "").partition("@")
        assert not name or re.fullmatch(r"[0-9a-f]{40}", revision), step
        assert name != "actions/checkout" or step["with"]["fetch-depth"] == 0
    unversioned = [line for line in file.read_text().splitlines() if "uses:" in line and not re.search(r" # v\d", line)]
    assert unversioned == []


@pytest.mark.parametrize("file", [*WORKFLOWS, GITLAB], ids=lambda file: file.name)
def test_every_target_of_make_exists(file: Path) -> None:
    assert set(re.findall(r"\bmake ([a-z-]+)", file.read_text(encoding="utf-8"))) <= TARGETS


def test_the_twin_runs_the_same_commands() -> None:
    github = {step["run"] for file in WORKFLOWS for step in steps(YAML(typ="safe").load(file)) if "run" in step}
    gitlab = YAML(typ="safe").load(GITLAB)
    assert gitlab["variables"]["GIT_DEPTH"] == 0
    jobs = [job for job in gitlab.values() if isinstance(job, dict) and "script" in job]
    made = {line for job in jobs for line in job["script"] if line.startswith("make ")}
    assert (
        made
        == {line for line in github if line.startswith("make ")}
        == {f"make {t}" for t in ("lint", "test", "docs", "train")}
    )


@pytest.mark.full
def test_a_pull_request_is_compared_with_its_base(repo_copy: Path, run: Run, tmp_path: Path) -> None:
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/compare.yml")
    (command,) = [step["run"] for step in steps(workflow) if "reprise compare" in step.get("run", "")]
    base = run(repo_copy, "git", "rev-parse", "HEAD").stdout.strip()
    write_params(repo_copy, **{"train.learning_rate": 1e-3})
    run(repo_copy, "dvc", "repro")
    env = {"BASE": base, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    run(repo_copy, "bash", "-eo", "pipefail", "-c", command.removeprefix(".venv/bin/"), env=env)
    comment = (repo_copy / "comparison.md").read_text(encoding="utf-8")
    assert comment == (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert re.search(r"^\| evaluate \| accuracy \|", comment, flags=re.MULTILINE)
    assert "| parameter | train.learning\\_rate | 0.005 | 0.001 |" in comment
