"""Prediction throughput of the final model, compared with transformers' own pipeline."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Pipeline, pipeline

from reprise.commands.predict_table import predict_file
from reprise.core.paths import FINAL_MODEL, PRETRAINED
from reprise.core.validation import read_recipe
from reprise.data.format import split_file
from reprise.data.tokenization import load_tokenizer
from reprise.modeling.classifier import load_classifier
from reprise.modeling.inference import load_predictor, load_text_model
from reprise.modeling.recipe import model_recipe

BATCH_SIZE = 32  # of the pipeline
WARM_UP = 64  # rows


class PlainPipeline:
    """The pipeline, in its own process without any of Reprise's code."""

    pipe: Pipeline

    @classmethod
    def load(cls, folder: Path) -> None:
        """Load the model in `folder`."""
        cls.pipe = pipeline(
            "text-classification", model=AutoModelForSequenceClassification.from_pretrained(folder),
            tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=BATCH_SIZE, device="cpu", top_k=None,
        )  # fmt: skip

    @classmethod
    def classify(cls, texts: list[str], max_length: int) -> None:
        """Classify the texts."""
        cls.pipe(texts, truncation=True, max_length=max_length)


def time_predictions(folder: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Time three methods of prediction on the same rows, interleaved.

    - pipeline: `pipeline("text-classification", batch_size=32)` on a list of the texts, in their order.
    - predict: `reprise predict --file` on a CSV file of the texts, without loading the model: reading, tokenizing,
      writing JSON lines.
    - evaluate: the forward pass of `reprise evaluate` over the prepared rows.

    Args:
        folder: a workspace with one text column, prepared data and the pretrained model, which gets a new head: its
            predictions do not matter here.
        rows: maximum number of rows of the test split.
        rounds: number of rounds; the order rotates by one from round to round.

    Returns:
        Rows per second of each method, one value per round.
    """
    with chdir(folder):
        recipe = read_recipe()
        load_classifier(PRETRAINED / "model", recipe.task.kind).save_pretrained(FINAL_MODEL)
        load_tokenizer(PRETRAINED / "tokenizer").save_pretrained(FINAL_MODEL)
        prepared = Dataset.from_file(str(split_file("test")))
        prepared = prepared.select(range(min(rows, len(prepared))))
        inputs = prepared.remove_columns(["id", "text"])
        texts = prepared["text"][:]
        trained = model_recipe(recipe)
        forward, text_model = load_predictor(recipe, cpu=True), load_text_model(trained, cpu=True)
        executor = ProcessPoolExecutor(1, get_context("spawn"), PlainPipeline.load, (FINAL_MODEL.absolute(),))

        def run_pipeline(count: int) -> None:
            executor.submit(PlainPipeline.classify, texts[:count], recipe.train.max_length).result()

        def run_predict(count: int) -> None:
            file = Path(f"{count}.csv")
            pd.DataFrame({recipe.task.text_columns[0]: texts[:count]}).to_csv(file, index=False)
            predict_file(trained, text_model, file, Path("predictions.jsonl"))

        def run_evaluate(count: int) -> None:
            forward(inputs.select(range(count)))

        methods: dict[str, Callable[[int], None]] = {
            "pipeline": run_pipeline, "predict": run_predict, "evaluate": run_evaluate,
        }  # fmt: skip
        speeds: dict[str, list[float]] = {name: [] for name in methods}
        with executor:
            for method in methods.values():
                method(min(WARM_UP, len(texts)))
            for number in range(rounds):
                first = number % len(methods)
                for name, method in (*list(methods.items())[first:], *list(methods.items())[:first]):
                    began = time.perf_counter()
                    method(len(texts))
                    speeds[name].append(len(texts) / (time.perf_counter() - began))
    return speeds
