"""Fixtures: a tiny model, tiny data, and a git repository in which the real pipeline runs on them in seconds."""

import base64
import gc
import hashlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; two threads on tiny tensors only wait
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState
from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedModel
from transformers.utils import logging
from typer.testing import CliRunner

import prefork
from reprise.cli import app
from reprise.core.config import Recipe
from reprise.core.validation import check_recipe
from reprise.data.tokenization import load_tokenizer
from reprise.modeling import cpu_kernels
from reprise.modeling.classifier import load_classifier
from reprise.modeling.collator import Collator
from reprise.prepare.stage import prepare
from reprise.tasks.registry import task_kind
from tiny import BAD, FILLER, GOOD, ROOT, WORSE, Run, tiny_recipe, write_params, write_reviews

logging.disable_progress_bar()


AXE = "axe-core@4.14.1"
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="

# Markers of tests that the default suite leaves out.
MARKERS = {
    "full", "e2e", "images", "arm64", "chaos", "batch_invariance", "report", "xla", "multihost", "slurm", "s3",
    "portable", "kernels",
}  # fmt: skip
# A unit test neither types a command nor trains.
SLOW_FOLDERS = {"benchmarks", "e2e"}
SLOW_FIXTURES = {"run", "reprise", "train", "prepared_dir", "repo", "machine", "make"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the unit tests: those without another marker that use no slow fixture."""
    for item in items:
        if not (
            item.path.parent.name in SLOW_FOLDERS
            or SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))
            or MARKERS & {m.name for m in item.iter_markers()}
        ):
            item.add_marker("unit")


def pytest_collection_finish() -> None:
    """Exempt what is imported from garbage collection, which the libraries call for after each training."""
    gc.freeze()
    gc.set_threshold(10_000)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded with `record_property`, also of those that passed in a worker."""
    for report in terminalreporter.getreports("passed"):
        for _, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid}: {value}")


