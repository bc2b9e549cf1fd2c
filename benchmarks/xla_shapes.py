"""How many programs XLA compiles, and how long a step takes then: one length, four lengths, a length for every batch.

`make bench-xla` trains the first steps of params.yaml's recipe with each and prints the table of docker/tpu/README.md.
A process cannot hold many more programs of XLA's CPU device than the third row compiles in 20 steps.
"""

import os
import sys

import numpy as np
from datasets import Dataset

from reprise.outputs import read_json
from reprise.places import METRICS, rows_of
from reprise.recipe import as_plain, read_recipe
from reprise.reproduce.backends import find_backends, trained_elsewhere

STEPS = int(os.environ.get("STEPS", "20"))
COLUMNS = ("steps", "shapes", "compilations", "median_step_seconds", "train_seconds", "padding_share")


def main() -> None:
    """Train with each choice of buckets and print a row for it."""
    backends = find_backends()
    if "xla" not in backends:
        sys.exit("bench: expected XLA's environment: make setup VENV=.venv-xla LOCKS=docker/tpu")
    longest = max(int(np.max(Dataset.from_file(str(rows_of(split)))["length"])) for split in ("train", "validation"))
    choices = {
        f"fixed: {longest}": [longest],
        "four buckets: auto": "auto",
        "dynamic: a length for every batch": list(range(1, longest + 1)),
    }
    recipe = as_plain(read_recipe())
    rows = [["train.buckets", *(column.replace("_", " ") for column in COLUMNS)], ["---", *("---:" for _ in COLUMNS)]]
    for name, buckets in choices.items():
        print(f"bench: {name}, {STEPS} steps", flush=True)
        recipe["train"] |= {"buckets": buckets, "max_steps": STEPS, "checkpoint_every": STEPS + 1}
        with trained_elsewhere(recipe, backends["xla"]) as folder:
            speed = read_json(folder / METRICS / "speed.json") | {"steps": STEPS}
        rows.append([name, *(f"{speed[column]:g}" for column in COLUMNS)])
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
