"""Other kinds of tasks on the default corpus: `make bench-kinds`.

Three tasks are made of its reviews: which subjects a review has (several labels), where it names its film (labels of
words), and whether most critics like a film (all reviews of a film as one long text, truncated and in windows). Each is
trained with SEEDS seeds; the first two are timed, interleaved, beside transformers' Trainer.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

import results
from interleave import interleave, mean_length, progress, ratio, running
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import METRICS, PRETRAINED, RAW
from reprise.data.format import stats_path
from workspaces import Recipe, default_recipe, make_workspace

SEEDS = int(os.environ.get("SEEDS", "3"))
ROUNDS, SLICE_SECONDS = 5, 3.5
NAMES = ("trainer", "trainer-bf16", "trainer-grouped", "reprise")
GOAL = 1.5  # of trainer-bf16
# The words of a subject; they are masked, so that a model has to read the rest.
SUBJECTS = {
    "comedy": r"comed\w*|funny|laughs?|humor\w*|hilarious",
    "romance": r"romance|romantic|love",
    "horror": r"horror|scary|thriller|suspense\w*",
    "action": r"action",
    "story": r"stor(?:y|ies)|plot|script|screenplay",
    "acting": r"actors?|acting|performances?|cast|actress",
}
NO_SUBJECT_EVERY = 3  # of the reviews without a subject, one in three is kept

Rows = list[dict[str, Any]]


def subjects(reviews: pd.DataFrame) -> Rows:
    """Return reviews with the subjects that they name, and without the words that name them."""
    rows: Rows = []
    for number, review in enumerate(reviews.to_dict("records")):
        found = [name for name, words in SUBJECTS.items() if re.search(rf"\b(?:{words})\b", review["text"], re.I)]
        if found or number % NO_SUBJECT_EVERY == 0:
            masked = re.sub(rf"\b(?:{'|'.join(SUBJECTS.values())})\b", "…", review["text"], flags=re.IGNORECASE)
            rows.append({"text": masked, "label": found, "film": review["movie_name"]})
    return rows


def titles(reviews: pd.DataFrame) -> Rows:
    """Return reviews with the span of the film's name, if it is in the text as the table spells it."""
    rows: Rows = []
    for review in reviews.to_dict("records"):
        name = str(review["movie_name"]).replace("_", " ").strip()
        found = re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", review["text"], re.I) if len(name) > 3 else ()
        spans = [{"start": each.start(), "end": each.end(), "label": "title"} for each in found]
        rows.append({"text": review["text"], "label": spans, "film": review["movie_name"]})
    return rows


def films(reviews: pd.DataFrame) -> Rows:
    """Return all reviews of each film as one text, and whether most of them are fresh."""
    return [
        {"text": "\n".join(group["text"]), "label": "liked" if (group["category"] == "fresh").mean() > 0.5 else "not"}
        | {"film": name}
        for name, group in reviews.groupby("movie_name", sort=True)
    ]


SEVERAL = {"labels": [*SUBJECTS], "multi_label": {"separator": None, "thresholds": "tuned"}}
SEVERAL["metrics"] = ["f1_micro", "f1_macro", "average_precision"]
WORDS = {"labels": ["title"], "token_classification": {"subwords": "first"}}
WORDS["metrics"] = ["entity_f1", "entity_precision", "entity_recall"]
WINDOW_BATCH = {"batch_size": 112, "micro_batch_size": 16}
FILMS = {"labels": ["not", "liked"], "positive_label": "liked", "metrics": ["accuracy", "f1"]}
# Of each: rows, changes of the task, of `train` and of `data.windows`.
KINDS: dict[str, tuple[Callable[[pd.DataFrame], Rows], dict[str, Any], dict[str, Any], dict[str, Any] | None]] = {
    "subjects": (subjects, SEVERAL, {"epochs": 3}, None),
    "titles": (titles, WORDS, {"epochs": 3}, {"stride": 32, "pooling": None}),
    "films, truncated": (films, FILMS, {"epochs": 2, "batch_size": 16}, None),
    # As many texts a step: a text has seven windows on average.
    "films, in windows": (films, FILMS, {"epochs": 2} | WINDOW_BATCH, {"stride": 32, "pooling": "mean"}),
}
TIMED = ("subjects", "titles")


