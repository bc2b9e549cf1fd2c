"""More rows than memory holds: what preparing and training on sharded Parquet take, by the number of rows.

`python data.py ROWS …`. Every process may have no more memory of its own than LIMIT_MB: beyond, it fails.
"""

import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from transformers import BertConfig
from transformers.utils import logging

import results
from around import Figures, clock
from folders import Recipe, default_recipe, lay_out
from made_up import write_model
from reprise.places import PRETRAINED, RAW

LIMIT_MB = 2000
FILES = 20  # of raw Parquet
BATCH_SIZE = 4096  # an epoch of ten million rows is over in minutes; the plan is measured with 32
HELD_OUT = 2000  # rows for validation, and as many for testing
LEFT = 5  # steps that are left of the epoch where training is stopped
SMALL_BERT = BertConfig(
    vocab_size=5000, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
)
NOTES: Recipe = {
    "name": "notes",
    "source": {"kind": "files", "train": "data/own/notes", "validation": None, "test": None},
    "text": ["note"],
    "label": "mood",
    "labels": ["low", "high"],
    "metrics": ["accuracy"],
    "id": "number",
    "keep": None,
    "limit": None,
    "submission": None,
}


def main(sizes: list[int]) -> None:
    """Measure, print the table, and write the results."""
    console = Console(highlight=False)
    logging.disable_progress_bar()
    measured = results.read().get("data", {}).get("rows", {})
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="reprise-bench-") as scratch:
            measured[str(rows)] = measure(Path(scratch) / "place", rows)
        results.write("data", {"machine": results.machine(), "limit_mb": LIMIT_MB, "rows": measured})
    show(console, {rows: measured[str(rows)] for rows in sizes})


def measure(folder: Path, rows: int) -> dict[str, Figures]:
    """What preparing so many rows, an epoch of training on them and a part of its plan take.

    Training is stopped LEFT steps before the end of its epoch and goes on from there.
    """
    share = HELD_OUT / rows
    split = {"validation": share, "test": share, "group_by": "author", "seed": 0}
    defaults = default_recipe()
    train = {
        "epochs": 1, "batch_size": BATCH_SIZE, "max_length": 64, "precision": "fp32",
        "checkpoint_every": 1_000_000, "select": "last",
    }  # fmt: skip
    recipe = defaults | {"task": NOTES | {"split": split}, "train": defaults["train"] | train}
    lay_out(folder, recipe, Path(), [])
    words = write_model(SMALL_BERT, folder / PRETRAINED / "model", folder / PRETRAINED / "tokenizer")
    print(f"bench: write {rows} rows as Parquet", flush=True)
    write_notes(folder / RAW / "all", words, rows)
    run = functools.partial(clock, folder, limit_mb=LIMIT_MB)
    print(f"bench: prepare {rows} rows", flush=True)
    figures = {"prepare": run("prepare")}
    shutil.rmtree(folder / RAW)
    print(f"bench: train on {rows} rows, to the last steps of the epoch", flush=True)
    steps = -(-(rows - 2 * HELD_OUT) // BATCH_SIZE)
    figures["fresh"] = run("train", str(steps - LEFT), code=143)
    print("bench: go on from there", flush=True)
    figures["resumed"] = run("train")
    figures["evaluate"] = run("evaluate")
    figures["plan"] = run("plan", str(rows))
    return figures


def write_notes(folder: Path, words: list[str], rows: int) -> None:
    """Write FILES Parquet files of notes of ten tokens on average, by authors with fifty each, always the same ones."""
    folder.mkdir(parents=True)
    known, random = np.array(words), np.random.default_rng(0)
    for number, part in enumerate(np.array_split(np.arange(rows), FILES)):
        lengths = random.normal(8, 2, len(part)).clip(5, 30).astype(int)
        drawn = known[random.integers(0, len(known), lengths.sum())]
        borders = np.cumsum(lengths)[:-1]
        notes = {
            "number": part,
            "note": [" ".join(note) for note in np.split(drawn, borders)],
            "mood": random.choice(NOTES["labels"], len(part)),
            "author": random.integers(0, max(rows // 50, 1), len(part)),
        }
        pq.write_table(pa.table(notes), folder / f"notes-{number:02d}.parquet")


if __name__ == "__main__":
    pass
