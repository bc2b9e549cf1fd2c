"""A tiny model, tiny data, and a kitchen: a repository of its own in which the real pipeline cooks them in seconds."""

import copy
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from transformers import BertConfig, BertModel, BertTokenizer
from transformers.utils import logging

logging.disable_progress_bar()

ROOT = Path(__file__).parents[1]

GOOD = "bright funny moving tender clever warm gripping lively".split()
BAD = "dull empty clumsy tired lazy flat hollow tedious".split()
FILLER = "the film story plot cast scene music end is was and but with a very quite of its".split()

# A recipe as params.yaml says it, of the tiny model on the tiny data.
TINY_RECIPE: dict[str, Any] = {
    "seed": 42,
    "task": {
        "name": "reviews",
        "source": {"kind": "files", "train": "data/own/reviews.csv", "validation": None, "test": None},
        "text": ["text"],
        "label": "verdict",
        "labels": ["rotten", "fresh"],
        "metrics": ["accuracy", "f1"],
        "id": "number",
        "keep": {"verdict": ["rotten", "fresh"]},
        "split": {"validation": 0.2, "test": 0.2, "group_by": "film", "seed": 0},
        "limit": None,
    },
    "model": {"name": "tiny", "source": {"kind": "files", "path": "data/own/tiny"}},
    "train": {
        "epochs": 2,
        "batch_size": 16,
        "micro_batch_size": None,
        "learning_rate": 5e-3,
        "weight_decay": 0.01,
        "warmup": 0.1,
        "schedule": "linear",
        "max_grad_norm": 1.0,
        "max_length": 16,
        "precision": "fp32",
        "select": "best",
        "max_steps": None,
    },
    "evaluate": {"split": "test", "batch_size": 32, "bootstrap": 100},
}


def tiny_recipe(**changes: Any) -> dict[str, Any]:
    """TINY_RECIPE with changes by dotted key, such as `tiny_recipe(**{"train.epochs": 1})`."""
    recipe = copy.deepcopy(TINY_RECIPE)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = recipe
        for name in sections:
            section = section[name]
        section[last] = value
    return recipe


def write_params(folder: Path, **changes: Any) -> None:
    """Write the tiny recipe, changed, as params.yaml of `folder`."""
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(tiny_recipe(**changes), file)


def write_reviews(file: Path, films: int = 40, reviews: int = 6) -> None:
    """Write a CSV of made-up reviews: columns number, text, verdict, film; a few rows of another kind to leave out."""
    draw = random.Random(0)
    lines = ["number,text,verdict,film"]
    for film in range(films):
        for _ in range(reviews):
            verdict = draw.choice(["rotten", "fresh"])
            words = draw.choices(FILLER, k=draw.randint(2, 9)) + draw.choices(GOOD if verdict == "fresh" else BAD, k=2)
            draw.shuffle(words)
            lines.append(f'{len(lines)},"{" ".join(words)}, {len(lines)}",{verdict},film {film}')
        lines.append(f"{len(lines)},what happens in film {film},plot,film {film}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers of width 32 with a vocabulary of its own, in the Hub's layout; weights from a fixed seed."""
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
    with torch.no_grad():  # "pretrained": it knows which words are kind, so a few steps teach it the labels
        words = model.embeddings.word_embeddings.weight
        words[[vocabulary.index(word) for word in GOOD], :8] += 1
        words[[vocabulary.index(word) for word in BAD], :8] -= 1
    model.save_pretrained(folder)
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command as a user would type it: `run(folder, "dvc", "repro")`; text of both streams, exit code checked.

    `code=2` expects that exit code, `code=None` any. `env` adds to the environment.
    """

    def run(
        folder: Path, *command: str, code: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **(env or {})}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
        assert code is None or done.returncode == code, f"{command} in {folder}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, run: Run) -> Path:
    """A git repository with this working tree's files, the tiny model and the tiny data, nothing cooked. Do not change."""
    folder = tmp_path_factory.mktemp("kitchen")
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, listed):
        # What the default recipe made is not what the tiny one makes.
        if (ROOT / name).is_file() and not name.startswith(("metrics/", "plots/", "dvc.lock", "environment.json")):
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
    return folder


@pytest.fixture(scope="session")
def cooked(kitchen: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The kitchen after `dvc repro`, its results committed. Do not change; `served` gives a copy to work in."""
    folder = tmp_path_factory.mktemp("cooked") / "kitchen"
    shutil.copytree(kitchen, folder, symlinks=True)
    run(folder, "dvc", "repro")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "Cook it")
    return folder


@pytest.fixture
def served(cooked: Path, tmp_path: Path) -> Path:
    """A copy of the cooked kitchen, the test's own to change."""
    return Path(shutil.copytree(cooked, tmp_path / "kitchen", symlinks=True))
