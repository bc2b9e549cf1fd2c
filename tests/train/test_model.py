"""The saved model answers in the unit of a regression's labels, and with calibrated probabilities."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from scipy.special import log_softmax, softmax
from transformers import PretrainedConfig, PreTrainedModel, pipeline

from reprise.commands.predict import predict_texts
from reprise.core.config import Recipe
from reprise.core.files import read_json
from reprise.core.validation import check_recipe
from reprise.data.tokenization import load_tokenizer
from reprise.evaluate.stage import evaluate
from reprise.modeling.classifier import load_classifier, load_pretrained
from reprise.modeling.inference import load_predictor, load_text_model
from reprise.modeling.recipe import read_model_recipe
from reprise.modeling.splits import drop_text_columns, load_split
from reprise.prepare.stage import prepare
from reprise.tasks.regression import Regression
from reprise.train.model import ScaledOutput, fold_label_scale, fold_temperatures, scale_output
from tiny import tiny_recipe

Train = Callable[..., Recipe]
NUMBERS: dict[str, Any] = {
    "task.label_column": "stars",
    "task.labels": [],
    "task.positive_label": None,
    "task.metrics": ["rmse", "r2"],
    "task.filter": None,
}

GRID = np.arange(0.1, 10, 5e-4)


def prepare_numbers(workdir: Path, factor: float, offset: float) -> None:
    """Prepare the reviews with a number that depends on their words: `offset`, or `factor` more."""
    rows = pd.read_csv(workdir / "data/raw/all/reviews.csv")
    rows = rows[rows["verdict"] != "plot"]
    rows["stars"] = offset + factor * (rows["verdict"] == "fresh")
    rows.to_csv(workdir / "data/raw/all/reviews.csv", index=False)
    recipe = check_recipe(tiny_recipe(**NUMBERS), "params.yaml")
    prepare(recipe.task, max_length=recipe.train.max_length)


def losses(workdir: Path) -> Any:
    return pd.read_csv(workdir / "plots/train.csv")["loss"].to_numpy()


def test_the_unit_of_the_labels_changes_only_the_unit_of_the_results(train: Train, workdir: Path) -> None:
    found = []
    for factor, offset in ((0.1, 0.0), (1e5, 5e5)):
        prepare_numbers(workdir, factor, offset)
        recipe = train(**{"train.engine": "pytorch", **NUMBERS})
        AcceleratorState._reset_state(reset_partial_state=True)
        evaluate(recipe, cpu=True)
        trained, evaluated = read_json(workdir / "metrics/train.json"), read_json(workdir / "metrics/evaluate.json")
        found.append((factor, losses(workdir), trained["validation"], evaluated))
    (small, losses_small, trained_small, small_result), (large, losses_large, trained_large, large_result) = found
    np.testing.assert_allclose(losses_large, losses_small, rtol=0.01)
    assert losses_small[0] == pytest.approx(1, abs=0.5)  # of the variance
    assert trained_large["rmse"] / large == pytest.approx(trained_small["rmse"] / small, rel=0.01)
    assert large_result["rmse"] / large == pytest.approx(small_result["rmse"] / small, rel=0.01)
    assert large_result["baseline"]["rmse"] / large == pytest.approx(small_result["baseline"]["rmse"] / small)
    assert large_result["rmse"] < large_result["baseline"]["rmse"]


def test_the_saved_model_answers_in_the_unit_of_the_labels_without_this_package(train: Train, workdir: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    prepare_numbers(workdir, 1e5, 5e5)
    recipe = train(**NUMBERS)
    AcceleratorState._reset_state(reset_partial_state=True)
    evaluate(recipe, cpu=True)
    rows = pd.read_parquet(workdir / "predictions/test.parquet")
    model = AutoModelForSequenceClassification.from_pretrained(workdir / "models/final").eval()
    tokenizer = load_tokenizer(workdir / "models/final")
    with torch.no_grad():
        inputs = tokenizer(rows["text"].tolist(), truncation=True, max_length=16, padding=True, return_tensors="pt")
        answers = model(**inputs).logits[:, 0].numpy()
    np.testing.assert_allclose(answers, rows["prediction"], rtol=1e-5)
    assert 5e5 < answers.mean() < 6e5


@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_layer_with_the_folded_weights_computes_the_same(bias: bool) -> None:
    torch.manual_seed(0)
    scaled = ScaledOutput(torch.nn.Linear(8, 1, bias=bias), mean=-300.0, deviation=40.0)
    model = torch.nn.ModuleDict({"score": scaled})
    plain = torch.nn.Linear(8, 1, bias=bias)
    folded = fold_label_scale(model, model.state_dict())
    plain.load_state_dict({name.removeprefix("score."): tensor for name, tensor in folded.items()})
    states = torch.randn(5, 8)
    torch.testing.assert_close(plain(states), scaled(states), rtol=1e-5, atol=1e-4)
    assert bias == (abs(plain(states).mean().item() + 300) < 100)
    assert scaled(states.bfloat16().float()).dtype == torch.float32


def test_a_model_without_scaled_output_keeps_its_bits() -> None:
    model = torch.nn.Linear(3, 2)
    folded = fold_label_scale(model, model.state_dict())
    assert all(
        folded[name] is tensor or torch.equal(folded[name], tensor) for name, tensor in model.state_dict().items()
    )


def test_a_kept_output_layer_starts_with_the_answers_that_it_had(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = load_classifier(tiny_model, Regression())
    with torch.no_grad():
        first.classifier.weight.normal_(std=50)
        first.classifier.bias.fill_(700.0)
    first.save_pretrained(tmp_path / "model")
    inputs = {"input_ids": torch.arange(5, 15)[None]}
    expected = first.eval()(**inputs).logits
    kept = load_pretrained(tmp_path / "model", Regression())
    scale_output(kept, 650.0, 90.0)
    torch.testing.assert_close(kept.model.eval()(**inputs).logits, expected)
    assert kept.model.classifier.weight.abs().max() < 5  # of unit variance inside


def train_and_evaluate(train: Train, **changes: Any) -> dict[str, Any]:
    """Train and evaluate on the validation split; return all results."""
    recipe = train(**{"evaluate.split": "validation", **changes})
    AcceleratorState._reset_state(reset_partial_state=True)
    evaluate(recipe, cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    examples = load_split("validation")
    return {
        "weights": load_file("models/final/model.safetensors"),
        "logits": load_predictor(recipe, cpu=True)(drop_text_columns(examples)).astype(np.float64),
        "references": np.asarray(examples["label"]),
        "predictions": pd.read_parquet("predictions/validation.parquet"),
        "trained": read_json(Path("metrics/train.json")),
        "evaluated": read_json(Path("metrics/evaluate.json")),
    }


def expected_calibration_error(probabilities: Any, references: Any) -> float:
    """Compute the error as Guo et al. do, with ten bins."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == references
    bins = np.ceil(confidence * 10)
    gaps = [(bins == n).mean() * abs(confidence[bins == n].mean() - right[bins == n].mean()) for n in np.unique(bins)]
    return float(sum(gaps))


