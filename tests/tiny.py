"""A tiny recipe and synthetic reviews, which the pipeline trains on in seconds."""

import copy
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reprise.core.config import Checks, to_dict

# `run(folder, "dvc", "repro", code=0, env={})`: the fixture of conftest.py that runs a command.
Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[1]


def committed(name: str) -> str:
    """Return a file of the last commit; the working tree may have later edits and results."""
    return subprocess.run(
        ["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout


# Arguments of `reprise seeds` for a worse recipe than the tiny one.
WORSE = ("-S", "train.learning_rate=1e-5")

# Prefix of a command: run it in a new network namespace, whose only interface (loopback) is down.
NO_NETWORK = ("unshare", "--user", "--map-root-user", "--net")
# In that namespace, git sees the files of another user; this makes it trust them.
OWNER = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}

GOOD = ["bright", "funny", "moving", "tender", "clever", "warm", "gripping", "lively"]
BAD = ["dull", "empty", "clumsy", "tired", "lazy", "flat", "hollow", "tedious"]
FILLER = ["the", "film", "story", "plot", "cast", "scene", "music", "end", "is", "was", "and", "but", "very"]

# The content of params.yaml for the tiny model on the tiny data.
TINY_RECIPE: dict[str, Any] = {
    "seed": 42,
    "task": {
        "name": "reviews",
        "source": {"kind": "local", "train": "data/own/reviews.csv", "validation": None, "test": None},
        "text_columns": ["text"],
        "label_column": "verdict",
        "labels": ["rotten", "fresh"],
        "positive_label": "fresh",
        "metrics": ["accuracy", "f1"],
        "id_column": "number",
        "filter": {"verdict": ["rotten", "fresh"]},
        "split": {
            "validation": 0.2,
            "test": 0.2,
            "group_by": "film",
            "group_texts": True,
            "stratify": False,
            "order_by": None,
            "folds": None,
            "seed": 0,
        },
        "max_examples": None,
        "submission": None,
        "multi_label": None,
        "token_classification": None,
    },
    "model": {"name": "tiny", "source": {"kind": "local", "path": "data/own/tiny"}},
    "train": {
        "engine": "accelerate",
        "epochs": 2,
        "batch_size": 16,
        "micro_batch_size": None,
        "learning_rate": 5e-3,
        "weight_decay": 0.01,
        "warmup_ratio": 0.1,
        "lr_scheduler": "linear",
        "max_grad_norm": 1.0,
        "max_length": 16,
        "bucket_lengths": "auto",
        "precision": "fp32",
        "threads": None,
        "lora": None,
        "freeze": None,
        "layer_decay": None,
        "dropout": None,
        "num_hidden_layers": None,
        "gradient_checkpointing": False,
        "loss": None,
        "calibration": None,
        "keep_epoch": "best",
        "early_stopping": None,
        "distill": None,
        "max_steps": None,
        "fold": None,
    },
    "evaluate": {"split": "test", "batch_size": 32, "bootstrap_resamples": 100},
    "run": {"save_steps": 50, "trackers": []},
    "data": {"windows": None, "checks": to_dict(Checks())},
}


def tiny_recipe(**changes: Any) -> dict[str, Any]:
    """Return TINY_RECIPE with changes by dotted key, such as `tiny_recipe(**{"train.epochs": 1})`."""
    recipe = copy.deepcopy(TINY_RECIPE)
    if "task.labels" in changes:  # the second of two labels is the positive one, unless the test says otherwise
        labels = changes["task.labels"] or []
        changes = {"task.positive_label": str(labels[1]) if len(labels) == 2 else None, **changes}
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = recipe
        for name in sections:
            section = section[name]
        section[last] = value
    return recipe


def write_params(folder: Path, **changes: Any) -> None:
    """Write the tiny recipe with changes by dotted key to params.yaml in `folder`."""
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(tiny_recipe(**changes), file)


def write_reviews(file: Path, films: int = 40, reviews: int = 6) -> None:
    """Write synthetic reviews as CSV: columns number, text, verdict, film; one row per film has the verdict plot."""
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


def flip_a_bit(file: Path) -> None:
    """Change one bit in the middle of a file as a rotten disk does: size, times and mode stay the same."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    write_unnoticed(file, bytes(content))


def write_unnoticed(file: Path, content: bytes) -> None:
    """Write other content of the same size to a file; its times and mode stay the same."""
    status = file.stat()
    assert len(content) == status.st_size
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(status.st_mode)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
