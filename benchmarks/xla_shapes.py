"""Count XLA's compilations and time a step with one, four and dynamic batch lengths.

`make bench-xla` trains the first steps of the recipe in params.yaml with each and prints the table of
docker/tpu/README.md.
"""

import os
import sys

from reprise.commands.backends import find_backends, train_in_tempdir
from reprise.core.config import to_dict
from reprise.core.files import read_json
from reprise.core.paths import METRICS
from reprise.core.validation import read_recipe

STEPS = int(os.environ.get("STEPS", "60"))
# With dynamic lengths, a process cannot hold many more programs of XLA's CPU device than these steps compile.
DYNAMIC_STEPS = min(STEPS, 20)
COLUMNS = ("steps", "num_bucket_lengths", "compilations", "median_step_seconds", "train_seconds", "padding_fraction")


def main() -> None:
    """Train with each set of bucket lengths and print one row for it."""
    backends = find_backends()
    if "xla" not in backends:
        sys.exit("bench: expected XLA's environment: make setup VENV=.venv-xla LOCKS=docker/tpu")
    recipe = to_dict(read_recipe())
    longest = recipe["train"]["max_length"]
    choices = {
        f"fixed: {longest}": ([longest], STEPS),
        "four buckets: auto": ("auto", STEPS),
        "dynamic: one length per batch": (list(range(1, longest + 1)), DYNAMIC_STEPS),
    }
    rows = [
        ["train.bucket_lengths", *(column.replace("_", " ") for column in COLUMNS)],
        ["---", *("---:" for _ in COLUMNS)],
    ]
    for name, (buckets, steps) in choices.items():
        print(f"bench: {name}, {steps} steps", flush=True)
        recipe["train"] |= {"bucket_lengths": buckets, "max_steps": steps}
        recipe["run"] |= {"save_steps": steps + 1}
        with train_in_tempdir(recipe, backends["xla"]) as folder:
            speed = read_json(folder / METRICS / "speed.json") | {"steps": steps}
        rows.append([name, *(f"{speed[column]:g}" for column in COLUMNS)])
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