def test_a_calibrated_model_has_the_best_temperature_of_the_validation_split_in_its_output_layer(
    train: Train, workdir: Path
) -> None:
    rows = pd.read_csv(workdir / "data/raw/all/reviews.csv")
    rows.loc[::8, "verdict"] = rows["verdict"].map({"rotten": "fresh", "fresh": "rotten"})[::8]  # no model is certain
    rows.to_csv(workdir / "data/raw/all/reviews.csv", index=False)
    recipe = check_recipe(tiny_recipe(), "params.yaml")
    prepare(recipe.task, max_length=recipe.train.max_length)
    before = train_and_evaluate(train, **{"train.epochs": 4})
    assert read_model_recipe().temperatures is None
    assert "ece_uncalibrated" not in before["evaluated"]
    after = train_and_evaluate(train, **{"train.epochs": 4, "train.calibration": "temperature"})

    logits, references = before["logits"], before["references"]
    (temperature,) = read_model_recipe().temperatures or ()
    losses = {t: -log_softmax(logits / t, axis=1)[range(len(logits)), references].sum() for t in GRID}
    assert temperature == pytest.approx(min(GRID, key=lambda t: losses[t]), abs=1e-3)
    assert abs(temperature - 1) > 0.1

    probabilities = softmax(logits / temperature, axis=1)
    np.testing.assert_allclose(np.stack(after["predictions"]["probabilities"]), probabilities, atol=1e-6)
    assert after["predictions"]["prediction"].tolist() == before["predictions"]["prediction"].tolist()
    assert after["trained"] == before["trained"]
    assert after["evaluated"]["ece"] == pytest.approx(expected_calibration_error(probabilities, references), abs=1e-6)
    assert after["evaluated"]["ece_uncalibrated"] == pytest.approx(before["evaluated"]["ece"], abs=1e-6)
    for name, weights in before["weights"].items():
        expected = weights / temperature if name.startswith("classifier.") else weights
        assert torch.equal(after["weights"][name], expected), name

    texts, printed = after["predictions"]["text"].tolist(), io.StringIO()
    recipe = read_model_recipe()
    predict_texts(recipe, load_text_model(recipe, cpu=True), [(text,) for text in texts], printed)
    found = [[*json.loads(line)["probabilities"].values()] for line in printed.getvalue().splitlines()]
    np.testing.assert_allclose(found, probabilities, atol=1e-6)
    classify = pipeline("text-classification", model="models/final", device="cpu")
    scores = [one["score"] for one in classify(texts, truncation=True, max_length=16)]
    assert scores == pytest.approx(probabilities.max(axis=1), abs=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperatures", [[4.0], [4.0, 0.5, 1.0]], ids=["one", "one for each output"])
def test_folded_temperatures_divide_the_logits(bias: bool, temperatures: list[float]) -> None:
    class Head(PreTrainedModel):
        """A model that is one layer."""

        def __init__(self) -> None:
            super().__init__(PretrainedConfig(num_labels=3))
            self.score = torch.nn.Linear(8, 3, bias=bias)

    model, states = Head(), torch.randn(5, 8)
    expected = model.score(states) / torch.tensor(temperatures)
    assert fold_temperatures(model, model.state_dict(), None).keys() == model.state_dict().keys()
    model.load_state_dict(fold_temperatures(model, model.state_dict(), temperatures))
    torch.testing.assert_close(model.score(states), expected)
