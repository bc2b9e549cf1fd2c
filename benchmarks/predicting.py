"""How fast the final model answers, beside transformers' own pipeline for it."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Pipeline, pipeline

from reprise.commands import predict
from reprise.core.paths import FINAL_MODEL, PRETRAINED
from reprise.core.validation import read_recipe
from reprise.data.format import split_file
from reprise.data.tokenization import load_tokenizer
from reprise.modeling.classifier import load_classifier
from reprise.modeling.inference import load_predictor

BATCH_SIZE = 32  # of the pipeline
WARM_UP = 64  # rows


class Plain:
    """The pipeline, in a process of its own that has nothing of Reprise's."""

    pipe: Pipeline

    @classmethod
    def load(cls, folder: Path) -> None:
        """Load the model in `folder`."""
        cls.pipe = pipeline(
            "text-classification", model=AutoModelForSequenceClassification.from_pretrained(folder),
            tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=BATCH_SIZE, device="cpu", top_k=None,
        )  # fmt: skip

    @classmethod
    def ask(cls, texts: list[str], max_length: int) -> None:
        """Have the texts classified."""
        cls.pipe(texts, truncation=True, max_length=max_length)


def predict_speed(folder: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Let three ways to the same answers take turns on the same rows.

    - pipeline: `pipeline("text-classification", batch_size=32)` on the texts in a list, in their order.
    - predict: `reprise predict --file` on a CSV of them, without loading the model: reading, tokenizing, JSON lines.
    - evaluate: the forward pass of `reprise evaluate` over the prepared rows.

    Args:
        folder: has a recipe with one column of text, the prepared data and the pretrained model, which gets a new
            head: what it says does not matter here.
        rows: of the test split, at most.
        rounds: in which each has one turn, another one first in each.

    Returns:
        The rows a second of each, by round.
    """
    with chdir(folder):
        recipe = read_recipe()
        load_classifier(PRETRAINED / "model", recipe.task.kind).save_pretrained(FINAL_MODEL)
        load_tokenizer(PRETRAINED / "tokenizer").save_pretrained(FINAL_MODEL)
        prepared = Dataset.from_file(str(split_file("test")))
        prepared = prepared.select(range(min(rows, len(prepared))))
        inputs = prepared.remove_columns(["id", "text"])
        texts = prepared["text"][:]
        forward, tokenizer = load_predictor(recipe, cpu=True), load_tokenizer(FINAL_MODEL)
        alone = ProcessPoolExecutor(1, get_context("spawn"), Plain.load, (FINAL_MODEL.absolute(),))

        def ask_pipeline(count: int) -> None:
            alone.submit(Plain.ask, texts[:count], recipe.train.max_length).result()

        def ask_predict(count: int) -> None:
            file = Path(f"{count}.csv")
            pd.DataFrame({recipe.task.text_columns[0]: texts[:count]}).to_csv(file, index=False)
            answers = Path("answers.jsonl")
            predict.predict_file(recipe, file, answers, cpu=True)

        def ask_evaluate(count: int) -> None:
            forward(inputs.select(range(count)))

        ways: dict[str, Callable[[int], None]] = {
            "pipeline": ask_pipeline, "predict": ask_predict, "evaluate": ask_evaluate,
        }  # fmt: skip
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        with (
            alone,
            patch.object(predict, "load_predictor", lambda *_, **__: forward),
            patch.object(predict, "load_tokenizer", lambda *_: tokenizer),
        ):
            for ask in ways.values():
                ask(min(WARM_UP, len(texts)))
            for number in range(rounds):
                first = number % len(ways)
                for name, ask in (*list(ways.items())[first:], *list(ways.items())[:first]):
                    began = time.perf_counter()
                    ask(len(texts))
                    speeds[name].append(len(texts) / (time.perf_counter() - began))
    return speeds
