"""An exported folder on the Hub: the real client against a local Hub that records the requests."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hub import COMMIT, LocalHub, serving, use_hub
from reprise.core.errors import UserError
from reprise.sharing.download import download_export
from reprise.sharing.record import Record

HIDDEN = (".gitattributes", ".git/attestations/1.json")
TARGET = f"hub:me/reviews@{COMMIT}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A local Hub, which the client of this process asks."""
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    with serving(LocalHub()) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        yield hub


@pytest.fixture
def files(record: Record) -> dict[str, bytes]:
    """The files of a repository with an exported folder, by path."""
    names = [*record.files, "metadata/sbom.cdx.json", "README.md", "attestations/1.json", *HIDDEN]
    contents = {name: name.encode() for name in names}
    record = replace(record, files=dict.fromkeys((*record.files, "metadata/sbom.cdx.json"), "1" * 64))
    return contents | {"reproduce.json": json.dumps(asdict(record)).encode()}


def refused(target: str = TARGET) -> UserError:
    with pytest.raises(UserError) as caught:
        download_export(target)
    assert target in str(caught.value)
    assert not list(Path(".dvc").iterdir())
    return caught.value


def test_the_exported_files_of_a_commit_are_saved(hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add("model", "me/reviews", files)
    folder = download_export(TARGET)
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert found == {name: content for name, content in files.items() if name not in HIDDEN}
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_verdict_that_was_signed_here_is_kept(hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add("model", "me/reviews", files)
    mine = download_export(TARGET) / "attestations/mine.json"
    mine.write_text("{}")
    download_export(TARGET)
    assert {file.name for file in mine.parent.iterdir()} == {"1.json", "mine.json"}


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT[:12]}", f"@{COMMIT.upper()}", "@", "@v1.0"])
def test_only_a_full_commit_hash_is_accepted(hub: LocalHub, revision: str) -> None:
    found = refused(f"hub:me/reviews{revision}")
    assert (found.file, "40" in found.expected) == (f"hub:me/reviews{revision}", True)
    assert hub.requests == []


def test_outside_of_a_clone_nothing_is_saved(hub: LocalHub) -> None:
    Path(".dvc").rmdir()
    with pytest.raises(UserError) as caught:
        download_export(TARGET)
    assert (caught.value.file, hub.requests) == (".dvc", [])


def test_a_repository_that_is_not_there_is_named(hub: LocalHub) -> None:
    assert refused().problem.startswith("me/reviews is not on the Hub")


def test_a_commit_that_is_not_there_is_named(hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add("model", "me/reviews", files)
    assert refused(f"hub:me/reviews@{'f' * 40}").problem == f"me/reviews has no commit {'f' * 40}"


def test_a_model_of_somebody_else_is_refused_before_anything_is_downloaded(hub: LocalHub) -> None:
    hub.add("model", "me/reviews", {"config.json": b"{}", "pytorch_model.bin": b"a pickle"})
    found = refused()
    assert (found.file, found.problem) == (TARGET, "has no reproduce.json")
    assert hub.requested() == set()


def test_an_added_file_is_refused_before_it_is_downloaded(hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add("model", "me/reviews", files | {"pytorch_model.bin": b"a pickle"})
    assert refused().problem.startswith("has pytorch_model.bin")
    assert hub.requested() == {"reproduce.json"}


def test_a_file_outside_of_the_repository_is_never_written(
    hub: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    content = json.loads(files["reproduce.json"])
    content["files"]["metadata/../../escaped"] = "1" * 64
    hub.add(
        "model", "me/reviews", files | {"metadata/../../escaped": b"", "reproduce.json": json.dumps(content).encode()}
    )
    assert refused()
    assert not list(tmp_path.rglob("escaped"))


def test_a_download_that_breaks_off_leaves_nothing(hub: LocalHub, files: dict[str, bytes]) -> None:
    hub.add("model", "me/reviews", files)
    hub.repositories["model", "me/reviews"].served["model.safetensors"] = b"MODEL.safetensors"
    assert "lists model.safetensors with the digest" in str(refused())
