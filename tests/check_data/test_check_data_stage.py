"""The stage check-data, typed as a command: numbers on small tables, thresholds, and the same bytes twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from reprise.cli import app
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import DATA_CHECKS, PRETRAINED
from reprise.core.validation import read_recipe
from reprise.data.checks import CHECKS_FILE, LABEL_ERRORS, MEANINGS, NEAR_DUPLICATES
from reprise.prepare.stage import prepare
from tiny import BAD, GOOD, write_params

OWN_SPLITS = {
    "source": {"kind": "local", **{split: f"data/own/{split}.csv" for split in ("train", "validation", "test")}},
    "split": None,
    "filter": None,
}
LONG = "the film is very moving and the plot was tender but the music is dull and the end was flat"


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to an empty folder with the tiny tokenizer."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, PRETRAINED / "tokenizer")
    return tmp_path


def write_tables(tables: dict[str, pd.DataFrame], **changes: Any) -> None:
    """Write raw tables and params.yaml, and prepare them; `changes` are keys of the recipe."""
    for split, table in tables.items():
        folder = Path("data/raw", split)
        folder.mkdir(parents=True)
        table.to_csv(folder / "rows.csv", index=False)
    write_params(Path(), **changes)
    recipe = read_recipe()
    prepare(recipe.task, max_length=recipe.train.max_length)


def reviews(rows: int, offset: int = 0) -> pd.DataFrame:
    """Return reviews whose words tell the label, all different."""
    numbers = range(offset, offset + rows)
    words = [GOOD if n % 2 else BAD for n in numbers]
    texts = [
        f"{known[n // 2 % 8]} film {n % 10} {n // 10 % 10} {n // 100 % 10} {known[n // 16 % 8]}"
        for n, known in zip(numbers, words, strict=True)
    ]
    return pd.DataFrame(
        {
            "number": numbers,
            "text": texts,
            "verdict": ["fresh" if n % 2 else "rotten" for n in numbers],
            "film": [f"film {n // 4}" for n in numbers],
        }
    )


def splits(**changes: Any) -> dict[str, Any]:
    return {f"task.{key}": value for key, value in {**OWN_SPLITS, **changes}.items()}


def check() -> Result:
    return CliRunner().invoke(app, ["check-data"])


def found() -> dict[str, Any]:
    """Return the checks of checks.json."""
    checks: dict[str, Any] = read_json(DATA_CHECKS / CHECKS_FILE)["checks"]
    return checks


def test_counts_of_each_split_are_those_of_the_tables() -> None:
    train, validation, test = reviews(200), reviews(20, 1000), reviews(20, 2000)
    train.loc[0, "text"] = train.loc[1, "text"] = "a tender film"  # rotten and fresh
    train.loc[2, "text"] = LONG
    validation.loc[0, "text"] = train.loc[5, "text"].upper()
    validation.loc[1, "text"] = LONG.replace("moving", "funny")
    test.loc[0, "text"] = "Привет, film"
    test.loc[1, "text"] = ""
    write_tables({"train": train, "validation": validation, "test": test}, **splits(), **{"train.max_length": 20})
    done = check()
    assert done.exit_code == 0, done.output
    checks = found()
    assert list(checks) == [name for name in MEANINGS if name != "shared_groups"]
    counts = {
        name: {split: (each["count"], each["of"]) for split, each in check["splits"].items()}
        for name, check in checks.items()
        if "count" in check
    }
    assert counts["empty_texts"]["test"] == (1, 20)
    assert counts["duplicates"] == {"train": (1, 200), "validation": (0, 20), "test": (0, 19)}
    assert counts["shared_texts"] == {"validation": (1, 20), "test": (0, 19)}
    assert counts["near_duplicates"] == {"validation": (1, 20), "test": (0, 19)}
    assert counts["contradictory_labels"] == {"all": (4, 239)}  # the upper-case copy has another label, too
    assert counts["other_scripts"] == {"train": (0, 200), "validation": (0, 20), "test": (1, 19)}
    assert counts["truncated"]["train"] == (1, 200)
    assert counts["label_imbalance"]["train"] == (100, 200)
    assert checks["shared_texts"]["status"] == "warn"
    assert checks["shared_texts"]["share"] == 0.05
    near = pd.read_csv(DATA_CHECKS / NEAR_DUPLICATES)
    assert near.loc[0, ["split", "text", "other_split", "other_text"]].tolist() == [
        "validation", LONG.replace("moving", "funny"), "train", LONG
    ]  # fmt: skip
    report = read_json(DATA_CHECKS / CHECKS_FILE)
    assert report["baseline"]["metrics"]["test"]["accuracy"] > 0.9
    assert report["baseline"]["metrics"].keys() == {"validation", "test"}
    assert report["splits"]["train"]["truncation"]["20"]["rows"] == 0.005


def test_a_warning_of_prepare_is_not_printed_again(capsys: pytest.CaptureFixture[str]) -> None:
    validation = reviews(20, 1000)
    validation.loc[0, "text"] = reviews(200).loc[0, "text"]
    write_tables({"train": reviews(200), "validation": validation, "test": reviews(20, 2000)}, **splits())
    assert "are also in train" in capsys.readouterr().out
    assert "shared" not in check().output
    assert found()["shared_texts"]["status"] == "warn"


def test_a_share_beyond_fail_is_one_line_and_the_files_show_why() -> None:
    validation = reviews(20, 1000)
    validation.loc[0, "text"] = LONG.replace("moving", "funny")
    train = reviews(200)
    train.loc[0, "text"] = LONG
    tables = {"train": train, "validation": validation, "test": reviews(20, 2000)}
    limit = {"data.checks.near_duplicates.fail": 0.05, "train.max_length": 20}
    write_tables(tables, **splits(), **limit)
    done = check()
    assert done.exit_code == 2
    line = done.output.splitlines()[-1]
    assert line.startswith(
        "reprise: error: params.yaml: data.checks.near_duplicates.fail: validation: 1 of 20 (5.00%) "
    )
    assert line.endswith("; expected less than 5 %; `reprise data` shows why")
    assert found()["near_duplicates"]["status"] == "fail"
    assert len(pd.read_csv(DATA_CHECKS / NEAR_DUPLICATES)) == 1
    write_params(Path(), **splits(), **limit | {"data.checks.near_duplicates.fail": 0.051})
    assert check().exit_code == 0
    assert found()["near_duplicates"]["status"] == "warn"


def test_a_column_that_spells_the_label_is_named() -> None:
    table = reviews(200).assign(stars=lambda rows: (rows["verdict"] == "fresh") * 4 + 1)
    write_tables({"all": table}, **{"task.filter": None})
    assert "warning: 100.0% of the baseline's error that one column removes: stars" in check().output
    assert found()["give_away"]["splits"]["train"]["column"] == "stars"
    assert found()["shared_groups"]["count"] == 0  # the split keeps films whole


def test_flipped_labels_are_listed_with_the_suggested_one() -> None:
    table = reviews(400)
    flipped = [11, 50, 173, 302]
    table.loc[flipped, "verdict"] = ["rotten", "fresh", "rotten", "fresh"]
    write_tables({"train": table, "validation": reviews(20, 1000), "test": reviews(20, 2000)}, **splits())
    assert check().exit_code == 0
    listed = pd.read_csv(DATA_CHECKS / LABEL_ERRORS)
    assert set(listed["id"][:4]) == set(flipped)
    assert (listed["label"] != listed["suggested"]).all()


def test_numbers_are_checked_by_ridge_regression() -> None:
    table = reviews(400).assign(verdict=lambda rows: (rows["verdict"] == "fresh") * 2.0 + rows["number"] % 3 / 10)
    table.loc[7, "verdict"] = 60.0
    kind = {"labels": [], "metrics": ["pearson"]}
    write_tables({"train": table, "validation": table[:20], "test": table[20:60]}, **splits(**kind))
    done = check()
    assert done.exit_code == 0, done.output
    report = read_json(DATA_CHECKS / CHECKS_FILE)
    assert report["baseline"]["name"] == "TF-IDF and ridge regression"
    assert report["baseline"]["metrics"]["test"]["pearson"] > 0.85
    assert "contradictory_labels" not in report["checks"]
    assert pd.read_csv(DATA_CHECKS / LABEL_ERRORS).loc[0, ["label", "id"]].tolist() == [60.0, 7]


def test_pairs_of_texts_and_a_hidden_test_split_are_checked() -> None:
    train = reviews(200).assign(other=lambda rows: "the plot " + rows["number"].astype(str))
    test = train[:20].assign(verdict="-1")
    columns = {"text_columns": ["text", "other"]}
    write_tables(
        {"train": train, "validation": train[20:60], "test": test},
        **splits(**columns),
        **{"evaluate.split": "validation"},
    )
    assert check().exit_code == 0
    report = read_json(DATA_CHECKS / CHECKS_FILE)
    assert report["checks"]["shared_texts"]["splits"]["test"] == {"count": 20, "of": 20, "share": 1.0}
    assert report["baseline"]["metrics"].keys() == {"validation"}
    assert list(pd.read_csv(DATA_CHECKS / LABEL_ERRORS)) == ["label", "suggested", "id", "text", "text_pair"]


def test_the_bytes_are_the_same_on_every_run() -> None:
    write_tables({"all": reviews(200)}, **{"task.filter": None})
    runs = []
    for _ in range(2):
        assert check().exit_code == 0
        runs.append({file.name: file.read_bytes() for file in DATA_CHECKS.iterdir()})
    assert runs[0] == runs[1]
    assert runs[0].keys() == {CHECKS_FILE, NEAR_DUPLICATES, LABEL_ERRORS}
    assert json.loads(runs[0][CHECKS_FILE])["task"] == "reviews"


def test_missing_data_is_one_line() -> None:
    write_params(Path())
    assert "data/prepared/stats.json: not found" in check().output
    assert check().exit_code == 2


def test_the_recipe_of_an_earlier_version_has_the_default_thresholds() -> None:
    write_params(Path())
    text = Path("params.yaml").read_text(encoding="utf-8")
    default = read_recipe().data
    Path("params.yaml").write_text(text[: text.index("data:\n")], encoding="utf-8")
    assert read_recipe().data == default
    refused = CliRunner().invoke(app, ["environment"])
    assert refused.exit_code == 2
    assert "params.yaml: data.checks: missing" in refused.output


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"near_duplicate": None}, "data.checks.near_duplicate", "did you mean near_duplicates"),
        ({"duplicates": {"warn": 2.0, "fail": None}}, "data.checks.duplicates.warn", "less than or equal to 1"),
        ({"duplicates": {"warn": 0, "fail": None}}, "data.checks.duplicates.warn", "greater than 0"),
        ({"duplicates": {"warn": 0.1}}, "data.checks.duplicates.fail", "every key"),
        ({"duplicates": {"warn": None, "fial": 0.1}}, "data.checks.duplicates.fial", "did you mean fail"),
        ({"duplicates": 0.1}, "data.checks.duplicates", "a section with keys of its own"),
    ],
)
def test_a_wrong_threshold_is_refused_by_its_key(changes: dict[str, Any], key: str, expected: str) -> None:
    write_params(Path(), **{f"data.checks.{name}": value for name, value in changes.items()})
    with pytest.raises(UserError) as refused:
        read_recipe()
    assert (refused.value.file, refused.value.key) == ("params.yaml", key)
    assert expected in refused.value.problem + refused.value.expected
