"""Synthetic runs: all files of a commit with results, with random numbers."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from reprise.core.files import json_sha256
from reprise.tasks.curves import (
    calibration_table,
    confusion_pairs,
    empty_plots,
    expected_calibration_error,
    per_class_table,
    precision_recall_table,
)

ROOT = Path(__file__).parents[1]
RUN = {"models/final": "1" * 32}  # as `lock` has it
DEVICES = ("cpu: AMD EPYC", "NVIDIA H100 80GB HBM3")


def files(
    recipe: Mapping[str, Any],
    *,
    steps: int = 642,
    rows: int = 1273,
    constant_prediction: bool = False,
    hardware: str = "cpu",
    code: str = "0" * 32,
) -> dict[Path, bytes]:
    """Return the files that a run of a recipe leaves in git, by path.

    The accuracy is a function of the logarithm of the learning rate, plus noise drawn from the seed.

    Args:
        recipe: a classification recipe, nested as in params.yaml.
        steps: number of training steps.
        rows: rows of the evaluation split.
        constant_prediction: predict the first label for every row.
        hardware: cpu or cuda.
        code: the MD5 of all code.
    """
    train = recipe["train"]
    draw = np.random.default_rng(
        [recipe["seed"], round(1e7 * train["learning_rate"]), train["epochs"], train["batch_size"]]
    )
    labels = list(map(str, recipe["task"]["labels"]))
    positive = labels.index(recipe["task"]["positive_label"]) if len(labels) == 2 else None
    skill = 2.2 - 1.1 * abs(np.log10(train["learning_rate"]) + 4) + draw.normal(0, 0.05)
    references = draw.integers(0, len(labels), rows)
    logits = draw.normal(0, 1, (rows, len(labels)))
    logits[np.arange(rows), references] += max(skill, 0.3)
    logits[:, 0] += 100.0 * constant_prediction
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictions = probabilities.argmax(axis=1)
    right = predictions == references
    score = float(right.mean())
    half = float(1.96 * right.std() / np.sqrt(rows))
    metrics = recipe["task"]["metrics"]
    calibrated = calibration_table(probabilities, references)
    contents = {
        Path(path): content if isinstance(content, bytes) else json.dumps(content).encode()
        for path, content in {
            "params.yaml": in_yaml(recipe),
            "environment.json": {},
            "metrics/train.json": {
                "best_epoch": 1, "steps": steps, "train_loss": 0.3,
                "validation": {name: score - 0.02 + draw.normal(0, 0.004) for name in metrics},
            },
            "metrics/speed.json": signed({
                "train_seconds": round(steps * 0.26 * draw.uniform(0.9, 1.1), 2), "median_step_seconds": 0.26,
                "examples_per_second": round(123 * draw.uniform(0.9, 1.1), 1), "tokens_per_second": 3300.0,
                "padding_fraction": 0.025, "peak_memory_mib": 2299, "processes": 1, "threads": 2,
            }),
            "metrics/provenance.json": signed(provenance(hardware, f"{draw.integers(2**63):064x}")),
            "metrics/evaluate.json": {
                "split": recipe["evaluate"]["split"], "num_examples": rows,
                **dict.fromkeys(metrics, score),
                "ci95": {name: {"low": score - half, "high": score + half} for name in metrics},
                "ci95_method": dict.fromkeys(metrics, "Wilson"),
                "baseline": dict.fromkeys(metrics, 1 / len(labels)),
                "constant_prediction": constant_prediction,
                "ece": expected_calibration_error(calibrated),
            },
            "plots/train.csv": in_csv(curve(train, steps, draw)),
            "plots/validation.csv": in_csv(epochs(recipe, score, draw)),
            "plots/confusion.csv": in_csv(confusion_pairs(predictions, references, labels)),
            "plots/per_class.csv": in_csv(per_class_table(predictions, references, labels)),
            "plots/precision_recall.csv": in_csv(
                precision_recall_table(probabilities, references, labels, positive=positive)
            ),
            "plots/calibration.csv": in_csv(calibrated),
            "plots/residuals.csv": in_csv(empty_plots()["residuals.csv"]),
        }.items()
    }  # fmt: skip
    return contents | {Path("dvc.lock"): in_yaml(lock(recipe, code, contents))}


def curve(train: Mapping[str, Any], steps: int, draw: np.random.Generator) -> pd.DataFrame:
    """Return plots/train.csv: a decreasing loss, a linear schedule, gradient norms with peaks."""
    step = np.arange(1, steps + 1)
    warm = max(int(train["warmup_ratio"] * steps), 1)
    return pd.DataFrame(
        {
            "step": step,
            "epoch": 1 + (step - 1) * train["epochs"] // steps,
            "learning_rate": train["learning_rate"] * np.minimum((step - 1) / warm, (steps - step) / steps),
            "loss": 0.2 + 0.5 * np.exp(-3 * step / steps) + draw.normal(0, 0.03, steps),
            "grad_norm": draw.gamma(4, 1.5, steps),
        }
    )


def epochs(recipe: Mapping[str, Any], score: float, draw: np.random.Generator) -> pd.DataFrame:
    """Return plots/validation.csv; the metric that selects the epoch is the last column."""
    count = recipe["train"]["epochs"]
    table = {"epoch": np.arange(1, count + 1), "loss": draw.uniform(0.3, 0.5, count)}
    scores = {name: score - draw.uniform(0, 0.03, count) for name in reversed(recipe["task"]["metrics"])}
    return pd.DataFrame({**table, **scores})


def lock(recipe: Mapping[str, Any], code: str, contents: Mapping[Path, bytes] | None = None) -> dict[str, Any]:
    """Return dvc.lock for the dependencies and outputs in dvc.yaml, with the MD5 of those that have a content."""
    digests = {
        path.as_posix(): hashlib.md5(content, usedforsecurity=False).hexdigest()
        for path, content in (contents or {}).items()
    }
    pipeline = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    stages: dict[str, Any] = {}
    made: set[str] = set()  # outputs of the stages so far
    for name, stage in pipeline["stages"].items():
        read = {key: under(recipe, key.split(".")) for key in stage.get("params", []) if isinstance(key, str)}
        outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
        stages[name] = {
            "cmd": stage["cmd"],
            "deps": [
                {
                    "path": path,
                    "hash": "md5",
                    "md5": digests.get(path, "1" * 32) if path in made else code,
                    "size": 4711,
                }
                for path in stage.get("deps", [])
            ],
            "params": {"params.yaml": read},
            "outs": [
                {"path": path, "hash": "md5", "md5": digests.get(path, "1" * 32), "size": 4711}
                for out in outs
                for path in paths(out)
            ],
        }
        made |= {path for out in outs for path in paths(out)}
    return {"schema": "2.0", "stages": stages}


def paths(out: str | Mapping[str, Any]) -> Sequence[str]:
    """Return the path of an output in dvc.yaml, which is a string or a mapping with options."""
    return [out] if isinstance(out, str) else list(out)


def under(nested: Any, keys: Sequence[str]) -> Any:
    """Return the value in nested mappings under a sequence of keys."""
    for key in keys:
        nested = nested[key]
    return nested


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys by which `read_recorded` knows the run and finds an edit."""
    content = {"run": RUN} | dict(content)
    return content | {"sha256": json_sha256(content)}


