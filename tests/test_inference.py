"""Forward passes: logits in the order of the rows, the same through Accelerate, plain PyTorch and Trainer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedModel

from reprise.core.validation import check_recipe
from reprise.modeling.classifier import load_classifier
from reprise.modeling.collator import Collator
from reprise.modeling.inference import predict, predict_with_trainer
from reprise.modeling.scoring import compute_metrics
from reprise.tasks.registry import task_kind
from tiny import tiny_recipe


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Made-up rows of many lengths in no order, as prepare leaves them without the columns of text."""
    random = np.random.default_rng(0)
    lengths = [*random.permutation(np.arange(3, 33)).tolist(), 5, 5, 40]
    ids = [random.integers(5, 40, length).tolist() for length in lengths]
    types = [[0] * (length // 2) + [1] * (length - length // 2) for length in lengths]
    columns = {"input_ids": ids, "token_type_ids": types, "length": lengths, "label": [0] * len(lengths)}
    return Dataset.from_dict(columns)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_logits_come_in_the_order_of_the_rows_whatever_the_batches(
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
def test_logits_are_the_same_in_batches_that_are_filled_up_to_a_few_shapes(
    model: PreTrainedModel, collate: Collator, rows: Dataset, batch_size: int
) -> None:
    filled = Collator(collate.tokenizer, collate.kind, buckets=(8, 20, 40))
    logits = predict(model, rows, filled, batch_size, Accelerator(cpu=True))
    assert logits.shape == (33, 3)
    np.testing.assert_allclose(
        logits, predict(model, rows, collate, batch_size, Accelerator(cpu=True)), rtol=0, atol=1e-5
    )
    assert {number for _, number, _ in filled.seen_shapes} == {
        batch_size
    }  # also where the last has 1 row, or all have 33
    assert {length for *_, length in filled.seen_shapes} <= {8, 20, 40}


def test_values_of_a_regression_are_the_same_in_batches_that_are_filled_up(tiny_model: Path, collate: Collator) -> None:
    random = np.random.default_rng(1)
    rows = Dataset.from_list(
        [
            {"input_ids": random.integers(5, 40, length).tolist(), "length": length, "label": length / 2}
            for length in (3, 9, 4, 11, 7)
        ]
    )
    torch.manual_seed(0)
    model = load_classifier(tiny_model, task_kind([]))
    plain, filled = (
        predict(model, rows, Collator(collate.tokenizer, task_kind([]), buckets), 4, Accelerator(cpu=True))
        for buckets in (None, (16,))
    )
    assert filled.shape == (5, 1)
    np.testing.assert_allclose(filled, plain, rtol=0, atol=1e-5)


def test_predicting_switches_dropout_off(model: PreTrainedModel, collate: Collator, rows: Dataset) -> None:
    model.train()
    first, second = (predict(model, rows, collate, 8, Accelerator(cpu=True)) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_the_bits_are_the_same_through_accelerate_plain_pytorch_and_trainer(
    model: PreTrainedModel, collate: Collator, rows: Dataset
) -> None:
    expected = predict(model, rows, collate, 7, Accelerator(cpu=True))
    assert predict(model, rows, collate, 7).tobytes() == expected.tobytes()
    assert predict_with_trainer(model, rows, collate, 7, cpu=True).tobytes() == expected.tobytes()


def test_scores_are_those_of_the_tasks_metrics() -> None:
    task = check_recipe(tiny_recipe(), "recipe").task
    logits = np.array([[2, 1], [0, 3], [1, 4]], dtype=np.float32)
    assert compute_metrics(task, logits, [0, 1, 0]) == {"accuracy": 2 / 3, "f1": 2 / 3}
