"""The command line: commands, help, exit codes, and which source is run."""

import errno
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reprise.cli import app
from tiny import ROOT, Run, write_params

SCRIPT = str(Path(sys.executable).parent / "reprise")
MODULE = (sys.executable, "-m", "reprise")
COMMANDS = (
    "new", "init", "compose", "data", "summary", "report", "runs", "compare", "seeds", "cv", "sweep", "ensemble",
    "seed-noise", "prune", "predict", "export", "serve", "verify", "attestations", "fsck", "parity", "environment",
    "sources", "fetch", "prepare", "check-data", "teacher", "preflight", "train", "evaluate",
)  # fmt: skip
SOURCE = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


def listed_commands(text: str) -> list[str]:
    """Return the commands that a help text lists."""
    return re.findall(r"^  ([\w-]+)  +\S", text.partition("Recipe and results:")[2], flags=re.MULTILINE)


@pytest.mark.parametrize("command", [(SCRIPT,), MODULE], ids=["reprise", "python -m reprise"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_lists_every_command(tmp_path: Path, run: Run, command: tuple[str, ...], flag: str) -> None:
    shown = run(tmp_path, *command, flag)
    assert tuple(listed_commands(shown.stdout)) == COMMANDS
    assert "dvc repro" in shown.stdout
    assert shown.stderr == ""


@pytest.mark.parametrize("columns", ["60", "80"])
def test_no_line_of_the_help_is_cut_off(tmp_path: Path, run: Run, columns: str) -> None:
    shown = run(tmp_path, *MODULE, "--help", env=SOURCE | {"COLUMNS": columns}).stdout
    assert "..." not in shown.partition("Options:")[2]
    assert max(map(len, shown.splitlines())) <= int(columns)


def test_the_version_names_the_commit(repo: Path, run: Run) -> None:
    commit = run(repo, "git", "rev-parse", "HEAD").stdout[:12]
    assert re.fullmatch(rf"reprise \d+\.\d+\.\d+, commit {commit}\n", run(repo, "reprise", "--version").stdout)


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        ("compo", ["compose"]),
        ("compose task=mr", ["task=mrpc"]),
        ("compare HE", ["HEAD"]),
        ("report seeds:w", ["seeds:workspace"]),
    ],
)
def test_the_shell_completes_commands_choices_and_runs(
    repo: Path, run: Run, typed: str, completions: list[str]
) -> None:
    environment = {"_REPRISE_COMPLETE": "complete_bash", "COMP_WORDS": f"reprise {typed}"}
    shown = run(repo, "reprise", env=environment | {"COMP_CWORD": str(len(typed.split()))})
    assert shown.stdout.split() == completions


def test_paths_are_those_of_the_folder_in_which_the_command_was_typed(repo: Path, run: Run) -> None:
    refused = run(repo / "docs", "reprise", "predict", "--file", "nothing.csv", code=2)
    assert "reprise: error: " in refused.stderr
    (repo / "docs/mine").mkdir()
    (repo / "docs/mine/file").touch()
    refused = run(repo / "docs", "reprise", "export", "mine", code=2)
    assert "docs/mine" in refused.stderr
    shutil.rmtree(repo / "docs/mine")


def help_of(command: str) -> str:
    """Return the help text of a command."""
    shown = CliRunner().invoke(app, [command, "--help"], prog_name="reprise")
    assert shown.exit_code == 0
    return shown.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_summary(command: str) -> None:
    usage, sentence = [line for line in help_of(command).splitlines() if line.strip()][:2]
    assert f"reprise {command}" in usage
    assert len(sentence.split()) > 4


def test_the_help_of_compose_shows_an_example() -> None:
    assert "reprise compose task=mrpc model=bert-base-uncased" in help_of("compose")


@pytest.mark.parametrize(("earlier", "command"), [("recipe", "compose"), ("reference", "seed-noise")])
def test_earlier_names_of_commands_still_work(earlier: str, command: str) -> None:
    assert help_of(earlier).splitlines()[2:] == help_of(command).splitlines()[2:]


def test_the_help_imports_nothing_heavy(tmp_path: Path, run: Run) -> None:
    shown = run(tmp_path, sys.executable, "-X", "importtime", "-m", "reprise", "--help", env=SOURCE)
    imported = set(re.findall(r"\| +(\S+)$", shown.stderr, flags=re.MULTILINE))
    heavy = {"torch", "transformers", "datasets", "accelerate", "pydantic", "hydra", "numpy", "pandas", "rich.table"}
    assert imported & heavy == set()
    assert {"reprise.cli", "typer"} <= imported