def provenance(hardware: str, weights: str) -> dict[str, Any]:
    """Return metrics/provenance.json of a run with one session."""
    packages = {"torch": "2.13.0", "transformers": "5.23.0", "accelerate": "1.15.0", "datasets": "5.2.0"}
    return {
        "sessions": [
            {
                "started": "2026-11-25T17:00:28+00:00", "commit": "c" * 40, "dirty": False,
                "image": None if hardware == "cpu" else f"reprise:{hardware}",
                "environment": {
                    "hardware": hardware, "machine": "x86_64", "python": "3.11",
                    "locks": {"torch.txt": "7" * 64, "requirements.txt": "8" * 64}, "packages": packages,
                },
                "devices": [DEVICES[hardware != "cpu"]], "cpu_capability": "AVX512", "driver": None,
                "processes": 1, "threads": 2, "precision": "bf16",
                "deterministic": {"algorithms": True}, "from_step": 0,
            }
        ],
        "results": [
            {
                "data": {split: split[0] * 64 for split in ("train", "validation", "test")},
                "pretrained": {"model.safetensors": "5" * 64}, "data_order_sha256": ["6" * 64],
                "weights": {"model.safetensors": weights},
            }
        ],
    }  # fmt: skip


def in_yaml(content: Any) -> bytes:
    """Return content as a YAML file."""
    written = io.BytesIO()
    YAML(typ="safe").dump(content, written)
    return written.getvalue()


def in_csv(table: pd.DataFrame) -> bytes:
    """Return a table as a CSV file."""
    return table.to_csv(index=False).encode()
