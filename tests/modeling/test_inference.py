"""Predictions have the order of the rows and the same bits with Accelerate, plain PyTorch and Trainer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.modeling.classifier import load_classifier
from reprise.modeling.collator import Collator
from reprise.modeling.inference import load_predictor, predict, predict_with_trainer
from reprise.modeling.recipe import read_model_recipe
from reprise.modeling.scoring import compute_metrics
from reprise.tasks.registry import task_kind
from tiny import flip_a_bit, tiny_recipe


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Synthetic rows of many lengths in random order, with the columns of prepared data except the texts."""
    random = np.random.default_rng(0)
    lengths = [*random.permutation(np.arange(3, 33)).tolist(), 5, 5, 40]
    ids = [random.integers(5, 40, length).tolist() for length in lengths]
    types = [[0] * (length // 2) + [1] * (length - length // 2) for length in lengths]
    columns = {"input_ids": ids, "token_type_ids": types, "length": lengths, "label": [0] * len(lengths)}
    return Dataset.from_dict(columns)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_logits_have_the_order_of_the_rows_for_any_batch_size(
    model: PreTrainedModel, collate: Collator, rows: Dataset, batch_size: int
) -> None:
    logits = predict(model, rows, collate, batch_size, Accelerator(cpu=True))
    with torch.inference_mode():
        alone = [
            model(
                input_ids=torch.tensor([row["input_ids"]]), token_type_ids=torch.tensor([row["token_type_ids"]])
            ).logits[0]
            for row in rows
        ]
    assert logits.dtype == np.float32
    assert logits.shape == (33, 3)
    np.testing.assert_allclose(logits, torch.stack(alone).numpy(), atol=1e-5)
    assert np.ptp(logits, axis=0).min() > 1e-3  # rows in another order would be noticed


@pytest.mark.parametrize("batch_size", [1, 4, 7, 33, 64])
def test_padding_to_buckets_does_not_change_the_logits(
    model: PreTrainedModel, collate: Collator, rows: Dataset, batch_size: int
) -> None:
    bucketed = Collator(collate.tokenizer, collate.kind, buckets=(8, 20, 40))
    logits = predict(model, rows, bucketed, batch_size, Accelerator(cpu=True))
    assert logits.shape == (33, 3)
    np.testing.assert_allclose(
        logits, predict(model, rows, collate, batch_size, Accelerator(cpu=True)), rtol=0, atol=1e-5
    )
    assert {size for _, size, _ in bucketed.seen_shapes} == {batch_size}  # also of a last batch with one row
    assert {length for *_, length in bucketed.seen_shapes} <= {8, 20, 40}


def test_padding_to_buckets_does_not_change_the_values_of_a_regression(tiny_model: Path, collate: Collator) -> None:
    random = np.random.default_rng(1)
    rows = Dataset.from_list(
        [
            {"input_ids": random.integers(5, 40, length).tolist(), "length": length, "label": length / 2}
            for length in (3, 9, 4, 11, 7)
        ]
    )
    torch.manual_seed(0)
    model = load_classifier(tiny_model, task_kind([]))
    plain, bucketed = (
        predict(model, rows, Collator(collate.tokenizer, task_kind([]), buckets), 4, Accelerator(cpu=True))
        for buckets in (None, (16,))
    )
    assert bucketed.shape == (5, 1)
    np.testing.assert_allclose(bucketed, plain, rtol=0, atol=1e-5)


def test_prediction_disables_dropout(model: PreTrainedModel, collate: Collator, rows: Dataset) -> None:
    model.train()
    first, second = (predict(model, rows, collate, 8, Accelerator(cpu=True)) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_accelerate_plain_pytorch_and_trainer_give_the_same_bits(
    model: PreTrainedModel, collate: Collator, rows: Dataset
) -> None:
    expected = predict(model, rows, collate, 7, Accelerator(cpu=True))
    assert predict(model, rows, collate, 7).tobytes() == expected.tobytes()
    assert predict_with_trainer(model, rows, collate, 7, cpu=True).tobytes() == expected.tobytes()


@pytest.fixture
def weights(repo_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of a trained model, in its repository as the working directory."""
    monkeypatch.chdir(repo_copy)
    AcceleratorState._reset_state(reset_partial_state=True)
    load_predictor(read_model_recipe(), cpu=True)
    return Path("models/final/model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_model_with_a_rotten_or_missing_file_is_refused(weights: Path, name: str) -> None:
    flip_a_bit(weights.with_name(name))
    with pytest.raises(UserError) as refused:
        load_predictor(read_model_recipe(), cpu=True)
    assert refused.value.file == "models/final"
    assert "reprise fsck" in refused.value.expected
    weights.with_name(name).unlink()
    with pytest.raises(UserError) as refused:
        load_predictor(read_model_recipe(), cpu=True)
    assert refused.value.file == "models/final"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(weights: Path, value: float) -> None:
    Path("dvc.lock").unlink()  # a training that ended so has the digest in dvc.lock
    tensors = load_file(weights)
    tensors["classifier.weight"][0, 0] = value
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError) as refused:
        load_predictor(read_model_recipe(), cpu=True)
    assert (refused.value.file, refused.value.key) == ("models/final", "classifier.weight")


def test_a_model_without_its_head_is_refused(weights: Path) -> None:
    Path("dvc.lock").unlink()
    tensors = load_file(weights)
    save_file({name: each for name, each in tensors.items() if "classifier" not in name}, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"classifier\.") as refused:
        load_predictor(read_model_recipe(), cpu=True)
    assert refused.value.file == "models/final"


def test_the_metrics_of_the_task_are_computed() -> None:
    task = check_recipe(tiny_recipe(), "recipe").task
    logits = np.array([[2, 1], [0, 3], [1, 4]], dtype=np.float32)
    assert compute_metrics(task.metrics, task.kind, logits, [0, 1, 0]) == {"accuracy": 2 / 3, "f1": 2 / 3}
