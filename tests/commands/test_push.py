"""`reprise export --push`: the real client against a local Hub, which has the bytes of the folder afterwards."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub import LocalHub, serving, use_hub
from reprise.commands.export import export
from reprise.commands.push import push
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.sharing.download import download_export
from tiny import Run

TOKEN = "hf_not_to_be_printed"
REPO = "me/reviews"


def refuse() -> None:
    raise AssertionError("the folder is exported already")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def without_git(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != ".gitattributes"}


@pytest.fixture(scope="module")
def exported_once(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder. Do not change."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained_repo)
        export(folder)
    return folder


@pytest.fixture
def model(exported_once: Path, tmp_path: Path) -> Path:
    """A writable copy of the exported folder."""
    return Path(shutil.copytree(exported_once, tmp_path / "model"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A local Hub, which the client of this process asks with a token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # as the command line sets it
    with serving(LocalHub(token=TOKEN)) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        yield hub


def pushed(hub: LocalHub, repo: str = REPO) -> dict[str, bytes]:
    return hub.repositories["model", repo].files


def refused(model: Path, repo: str = REPO) -> str:
    with pytest.raises(UserError) as caught:
        push(model, repo, refuse, lambda _: True)
    line = str(caught.value)
    assert line.startswith("--push: ")
    assert TOKEN not in line
    assert "\n" not in line
    return line


def test_the_command_exports_and_uploads_every_byte_to_a_private_repository(
    repo_copy: Path, run: Run, tmp_path: Path
) -> None:
    with serving(LocalHub(token=TOKEN)) as hub:
        hub_only = {
            "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"),
        }  # fmt: skip
        done = run(repo_copy, "reprise", "export", "../model", "--push", REPO, "--yes", env=hub_only)
        files = contents(tmp_path / "model")
        assert pushed(hub) == files | {".gitattributes": pushed(hub)[".gitattributes"]}
        assert [(asked["organization"], asked["name"], asked["visibility"]) for asked in hub.created] == [
            ("me", "reviews", "private")
        ]
        assert hub.uploaded.keys() == {read_json(tmp_path / "model/reproduce.json")["files"]["model.safetensors"]}
        target = f"hub:{REPO}@{hub.commit}"
        assert f"export: pushed {target}; who has access checks it with `reprise verify {target}`\n" in done.stdout
        size = sum(map(len, files.values()))
        announced = f"export: push {len(files)} files, {size:,} bytes, to {REPO} on the Hub: private, new\n"
        assert done.stdout.index(announced) < done.stdout.index("export: pushed ")
        assert TOKEN not in done.stdout + done.stderr
        assert len(hub.commits) == 1


def test_the_printed_commit_is_what_verify_downloads(
    hub: LocalHub, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(model, REPO, refuse, lambda _: True)
    assert constants.HF_HUB_OFFLINE is True
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as verify leaves it
    (target,) = re.findall(r"export: pushed (\S+);", capsys.readouterr().out)
    Path(".dvc").mkdir()
    assert contents(download_export(target)) == contents(model)


def test_a_signed_verdict_is_uploaded_and_hidden_files_are_not(hub: LocalHub, model: Path) -> None:
    before = contents(model)
    for name in ("attestations/1.json", ".git/config", ".cache/x"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("{}")
    push(model, REPO, refuse, lambda _: True)
    assert without_git(pushed(hub)) == before | {"attestations/1.json": b"{}"}


def test_without_confirmation_nothing_is_uploaded(
    hub: LocalHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    push(model, REPO, refuse, lambda question: bool(asked.append(question)))
    assert asked == [f"Upload {model} to {REPO}?"]
    assert hub.requests == [f"GET /api/models/{REPO}"]
    assert "nothing was uploaded" in capsys.readouterr().out


@pytest.mark.parametrize(
    "repo", ["reviews", "me/", "/reviews", "me/re/views", "me/re views", "../x/y", "hub:me/reviews"]
)
def test_another_name_is_refused_before_the_export(hub: LocalHub, tmp_path: Path, repo: str) -> None:
    assert refused(tmp_path / "new", repo).endswith("expected OWNER/NAME")
    assert hub.requests == []


def test_without_a_token_nothing_is_exported(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "no token for the Hub; expected HF_TOKEN" in refused(tmp_path / "new")
    assert hub.requests == []


def test_a_wrong_token_is_reported(hub: LocalHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "does not accept the token" in refused(model)


def test_a_token_without_write_access_is_reported(hub: LocalHub, model: Path) -> None:
    assert "may not write to team/reviews; expected one with write access to team" in refused(model, "team/reviews")


def test_without_a_network_the_folder_is_kept(hub: LocalHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(model)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert f"{REPO} cannot be reached at http://127.0.0.1:9" in refused(model)
    assert contents(model) == before


@pytest.mark.parametrize("file", ["weights.bin", "README.md", "model.safetensors"])
def test_files_that_are_of_no_export_are_never_replaced(hub: LocalHub, model: Path, file: str) -> None:
    hub.add("model", REPO, {".gitattributes": b"", file: b"theirs"})
    assert f"{REPO} has files that are of no export: {file}; expected" in refused(model)
    assert pushed(hub)[file] == b"theirs"
    assert not hub.commits


def test_a_file_that_was_added_to_an_export_is_not_replaced_either(hub: LocalHub, model: Path) -> None:
    hub.add("model", REPO, {**contents(model), "notes.txt": b"theirs"})
    assert "no export: notes.txt" in refused(model)


def test_an_earlier_export_is_replaced_and_what_it_alone_had_is_removed(
    hub: LocalHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = contents(model) | {"onnx/model.onnx": b"onnx", "config.json": b"{}", "attestations/1.json": b"{}"}
    record = json.loads(earlier["reproduce.json"])
    record["files"]["onnx/model.onnx"] = "1" * 64
    hub.add("model", REPO, earlier | {"reproduce.json": json.dumps(record).encode()})
    push(model, REPO, refuse, lambda _: True)
    assert pushed(hub) == contents(model) | {"attestations/1.json": b"{}"}
    assert "on the Hub: public, replaces an earlier export\n" in capsys.readouterr().out


def test_an_interrupted_upload_is_repeated_and_sends_no_large_file_again(hub: LocalHub, model: Path) -> None:
    hub.refuses_commits = True
    assert "could not be written" in refused(model)
    assert pushed(hub).keys() == {".gitattributes"}
    hub.refuses_commits = False
    push(model, REPO, refuse, lambda _: True)
    assert without_git(pushed(hub)) == contents(model)
    assert len([request for request in hub.requests if request.startswith("PUT ")]) == 1
    assert len(hub.created) == 1


def test_a_commit_whose_answer_was_lost_is_found_by_the_next_try(
    hub: LocalHub, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.lies = lambda request, status, headers, content: (
        (500, {"Content-Length": "0"}, b"") if "/commit/" in request else (status, headers, content)
    )
    refused(model)
    hub.lies = None
    push(model, REPO, refuse, lambda _: True)
    assert without_git(pushed(hub)) == contents(model)
    assert len(hub.commits) == 1
    assert f"export: pushed hub:{REPO}@{hub.commit};" in capsys.readouterr().out


def test_a_change_by_somebody_else_in_the_meantime_is_not_overwritten(hub: LocalHub, model: Path) -> None:
    hub.add("model", REPO, {})

    def confirm(_: str) -> bool:
        hub.commit = "1" * 40
        return True

    with pytest.raises(UserError, match="changed by somebody else in the meantime"):
        push(model, REPO, refuse, confirm)
    assert pushed(hub) == {}


def test_a_commit_that_lacks_a_file_is_reported(hub: LocalHub, model: Path) -> None:
    hub.loses = "params.yaml"
    assert re.search(rf"{REPO} at [0-9a-f]{{40}} has no params.yaml; expected", refused(model))


def test_a_folder_that_was_changed_is_not_uploaded(hub: LocalHub, model: Path) -> None:
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        push(model, REPO, refuse, lambda _: True)
    assert caught.value.file == str(model / "config.json")
    assert hub.requests == []


def test_a_new_folder_is_exported_first(hub: LocalHub, exported_once: Path, tmp_path: Path) -> None:
    def make() -> None:
        shutil.copytree(exported_once, tmp_path / "new")

    push(tmp_path / "new", REPO, make, lambda _: True)
    assert without_git(pushed(hub)) == contents(exported_once)
