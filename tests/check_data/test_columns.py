"""Columns that give the label away, and groups that lead from one split to another."""

from pathlib import Path

import numpy as np
import pandas as pd

from factories import examples
from reprise.check_data.columns import give_aways, raw_columns, shared_groups
from reprise.core.config import Task
from reprise.core.validation import check_recipe
from reprise.tasks.registry import task_kind
from tiny import tiny_recipe

LABELS = [0, 1, 0, 1, 1, 0, 1, 0]


def task(**changes: object) -> Task:
    return check_recipe(tiny_recipe(**{f"task.{key}": value for key, value in changes.items()}), "test").task


def write_raw(folder: Path, rows: pd.DataFrame) -> None:
    folder.mkdir(parents=True)
    rows.to_csv(folder / "rows.csv", index=False)


def test_a_column_that_spells_the_label_gives_it_away_and_an_id_does_not() -> None:
    rows = examples(*(f"text {number}" for number in range(8)), labels=LABELS)
    columns = {
        "(row)": pd.Series(range(8)),
        "stars": pd.Series(np.where(LABELS, "5", "1")),
        "number": pd.Series(range(8)),
        "constant": pd.Series(["x"] * 8),
    }
    shares, position = give_aways(task_kind(["no", "yes"], "yes"), rows, columns)
    found = {each["column"]: each["share"] for each in shares}
    assert shares[0] == {"column": "stars", "share": 1}
    assert found["number"] == found["constant"] == 0
    assert position == 0
    sorted_rows = examples(*(f"text {number}" for number in range(400)), labels=[0] * 200 + [1] * 200)
    _, position = give_aways(task_kind(["no", "yes"], "yes"), sorted_rows, {"(row)": pd.Series(range(400))})
    assert position == 1


def test_a_marker_in_the_text_gives_the_label_away() -> None:
    rows = examples(*(f"text {number}" for number in range(8)), labels=LABELS)
    rows.first_words[:] = np.array(LABELS, np.uint64)
    shares, _ = give_aways(task_kind(["no", "yes"], "yes"), rows, {"(row)": pd.Series(range(8))})
    assert shares[0] == {"column": "the first word", "share": 1}


def test_columns_of_the_raw_table_are_those_that_the_model_does_not_see_in_the_order_of_the_examples(
    tmp_path: Path,
) -> None:
    table = pd.DataFrame(
        {"number": [7, 8, 9], "text": list("abc"), "verdict": ["rotten"] * 3, "film": list("xyz"), "stars": [1, 2, 3]}
    )
    write_raw(tmp_path / "raw/all", table)
    rows = examples("c", "a")
    rows.ids[:] = ["9", "7"]
    found = raw_columns(task(), {"test": rows}, tmp_path / "cache", tmp_path / "raw")["test"]
    assert {name: column.tolist() for name, column in found.items()} == {
        "(row)": [2, 0], "film": ["z", "x"], "stars": ["3", "1"]
    }  # fmt: skip
    rows.ids[:] = ["1", "2"]
    found = raw_columns(task(id_column=None), {"test": rows}, tmp_path / "cache", tmp_path / "raw")["test"]
    assert found["film"].tolist() == ["y", "z"]


def test_a_split_with_a_table_of_its_own_is_read_from_it(tmp_path: Path) -> None:
    for split, film in (("train", "x"), ("test", "y")):
        table = pd.DataFrame({"number": [1], "text": ["a"], "verdict": ["rotten"], "film": [film]})
        write_raw(tmp_path / f"raw/{split}", table)
    rows = examples("a")
    rows.ids[:] = ["1"]
    read = raw_columns(task(), {"test": rows, "validation": rows}, tmp_path / "cache", tmp_path / "raw")
    assert {split: columns["film"].tolist() for split, columns in read.items()} == {"test": ["y"], "validation": ["x"]}


def test_groups_of_an_earlier_split_are_counted_and_rows_without_a_group_are_not() -> None:
    groups = {
        "train": pd.Series(["x", "y", "", None]),
        "validation": pd.Series(["x", "z", ""]),
        "test": pd.Series(["z", "z", "y", "w", None]),
    }
    assert shared_groups(groups) == {"validation": {"count": 1, "of": 3}, "test": {"count": 3, "of": 5}}