def main() -> None:
    """Train and time the kinds that the command line names, or all, and write the results of each."""
    chosen = sys.argv[1:] or [*KINDS]
    console, recipe = Console(highlight=False), default_recipe()
    (table,) = (RAW / "all").iterdir()
    reviews = pd.read_csv(table)
    reviews = reviews[reviews["category"].isin(["rotten", "fresh"])].sort_values("text", kind="stable")
    content: dict[str, Any] = {"machine": results.machine(), "kinds": results.read().get("kinds", {}).get("kinds", {})}
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        for kind in chosen:
            make_rows, task, train, windows = KINDS[kind]
            changed = recipe_of(recipe, kind, task, train, windows)
            folder = make_workspace(
                Path(name) / kind.replace(", ", "-").replace(" ", "-"), changed, Path(), [PRETRAINED]
            )
            write_rows(folder / RAW / "all/rows.jsonl", make_rows(reviews))
            run(folder, "prepare")
            run(folder, "check-data")
            found: dict[str, Any] = {"examples": read_json(folder / stats_path())["splits"]["train"]["num_examples"]}
            found["tokens"] = mean_length(folder)
            if kind in TIMED:
                found |= timed(Path(name) / f"{kind}-baselines", changed, folder, kind)
            found["seeds"] = [
                seed_metrics(folder, changed | {"seed": changed["seed"] + number}) for number in range(SEEDS)
            ]
            checked = json.loads((folder / "data/checks/checks.json").read_text())["baseline"]
            found["linear"] = checked["metrics"].get("test", {}) if checked else {}
            content["kinds"][kind] = found
            results.write("kinds", content)
    show(console, content)


def recipe_of(recipe: Recipe, kind: str, task: Recipe, train: Recipe, windows: Recipe | None) -> Recipe:
    """Return the default recipe for one of the tasks."""
    source = {"kind": "local", "train": "data/own/rows.jsonl", "validation": None, "test": None}
    columns = {"text_columns": ["text"], "label_column": "label", "positive_label": None, "filter": None}
    split = recipe["task"]["split"] | {"group_by": "film"}
    own = {"name": kind.split(",")[0], "source": source, **columns, "split": split, **task}
    return recipe | {
        "task": recipe["task"] | own,
        "train": recipe["train"] | train,
        "data": recipe["data"] | {"windows": windows},
    }


def write_rows(file: Path, rows: Rows) -> None:
    """Write JSON lines."""
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def run(folder: Path, stage: str) -> None:
    """Run a stage in a workspace.

    Raises:
        UserError: it failed; its own message is on stderr.
    """
    print(f"bench: {folder.name}: {stage}", flush=True)
    if subprocess.call([sys.executable, "-m", "reprise", stage], cwd=folder, stdout=sys.stderr):
        raise UserError("failed, see above", key=f"reprise {stage}", expected="it to succeed")


def timed(scratch: Path, recipe: Recipe, source: Path, kind: str) -> dict[str, Any]:
    """Time Reprise and Trainer, interleaved; return examples per second, and the ratios to Trainer by the median."""
    with running(NAMES, scratch, recipe, source, "cpu") as runners:
        slices, _ = interleave(runners, ROUNDS, SLICE_SECONDS, torch.device("cpu"), progress(kind, ROUNDS))
    speeds = {name: [each["tokens"] / each["seconds"] for each in measured[1:]] for name, measured in slices.items()}
    rates = {name: round(statistics.median(each) / mean_length(source), 1) for name, each in speeds.items()}
    ratios = {f"ratio_to_{name}": ratio(speeds["reprise"], speeds[name]) for name in NAMES[:-1]}
    return {"examples_per_second": rates, **ratios, "goal": GOAL, "met": ratios["ratio_to_trainer-bf16"] >= GOAL}


def seed_metrics(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Train and evaluate with a seed; return the metrics, with those of the baseline."""
    from ruamel.yaml import YAML

    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(recipe, file)
    run(folder, "train")
    run(folder, "evaluate")
    evaluated = read_json(folder / METRICS / "evaluate.json")
    names = recipe["task"]["metrics"]
    return {"seed": recipe["seed"], **{name: evaluated[name] for name in names}, "baseline": evaluated["baseline"]}


def rows_of(content: dict[str, Any]) -> Iterator[list[str]]:
    """Yield a row per kind and metric: mean and standard deviation over the seeds, and the baselines."""
    for kind, found in content["kinds"].items():
        for metric in (name for name in found["seeds"][0] if name not in ("seed", "baseline")):
            values = [seed[metric] for seed in found["seeds"]]
            deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
            linear = f"{found['linear'][metric]:.3f}" if metric in found["linear"] else "–"
            baseline = f"{found['seeds'][0]['baseline'][metric]:.3f}"
            yield [kind, metric, f"{statistics.mean(values):.3f} ± {deviation:.3f}", linear, baseline]


def show(console: Console, content: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table("task", "metric", f"test, {SEEDS} seeds", "linear model", "baseline")
    for row in rows_of(content):
        table.add_row(*row)
    console.print(table)
    speeds = Table("task", *NAMES, "to trainer-bf16", title="examples/s")
    for kind, found in content["kinds"].items():
        if "examples_per_second" in found:
            rates = [f"{found['examples_per_second'][name]:.1f}" for name in NAMES]
            speeds.add_row(kind, *rates, f"{found['ratio_to_trainer-bf16']:.2f} ×")
    console.print(speeds)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
