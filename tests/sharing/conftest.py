"""A record of a synthetic exported folder, and the session that its model was trained in."""

from typing import Any

import pytest

from reprise.sharing.record import Record

SHA = {name: f"{number:064x}" for number, name in enumerate(("config.json", "model.safetensors", "params.yaml"), 1)}


@pytest.fixture
def record() -> Record:
    """A record of a folder with a model of two files."""
    run = {
        "environment": {
            "hardware": "cpu", "machine": "x86_64", "python": "3.11", "image": "reprise:cpu@sha256:" + "5" * 64,
            "locks": {"torch.txt": "6" * 64, "requirements.txt": "7" * 64},
        },
        "data": {"data/raw": "8" * 32 + ".dir", "data/own/reviews.csv": "9" * 64},
        "outputs": {"models/final": {"stage": "train", "md5": "a" * 32 + ".dir"}},
        "reference": None,
    }  # fmt: skip
    files = SHA | {"dvc.lock": "b" * 64, "provenance.json": "c" * 64}
    model = ["config.json", "model.safetensors"]
    return Record(1, "https://example.org/team/reviews.git", "d" * 40, [], run, model, files)


@pytest.fixture
def session() -> dict[str, Any]:
    """The last session in provenance.json."""
    return {
        "started": "2026-11-29T17:00:00+00:00", "processes": 1, "threads": 2, "precision": "fp32",
        "devices": ["cpu: AMD EPYC"],
    }  # fmt: skip
