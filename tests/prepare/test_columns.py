"""Every format gives the same standard columns; a wrong value is reported with its row and column."""

import bz2
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from reprise.core.config import Task
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.prepare.columns import UNLABELED, RawSplit, check_columns, read_tables, to_standard_columns
from tiny import tiny_recipe

# A task on a table with the columns text and label; tests change its keys.
PLAIN = {
    "text_columns": ["text"],
    "label_column": "label",
    "labels": ["a", "b"],
    "id_column": None,
    "filter": None,
    "split": None,
}
REGRESSION = {"labels": [], "metrics": ["pearson"]}

Read = Callable[..., Dataset]


def task(**changes: Any) -> Task:
    changes = {f"task.{key}": value for key, value in (PLAIN | changes).items()}
    return check_recipe(tiny_recipe(**changes), "recipe").task


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set offline mode like the command: otherwise `datasets` reports each use of a reader to the Hub."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def read_table(tmp_path: Path) -> Callable[..., RawSplit]:
    """Write a single raw file and read it: `read_table("a.csv", "text,label…")`."""

    def read_table(name: str, content: str | bytes | Dataset) -> RawSplit:
        file = tmp_path / "raw/all" / name
        file.parent.mkdir(parents=True)
        if isinstance(content, Dataset):
            content.to_parquet(file)
        else:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        (table,) = read_tables(tmp_path / "raw", tmp_path / "cache")
        return table

    return read_table


@pytest.fixture
def read(read_table: Callable[..., RawSplit]) -> Read:
    """Read a file into standard columns, as prepare does: `read("a.csv", "text,label…", labels=["a", "b"])`."""

    def read(name: str, content: str | bytes | Dataset, **changes: Any) -> Dataset:
        table, changed = read_table(name, content), task(**changes)
        check_columns(table, changed)
        return to_standard_columns(table, changed).remove_columns("row")

    return read


