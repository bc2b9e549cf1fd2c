"""The tiny reviews prepared for other kinds of tasks: any number of labels, labels of words, windows of long texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reprise.core.validation import check_recipe
from reprise.prepare.stage import prepare
from tiny import BAD, GOOD, tiny_recipe


def prepare_topics(workdir: Path) -> dict[str, Any]:
    """Give each review any number of labels, by words in it, and prepare them; return the changes of the recipe."""
    rows = pd.read_csv(workdir / "data/raw/all/reviews.csv")
    topics = {"long": rows["text"].str.len() > 40, "sequel": rows["film"].str.endswith(("1", "2")), "none": False}
    for name, given in topics.items():
        rows[name] = np.asarray(given, int)
    rows.to_csv(workdir / "data/raw/all/reviews.csv", index=False)
    changes: dict[str, Any] = {"task.label_column": None, "task.labels": list(topics)}
    changes |= {"task.metrics": ["f1_micro", "f1_macro"]}
    changes |= {"task.multi_label": {"separator": None, "thresholds": "tuned"}, "task.positive_label": None}
    return prepare_again(changes)


def prepare_again(changes: dict[str, Any]) -> dict[str, Any]:
    """Prepare the raw data for the tiny recipe with these changes, and return them."""
    recipe = check_recipe(tiny_recipe(**changes), "params.yaml")
    prepare(recipe.task, max_length=recipe.train.max_length, windows=recipe.data.windows)
    return changes


def prepare_words(workdir: Path) -> dict[str, Any]:
    """Tag the words of praise and of blame in each review, up to the word before, and prepare windows of them."""
    rows = pd.read_csv(workdir / "data/raw/all/reviews.csv")
    rows["words"] = rows["text"].str.split()
    rows["tags"] = [tag_words(words) for words in rows["words"]]
    (workdir / "data/raw/all/reviews.csv").unlink()
    rows[["words", "tags", "film"]].to_json(workdir / "data/raw/all/reviews.jsonl", orient="records", lines=True)
    changes: dict[str, Any] = {"task.text_columns": ["words"], "task.label_column": "tags", "task.id_column": None}
    changes |= {"task.labels": ["praise", "blame"], "task.positive_label": None, "task.filter": None}
    changes |= {"task.metrics": ["entity_f1", "token_accuracy"], "task.token_classification": {"subwords": "first"}}
    return prepare_again(changes | {"train.max_length": 8, "data.windows": {"stride": 2, "pooling": None}})


def tag_words(words: list[str]) -> list[str]:
    """Return IOB2 tags: an entity is a word of praise or blame, with the word before it unless that is one, too."""
    tags = ["O"] * len(words)
    for index, word in enumerate(words):
        for label, listed in (("praise", GOOD), ("blame", BAD)):
            if word.strip(",") in listed:
                tags[index] = f"B-{label}"
                if index and tags[index - 1] == "O":
                    tags[index - 1 : index + 1] = [f"B-{label}", f"I-{label}"]
    return tags


def prepare_windows(workdir: Path) -> dict[str, Any]:
    """Prepare the reviews in windows of a few tokens."""
    return prepare_again({"train.max_length": 8, "data.windows": {"stride": 2, "pooling": "mean"}})
