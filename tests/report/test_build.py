"""`reprise report`: the runs on the page, missing files and errors."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from report import make_repository
from tiny import ROOT, Run, tiny_recipe

pytestmark = pytest.mark.timeout(900)  # the first test trains four runs, one after another, if no other has


@pytest.fixture
def folder(with_experiments: Path, tmp_path: Path) -> Path:
    """A copy of the repository with experiments, for the test to change."""
    return Path(shutil.copytree(with_experiments, tmp_path / "repo", symlinks=True))


def page_data(page: Path) -> dict[str, Any]:
    """Parse the data of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_head_and_all_experiments_are_on_the_page(folder: Path, run: Run) -> None:
    shown = run(folder, "reprise", "report").stdout
    page = folder / "report/index.html"
    assert shown == f"report: 3 runs, {page.stat().st_size / 1e6:.1f} MB, saved to {page.as_uri()}\n"
    content = page_data(page)
    assert {each["name"] for each in content["runs"]} == {"HEAD", "second", "gentler"}
    assert content["sweeps"] == ["train.learning_rate"]
    (group,) = content["groups"]
    assert [each["seed"] for each in group["seeds"]] == [42, 43]
    evaluated = json.loads((folder / "metrics/evaluate.json").read_text())
    assert content["runs"][0]["metrics"]["accuracy"][0] == round(evaluated["accuracy"], 5)
    stats = json.loads((folder / "data/prepared/stats.json").read_text())
    assert sum(each["count"] for each in content["balance"]) == sum(
        each["num_examples"] for each in stats["splits"].values()
    )
    text = page.read_text(encoding="utf-8")
    head = run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    for line in (f"git checkout {head}", "dvc exp run -S seed=43", "dvc exp run -S train.learning_rate=1e-05"):
        assert line in text
    assert run(folder, "git", "status", "--short").stdout == ""
    assert "html_template" in (folder / ".dvc/config.local").read_text()


def test_an_edited_metric_is_named_of_a_commit_and_of_the_workspace(folder: Path, run: Run, reprise: Run) -> None:
    file = folder / "metrics/evaluate.json"
    content = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r'"accuracy": [\d.]+', '"accuracy": 0.995', content, count=1), encoding="utf-8")
    run(folder, "git", "commit", "-qam", "A better number")
    shown = reprise(folder, "report", "workspace", "HEAD", "HEAD~").stdout
    for name in ("workspace", "HEAD"):
        assert f"report: {name}: metrics/evaluate.json is not as dvc.lock records it: it was edited" in shown
    assert shown.count(" is not as dvc.lock records it") == 2
    text = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "edited after the run" in text


@pytest.mark.full
def test_the_command_of_an_experiment_reproduces_it(folder: Path, run: Run, reprise: Run) -> None:
    reprise(folder, "report", "HEAD", "second")
    (command,) = re.findall(r"dvc exp run -S seed=43", (folder / "report/index.html").read_text(encoding="utf-8"))
    run(folder, *command.split())
    again = json.loads((folder / "metrics/evaluate.json").read_text())
    assert page_data(folder / "report/index.html")["runs"][1]["metrics"]["accuracy"][0] == round(again["accuracy"], 5)
    assert run(folder, "dvc", "metrics", "diff", "second", "--targets", "metrics/evaluate.json").stdout == ""


@pytest.mark.full
def test_named_runs_are_shown_once_in_the_given_order(folder: Path, reprise: Run) -> None:
    reprise(folder, "report", "gentler", "HEAD", "gentler", "--out", "elsewhere/page.html")
    assert [each["name"] for each in page_data(folder / "elsewhere/page.html")["runs"]] == ["gentler", "HEAD"]
    assert not (folder / "report").exists()


def test_a_workspace_with_other_results_comes_first_with_its_errors(folder: Path, run: Run, reprise: Run) -> None:
    run(folder, "dvc", "exp", "apply", "gentler")
    reprise(folder, "report")
    content = page_data(folder / "report/index.html")
    assert content["runs"][0]["name"] == "workspace"
    text = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "Most confident errors of <strong>workspace</strong>" in text
    assert text.count("<blockquote>") > 0


def test_predictions_are_read_from_the_cache_and_missing_data_is_reported(folder: Path, reprise: Run) -> None:
    shutil.rmtree(folder / "predictions")
    shutil.rmtree(folder / "data/prepared")
    reprise(folder, "report", "HEAD")
    text = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "<strong>HEAD</strong>" in text
    assert "The predictions are not on this machine" not in text
    assert "The prepared data of HEAD is not on this machine" in text
    shutil.rmtree(folder / ".dvc/cache")
    reprise(folder, "report", "HEAD")
    assert "The predictions are not on this machine" in (folder / "report/index.html").read_text(encoding="utf-8")


def test_an_unknown_run_is_refused_in_one_line_and_the_earlier_page_is_kept(folder: Path, reprise: Run) -> None:
    (folder / "report").mkdir()
    (folder / "report/index.html").write_text("earlier")
    refused = reprise(folder, "report", "no-such-run", code=2)
    assert refused.stderr.startswith("reprise: error: no-such-run: ")
    assert refused.stderr.count("\n") == 1
    assert (folder / "report/index.html").read_text() == "earlier"


def test_without_runs_the_report_is_refused(repo: Path, tmp_path: Path, reprise: Run) -> None:
    folder = Path(shutil.copytree(repo, tmp_path / "repo", symlinks=True))
    refused = reprise(folder, "report", code=2)
    (line,) = refused.stderr.splitlines()
    assert line.startswith("reprise: error: report: no runs yet; expected ")
    assert not (folder / "report").exists()


def test_many_experiments_are_read_and_grouped_by_seeds(tmp_path: Path, reprise: Run) -> None:
    make_repository(tmp_path, tiny_recipe(), 10)
    reprise(tmp_path, "report")
    content = page_data(tmp_path / "report/index.html")
    assert sorted(each["name"] for each in content["runs"]) == ["HEAD", *(f"run-{n:03}" for n in range(10))]
    assert content["sweeps"] == ["train.epochs", "train.learning_rate"]
    assert [[each["seed"] for each in group["seeds"]] for group in content["groups"]] == [[42, 43, 44, 45, 46]] * 2


def test_the_templates_are_packaged(tmp_path: Path, run: Run) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    run(tmp_path, "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", ".")
    (wheel,) = (tmp_path / "wheels").iterdir()
    packed = set(ZipFile(wheel).namelist())
    for file in ("report/template.html", "report/report.css", "report/report.js", "commands/model_card.md.jinja"):
        assert f"reprise/{file}" in packed
