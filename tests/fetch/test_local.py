"""Local tables and models as sources."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reprise.core.config import Distill
from reprise.core.errors import UserError
from reprise.fetch.local import find_teacher
from tiny import Run

Fetch = Callable[..., dict[str, bytes | None]]
Refuse = Callable[..., str]

MODEL_PATH = "model.source.path"


@pytest.fixture
def command(reprise: Run) -> Run:
    """Run `reprise …` in this process: nothing here asks pip or the Hub."""
    return reprise


def tables(**splits: str | None) -> dict[str, dict[str, str | None]]:
    """Return the recipe change that sets these local tables."""
    return {"task.source": {"kind": "local", "train": None, "validation": None, "test": None} | splits}


def test_one_table_becomes_the_split_all(fetch: Fetch, place: Path) -> None:
    fetched = fetch()
    assert {name for name in fetched if name.startswith("data/")} == {"data/raw/all/reviews.csv"}
    assert fetched["data/raw/all/reviews.csv"] == (place / "data/own/reviews.csv").read_bytes()


def test_three_tables_become_the_named_splits(fetch: Fetch, place: Path) -> None:
    for name in ("a", "b", "c"):
        (place / f"data/own/{name}.tsv").write_text(f"text\tverdict\nof {name}\tfresh\n")
    fetched = fetch(**tables(train="data/own/a.tsv", validation="data/own/b.tsv", test="data/own/c.tsv"))
    assert {name: content for name, content in fetched.items() if name.startswith("data/")} == {
        "data/raw/train/a.tsv": b"text\tverdict\nof a\tfresh\n",
        "data/raw/validation/b.tsv": b"text\tverdict\nof b\tfresh\n",
        "data/raw/test/c.tsv": b"text\tverdict\nof c\tfresh\n",
    }


def test_train_and_test_tables_without_validation_are_refused_with_the_key_that_cuts_it(
    refuse: Refuse, place: Path
) -> None:
    (place / "data/own/test.csv").write_text("text,verdict\nanother film,fresh\n")
    source = tables(train="data/own/reviews.csv", test="data/own/test.csv")
    message = refuse(**source, **{"task.split": None})
    assert message.startswith("params.yaml: task.source: ")
    assert "task.split: {validation: 0.1, test: null}" in message


def test_train_and_test_tables_pass_with_a_validation_fraction(fetch: Fetch, place: Path) -> None:
    (place / "data/own/test.csv").write_text("text,verdict\nanother film,fresh\n")
    source = tables(train="data/own/reviews.csv", test="data/own/test.csv")
    fetched = fetch(**source, **{"task.split.test": None})
    assert {"data/raw/train/reviews.csv", "data/raw/test/test.csv"} <= fetched.keys()


def test_a_split_to_evaluate_that_has_no_table_is_refused(refuse: Refuse, place: Path) -> None:
    (place / "data/own/validation.csv").write_text("text,verdict\nanother film,fresh\n")
    source = tables(train="data/own/reviews.csv", validation="data/own/validation.csv")
    message = refuse(**source, **{"task.split": None})
    assert message.startswith("params.yaml: evaluate.split: ")
    assert message.endswith("expected one of train, validation")


@pytest.mark.parametrize(
    ("train", "test", "named"),
    [
        ("data/own/reviews.csv", "data/own/reviews.csv", "data/own/reviews.csv"),
        ("data/own/reviews.csv", "data/own/copy.csv", "data/own/copy.csv"),
        ("data/own/parts", None, "data/own/parts/b.csv"),
    ],
    ids=["one file as two splits", "a copy as another split", "a copy in one folder"],
)
def test_the_same_file_twice_is_rejected(refuse: Refuse, place: Path, train: str, test: str | None, named: str) -> None:
    (place / "data/own/parts").mkdir()
    for copy in ("copy.csv", "parts/a.csv", "parts/b.csv"):
        (place / "data/own" / copy).write_bytes((place / "data/own/reviews.csv").read_bytes())
    message = refuse(**tables(train=train, validation=test), **{"evaluate.split": "validation"})
    assert message.startswith(f"{named}: task.source: the same rows as ")


def test_the_files_of_a_folder_are_one_table(fetch: Fetch, place: Path) -> None:
    (place / "data/own/parts").mkdir()
    for number in (0, 1):
        (place / f"data/own/parts/{number}.csv").write_text(f"text,verdict\nof {number},fresh\n")
    (place / "data/own/parts/.DS_Store").write_text("not a table")
    fetched = fetch(**tables(train="data/own/parts"))
    assert {name for name in fetched if name.startswith("data/")} == {"data/raw/all/0.csv", "data/raw/all/1.csv"}
    two = tables(train="data/own/parts", validation="data/own/reviews.csv")
    fetched = fetch(**two, **{"evaluate.split": "validation"})
    assert {name for name in fetched if name.startswith("data/")} == {
        "data/raw/train/0.csv",
        "data/raw/train/1.csv",
        "data/raw/validation/reviews.csv",
    }


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "empty folder; expected files"),
        (["a.csv", "b.tsv"], "got .csv and .tsv; expected files of one format"),
    ],
)
def test_a_folder_without_files_of_one_format_is_rejected(
    refuse: Refuse, place: Path, names: list[str], problem: str
) -> None:
    (place / "data/own/parts").mkdir()
    for name in names:
        (place / "data/own/parts" / name).write_text("text\nfresh\n")
    assert refuse(**tables(train="data/own/parts")) == f"data/own/parts: task.source.train: {problem}"


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_table_is_reported_with_its_key(refuse: Refuse, place: Path, split: str) -> None:
    files = {name: f"data/own/{name}.csv" for name in ("train", "validation", "test")}
    for name, file in files.items():
        (place / file).write_text(f"text,verdict\nof {name},fresh\n")
    files[split] = "data/own/revews.csv"
    assert refuse(**tables(**files)).startswith(f"data/own/revews.csv: task.source.{split}: not found; ")


def test_a_table_that_does_not_match_its_extension_is_rejected_before_copying(refuse: Refuse, place: Path) -> None:
    (place / "data/own/reviews.parquet").write_bytes((place / "data/own/reviews.csv").read_bytes())
    message = refuse(**{"task.source.train": "data/own/reviews.parquet"})
    assert message == "data/own/reviews.parquet: not Parquet, although its extension is .parquet"


def test_a_missing_model_folder_is_reported_with_its_key(refuse: Refuse) -> None:
    message = refuse(**{MODEL_PATH: "data/own/tinny"})
    assert message.startswith(f"data/own/tinny: {MODEL_PATH}: not found; ")


def test_a_file_as_model_is_rejected(refuse: Refuse) -> None:
    message = refuse(**{MODEL_PATH: "data/own/tiny/model.safetensors"})
    assert message == (
        f"data/own/tiny/model.safetensors: {MODEL_PATH}: a file; expected a folder with config.json and safetensors"
    )


def test_a_damaged_model_is_rejected_before_copying(refuse: Refuse, place: Path) -> None:
    (place / "data/own/tiny/model.safetensors").write_bytes(b"")
    assert refuse().startswith("data/own/tiny/model.safetensors: damaged")


def test_only_the_needed_files_of_a_local_model_are_copied(
    fetch: Fetch, place: Path, model_files: dict[str, bytes]
) -> None:
    folder = place / "data/own/tiny"
    for name in ("pytorch_model.bin", "modeling_tiny.py", "README.md", "optimizer.pt", "model.fp16.safetensors"):
        (folder / name).write_bytes(b"content")
    fetched = fetch()
    assert {name: content for name, content in fetched.items() if name.startswith("models/")} == {
        "models/pretrained/model/config.json": model_files["config.json"],
        "models/pretrained/model/model.safetensors": model_files["model.safetensors"],
        "models/pretrained/tokenizer/config.json": model_files["config.json"],
        "models/pretrained/tokenizer/tokenizer.json": model_files["tokenizer.json"],
        "models/pretrained/tokenizer/vocab.txt": model_files["vocab.txt"],
    }


def test_a_teacher_is_a_folder_of_a_model_with_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    distill = Distill(teacher="data/own/teacher")  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"^data/own/teacher: train.distill.teacher: not found"):
        find_teacher(distill)
    folder = Path("data/own/teacher")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no model with its recipe.json; expected a copy of models/final/, or"):
        find_teacher(distill)
    (folder / "recipe.json").write_text("{}")
    assert find_teacher(distill) == folder
    (folder / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(UserError, match="a link to a folder"):
        find_teacher(distill)
