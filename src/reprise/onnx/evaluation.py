"""Judge files of ONNX on the evaluation split, beside the model that they were made from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset

from reprise.core.config import Recipe
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.data.labels import column_array
from reprise.modeling.inference import load_predictor
from reprise.modeling.inputs import Texts
from reprise.modeling.recipe import read_model_recipe
from reprise.modeling.scoring import metrics_with_ci
from reprise.modeling.splits import load_inputs, load_split
from reprise.onnx.files import BESIDE, FILES, ONNX, PRECISIONS
from reprise.onnx.model import OnnxModel
from reprise.results.statistics import is_greater_better, mcnemar
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.token_classification import Words


def judge(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Evaluate each file of ONNX in a folder on the prepared evaluation split, and compare it with the final model.

    Args:
        folder: an exported model, with the folder `onnx`.
        recipe: of the final model, from which the files were made.

    Returns:
        `split`, `num_examples`, the metrics of the final model with intervals, `beside` (SHA-256 of the files that a
        file of ONNX needs) and `files`: for each its `sha256`, `bytes`, metrics with intervals, `max_logit_difference`,
        and, except in regression, `changed` (rows with another prediction) and McNemar's test: `only_before_correct`,
        `only_after_correct` and `p`.

    Raises:
        UserError: the tokenizer gives other tokens than the prepared data have.
    """
    split, fold = recipe.evaluate.split, recipe.train.fold
    kind = read_model_recipe(folder).kind if recipe.task.multi_label else recipe.task.kind  # as evaluate: thresholds
    examples, inputs = load_split(split, fold), load_inputs(split, fold)
    references, texts = column_array(examples), prepared_texts(examples)
    expected = load_predictor(recipe, cpu=True)(inputs)
    files: dict[str, Any] = {}
    for name in (FILES[precision] for precision in PRECISIONS):
        if not (folder / ONNX / name).is_file():
            continue
        echo(f"export: evaluate {ONNX / name} on {len(examples)} examples of the {split} split")
        model = OnnxModel(folder / ONNX / name)
        columns, _ = model.tokenize(texts)
        check_tokens(columns["input_ids"], inputs, folder)
        logits = model.logits(columns)
        files[name] = {
            "sha256": sha256(folder / ONNX / name),
            "bytes": (folder / ONNX / name).stat().st_size,
            **metrics_with_ci(
                recipe.task.metrics, kind, logits, references, resamples=recipe.evaluate.bootstrap_resamples
            ),
            **compare_answers(model.recipe.kind, expected, logits, references),
        }
    return {
        "split": split,
        "num_examples": len(examples),
        **metrics_with_ci(
            recipe.task.metrics, kind, expected, references, resamples=recipe.evaluate.bootstrap_resamples
        ),
        "beside": {name: sha256(folder / name) for name in BESIDE if (folder / name).is_file()},
        "files": files,
    }


def prepared_texts(examples: Dataset) -> list[Texts]:
    """Return the texts of prepared examples, as `predict` takes them."""
    columns = [list(examples[name]) for name in ("text", "text_pair") if name in examples.column_names]
    if "word_starts" in examples.column_names:
        spans = (examples[name] for name in ("word_starts", "word_ends"))
        starts, ends = ([np.asarray(row, np.int32) for row in column] for column in spans)
        return [(Words(*row),) for row in zip(*columns, starts, ends, strict=True)]
    return list(zip(*columns, strict=True))


def check_tokens(found: Sequence[Sequence[int]], inputs: Dataset, folder: Path) -> None:
    """Check that a model reads the rows of a split as prepare wrote them.

    Args:
        found: the ids of the tokens of each row.
        inputs: the prepared rows.
        folder: of the tokenizer, for the error.

    Raises:
        UserError: a row has other tokens.
    """
    for number, (ours, prepared) in enumerate(zip(found, inputs["input_ids"], strict=True), start=1):
        if list(ours) != list(prepared):
            raise UserError(
                f"gives row {number} of the evaluation split other tokens than prepare did",
                file=folder / "tokenizer.json",
                expected="a tokenizer that is complete in this file; export it as safetensors only",
            )


def compare_answers(kind: TaskKind, before: Logits, after: Logits, references: npt.NDArray[Any]) -> dict[str, Any]:
    """Compare the answers of two models to the same examples.

    Args:
        kind: decodes the logits.
        before: of the first model, [examples, outputs].
        after: of the second one, of the same shape.
        references: the prepared labels.
    """
    decoded = [kind.decode(before), kind.decode(after)]
    correct = [kind.is_correct(each, references) for each in decoded]
    result: dict[str, Any] = {
        "max_logit_difference": max(float(np.abs(a - b).max(initial=0)) for a, b in zip(before, after, strict=True))
    }
    if correct[0] is None or correct[1] is None:
        return result
    test = mcnemar(correct[0], correct[1])
    changed = sum(not np.array_equal(a, b) for a, b in zip(*decoded, strict=True))
    return result | {
        "changed": changed,
        "only_before_correct": test.only_before,
        "only_after_correct": test.only_after,
        "p": test.p,
    }


def too_different(judged: dict[str, Any], metric: str, tolerance: float) -> Iterator[UserError]:
    """Yield an error for each file whose metric is worse than the final model's by more than `tolerance`."""
    for name, found in judged["files"].items():
        lost = (judged[metric] - found[metric]) * (1 if is_greater_better(metric) else -1)
        if lost > tolerance:
            yield UserError(
                f"{metric} {found[metric]:.4f} instead of {judged[metric]:.4f} on the {judged['split']} split",
                file=ONNX / name,
                expected=f"a loss of at most {tolerance:g}, see --tolerance",
            )
