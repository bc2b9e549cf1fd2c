"""Bad input is reported in one clear line with exit code 2, and changes no file."""

import hashlib
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner

from reprise.cli import app
from tiny import ROOT, Run, write_params, write_reviews

REVIEWS = Path("data/raw/all/reviews.csv")
OWN = Path("data/own/reviews.csv")

# Ignore the pip configuration of the machine: an empty value counts as unset.
PIP = dict.fromkeys(("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"), "")
PIP |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
SOURCE = {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", "REPRISE_HARDWARE": "cpu"}

WHEEL = {
    "kind": "pypi",
    "distribution": "synthetic-reviews",
    "version": "1.0",
    "sha256": "0" * 64,
    "path": "reviews.csv",
}

GLUE = {"kind": "hub", "repo": "nyu-mll/glue", "config": "mnli", "revision": "0" * 40}


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        command: subcommand of reprise, with its arguments.
        arrange: puts the bad input into a folder.
        file: the file that the message begins with; "" if it begins with the key.
        key: the key, column or option that it names.
        text: another part of it, such as what was expected.
        env: environment variables of the command.
    """

    command: str
    arrange: Callable[[Path], object]
    file: Path | str
    key: str
    text: str
    env: dict[str, str] = field(default_factory=dict)


def params(**changes: Any) -> Callable[[Path], None]:
    """Write the tiny recipe with changes by dotted key, with `__` for the dot."""
    return lambda folder: write_params(folder, **{key.replace("__", "."): value for key, value in changes.items()})


def replaced(file: str | Path, old: str, new: str) -> Callable[[Path], None]:
    """Replace all occurrences of a text in a file."""

    def arrange(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")

    return arrange


def content(file: str | Path, new: str | bytes) -> Callable[[Path], None]:
    """Replace the content of a file."""
    return lambda folder: (folder / file).write_bytes(new if isinstance(new, bytes) else new.encode())


def removed(path: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()


def local_table(name: str, content: bytes) -> Callable[[Path], None]:
    """Use a local table with this content as the source of the recipe."""

    def arrange(folder: Path) -> None:
        write_params(folder, **{"task.source.train": f"data/own/{name}"})
        (folder / "data/own" / name).write_bytes(content)

    return arrange


def other_version(folder: Path) -> None:
    """Pin another version of numpy than the installed one."""
    lock = folder / "docker/cpu/requirements.txt"
    text, count = re.subn(r"(?m)^numpy==\S+", "numpy==0.0.1", lock.read_text(encoding="utf-8"))
    assert count == 1
    lock.write_text(text, encoding="utf-8")


def separate_splits(folder: Path) -> None:
    """Use a source with separate splits, whose validation split is empty after `task.filter`."""
    write_params(folder, **{"task.split": None})
    for split in ("train", "validation"):
        (folder / "data/raw" / split).mkdir()
        shutil.copy(folder / REVIEWS, folder / "data/raw" / split / "reviews.csv")
    shutil.rmtree(folder / "data/raw/all")
    validation = folder / "data/raw/validation/reviews.csv"
    head, *rows = validation.read_text(encoding="utf-8").splitlines()
    validation.write_text("\n".join([head, *(row for row in rows if ",plot," in row)]) + "\n", encoding="utf-8")


def wheel(folder: Path) -> None:
    """Write a wheel that pip finds in the folder, and a recipe that pins another hash."""
    write_params(folder, **{"task.source": WHEEL})
    parts = {
        "reviews.csv": "number,text,verdict,film\n",
        "synthetic_reviews-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: synthetic-reviews\nVersion: 1.0\n",
        "synthetic_reviews-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "synthetic_reviews-1.0.dist-info/RECORD": "",
    }
    (folder / "wheels").mkdir()
    with zipfile.ZipFile(folder / "wheels/synthetic_reviews-1.0-py3-none-any.whl", "w") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), text)


CASES = {
    # params.yaml, which the first stage of every `dvc repro` reads completely
    "malformed YAML": Case(
        "environment",
        content("params.yaml", "seed: 42\ntask: [unclosed\n"),
        "params.yaml",
        "",
        "line 3, column 1: not valid YAML",
    ),
    "a recipe that is not UTF-8": Case(
        "environment", content("params.yaml", b"seed: 42\nname: caf\xe9\n"), "params.yaml", "", "not UTF-8 at byte 18"
    ),
    "no recipe": Case("environment", removed("params.yaml"), "params.yaml", "", "`reprise compose`"),
    "unknown key": Case(
        "environment",
        params(train__lerning_rate=1e-4),
        "params.yaml",
        "train.lerning_rate",
        "did you mean learning_rate?",
    ),
    "unknown key in fetch": Case(
        "fetch", params(task__max_exampels=3), "params.yaml", "task.max_exampels", "did you mean max_examples?"
    ),
    "wrong type": Case(
        "environment", params(train__epochs="two"), "params.yaml", "train.epochs", "expected a valid integer"
    ),
    "value out of range": Case(
        "environment", params(train__warmup_ratio=1.5), "params.yaml", "train.warmup_ratio", "expected less than 1"
    ),
    **{
        f"buckets: {value}": Case(
            "environment",
            params(train__bucket_lengths=value),
            "params.yaml",
            "train.bucket_lengths",
            "expected auto or a list of lengths in tokens, such as [32, 64, 128]",
        )
        for value in ([], [0], ["x"], "most", 3)
    },
    "buckets shorter than the maximum length": Case(
        "environment",
        params(train__bucket_lengths=[4, 8]),
        "params.yaml",
        "train.bucket_lengths",
        "expected train.max_length (16)",
    ),
    "buckets longer than the maximum length": Case(
        "environment",
        params(train__bucket_lengths=[64]),
        "params.yaml",
        "train.bucket_lengths",
        "expected train.max_length (16)",
    ),
    "an unknown tracker": Case(
        "environment",
        params(run__trackers=["tensorbord"]),
        "params.yaml",
        "run.trackers.0",
        "expected 'tensorboard', 'mlflow', 'wandb' or 'trackio'",
    ),
    "a tracker that is not installed": Case(
        "train",
        params(run__trackers=["tensorboard", "mlflow"]),
        "params.yaml",
        "run.trackers",
        "--require-hashes -r docker/cpu/trackers.txt",
    ),
    **{
        f"{name} before any stage": Case("environment", arrange, file, key, line, {"REPRISE_PROCESSES": "1", **env})
        for name, arrange, file, key, line, env in (
            (
                "a tracker that is not installed",
                params(run__trackers=["mlflow"]),
                "params.yaml",
                "run.trackers",
                "mlflow",
                {},
            ),
            (
                "a missing profile",
                params(),
                "docker/cpu/nix.yaml",
                "",
                "accelerate, fsdp",
                {"REPRISE_PROFILE": "nix"},
            ),
            (
                "a profile that is none",
                content("docker/cpu/accelerate.yaml", "[]\n"),
                "docker/cpu/accelerate.yaml",
                "",
                "num_processes",
                {},
            ),
            ("hosts without a rendezvous", params(), "", "--rendezvous", "HOST:PORT", {"REPRISE_NODES": "2"}),
            (
                "an engine of one process",
                params(train__engine="pytorch"),
                "params.yaml",
                "train.engine",
                "in one process, not in 2",
                {"REPRISE_PROCESSES": "2"},
            ),
        )
    },
    **{
        f"{name} before fetch": Case("sources", arrange, file, key, line)
        for name, arrange, file, key, line in (
            ("a missing table", removed(str(OWN)), OWN, "task.source.train", "not found"),
            ("a table that is not UTF-8", content(OWN, b"number,text\n1,caf\xe9\n"), OWN, "line 2", "UTF-8"),
            ("a missing model", removed("data/own/tiny"), "data/own/tiny", "model.source.path", "not found"),
        )
    },
    "split fractions that leave nothing to train on": Case(
        "environment",
        params(task__split={"validation": 0.5, "test": 0.6}),
        "params.yaml",
        "task.split",
        "expected validation + test below 1",
    ),
    "an unknown split to evaluate": Case(
        "environment",
        params(evaluate__split="validation_mismatched"),
        "params.yaml",
        "evaluate.split",
        "expected one of train, validation, test",
    ),
    "splits of the Hub without a validation split": Case(
        "environment",
        params(task__source={**GLUE, "splits": {"train": "train", "test": "test_matched"}}, task__split=None),
        "params.yaml",
        "task.source.splits",
        "expected train and validation among its keys",
    ),
    "a fraction of a split that the source has": Case(
        "environment",
        params(task__source={**GLUE, "splits": {"train": "train", "test": "test_matched"}}),
        "params.yaml",
        "task.split.test",
        "expected null, since task.source has a test split",
    ),
    "a submission of an unknown split": Case(
        "environment",
        params(task__submission={"files": {"test_mismatched": "MNLI-mm.tsv"}, "labels": "names"}),
        "params.yaml",
        "task.submission.files",
        "expected splits among train, validation, test",
    ),
    "a submission into a folder": Case(
        "environment",
        params(task__submission={"files": {"test": "/tmp/MNLI-m.tsv"}, "labels": "names"}),
        "params.yaml",
        "task.submission.files.test",
        "expected the name of a file without a folder",
    ),
    # The locks and the installed packages
    "installed packages that differ from the lock": Case(
        "environment",
        other_version,
        "docker/cpu",
        "numpy",
        "the lock pins 0.0.1, installed is ",
    ),
    "unknown hardware": Case(
        "environment",
        params(),
        "",
        "REPRISE_HARDWARE",
        "docker/abacus/torch.txt; expected one of cpu, cuda, tpu",
        {"REPRISE_HARDWARE": "abacus"},
    ),
    "a missing lock": Case(
        "environment", removed("docker/cpu/requirements.txt"), "", "REPRISE_HARDWARE", "docker/cpu/requirements.txt"
    ),
    # The sources of fetch
    "local table missing": Case("fetch", removed(str(OWN)), OWN, "task.source.train", "not found"),
    "local table not UTF-8": Case(
        "fetch",
        content(OWN, b"number,text,verdict,film\n1,good,fresh,a\n2,caf\xe9,fresh,a\n"),
        OWN,
        "",
        "line 3: not UTF-8",
    ),
    "local table that ends in the middle of a character": Case(
        "fetch",
        content(OWN, b"number,text,verdict,film\n1,good,fresh,caf\xc3"),
        OWN,
        "",
        "line 2: not UTF-8",
    ),
    "local table with an open quote": Case(
        "fetch",
        content(OWN, b'number,text,verdict,film\n1,"good,fresh,a\n2,bad,rotten,a\n'),
        OWN,
        "",
        "line 2: the quote that opens here does not close",
    ),
    "local table with a row of other fields": Case(
        "fetch",
        content(OWN, b"number,text,verdict,film\n1,good,fresh\n"),
        OWN,
        "",
        "line 2: got 3 fields; expected 4",
    ),
    "local table given twice": Case(
        "fetch",
        params(
            task__source={"kind": "local", "train": str(OWN), "validation": str(OWN), "test": None},
            evaluate__split="validation",
        ),
        OWN,
        "task.source",
        "the same rows as data/own/reviews.csv",
    ),
    "local table that is empty": Case("fetch", content(OWN, b""), OWN, "", "empty"),
    "local table with a duplicate column": Case(
        "fetch",
        content(OWN, b"text,text\na,b\n"),
        OWN,
        "",
        "expected unique column names",
    ),
    "a CSV file with the extension of Parquet": Case(
        "fetch",
        local_table("reviews.parquet", b"number,text,verdict,film\n1,good,fresh,a\n"),
        "data/own/reviews.parquet",
        "",
        "not Parquet, although its extension is .parquet",
    ),
    "a line that is not JSON": Case(
        "fetch",
        local_table("reviews.jsonl", b'{"text": "good"}\n{"text": good}\n'),
        "data/own/reviews.jsonl",
        "",
        "line 2: not JSON",
    ),
    "unknown extension": Case(
        "fetch", local_table("reviews.xlsx", b"PK"), "data/own/reviews.xlsx", "", "expected .csv, "
    ),
    "local model missing": Case("fetch", removed("data/own/tiny"), "data/own/tiny", "model.source.path", "not found"),
    "local model without weights": Case(
        "fetch",
        removed("data/own/tiny/model.safetensors"),
        "data/own/tiny",
        "",
        "no weights",
    ),
    "wrong hash": Case(
        "fetch",
        wheel,
        "",
        "task.source",
        f"synthetic-reviews==1.0: wrong hash: expected sha256 {'0' * 64}",
        {**PIP, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "wheels"},
    ),
    "no network": Case(
        "fetch",
        params(task__source=WHEEL),
        "",
        "task.source",
        "synthetic-reviews==1.0: cannot be downloaded",
        {**PIP, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"},
    ),
    # The raw data of prepare
    "missing column": Case(
        "prepare",
        replaced(REVIEWS, "number,text,verdict,film", "number,review,verdict,film"),
        OWN,
        "",
        "no column 'text' (task.text_columns",
    ),
    "unknown label": Case(
        "prepare",
        params(task__filter=None, task__labels=["rotten", "fresh"]),
        OWN,
        "",
        "row 7: unknown label 'plot'; expected one of task.labels",
    ),
    "duplicate ids": Case(
        "prepare",
        replaced(REVIEWS, "\n2,", "\n1,"),
        OWN,
        "",
        "rows 1 and 2: the same id '1' in column 'number' (task.id_column)",
    ),
    "empty split": Case(
        "prepare",
        separate_splits,
        "params.yaml",
        "task.source",
        "the validation split is empty",
    ),
    "split fraction that leaves nothing": Case(
        "prepare",
        params(task__split={"validation": 0.001, "test": 0.2, "group_by": "film"}),
        "params.yaml",
        "task.split",
        "the validation split is empty",
    ),
    # The inputs of the later commands
    "nothing prepared": Case("train", removed("data/prepared"), "data/prepared/stats.json", "", "run `dvc repro`"),
    "a profile without processes": Case(
        "train",
        content("docker/cpu/accelerate.yaml", "use_cpu: true\n"),
        "docker/cpu/accelerate.yaml",
        "",
        "expected an Accelerate profile with the key num_processes",
    ),
    "a node rank out of range": Case(
        "train",
        params(),
        "",
        "--node-rank",
        "expected one of 0 to 1, for --nodes 2",
        {"REPRISE_NODES": "2", "REPRISE_NODE_RANK": "2", "REPRISE_RENDEZVOUS": "localhost:29500"},
    ),
    "hosts without a rendezvous endpoint": Case(
        "train --nodes 2", params(), "", "--rendezvous", "expected HOST:PORT of host 0, for --nodes 2"
    ),
    "a rendezvous endpoint without a port": Case(
        "train --nodes 2 --rendezvous localhost",
        params(),
        "",
        "--rendezvous",
        "expected HOST:PORT, such as 10.0.0.1:29500",
    ),
    "several hosts with TPUs": Case(
        "train --nodes 2 --rendezvous localhost:29500",
        params(),
        "",
        "--nodes",
        "a TPU trains on one host",
        {"REPRISE_HARDWARE": "tpu"},
    ),
    "restarts on a TPU": Case(
        "train --max-restarts 1", params(), "", "--max-restarts", "start once", {"REPRISE_HARDWARE": "tpu"}
    ),
    "an engine that trains on one host only": Case(
        "train --nodes 2 --rendezvous localhost:29500",
        params(train__engine="pytorch"),
        "params.yaml",
        "train.engine",
        "expected accelerate",
    ),
    "a host without environment.json": Case(
        "train --nodes 2 --node-rank 1 --rendezvous localhost:29500",
        removed("environment.json"),
        "environment.json",
        "",
        "run `dvc repro environment prepare`",
    ),
    "no results": Case("summary", params(), "metrics/evaluate.json", "", "expected the result of `dvc repro`"),
    "an unknown choice": Case(
        "recipe task=nothing",
        params(),
        "compose",
        "task=nothing",
        "expected one of cola, custom, entities, few-nerd, go-emotions, mnli, mrpc, ",
    ),
    "a malformed recipe to be replaced": Case(
        "recipe task=mrpc", content("params.yaml", "seed: [\n"), "params.yaml", "", "line 2, column 1: not valid YAML"
    ),
}


@pytest.fixture(scope="module")
def input_dir(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The files of a repository before prepare, and earlier outputs of every stage. Read-only."""
    folder = tmp_path_factory.mktemp("input_dir")
    for name in ("docker", "recipes"):
        shutil.copytree(ROOT / name, folder / name)
    write_params(folder)
    for part in ("data/own/tiny", "models/pretrained/model", "models/pretrained/tokenizer"):
        shutil.copytree(tiny_model, folder / part)
    for table in (OWN, REVIEWS):
        (folder / table).parent.mkdir(parents=True, exist_ok=True)
        write_reviews(folder / table, films=20, reviews=6)
    for earlier in ("data/prepared/stats.json", "data/raw/earlier", "models/final/earlier", "environment.json"):
        (folder / earlier).parent.mkdir(parents=True, exist_ok=True)
        (folder / earlier).write_text("{}", encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, and "folder" for every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def check(case: Case, code: int, stderr: str) -> None:
    """Check the exit code 2, and that the message is one line with the parts of a case."""
    assert code == 2, stderr
    (line,) = stderr.splitlines()
    assert line.startswith(f"reprise: error: {case.file or case.key}")
    assert case.key in line
    assert case.text in line


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_bad_input_is_one_clear_line_and_changes_nothing(
    case: Case, input_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(input_dir, tmp_path / "input_dir"))
    case.arrange(folder)
    before = contents(folder)
    assert before, "no files to compare"
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # read when datasets was imported
    # The commands set these in this process; monkeypatch restores them.
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "REPRISE_HARDWARE": "cpu", **case.env}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, case.command.split())
    check(case, done.exit_code, done.stderr)
    assert contents(folder) == before


@pytest.mark.parametrize("name", {case.command.split()[0]: name for name, case in CASES.items()}.values())
def test_a_command_in_its_own_process_prints_the_same_line(
    name: str, input_dir: Path, tmp_path: Path, run: Run
) -> None:
    case, folder = CASES[name], Path(shutil.copytree(input_dir, tmp_path / "input_dir"))
    case.arrange(folder)
    before = contents(folder)
    done = run(folder, sys.executable, "-m", "reprise", *case.command.split(), code=2, env={**SOURCE, **case.env})
    check(case, done.returncode, done.stderr)
    assert contents(folder) == before
