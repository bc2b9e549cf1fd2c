"""Paths of the outputs of each stage, the same as in dvc.yaml."""

from pathlib import Path

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
PRETRAINED = Path("models/pretrained")
PREFLIGHT = Path("preflight.json")
FINAL_MODEL = Path("models/final")
METRICS = Path("metrics")
PLOTS = Path("plots")
PREDICTIONS = Path("predictions")