@pytest.mark.parametrize("arguments", [("bake",), ("--bake",), ("train", "--bake"), ("train", "now")], ids=" ".join)
def test_unknown_commands_and_options_exit_with_two(tmp_path: Path, run: Run, arguments: tuple[str, ...]) -> None:
    refused = run(tmp_path, *MODULE, *arguments, code=2, env=SOURCE)
    assert refused.stdout == ""
    assert arguments[-1] in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_interrupted_command_exits_with_130_and_keeps_the_earlier_output(tmp_path: Path, run: Run) -> None:
    shutil.copytree(ROOT / "docker", tmp_path / "docker")
    write_params(tmp_path)
    (tmp_path / "environment.json").write_text("earlier")
    program = (
        "import os, signal, sys, time\n"
        # Background jobs of a shell ignore SIGINT, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from reprise import hardware\n"
        "from reprise.__main__ import main\n"
        "def locked_environment(hardware):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
        "hardware.locked_environment = locked_environment\n"
        "sys.argv = ['reprise', 'environment']\n"
        "main()\n"
    )
    stopped = run(tmp_path, sys.executable, "-c", program, code=130, env=SOURCE)
    assert re.fullmatch(r"reprise environment: interrupted; [^\n]+\n", stopped.stderr)
    assert stopped.stdout == ""
    assert (tmp_path / "environment.json").read_text() == "earlier"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a copy of the source, whose help text is changed."""
    shutil.copytree(ROOT / "src/reprise", tmp_path / "src/reprise", ignore=shutil.ignore_patterns("__pycache__"))
    cli = tmp_path / "src/reprise/cli.py"
    text = cli.read_text(encoding="utf-8")
    assert text.count("Fine-tune a pretrained encoder") == 1
    cli.write_text(text.replace("Fine-tune a pretrained encoder", "Text of the copy"), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("command", [(SCRIPT,), MODULE], ids=["reprise", "python -m reprise"])
def test_in_a_copy_of_the_repository_the_code_of_the_copy_runs(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, run: Run, command: tuple[str, ...]
) -> None:
    assert "Text of the copy" in run(checkout, *command, "--help").stdout
    elsewhere = run(tmp_path_factory.mktemp("elsewhere"), *command, "--help").stdout
    assert "Fine-tune a pretrained encoder" in elsewhere


def test_the_copy_receives_the_arguments_and_returns_its_exit_code(checkout: Path, run: Run) -> None:
    refused = run(checkout, SCRIPT, "environment", code=2)
    assert refused.stderr.startswith("reprise: error: params.yaml: not found")
    shown = run(checkout, SCRIPT, "compose", "--help").stdout
    assert "Compose params.yaml from the recipe catalog" in shown


def broken_command(error: Exception, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `reprise summary` where it raises an error."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("reprise.commands.summary.print_summary", fail)
    return CliRunner().invoke(app, ["summary"], prog_name="reprise")


def test_a_mistake_of_reprise_is_one_line_and_its_traceback_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    shown = broken_command(ZeroDivisionError("of\nno use"), monkeypatch)
    assert shown.exit_code == 70
    (line,) = shown.stderr.splitlines()
    start, _, file = line.rpartition(" ")
    assert start == r"reprise: internal error: ZeroDivisionError: of\nno use; the traceback is in"
    assert "in fail" in Path(file).read_text()
    assert Path(file).parent == tmp_path / ".dvc/tmp"


def test_a_full_disk_is_one_line_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = broken_command(OSError(errno.ENOSPC, "No space left on device", "metrics/train.json"), monkeypatch)
    assert shown.exit_code == 2
    assert shown.stderr.startswith(
        "reprise: error: [Errno 28] No space left on device: 'metrics/train.json'; the trace"
    )


def test_without_the_locked_packages_it_names_the_set_up(run: Run, tmp_path: Path) -> None:
    source = {"PYTHONPATH": str(ROOT / "src")}
    done = run(tmp_path, sys.executable, "-S", "-m", "reprise", "--help", code=2, env=source)
    expected = "expected the environment of `make setup`, or an image"
    assert done.stderr == f"reprise: error: the package typer is not installed; {expected}\n"
