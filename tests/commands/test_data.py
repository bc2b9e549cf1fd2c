"""`reprise data`: the checks of the data on one screen, and as JSON."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reprise.cli import app
from reprise.core.files import read_json
from reprise.core.paths import DATA_CHECKS
from reprise.data.checks import CHECKS_FILE, MEANINGS, NEAR_DUPLICATES, describe_baseline, describe_check, read_checks
from reprise.data.format import stats_path
from tiny import write_params


@pytest.fixture
def checked(prepared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared data after check-data, as the current folder."""
    folder = Path(shutil.copytree(prepared_dir, tmp_path / "copy"))
    monkeypatch.chdir(folder)
    write_params(folder, **{"data.checks.label_imbalance.warn": 0.3, "data.checks.give_away.fail": 0.9})
    assert CliRunner().invoke(app, ["check-data"]).exit_code == 0
    return folder


def test_the_checks_fit_on_a_screen_of_80_columns(checked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    content = read_json(DATA_CHECKS / CHECKS_FILE)
    for check in content["checks"].values():  # the longest that they may be
        check |= {"status": "fail", "split": "validation", "warn": 0.001, "fail": 0.005}
    (DATA_CHECKS / CHECKS_FILE).write_text(json.dumps(content), encoding="utf-8")
    shown = CliRunner().invoke(app, ["data"]).output
    assert len(shown.splitlines()) <= 24
    assert max(map(len, shown.splitlines())) <= 80
    assert all(meaning in shown for meaning in MEANINGS.values())


def test_status_thresholds_baseline_and_files_are_shown(checked: Path) -> None:
    shown = CliRunner().invoke(app, ["data"]).output
    (line,) = (line for line in shown.splitlines() if MEANINGS["label_imbalance"] in line)
    assert "WARN" in line
    assert "30 %" in line
    assert "TF-IDF and logistic regression, test: accuracy " in shown
    assert str(DATA_CHECKS / NEAR_DUPLICATES) in shown
    assert json.loads(CliRunner().invoke(app, ["data", "--json"]).output) == read_json(DATA_CHECKS / CHECKS_FILE)


def test_checks_of_other_data_are_refused(checked: Path) -> None:
    stats = read_json(stats_path())
    assert read_checks(stats)
    assert read_checks({}) is None
    stats["splits"]["train"]["sha256"] = "0" * 64
    stats_path().write_text(json.dumps(stats))
    assert read_checks(stats) is None
    done = CliRunner().invoke(app, ["data"])
    assert done.exit_code == 2
    assert done.output == (
        "reprise: error: data/checks/checks.json: of other data than data/prepared; "
        "expected the result of `dvc repro check-data`\n"
    )
    shutil.rmtree(DATA_CHECKS)
    assert "checks.json: not found" in CliRunner().invoke(app, ["data"]).output


def test_the_words_of_a_check_name_split_and_numbers() -> None:
    near = {"share": 0.05, "split": "test", "count": 1, "of": 20}
    assert describe_check("near_duplicates", near) == f"test: 1 of 20 (5.00%) {MEANINGS['near_duplicates']}"
    column = {"share": 1.0, "split": "train", "column": "stars"}
    assert describe_check("give_away", column) == f"100.0% of the {MEANINGS['give_away']}: stars"
    assert describe_baseline({"baseline": None}, "test") == ""
