"""Set-up reports in one line what cannot work, before it makes anything, and prefers the committed results' Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tiny import ROOT

# The only programs on the PATH besides the stubs below.
TOOLS = ["awk", "bash", "cat", "cut", "dirname", "env", "git", "grep", "ls", "make", "mkdir", "mktemp", "rm", "sed"]
TOOLS += ["sort", "stty", "tail", "tee", "test", "touch", "tr", "uname", "wc"]

# An interpreter: version and problem as docker/make-venv asks for them; `-m venv` makes an environment of itself, other
# calls are recorded. FAIL is a word of the call that fails.
PYTHON = r"""#!/bin/bash
case "$*" in
  "-I -c "*platform*) echo "@VERSION @PROBLEM" ;;
  "-I -c "*) echo "@VERSION" ;;
  "-m venv "*) mkdir -p "$3/bin" "$3/lib/python@VERSION" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python" ;;
  *)
    printf '%s\n' "$*" "user=$PIP_USER" >> calls
    if [ -n "$CHECK" ] && [[ "$*" = *"pip check" ]]; then printf "$CHECK"; exit 1; fi
    if [ -n "$FAIL" ] && [[ "$*" = *"$FAIL"* ]]; then echo "ERROR: not found"; exit 1; fi ;;
esac
"""
UV = r"""#!/bin/bash
case "$*" in
  --version) echo "uv 1.2.3" ;;
  "python find"*) exit 2 ;;
  "venv "*) for folder; do :; done; "${@: -2:1}" -m venv "$folder" ;;
  *) printf 'uv %s\n' "$*" >> calls ;;
