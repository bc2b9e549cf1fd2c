"""The files of prepared data: names, shards and the statistics beside them."""

from pathlib import Path

from reprise.core.paths import PREPARED

SHARD_ROWS = 2**19  # rows of a prepared file; a split with more has several


def stats_path(prepared: Path = PREPARED) -> Path:
    """The description of the prepared data."""
    return prepared / "stats.json"


def split_file(split: str, prepared: Path = PREPARED, shard: int = 0, shards: int = 1) -> Path:
    """The Arrow file of a prepared split, or of one of its shards, counted from 0."""
    return prepared / (f"{split}.arrow" if shards == 1 else f"{split}-{shard:05d}-of-{shards:05d}.arrow")


def split_shards(split: str, prepared: Path = PREPARED) -> list[Path]:
    """The Arrow files of a prepared split in order, each but the last of SHARD_ROWS rows; [] where there is none."""
    return sorted(prepared.glob(f"{split}.arrow")) or sorted(prepared.glob(f"{split}-*-of-*.arrow"))
