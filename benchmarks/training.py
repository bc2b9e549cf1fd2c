"""Training throughput of Reprise and of the baselines: the first part of `make bench`.

All run interleaved on two datasets; README.md describes what is measured and how.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import accuracy
import results
from interleave import Metrics, interleave, mean_length, progress, running, show, summarize
from reprise.core.errors import UserError
from reprise.core.paths import PRETRAINED
from workspaces import PAIRS, TASK, default_recipe, make_workspace, pair_reviews, prepare_pairs, reviews

NAMES = ("course", "course-bf16", "trainer", "trainer-grouped", "reprise-fp32", "reprise")
ROUNDS = 5
SLICE_SECONDS = 3.5
# On each dataset: baseline, metric, minimum.
GOALS = (
    ("reprise", "ratio_to_course", 3.0),
    ("reprise", "ratio_to_course_bf16", 2.0),
    ("reprise", "matrix_rate_fraction", 0.62),
    ("reprise-fp32", "ratio_to_course", 1.3),
)


def main() -> None:
    """Measure on both datasets, print a table for each, and write the results."""
    console, recipe = Console(highlight=False), default_recipe()
    content: dict[str, Any] = {"machine": results.machine(), "data": {}}
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        scratch = Path(name)
        paired = recipe | {"task": PAIRS}
        pairs = make_workspace(scratch / "pairs", paired, Path(), [PRETRAINED])
        prepare_pairs(pairs, pair_reviews(reviews()))
        for number, (data, used, source) in enumerate([(TASK, recipe, Path()), (PAIRS["name"], paired, pairs)]):
            print(f"bench: {data}: {len(NAMES)} baselines load and warm up", flush=True)
            with running(NAMES, scratch / f"{data}-baselines", used, source, "cpu") as runners:
                report = progress(data, ROUNDS, more=ROUNDS * (1 - number))
                slices, rates = interleave(runners, ROUNDS, SLICE_SECONDS, torch.device("cpu"), report)
            found = summarize(slices, rates, mean_length(source))
            content["data"][data] = {"matrix_rate": rates, "baselines": found, "goals": check_goals(found)}
            show(console, f"Training on {data}, {recipe['train']['batch_size']} examples per step", found, rates)
    results.write("training", content)
    for data, measured in content["data"].items():
        for goal in measured["goals"]:
            metric, verdict = goal["metric"].replace("_", " "), "met" if goal["met"] else "not met"
            console.print(f"{data}: {goal['baseline']}: {metric} {goal['reached']:.2f}, goal {goal['goal']}: {verdict}")
    if "accuracy" in results.read():
        accuracy.show(console, results.read()["accuracy"])


def check_goals(found: dict[str, Metrics]) -> list[dict[str, Any]]:
    """Return the goals on a dataset and whether they were met."""
    return [
        {
            "baseline": name,
            "metric": metric,
            "goal": minimum,
            "reached": found[name][metric],
            "met": found[name][metric] >= minimum,
        }
        for name, metric, minimum in GOALS
    ]


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