esac
"""


class Machine:
    """A clone without an environment, and a PATH that has only what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.bin = folder / "clone", folder / "bin"
        for name in ("Makefile", "pyproject.toml", "environment.json"):
            self.clone.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, self.clone / name)
        shutil.copytree(ROOT / "docker", self.clone / "docker")
        subprocess.run(["git", "init", "--quiet"], cwd=self.clone, check=True)
        self.bin.mkdir()
        for tool in [*TOOLS, "cp"]:
            (self.bin / tool).symlink_to(shutil.which(tool) or "")

    def add(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def add_python(self, version: str, problem: str = "ok", name: str | None = None) -> None:
        script = PYTHON.replace("@VERSION", version).replace("@PROBLEM", problem)
        self.add(name or f"python{version}", script)

    def setup(self, *arguments: str, code: int = 0, **env: str) -> str:
        """Run `make setup`; return its last line, which on failure is the error."""
        env = {"PATH": str(self.bin), "HOME": str(self.clone), "GIT_CEILING_DIRECTORIES": str(self.clone.parent), **env}
        ran = subprocess.run(["make", "setup", *arguments], cwd=self.clone, env=env, capture_output=True, text=True)
        assert (ran.returncode != 0) == bool(code), ran.stdout + ran.stderr
        errors = [line for line in ran.stderr.splitlines() if line.startswith("setup: error: ")]
        assert len(errors) == bool(code), ran.stderr
        return errors[0] if code else ran.stdout

    def refused(self, *arguments: str, **env: str) -> str:
        error = self.setup(*arguments, code=2, **env)
        assert not (self.clone / ".venv").exists(), "something was made"
        return error

    def calls(self) -> list[str]:
        return (self.clone / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_fitting_python_it_says_what_to_type(machine: Machine) -> None:
    machine.add_python("3.9", name="python3")
    error = machine.refused()
    assert "3.11, 3.12, 3.13, 3.14" in error
    assert "python3 is 3.9" in error
    for typed in ("apt install python3 python3-venv", "uv python install 3.11", "make setup PYTHON="):
        assert typed in error


def test_conflicts_are_errors_and_another_name_of_the_platform_is_none(machine: Machine) -> None:
    machine.add_python("3.11")
    platform = "nvidia-cusparselt-cu13 0.8.1 is not supported on this platform\\n"
    assert "a 1 requires b" in machine.setup(code=2, CHECK=platform + "a 1 requires b, which is not installed.\\n")
    machine.setup(CHECK=platform)
    assert (machine.clone / ".venv/.installed").is_file()


def test_a_shim_that_does_not_run_is_passed_over(machine: Machine) -> None:
    machine.add("python3.11", "#!/bin/bash\necho 'pyenv: python3.11: command not found' >&2\nexit 127\n")
    machine.add_python("3.13")
    assert "Python 3.13 " in machine.setup()


def test_the_python_of_the_committed_results_comes_first_then_the_newest(machine: Machine) -> None:
    for version in ("3.10", "3.12", "3.13", "3.15"):
        machine.add_python(version)
    printed = machine.setup()
    assert "Python 3.13 " in printed
    assert "make verify" in printed
    shutil.rmtree(machine.clone / ".venv")
    machine.add_python("3.11")
    assert "Python 3.11 " in machine.setup()


def test_another_python_of_one_s_own_creates_the_environment_again(machine: Machine) -> None:
    machine.add_python("3.11")
    machine.add_python("3.14")
    machine.setup()
    assert "Nothing to be done" in machine.setup()
    assert "Nothing to be done" in machine.setup("PYTHON=python3.11")
    assert "Python 3.14 " in machine.setup("PYTHON=python3.14")
    assert (machine.clone / ".venv/lib/python3.14").is_dir()
    assert not (machine.clone / ".venv/lib/python3.11").exists()


@pytest.mark.parametrize(
    ("version", "problem", "words"),
    [("3.10", "ok", "is Python 3.10"), ("3.12", "wheels", "CPython"), ("3.12", "venv", "python3.12-venv")],
)
def test_a_named_python_that_does_not_fit_is_refused(machine: Machine, version: str, problem: str, words: str) -> None:
    machine.add_python("3.11")
    machine.add_python(version, problem, name="mine")
    assert words in machine.refused("PYTHON=mine")


def test_a_named_python_that_is_not_there_is_refused(machine: Machine) -> None:
    assert "PYTHON: mine does not run" in machine.refused("PYTHON=mine")


def test_a_missing_venv_module_is_named_unless_another_python_or_uv_has_it(machine: Machine) -> None:
    machine.add_python("3.13", "venv")
    assert "apt install python3.13-venv" in machine.refused()
    machine.add_python("3.12")
    assert "Python 3.12 " in machine.setup()
    shutil.rmtree(machine.clone / ".venv")
    machine.add("uv", UV)
    assert "Python 3.13 " in machine.setup()


def test_git_and_a_repository_are_required(machine: Machine) -> None:
    machine.add_python("3.11")
    shutil.rmtree(machine.clone / ".git")
    assert "git init && git add --all && git commit" in machine.refused()
    (machine.bin / "git").unlink()
    assert "apt install git" in machine.refused()


@pytest.mark.parametrize(("system", "word"), [("Darwin", "make train-cpu"), ("MINGW64_NT-10.0", "WSL")])
def test_other_systems_get_the_image(machine: Machine, system: str, word: str) -> None:
    (machine.bin / "uname").unlink()
    machine.add("uname", f"#!/bin/bash\necho {system}\n")
    assert word in machine.refused()


def test_another_processor_architecture_is_refused(machine: Machine) -> None:
    (machine.bin / "uname").unlink()
    machine.add("uname", '#!/bin/bash\n[ "$1" = -s ] && echo Linux || echo riscv64\n')
    assert "riscv64" in machine.refused()


def test_no_package_index_is_not_called_a_conflict(machine: Machine) -> None:
    machine.add_python("3.11")
    error = machine.refused(FAIL="tools.txt")
    assert "expected a network, or a mirror in PIP_INDEX_URL" in error


def test_a_mirror_without_pytorch_is_told_apart(machine: Machine) -> None:
    machine.add_python("3.11")
    error = machine.refused(FAIL="torch.txt")
    assert "PyTorch" in error
    assert "TORCH_INDEX=" in error


def torch_call(machine: Machine) -> str:
    (call,) = [call for call in machine.calls() if call.endswith("torch.txt")]
    return call


def test_pytorch_comes_from_the_index_of_its_lock(machine: Machine) -> None:
    machine.add_python("3.11")
    machine.setup()
    assert torch_call(machine).endswith("--require-hashes --requirement docker/cpu/torch.txt")


@pytest.mark.parametrize("variable", ["TORCH_INDEX", "PIP_FIND_LINKS", "UV_FIND_LINKS"])
def test_pytorch_comes_from_a_folder_that_has_its_wheel(machine: Machine, tmp_path: Path, variable: str) -> None:
    (tmp_path / f"torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_{os.uname().machine}.whl").touch()
    machine.add_python("3.12")
    machine.setup(**{variable: str(tmp_path)})
    assert f"--no-index --find-links {tmp_path} --requirement .venv/torch.txt" in torch_call(machine)
    assert "index-url" not in (machine.clone / ".venv/torch.txt").read_text()


def test_pytorch_comes_from_a_mirror(machine: Machine) -> None:
    machine.add_python("3.11")
    machine.setup("TORCH_INDEX=https://mirror.example/cpu")
    assert "--index-url https://mirror.example/cpu --requirement .venv/torch.txt" in torch_call(machine)


def test_packages_go_into_the_environment_although_pip_is_set_to_the_user_s_folder(machine: Machine) -> None:
    machine.add_python("3.11")
    machine.setup(PIP_USER="1", PIP_TARGET="/nowhere")
    assert {call for call in machine.calls() if call.startswith("user=")} == {"user=0"}


def test_uv_installs_from_the_same_locks_and_the_same_mirror(machine: Machine) -> None:
    machine.add_python("3.11")
    machine.setup()
    by_pip = [call.split("--no-deps ")[1] for call in machine.calls() if " install " in call]
    shutil.rmtree(machine.clone / ".venv")
    (machine.clone / "calls").unlink()
    machine.add("uv", UV)
    assert "uv 1.2.3" in machine.setup()
    by_uv = [call.split("--no-deps ")[1] for call in machine.calls() if call.startswith("uv pip install ")]
    assert by_uv == by_pip
    assert len(by_uv) == 4


@pytest.mark.parametrize("broken", ["no stamp", "no python"])
def test_a_broken_environment_is_created_again(machine: Machine, broken: str) -> None:
    machine.add_python("3.11")
    machine.setup()
    (machine.clone / ".venv/from-before").touch()
    (machine.clone / ".venv" / {"no stamp": ".installed", "no python": "bin/python"}[broken]).unlink()
    assert "created again" in machine.setup()
    assert not (machine.clone / ".venv/from-before").exists()


def test_changed_locks_are_installed_into_the_environment(machine: Machine) -> None:
    machine.add_python("3.11")
    machine.setup()
    (machine.clone / ".venv/from-before").touch()
    os.utime(machine.clone / "pyproject.toml", (2**32, 2**32))
    machine.setup(code=2, FAIL="requirements.txt")
    assert (machine.clone / ".venv/from-before").exists()
    machine.setup()
    assert (machine.clone / ".venv/from-before").exists()


def test_a_folder_that_is_no_environment_is_left_alone(machine: Machine) -> None:
    machine.add_python("3.11")
    (machine.clone / ".venv").mkdir()
    (machine.clone / ".venv/precious").touch()
    assert ".venv is not a virtual environment" in machine.setup(code=2)
    assert (machine.clone / ".venv/precious").exists()


def test_the_packages_for_tests_are_added_from_their_lock(machine: Machine) -> None:
    machine.add_python("3.11")
    machine.setup()
    machine.setup("--eval=setup: .venv/.dev")
    assert machine.calls()[-2].endswith("--no-deps --require-hashes --requirement docker/cpu/dev.txt")
