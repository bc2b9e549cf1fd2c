"""Datasets larger than memory: time and memory of preparing and training, by rows.

`python data.py ROWS …`. The kernel limits the private memory of each process to LIMIT_MB.
"""

import functools
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from transformers import BertConfig
from transformers.utils import logging

import results
from overhead import Metrics, time_command, titled_table
from reprise.core.config import to_dict
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.core.validation import read_recipe
from reprise.data.format import stats_path
from synthetic import write_model
from workspaces import Recipe, make_workspace

LIMIT_MB = 2000
FILES = 20  # raw Parquet files
BATCH_SIZE = 4096  # so that an epoch of ten million rows takes minutes; the plan is measured with 32
HELD_OUT = 2000  # rows for validation, and as many for testing
LEFT = 5  # steps left in the epoch when training is interrupted
SMALL_BERT = BertConfig(
    vocab_size=5000, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
)
# Texts with a label, an id and an author each.
NOTES: Recipe = {
    "name": "notes",
    "source": {"kind": "local", "train": "data/own/notes", "validation": None, "test": None},
    "text_columns": ["note"],
    "label_column": "mood",
    "labels": ["low", "high"],
    "positive_label": "high",
    "metrics": ["accuracy"],
    "id_column": "number",
    "filter": None,
    "max_examples": None,
    "submission": None,
}
TRAIN: Recipe = {
    "epochs": 1,
    "batch_size": BATCH_SIZE,
    "max_length": 64,
    "precision": "fp32",
    "keep_epoch": "last",
}
RUN: Recipe = {"save_steps": 1_000_000, "trackers": []}  # save only when interrupted and at the end of the epoch


def main(sizes: list[int]) -> None:
    """Measure, print the table, and write the results."""
    console = Console(highlight=False)
    logging.disable_progress_bar()
    measured = results.read().get("data", {}).get("rows", {})
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="reprise-bench-") as scratch:
            measured[str(rows)] = measure(Path(scratch) / "source", rows)
        results.write("data", {"machine": results.machine(), "limit_mb": LIMIT_MB, "rows": measured})
    show(console, {str(rows): measured[str(rows)] for rows in sizes})


def measure(folder: Path, rows: int) -> dict[str, Metrics]:
    """Measure preparing `rows` rows, training an epoch on them, evaluating and planning.

    Training is interrupted LEFT steps before the end of the epoch and then resumed.
    """
    fraction = HELD_OUT / rows
    task = NOTES | {"split": {"validation": fraction, "test": fraction, "group_by": "author", "seed": 0}}
    recipe: Recipe = to_dict(read_recipe())
    make_workspace(folder, recipe | {"task": task, "train": recipe["train"] | TRAIN, "run": RUN}, Path(), [])
    words = write_model(SMALL_BERT, folder / PRETRAINED / "model", folder / PRETRAINED / "tokenizer")
    print(f"bench: write {rows} rows to {FILES} Parquet files", flush=True)
    write_notes(folder / RAW / "all", words, rows)

    run = functools.partial(time_command, folder, limit_mb=LIMIT_MB)
    print(f"bench: prepare {rows} rows", flush=True)
    metrics = {"prepare": run("prepare")}
    metrics["prepare"]["prepared_mb"] = sum(file.stat().st_size for file in (folder / PREPARED).iterdir()) / 1e6
    train_rows = read_json(stats_path(folder / PREPARED))["splits"]["train"]["num_examples"]
    print(f"bench: train on {train_rows} rows, up to the last steps of the epoch", flush=True)
    metrics["fresh"] = run("train", str(-(-train_rows // BATCH_SIZE) - LEFT), code=128 + signal.SIGTERM)
    print("bench: resume", flush=True)
    metrics["resumed"] = run("train")
    print(f"bench: evaluate, and plan an epoch of {rows} rows", flush=True)
    return metrics | {"evaluate": run("evaluate"), "plan": run("plan", str(rows))}


def write_notes(folder: Path, words: list[str], rows: int) -> None:
    """Write FILES files of notes, ten tokens on average, fifty per author, from a fixed seed."""
    folder.mkdir(parents=True)
    known, random = np.array(words), np.random.default_rng(0)
    for file, numbers in enumerate(np.array_split(np.arange(rows), FILES)):
        lengths = random.normal(8, 2, len(numbers)).clip(5, 30).astype(int)  # the tokenizer adds [CLS] and [SEP]
        drawn = known[random.integers(0, len(known), lengths.sum())]
        notes = {
            "number": numbers,
            "note": [" ".join(note) for note in np.split(drawn, np.cumsum(lengths)[:-1])],
            "mood": random.choice(NOTES["labels"], len(numbers)),
            "author": random.integers(0, max(rows // 50, 1), len(numbers)),
        }
        pq.write_table(pa.table(notes), folder / f"notes-{file:02d}.parquet")


def show(console: Console, measured: dict[str, dict[str, Metrics]]) -> None:
    """Print time and memory by the number of rows."""
    columns = {"seconds": "seconds", "CPU s": "cpu_seconds", "peak MB": "peak_mb", "private MB": "own_mb"}
    table = titled_table(console, "Preparing", "rows", "rows/s", *columns, "prepared MB")
    for rows, metrics in measured.items():
        prepare = metrics["prepare"]
        cells = [int(rows) / prepare["seconds"], *(prepare[name] for name in columns.values()), prepare["prepared_mb"]]
        table.add_row(f"{int(rows):,}", *(f"{number:,.0f}" for number in cells))
    console.print(table)
    columns = {"first step s": "first_step_seconds", "first step CPU s": "first_step_cpu_seconds"} | columns
    for name, title in {"fresh": "Training up to the end of an epoch", "resumed": "Resumed training"}.items():
        table = titled_table(console, title, "rows", *columns)
        for rows, metrics in measured.items():
            table.add_row(f"{int(rows):,}", *(f"{metrics[name][column]:,.1f}" for column in columns.values()))
        console.print(table)
    title = "Planning an epoch in steps of 32"
    table = titled_table(console, title, "rows", "last step s", "all steps s", "peak MB")
    for rows, metrics in measured.items():
        plan = metrics["plan"]
        times = (f"{plan[name]:.2f}" for name in ("last_step_seconds", "work_seconds"))
        table.add_row(f"{int(rows):,}", *times, f"{plan['peak_mb']:,.0f}")
    console.print(table)


if __name__ == "__main__":
    try:
        main([int(rows) for rows in sys.argv[1:]])
    except UserError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
