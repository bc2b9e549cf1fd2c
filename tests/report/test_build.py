"""`reprise report` as it is typed: which runs the page has, what is not here, what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from report import make_repository
from tiny import ROOT, Run, tiny_recipe


@pytest.fixture
def folder(tasted: Path, tmp_path: Path) -> Path:
    """A copy of the kitchen with its experiments, the test's own to change."""
    return Path(shutil.copytree(tasted, tmp_path / "kitchen", symlinks=True))


def told(page: Path) -> dict[str, Any]:
    """The data in a page."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_head_and_all_experiments_are_on_the_page(folder: Path, run: Run) -> None:
    shown = run(folder, "reprise", "report").stdout
    page = folder / "report/index.html"
    assert shown == f"report: 3 runs, {page.stat().st_size / 1e6:.1f} MB, in {page.as_uri()}\n"
    content = told(page)
    assert {each["name"] for each in content["runs"]} == {"HEAD", "second", "gentler"}
    assert content["sweeps"] == ["train.learning_rate"]
    (group,) = content["groups"]
    assert [each["seed"] for each in group["seeds"]] == [42, 43]
    judged = json.loads((folder / "metrics/evaluate.json").read_text())
    assert content["runs"][0]["metrics"]["accuracy"][0] == round(judged["accuracy"], 5)
    card = json.loads((folder / "data/prepared/stats.json").read_text())
    assert sum(each["count"] for each in content["balance"]) == sum(
        each["num_examples"] for each in card["splits"].values()
    )
    text = page.read_text(encoding="utf-8")
    head = run(folder, "git", "rev-parse", "HEAD").stdout.strip()
    for line in (f"git checkout {head}", "dvc exp run -S seed=43", "dvc exp run -S train.learning_rate=0.001"):
        assert line in text
    assert run(folder, "git", "status", "--short").stdout == ""
    assert "html_template" in (folder / ".dvc/config.local").read_text()


def test_the_command_of_an_experiment_cooks_it_again(folder: Path, run: Run) -> None:
    run(folder, "reprise", "report", "HEAD", "second")
    (command,) = re.findall(r"dvc exp run -S seed=43", (folder / "report/index.html").read_text(encoding="utf-8"))
    run(folder, *command.split())
    again = json.loads((folder / "metrics/evaluate.json").read_text())
    assert told(folder / "report/index.html")["runs"][1]["metrics"]["accuracy"][0] == round(again["accuracy"], 5)
    assert run(folder, "dvc", "metrics", "diff", "second", "--targets", "metrics/evaluate.json").stdout == ""


def test_named_runs_stand_in_the_order_of_their_names_once(folder: Path, run: Run) -> None:
    run(folder, "reprise", "report", "gentler", "HEAD", "gentler", "--out", "elsewhere/page.html")
    assert [each["name"] for each in told(folder / "elsewhere/page.html")["runs"]] == ["gentler", "HEAD"]
    assert not (folder / "report").exists()


def test_a_workspace_with_other_results_comes_first_and_its_mistakes_are_shown(folder: Path, run: Run) -> None:
    run(folder, "dvc", "exp", "apply", "gentler")
    run(folder, "reprise", "report")
    content = told(folder / "report/index.html")
    assert content["runs"][0]["name"] == "workspace"
    text = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "that <strong>workspace</strong> is surest of" in text
    assert text.count("<blockquote>") > 0


def test_what_is_only_in_the_cache_is_read_from_there_and_what_is_nowhere_is_said(folder: Path, run: Run) -> None:
    shutil.rmtree(folder / "predictions")
    shutil.rmtree(folder / "data/prepared")
    run(folder, "reprise", "report", "HEAD")
    text = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "<strong>HEAD</strong>" in text
    assert "The predictions are not here" not in text
    assert "The prepared data is not here" in text
    shutil.rmtree(folder / ".dvc/cache")
    run(folder, "reprise", "report", "HEAD")
    assert "The predictions are not here" in (folder / "report/index.html").read_text(encoding="utf-8")


def test_what_cannot_be_reported_is_one_line_and_the_earlier_page_stays(folder: Path, run: Run) -> None:
    (folder / "report").mkdir()
    (folder / "report/index.html").write_text("earlier")
    refused = run(folder, "reprise", "report", "no-such-run", code=2)
    assert refused.stderr.startswith("reprise: error: no-such-run: ")
    assert refused.stderr.count("\n") == 1
    assert (folder / "report/index.html").read_text() == "earlier"


def test_where_nothing_was_cooked_there_is_nothing_to_report(kitchen: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(kitchen, tmp_path / "kitchen", symlinks=True))
    refused = run(folder, "reprise", "report", code=2)
    assert (
        refused.stderr == "reprise: error: report: nothing was cooked here yet; expected the results of `dvc repro`\n"
    )
    assert not (folder / "report").exists()


def test_experiments_by_the_dozen_are_read_and_their_groups_of_seeds_found(tmp_path: Path, run: Run) -> None:
    make_repository(tmp_path, tiny_recipe(), 10)
    run(tmp_path, "reprise", "report", env={"PYTHONPATH": str(ROOT / "src")})
    content = told(tmp_path / "report/index.html")
    assert sorted(each["name"] for each in content["runs"]) == ["HEAD", *(f"run-{n:03}" for n in range(10))]
    assert content["sweeps"] == ["train.epochs", "train.learning_rate"]
    assert [[each["seed"] for each in group["seeds"]] for group in content["groups"]] == [[42, 43, 44, 45, 46]] * 2


def test_the_parts_of_the_page_are_packed_with_the_code(tmp_path: Path, run: Run) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    run(tmp_path, "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", ".")
    (wheel,) = (tmp_path / "wheels").iterdir()
    packed = set(ZipFile(wheel).namelist())
    for file in ("report/template.html", "report/report.css", "report/report.js", "commands/model_card.md.jinja"):
        assert f"reprise/{file}" in packed
