"""File names of the prepared data: Arrow shards of each split and the statistics beside them.

With windows, the shards hold the examples, and those in the folder windows/ hold what the model reads.
"""

from pathlib import Path

from reprise.core.paths import PREPARED

SHARD_ROWS = 2**19  # maximum rows per Arrow file; larger splits are sharded
WINDOWS = "windows"  # the folder of what the model reads of long texts


def stats_path(prepared: Path = PREPARED) -> Path:
    """Return the path of the statistics of the prepared data."""
    return prepared / "stats.json"


def split_file(split: str, prepared: Path = PREPARED, shard: int = 0, shards: int = 1) -> Path:
    """Return the path of a prepared split, or of shard number `shard` (from 0) of `shards`."""
    return prepared / (f"{split}.arrow" if shards == 1 else f"{split}-{shard:05d}-of-{shards:05d}.arrow")


def split_shards(split: str, prepared: Path = PREPARED) -> list[Path]:
    """Return the Arrow files of a prepared split in order.

    Returns:
        The files, each but the last of SHARD_ROWS rows; an empty list if the split does not exist.
    """
    return sorted(prepared.glob(f"{split}.arrow")) or sorted(prepared.glob(f"{split}-*-of-*.arrow"))


def input_shards(split: str, prepared: Path = PREPARED) -> list[Path]:
    """Return the Arrow files of a split that the model reads: of its windows, or of the examples themselves."""
    return split_shards(split, prepared / WINDOWS) or split_shards(split, prepared)
