"""Where each stage finds what the one before it left. dvc.yaml names the same places."""

from pathlib import Path

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
PRETRAINED = Path("models/pretrained")
FINAL = Path("models/final")
METRICS = Path("metrics")
PLOTS = Path("plots")
PREDICTIONS = Path("predictions")


def card(prepared: Path = PREPARED) -> Path:
    """The description of the prepared data."""
    return prepared / "card.json"


def rows_of(split: str, prepared: Path = PREPARED) -> Path:
    """The Arrow file of a prepared split."""
    return prepared / f"{split}.arrow"
