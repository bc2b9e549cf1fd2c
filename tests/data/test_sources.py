"""Which of the user's own files a recipe names, their digests, and the errors where one is missing."""

from pathlib import Path
from typing import Any

import pytest

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.validation import check_recipe
from reprise.data.sources import source_digests
from tiny import tiny_recipe

TABLE, FOLDER, MODEL = Path("data/own/reviews.csv"), Path("data/own/parts"), Path("data/own/tiny")
WHEEL = {"kind": "pypi", "distribution": "corpus", "version": "1.0", "sha256": "0" * 64, "path": "corpus/data.csv"}


def recipe(**changes: Any) -> Recipe:
    """Return the tiny recipe with changes by dotted key."""
    return check_recipe(tiny_recipe(**changes), "params.yaml")


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a table, a folder of tables and a model into data/own/ of the current directory."""
    monkeypatch.chdir(tmp_path)
    for file in (TABLE, FOLDER / "0.csv", FOLDER / "1.csv", MODEL / "config.json", MODEL / "model.safetensors"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)


def test_the_digest_of_a_file_is_its_sha256_and_other_files_have_no_effect() -> None:
    before = source_digests(recipe())
    assert before["task"] == {str(TABLE): sha256(TABLE)}
    assert before["model"].keys() == {str(MODEL)}
    Path("data/own/other.csv").write_text("of another recipe")
    (MODEL / ".gitignore").write_text("hidden")
    assert source_digests(recipe()) == before


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_the_digest_of_a_folder_depends_on_the_names_and_contents_of_its_files(change: str) -> None:
    def digest() -> str:
        return source_digests(recipe(**{"task.source.train": str(FOLDER)}))["task"][str(FOLDER)]

    before = digest()
    assert digest() == before
    match change:
        case "content":
            (FOLDER / "1.csv").write_text("other")
        case "name":
            (FOLDER / "1.csv").rename(FOLDER / "2.csv")
        case "more":
            (FOLDER / "2.csv").write_text("more")
    assert digest() != before


def test_sources_elsewhere_have_no_digests() -> None:
    found = source_digests(recipe(**{"task.source": WHEEL}))
    assert found | {"model": {}} == {"task": {}, "model": {}, "teacher": {}}


@pytest.mark.parametrize("key", ["task.source.train", "model.source.path"])
def test_a_missing_file_is_reported_with_its_key(key: str) -> None:
    with pytest.raises(UserError) as error:
        source_digests(recipe(**{key: "data/own/missing"}))
    assert (error.value.file, error.value.key) == ("data/own/missing", key)


@pytest.mark.parametrize("pointer", ["data/own/large.csv.dvc", "data/own.dvc"])
def test_a_file_that_dvc_tracks_is_pulled(pointer: str) -> None:
    Path(pointer).write_text("outs: []")
    with pytest.raises(UserError) as error:
        source_digests(recipe(**{"task.source.train": "data/own/large.csv"}))
    assert error.value.file == "data/own/large.csv"
    assert f"dvc pull {pointer}" in error.value.expected


def test_in_the_copy_of_an_experiment_a_missing_file_is_to_be_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(".dvc/tmp/exps/standalone/tmpcopy")
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(UserError) as error:
        source_digests(recipe())
    assert (error.value.file, error.value.key) == (str(TABLE), "task.source.train")
    assert f"git add {TABLE}" in error.value.expected
    assert f"dvc add {TABLE}" in error.value.expected


@pytest.mark.parametrize("path", ["data/own/link", "data/own/link/0.csv", "data/own/deep/link"])
def test_a_link_to_a_folder_is_refused_since_dvc_sees_no_changes_behind_it(tmp_path: Path, path: str) -> None:
    Path("data/own/deep").mkdir()
    for link in ("data/own/link", "data/own/deep/link"):
        Path(link).symlink_to(tmp_path / FOLDER)
    with pytest.raises(UserError) as refused:
        source_digests(recipe(**{"task.source.train": path}))
    assert refused.value.key == "task.source.train"
    assert Path(refused.value.file).is_symlink()


def test_a_link_to_a_file_is_read_as_dvc_does() -> None:
    Path("data/own/link.csv").symlink_to(TABLE.resolve())
    assert source_digests(recipe(**{"task.source.train": "data/own/link.csv"}))["task"] == {
        "data/own/link.csv": sha256(TABLE)
    }


def test_a_folder_of_ten_thousand_files_and_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reprise.data.sources.MAX_FILES", 1)
    with pytest.raises(UserError, match="2 files"):
        source_digests(recipe(**{"task.source.train": str(FOLDER)}))


def test_the_digest_of_a_teacher_covers_the_members_of_an_ensemble() -> None:
    member = Path("data/own/teacher/members/0/model.safetensors")
    member.parent.mkdir(parents=True)
    member.write_text("weights")
    with_teacher = {"train.distill": {"teacher": "data/own/teacher"}}
    before = source_digests(recipe(**with_teacher))["teacher"]
    assert before.keys() == {"data/own/teacher"}
    member.write_text("other weights")
    assert source_digests(recipe(**with_teacher))["teacher"] != before
    assert source_digests(recipe())["teacher"] == {}