@pytest.fixture(autouse=True)
def own_kernels() -> Iterator[None]:
    """Give the next test torch's kernels on the CPU, which this one may have replaced for the life of the process."""
    yield
    if cpu_kernels.replaced:
        cpu_kernels.replaced.clear()
        torch.backends.cuda.enable_flash_sdp(True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with two layers of width 32 and a small vocabulary, in the Hub's layout; weights from a fixed seed."""
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER, ",", *map(str, range(10))]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}, model_max_length=64)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    model = BertModel(config)
    with torch.no_grad():  # "pretrained": it separates GOOD from BAD words, so a few steps suffice
        words = model.embeddings.word_embeddings.weight
        words[[vocabulary.index(word) for word in GOOD], :8] += 2
        words[[vocabulary.index(word) for word in BAD], :8] -= 2
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with everything that train reads: the prepared tiny data and the tiny model. Read-only."""
    folder = tmp_path_factory.mktemp("prepared")
    write_params(folder)
    (folder / "data/raw/all").mkdir(parents=True)
    write_reviews(folder / "data/raw/all/reviews.csv")
    for part in ("model", "tokenizer"):
        shutil.copytree(tiny_model, folder / "models/pretrained" / part)
    shutil.copytree(ROOT / "docker", folder / "docker")
    recipe = check_recipe(tiny_recipe(), "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        prepare(recipe.task, max_length=recipe.train.max_length)
    return folder


@pytest.fixture
def workdir(prepared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, for this test only, as the working directory."""
    folder = Path(shutil.copytree(prepared_dir, tmp_path / "prepared"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def train(workdir: Path) -> Iterator[Callable[..., Recipe]]:
    """Train in this process: `train(**{"train.epochs": 1})` changes the tiny recipe."""
    from reprise.train.stage import launch

    def train(**changes: Any) -> Recipe:
        AcceleratorState._reset_state(reset_partial_state=True)  # one process trains once; here it trains often
        recipe = check_recipe(tiny_recipe(**changes), "params.yaml")
        launch(recipe, "cpu")
        return recipe

    yield train
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def model(tiny_model: Path) -> PreTrainedModel:
    """The tiny model with a new head for three labels."""
    torch.manual_seed(0)
    return load_classifier(tiny_model, task_kind(["bad", "fair", "good"]))


@pytest.fixture
def collate(tiny_model: Path) -> Collator:
    """A collator for the tiny model; pads each batch to its longest row."""
    return Collator(load_tokenizer(tiny_model), task_kind(["bad", "fair", "good"]))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a `reprise` that needs no time for imports; one for all workers."""
    base, worker = tmp_path_factory.getbasetemp(), os.environ.get("PYTEST_XDIST_WORKER")
    folder = (base.parent if worker else base) / "programs"
    with FileLock(folder.with_name("programs.lock")):
        if not folder.exists():
            prefork.start(folder, os.getppid() if worker else os.getpid())
    return folder


@pytest.fixture(scope="session")
def run(programs: Path) -> Run:
    """Run a command like a user: `run(folder, "dvc", "repro")`; captures both streams and checks the exit code.

    `code=2` expects that exit code, `code=None` accepts any. `env` is added to the environment.
    """

    def run(
        folder: Path, *command: str, code: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, **(env or {})}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def reprise() -> Run:
    """Like `run`, but for `reprise …` in this process, which has imported what takes a new one seconds.

    `reprise(folder, "summary")` runs the code of this tree. The start of a command, its signals and what its own
    processes print need `run`.
    """

    def reprise(
        folder: Path, *command: str, code: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            # Commands set these in their process.
            for name, value in {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **(env or {})}.items():
                patch.setenv(name, value)
            AcceleratorState._reset_state(reset_partial_state=True)  # a process trains or evaluates once
            done = CliRunner().invoke(app, command, prog_name="reprise", obj=Path())
        assert code is None or done.exit_code == code, f"{command}: {done.exit_code}\n{done.output}"
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    return reprise


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, run: Run) -> Path:
    """A git repository with the files of this tree, the tiny model and data, and no results. Read-only."""
    folder = tmp_path_factory.mktemp("repo")
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, listed):
        # Results of the default recipe do not belong to the tiny one.
        if (ROOT / name).is_file() and not name.startswith(
            ("metrics/", "plots/", "reference/", "dvc.lock", "environment.json", "data/sources.json")
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    write_reviews(folder / "data/own/reviews.csv")
    shutil.copytree(tiny_model, folder / "data/own/tiny")
    write_params(folder)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "git", "config", "user.name", "Test")
    run(folder, "git", "config", "user.email", "test@example.org")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "Tiny recipe")
    run(folder, "git", "gc", "--quiet")  # one file instead of hundreds, in each copy
    return folder


def made_once(folder: Path, work: Path, fill: Callable[[Path], None]) -> Path:
    """Return a folder that the first worker to need it makes: `fill` makes its content in a folder below `work`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            fill(work / "made")
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.move(work / "made", partial)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def trained_repo(
    repo: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, run: Run
) -> Path:
    """The repository after `dvc repro`, with its results committed. Read-only; `repo_copy` is a writable copy.

    Created once for all workers, and again only after a change of a committed file or of Python.
    """
    tree = run(repo, "git", "rev-parse", "HEAD^{tree}").stdout
    kept = Path(request.config.cache.mkdir("trained_repo"))
    folder = kept / hashlib.sha256(f"{tree}{sys.version}".encode()).hexdigest()[:16]
    for older in kept.glob("*/"):
        if older != folder and time.time() - older.stat().st_mtime > 3600:  # a younger one may be in use
            shutil.rmtree(older, ignore_errors=True)

    def fill(partial: Path) -> None:
        shutil.copytree(repo, partial, symlinks=True)
        run(partial, "dvc", "repro")
        run(partial, "git", "add", ".")
        run(partial, "git", "commit", "-qm", "Run the tiny recipe")

    return made_once(folder / "repo", tmp_path_factory.mktemp("trained"), fill)


@pytest.fixture(scope="session")
def seeded(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> tuple[Path, str, str]:
    """The trained repository with two seeds of its recipe and two of a worse one, and both outputs. Do not change.

    A copy of what is created once for all workers, like `trained_repo`, beside it.
    """

    def fill(partial: Path) -> None:
        repo = shutil.copytree(trained_repo, partial / "repo", symlinks=True)
        for name, changes in (("first", ()), ("worse", WORSE)):
            (partial / name).write_text(run(repo, "reprise", "seeds", "-n", "2", *changes).stdout, encoding="utf-8")

    folder = made_once(trained_repo.with_name("seeded"), tmp_path_factory.mktemp("seeding"), fill)
    first, worse = ((folder / name).read_text(encoding="utf-8") for name in ("first", "worse"))
    return (
        Path(shutil.copytree(folder / "repo", tmp_path_factory.mktemp("seeded") / "repo", symlinks=True)),
        first,
        worse,
    )


@pytest.fixture
def repo_copy(trained_repo: Path, tmp_path: Path) -> Path:
    """A writable copy of the trained repository."""
    return Path(shutil.copytree(trained_repo, tmp_path / "repo", symlinks=True))


@pytest.fixture
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `locked` in a folder of its own, locked as the only one for the hardware `abacus`; its module."""
    site, prefix = tmp_path / "site", tmp_path / "prefix"
    (site / "locked-1.0.dist-info").mkdir(parents=True)
    prefix.mkdir()
    module = site / "locked.py"
    module.write_text("VALUE = 1\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(module.read_bytes()).digest()).rstrip(b"=").decode()
    (site / "locked-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: locked\nVersion: 1.0\n")
    (site / "locked-1.0.dist-info/RECORD").write_text(
        f"locked.py,sha256={digest},10\n__pycache__/locked.cpython-311.pyc,,\nlocked-1.0.dist-info/RECORD,,\n"
    )
    (tmp_path / "docker/abacus").mkdir(parents=True)
    (tmp_path / "docker/abacus/torch.txt").write_text("locked==1.0\n")
    (tmp_path / "docker/abacus/requirements.txt").write_text("")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.chdir(tmp_path)
    return module


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, without its sandbox where root runs it."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("make test-report needs chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def axe(request: pytest.FixtureRequest) -> str:
    """axe-core's script, of the version and digest above, from npm the first time."""
    assert request.config.cache is not None
    folder = request.config.cache.mkdir(AXE.replace("@", "-"))
    package = folder / f"{AXE.replace('@', '-')}.tgz"
    if not package.is_file():
        if shutil.which("npm") is None:
            pytest.fail(f"make test-report needs npm for {AXE}: apt-get install npm")
        subprocess.run(["npm", "pack", AXE, "--silent", "--pack-destination", str(folder)], check=True)
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if digest != AXE_SHA512:
        package.unlink()
        pytest.fail(f"{AXE}: expected the SHA-512 {AXE_SHA512}, got {digest}")
    with tarfile.open(package) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()
