"""Calls of git and DVC: errors in one line, and programs of this environment."""

import sys
from pathlib import Path

import pytest

from reprise.core.errors import UserError
from reprise.results.vcs import check_experiments, check_output, dvc, resolve_commit, subprocess_env, try_output
from tiny import Run


@pytest.fixture
def repository(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text\n")
    run(tmp_path, "git", "init", "-q", "-b", "main")
    run(tmp_path, "git", "add", ".")
    run(tmp_path, "git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "-qm", "Commit")
    return tmp_path


def test_a_commit_is_resolved_from_every_name_that_git_accepts(repository: Path, run: Run) -> None:
    commit = run(repository, "git", "rev-parse", "HEAD").stdout.strip()
    run(repository, "git", "tag", "light")
    tagging = ("tag", "-a", "-m", "Release", "v1")
    run(repository, "git", "-c", "user.name=Test", "-c", "user.email=test@example.org", *tagging)
    assert {resolve_commit(name) for name in ("HEAD", "main", "light", "v1", commit, commit[:8], "@{0}")} == {commit}


@pytest.mark.parametrize("revision", ["nothing", "", "HEAD~1", "HEAD:file", "HEAD^{tree}", "--all", "two words"])
def test_other_revisions_are_refused_by_name(repository: Path, revision: str) -> None:
    with pytest.raises(UserError) as refused:
        resolve_commit(revision)
    assert (refused.value.file, refused.value.key) == ("", revision)
    assert refused.value.expected.startswith("a commit of this git repository")


def test_a_command_returns_its_output_or_fails_in_one_line(repository: Path) -> None:
    assert check_output("git", "ls-files") == "file"
    assert check_output("git", "ls-files", folder=repository / ".git/..") == "file"
    with pytest.raises(UserError) as refused:
        check_output("git", "checkout", "nothing")
    assert refused.value.key == "git checkout nothing"
    assert str(repository) in refused.value.problem
    assert "pathspec 'nothing' did not match" in refused.value.problem
    assert "\n" not in str(refused.value)


def test_a_failing_command_may_return_none(repository: Path) -> None:
    assert try_output("git", "ls-files") == "file"
    assert try_output("git", "remote", "get-url", "origin") is None


def test_dvc_runs_in_the_folder_and_returns_its_exit_code(repository: Path) -> None:
    assert dvc("init", "--quiet") == 0
    assert (repository / ".dvc/config").is_file()
    (repository / "below").mkdir()
    assert dvc("root", folder=repository / "below") == 0
    assert dvc("pull", "nothing") != 0


def test_subprocesses_use_this_environments_programs_and_the_source_of_their_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "src")
    monkeypatch.setenv("REPRISE_REEXECUTED", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = subprocess_env()
    assert given["PATH"] == f"{Path(sys.executable).parent}:/elsewhere"
    monkeypatch.setenv("PATH", activated := f"/first:{Path(sys.executable).parent}:/elsewhere")
    assert subprocess_env()["PATH"] == activated
    assert given["OMP_NUM_THREADS"] == "1"
    assert not {"PYTHONPATH", "REPRISE_REEXECUTED"} & given.keys()


def test_experiments_need_an_ascii_path_and_the_full_history(tmp_path: Path, run: Run) -> None:
    origin, shallow = tmp_path / "origin", tmp_path / "shallow"
    run(tmp_path, "git", "init", "-q", str(origin))
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    for message in ("first", "second"):
        run(origin, "git", *identity, "commit", "-q", "--allow-empty", "-m", message)
    check_experiments(origin)
    run(tmp_path, "git", "clone", "-q", "--depth", "1", f"file://{origin}", str(shallow))
    for folder, remedy in ((shallow, "git fetch --unshallow"), (tmp_path / "r\u00e9pertoire", "move")):
        with pytest.raises(UserError) as error:
            check_experiments(folder)
        assert error.value.file == str(folder)
        assert remedy in error.value.expected
    run(shallow, "git", "fetch", "-q", "--unshallow")
    check_experiments(shallow)
