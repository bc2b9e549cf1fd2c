"""How fast Reprise trains, beside what people would run instead: the first part of `make bench`.

All contenders take turns in one run, on two data sets; README.md says what is measured and how.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import quality
import results
from folders import PAIRS, TASK, default_recipe, lay_out, pairs_of, prepare_pairs, reviews
from race import Figures, mean_length, progress, race, running, show, summarize
from reprise.core.errors import UserError
from reprise.core.paths import PRETRAINED

NAMES = ("course", "course-bf16", "trainer", "trainer-grouped", "reprise-fp32", "reprise")
ROUNDS = 5
TURN_SECONDS = 3.5
# On each data set: the contender, its figure, what it must reach.
GOALS = (
    ("reprise", "ratio_to_course", 3.0),
    ("reprise", "ratio_to_course_bf16", 2.0),
    ("reprise", "share_of_matrix_rate", 0.62),
    ("reprise-fp32", "ratio_to_course", 1.3),
)


def main() -> None:
    """Measure on both data sets, print a table of each, and write the results."""
    console, recipe = Console(highlight=False), default_recipe()
    content: dict[str, Any] = {"machine": results.machine(), "data": {}}
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        scratch = Path(name)
        paired = recipe | {"task": PAIRS}
        pairs = lay_out(scratch / "pairs", paired, Path(), [PRETRAINED])
        prepare_pairs(pairs, pairs_of(reviews()))
        for number, (data, about, place) in enumerate([(TASK, recipe, Path()), (PAIRS["name"], paired, pairs)]):
            print(f"bench: {data}: {len(NAMES)} contenders load and warm up", flush=True)
            with running(NAMES, scratch / f"{data}-contenders", about, place, "cpu") as runners:
                more = ROUNDS * (1 - number)
                turns, rates = race(runners, ROUNDS, TURN_SECONDS, torch.device("cpu"), progress(data, ROUNDS, more))
            found = summarize(turns, rates, mean_length(place))
            content["data"][data] = {"matrix_rate": rates, "contenders": found, "goals": judge(found)}
            show(console, f"Training on {data}, {recipe['train']['batch_size']} examples a step", found, rates)
    results.write("training", content)
    for data, told in content["data"].items():
        for goal in told["goals"]:
            figure, verdict = goal["figure"].replace("_", " "), "met" if goal["met"] else "not met"
            console.print(
                f"{data}: {goal['contender']}: {figure} {goal['reached']:.2f}, goal {goal['least']}: {verdict}"
            )
    if "quality" in results.read():
        quality.show(console, results.read()["quality"])


def judge(found: dict[str, Figures]) -> list[dict[str, Any]]:
    """Our goals on a data set, and whether they were met."""
    return [
        {
            "contender": name,
            "figure": figure,
            "least": least,
            "reached": found[name][figure],
            "met": found[name][figure] >= least,
        }
        for name, figure, least in GOALS
    ]


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
