"""Where each stage finds what the one before it left. dvc.yaml names the same places."""

from pathlib import Path

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
PRETRAINED = Path("models/pretrained")
FINAL_MODEL = Path("models/final")
METRICS = Path("metrics")
PLOTS = Path("plots")
PREDICTIONS = Path("predictions")