def classes(names: list[str], labels: list[int]) -> Dataset:
    """Return a table with class ids and their names as labels, like datasets on the Hub."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"text": [f"text {number}" for number in range(len(labels))], "label": labels}, features)


def json_lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


CSV = 'text,label\nNA,a\n007,b\nnull,a\n"one, ""two""\nthree",b\n,a\n'
CSV_TEXTS = ["NA", "007", "null", 'one, "two"\nthree', ""]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV.encode()),
        ("a.csv.bz2", bz2.compress(CSV.encode())),
    ],
)
def test_texts_are_kept_as_written(read: Read, name: str, content: bytes) -> None:
    rows = read(name, content)
    assert rows["text"][:] == CSV_TEXTS
    assert rows["label"][:] == [0, 1, 0, 1, 0]


def test_texts_of_a_tsv_are_kept_with_their_quotes(read: Read) -> None:
    texts = ["NA", "007", "null", '"one, ""two""', "", '"']
    rows = read("a.tsv", "text\tlabel\n" + "".join(f"{text}\ta\n" for text in texts))
    assert rows["text"][:] == texts


def test_json_lines_are_read(read: Read) -> None:
    rows = read("a.jsonl", json_lines({"text": "NA", "label": "b"}, {"text": "naïve 🎬", "label": "a"}))
    assert rows.to_dict() == {"id": ["0", "1"], "text": ["NA", "naïve 🎬"], "label": [1, 0]}


def test_parquet_is_read(read: Read) -> None:
    rows = read("a.parquet", Dataset.from_dict({"text": ["NA", "x"], "label": ["b", "a"], "other": [1, 2]}))
    assert rows.to_dict() == {"id": ["0", "1"], "text": ["NA", "x"], "label": [1, 0]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.jsonl", json_lines({"text": "x", "label": "a"})),
        ("a.parquet", Dataset.from_dict({"text": ["x"], "label": ["a"]})),
    ],
)
def test_raw_rows_and_standard_columns_are_memory_mapped(
    read_table: Callable[..., RawSplit], name: str, content: str | Dataset
) -> None:
    table = read_table(name, content)
    standard = to_standard_columns(table, task(filter={"label": ["a", "b"]}))
    for rows in table.rows, standard:
        assert [Path(file["filename"]).suffix for file in rows.cache_files] == [".arrow"]


def test_each_split_is_a_table_with_the_name_of_its_file(tmp_path: Path) -> None:
    for split in "validation", "train":
        (tmp_path / "raw" / split).mkdir(parents=True)
        (tmp_path / "raw" / split / "a.csv").write_text(f"text,label\n{split},a\n")
    train, validation = read_tables(tmp_path / "raw", tmp_path / "cache")
    assert (train.split, train.name) == ("train", str(tmp_path / "raw/train/a.csv"))
    assert (validation.split, validation.rows["text"][:]) == ("validation", ["validation"])


def test_files_of_one_split_are_read_in_alphabetical_order(tmp_path: Path) -> None:
    (tmp_path / "raw/train").mkdir(parents=True)
    for number in 2, 0, 1:
        Dataset.from_dict({"text": [f"part {number}"]}).to_parquet(tmp_path / f"raw/train/{number}.parquet")
    (table,) = read_tables(tmp_path / "raw", tmp_path / "cache")
    assert table.rows["text"][:] == ["part 0", "part 1", "part 2"]
    assert table.name == str(tmp_path / "raw/train")


@pytest.mark.parametrize(("labels", "numbers"), [(["a", "b"], [0, 1, 0]), (["b", "a"], [1, 0, 1])])
def test_labels_are_numbered_in_the_order_of_the_recipe(read: Read, labels: list[str], numbers: list[int]) -> None:
    assert read("a.csv", "text,label\nx,a\ny,b\nz,a\n", labels=labels)["label"][:] == numbers


@pytest.mark.parametrize(("names", "stored"), [(["a", "b"], [0, 1, 1]), (["b", "a"], [1, 0, 0])])
def test_class_ids_are_mapped_by_their_names(read: Read, names: list[str], stored: list[int]) -> None:
    assert read("a.parquet", classes(names, stored), labels=["a", "b"])["label"][:] == [0, 1, 1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\nx,1\ny,0\n"),
        ("a.jsonl", json_lines({"text": "x", "label": 1}, {"text": "y", "label": 0})),
        ("a.parquet", Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]})),
    ],
)
def test_integer_labels_are_equal_in_every_format(read: Read, name: str, content: str | Dataset) -> None:
    assert read(name, content, labels=[0, 1])["label"][:] == [1, 0]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 0, 1], ["0", "1"]),
        ([1.0, 0.0, 1.0], ["0", "1"]),
        ([1, 0.0, 1.0], ["0", "1"]),
        ([True, False, True], ["false", "true"]),
        ([True, False, True], ["False", "True"]),
        (["01", "00", "01"], ["00", "01"]),
    ],
)
def test_numbers_and_truth_values_of_json_are_labels(read: Read, values: list[Any], labels: list[str]) -> None:
    content = json_lines(*({"text": str(number), "label": value} for number, value in enumerate(values)))
    assert read("a.jsonl", content, labels=labels, filter={"label": labels})["label"][:] == [1, 0, 1]


@pytest.mark.parametrize("value", ["01", "1.0", "010"])
def test_a_label_that_is_the_number_of_another_spelling_is_named(read: Read, value: str) -> None:
    with pytest.raises(UserError, match=rf"unknown label '{value}'; .*in quotes, as '{value}'"):
        read("a.csv", f"text,label\nx,{value}\n", labels=[1, 8])


def test_a_truth_value_is_no_number(read: Read) -> None:
    with pytest.raises(UserError, match="finite number"):
        read("a.jsonl", json_lines({"text": "x", "label": True}), **REGRESSION)


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (classes(["a", "b"], [1, UNLABELED]), ["a", "b"]),
        (Dataset.from_dict({"text": ["x", "y"], "label": [1, UNLABELED]}), [0, 1]),
    ],
)
def test_a_hidden_label_is_accepted_only_in_test_splits(
    tmp_path: Path, content: Dataset, labels: list[str | int]
) -> None:
    for split in "train", "test", "test_mismatched":
        (tmp_path / "raw" / split).mkdir(parents=True)
        content.to_parquet(tmp_path / "raw" / split / "a.parquet")
    *tests, train = read_tables(tmp_path / "raw", tmp_path / "cache")
    assert [test.split for test in tests] == ["test", "test_mismatched"]
    for test in tests:
        assert to_standard_columns(test, task(labels=labels))["label"][:] == [1, UNLABELED]
    with pytest.raises(UserError, match=r"unknown label '?-1'?; ") as caught:
        to_standard_columns(train, task(labels=labels))
    assert (Path(caught.value.file).name, caught.value.key) == ("a.parquet", "row 2")


def test_labels_of_a_regression_are_the_numbers(read: Read) -> None:
    rows = read("a.csv", "text,label\nx,2.5\ny,-3\nz,1e-2\n", **REGRESSION)
    assert rows["label"][:] == [2.5, -3.0, 0.01]
    assert rows.features["label"] == Value("float64")


def test_sentence_pairs_have_two_text_columns_in_the_order_of_the_recipe(read: Read) -> None:
    rows = read("a.csv", "one,two,label\nx,y,a\n", text_columns=["two", "one"])
    assert (rows["text"][:], rows["text_pair"][:]) == (["y"], ["x"])


def test_the_group_column_is_kept_as_text(read: Read) -> None:
    split = {"validation": 0.1, "test": 0.1, "group_by": "film", "seed": 0}
    assert read("a.jsonl", json_lines({"text": "x", "label": "a", "film": 7}), split=split)["group"][:] == ["=7"]


def test_each_row_without_a_group_is_its_own_group(read: Read) -> None:
    split = {"validation": 0.1, "test": 0.1, "group_by": "film", "seed": 0}
    rows = read("a.csv", "text,label,film\nu,a,\nv,b,row 0\nx,a,\n", split=split)
    assert len(set(rows["group"])) == 3


def test_rows_without_a_group_are_grouped_by_their_texts_where_nothing_else_does(read: Read) -> None:
    split = {"validation": 0.1, "test": 0.1, "group_by": "film", "group_texts": False, "seed": 0}
    rows = read("a.csv", "text,label,film\nu,a,\nu,b,\nu,a,f\nv,a,\n", split=split)
    first, second, grouped, other = rows["group"]
    assert first == second
    assert len({first, grouped, other}) == 3


BY_TIME = {"split": {"validation": 0.1, "test": 0.1, "order_by": "when", "seed": 0}}


@pytest.mark.parametrize(
    ("values", "times"),
    [
        (["2023", "2024.5", " -1e3"], [2023, 2024.5, -1000]),
        (["1970-01-02", "1970-02", "1969-12-31"], [86400, 31 * 86400, -86400]),
        (["1970-01-01T00:00:01Z", "1970-01-01 02:00:00.5+02:00", "1970-01-01T00:00:02"], [1, 0.5, 2]),
        (["1700000000123"], [1700000000123]),
    ],
)
def test_times_are_numbers_or_dates_by_iso_8601(read: Read, values: list[str], times: list[float]) -> None:
    table = "".join(f"x,a,{value}\n" for value in values)
    assert read("a.csv", f"text,label,when\n{table}", **BY_TIME)["time"][:] == times


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([3, 1], [3, 1]),
        ([3.5, 1.25], [3.5, 1.25]),
        ([Decimal("3.5"), Decimal("1.2")], [3.5, 1.2]),
        ([date(1970, 1, 2), date(1970, 1, 1)], [86400, 0]),
        ([datetime(1970, 1, 2, 0, 0, 0, 500000), datetime(1970, 1, 1)], [86400.5, 0]),
        ([datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)], [86400, 0]),
    ],
    ids=["whole numbers", "numbers", "decimals", "dates", "points in time", "points in time with an offset"],
)
def test_times_of_parquet_have_its_types(read: Read, values: list[Any], times: list[float]) -> None:
    table = Dataset.from_dict({"text": ["x", "y"], "label": ["a", "a"], "when": values})
    assert read("a.parquet", table, **BY_TIME)["time"][:] == times


def test_dates_of_json_order_rows_although_they_are_read_as_points_in_time(read: Read) -> None:
    lines = json_lines(
        {"text": "x", "label": "a", "when": "1970-01-02"}, {"text": "y", "label": "a", "when": "1970-01-01"}
    )
    assert read("a.jsonl", lines, **BY_TIME)["time"][:] == [86400, 0]


@pytest.mark.parametrize(
    ("values", "row", "expected"),
    [
        (["2024-05-31", "31.5.2024"], "row 2", "a number, or a date by ISO 8601 such as 2024-05-31"),
        (["2024-05-31", "yesterday"], "row 2", "a number, or a date"),
        (["", "2024-05-31"], "row 1", "a number, or a date"),
        (["nan", "1"], "row 1", "a number, or a date"),
        (["2024-05-31", "2024"], "row 2", "a date, as in earlier rows"),
        (["2024", "2024-05-31"], "row 2", "a number, as in earlier rows"),
    ],
)
def test_what_is_no_time_is_reported_with_its_row(read: Read, values: list[str], row: str, expected: str) -> None:
    table = "".join(f"x,a,{value}\n" for value in values)
    with pytest.raises(UserError) as caught:
        read("a.csv", f"text,label,when\n{table}", **BY_TIME)
    assert caught.value.file.endswith("/raw/all/a.csv")
    assert caught.value.key == row
    assert "(task.split.order_by)" in caught.value.problem
    assert caught.value.expected.startswith(expected)


def test_ids_are_the_values_of_their_column_as_text(read: Read) -> None:
    assert read("a.jsonl", json_lines({"text": "x", "label": "a", "n": 30}), id_column="n")["id"][:] == ["30"]


@pytest.mark.parametrize(
    ("keep", "texts"),
    [
        (None, ["u", "v", "x", "y"]),
        ({"label": ["a", "b"]}, ["u", "v", "y"]),
        ({"label": ["a", "b"], "year": [1999]}, ["v", "y"]),
        ({"year": [2001]}, ["u"]),
    ],
)
def test_the_filter_keeps_rows_with_a_listed_value_in_every_named_column(
    read_table: Callable[..., RawSplit], keep: dict[str, list[str]] | None, texts: list[str]
) -> None:
    table = read_table("a.csv", "text,label,year\nu,a,2001\nv,b,1999\nx,plot,1999\ny,b,1999\n")
    assert to_standard_columns(table, task(filter=keep, labels=["a", "b", "plot"]))["text"][:] == texts


def test_class_ids_are_filtered_by_their_names(read: Read) -> None:
    rows = read("a.parquet", classes(["plot", "b", "a"], [0, 1, 2]), filter={"label": ["a", "b"]})
    assert rows["label"][:] == [1, 0]


def test_without_an_id_column_the_id_is_the_index_of_the_row(read: Read) -> None:
    rows = read("a.csv", "text,label\nu,plot\nv,b\nx,plot\ny,a\n", filter={"label": ["a", "b"]})
    assert rows.to_dict() == {"id": ["1", "3"], "text": ["v", "y"], "label": [1, 0]}


@pytest.mark.parametrize("id_column", [None, "n"])
def test_a_filter_that_matches_nothing_leaves_no_rows(read: Read, id_column: str | None) -> None:
    assert len(read("a.csv", "n,text,label\n1,x,a\n", filter={"label": ["other"]}, id_column=id_column)) == 0


@pytest.mark.parametrize(
    ("name", "content", "changes", "message"),
    [
        pytest.param(
            "a.csv",
            "text,label\nx,a\ny,frehs\n",
            {"labels": ["rotten", "fresh", "a"]},
            "row 2: unknown label 'frehs'; did you mean 'fresh'? expected one of task.labels: rotten, fresh, a",
            id="an unknown label",
        ),
        pytest.param(
            "a.jsonl",
            json_lines({"text": "x", "label": "a"}, {"text": "y", "label": None}),
            {},
            "row 2: unknown label None; expected one of task.labels: a, b",
            id="no label",
        ),
        pytest.param(
            "a.parquet",
            classes(["a", "b", "c"], [0, 2]),
            {},
            "row 2: unknown label 'c'; expected one of task.labels: a, b",
            id="an unknown class",
        ),
        pytest.param(
            "a.jsonl",
            json_lines({"text": "x", "label": "a"}, {"text": None, "label": "a"}),
            {},
            "row 2: None in column 'text'; expected text",
            id="no text",
        ),
        pytest.param(
            "a.jsonl",
            json_lines({"text": 12, "label": "a"}),
            {},
            "row 1: 12 in column 'text'; expected text",
            id="a number instead of text",
        ),
        *(
            pytest.param(
                "a.csv",
                f"text,label\nx,1.5\ny,{value}\n",
                REGRESSION,
                "row 2: expected a finite number as the label, since task.labels is empty; got " + repr(value),
                id=f"{value or 'nothing'} instead of a number",
            )
            for value in ("nan", "inf", "-inf", "high", "")
        ),
        pytest.param(
            "a.jsonl",
            json_lines({"text": "x", "label": None}),
            REGRESSION,
            "row 1: expected a finite number as the label, since task.labels is empty; got None",
            id="no number",
        ),
        pytest.param(
            "a.csv",
            "n,text,label\n4,x,a\n5,y,a\n4,z,b\n",
            {"id_column": "n"},
            "rows 1 and 3: the same id '4' in column 'n' (task.id_column); expected different ids",
            id="a duplicate id",
        ),
        pytest.param(
            "a.csv",
            "n,text,label\n1,u,plot\n2,v,plot\n3,x,A\n",
            {"filter": {"label": ["a", "b", "A"]}},
            "row 3: unknown label 'A'",
            id="an unknown label after filtered rows",
        ),
        pytest.param(
            "a.csv",
            "n,text,label\n1,u,plot\n7,v,a\n2,w,plot\n7,x,b\n",
            {"filter": {"label": ["a", "b"]}, "id_column": "n"},
            "rows 2 and 4: the same id '7'",
            id="a duplicate id after filtered rows",
        ),
    ],
)
def test_a_wrong_value_is_reported_with_its_row_number_in_the_file(
    read: Read, name: str, content: str | Dataset, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(name, content, **changes)
    row, problem = message.split(": ", 1)
    assert caught.value.file.endswith(f"/raw/all/{name}")
    assert caught.value.key == row
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_column": "lable"}, "no column 'lable' (task.label_column; did you mean 'label'?)"),
        ({"text_columns": ["review"]}, "no column 'review' (task.text_columns)"),
        ({"text_columns": ["text", "txet"]}, "no column 'txet' (task.text_columns; did you mean 'text'?)"),
        ({"filter": {"flim": ["x"]}}, "no column 'flim' (task.filter; did you mean 'film'?)"),
        ({"id_column": "number"}, "no column 'number' (task.id_column)"),
        (
            {"split": {"validation": 0.1, "test": 0.1, "group_by": "films", "seed": 0}},
            "no column 'films' (task.split.group_by; did you mean 'film'?)",
        ),
        (BY_TIME, "no column 'when' (task.split.order_by)"),
        (
            {"text_columns": ["review"], "label_column": "lable"},
            "no column 'lable' (task.label_column; did you mean 'label'?), no column 'review' (task.text_columns)",
        ),
    ],
)
def test_a_missing_column_is_reported_with_its_key_and_the_most_similar_name(
    read: Read, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        read("a.csv", "text,label,film\nx,a,f\n", **changes)
    assert caught.value.file.endswith("/raw/all/a.csv")
    assert caught.value.problem == message
    assert caught.value.expected.endswith("its columns text, label, film")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.csv", "text,label\nx,a\ny,b,c\n", id="an extra field"),
        pytest.param("a.csv", "text,label\nx,a,1\ny,b,2\n", id="an extra field in every row"),
        pytest.param("a.csv", "text,label\nx,a,\ny,b,\n", id="a comma at the end of every row"),
        pytest.param("a.csv", 'text,label\n"x,a\ny,b\n', id="an unclosed quote"),
        pytest.param("a.csv.bz2", bz2.compress("text,label\ncafé,a\n".encode("latin-1")), id="not UTF-8, compressed"),
        pytest.param("a.jsonl.bz2", bz2.compress(b'{"text": "x"\n'), id="not JSON, compressed"),
        pytest.param("a.csv", "text,label\n", id="no rows"),
        pytest.param("a.jsonl", "\n\n", id="no rows of JSON"),
    ],
)
def test_an_unreadable_file_is_reported_with_its_name_in_one_line(read: Read, name: str, content: str | bytes) -> None:
    with pytest.raises(UserError) as caught:
        read(name, content)
    assert f"/raw/all/{name}: " in str(caught.value)
    assert "\n" not in str(caught.value)
