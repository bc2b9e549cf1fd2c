"""The training loop: the results of a step do not depend on its split."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from kinds_of_tasks import prepare_topics, prepare_windows, prepare_words
from reprise.core.errors import UserError
from reprise.data.tokenization import load_tokenizer
from reprise.modeling.classifier import load_classifier
from reprise.modeling.collator import Collator
from reprise.tasks.registry import task_kind
from reprise.train.dropout import DropoutKeys
from tiny import Run, write_params

Train = Callable[..., object]

DROPOUTS = 8  # of the tiny model: embeddings, head, and in each of two layers one of attention and two others
UNEVEN = {"rotten": 0.5, "fresh": 3.0}  # class weights


def losses(folder: Path) -> npt.NDArray[np.float64]:
    return pd.read_csv(folder / "plots/train.csv")["loss"].to_numpy()


def validation_metrics(folder: Path) -> list[list[float]]:
    return pd.read_csv(folder / "plots/validation.csv").drop(columns="loss").to_numpy().tolist()


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "models/final/model.safetensors").read_bytes()).hexdigest()


def temperatures(folder: Path) -> list[float]:
    found: list[float] = json.loads((folder / "models/final/recipe.json").read_text())["temperatures"]
    return found


def set_processes(folder: Path, processes: int) -> None:
    (folder / "docker/cpu/accelerate.yaml").write_text(f"num_processes: {processes}\n")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_masks_computed_at_once_as_on_a_gpu_train_to_the_same_bits(
    train: Train, workdir: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    changes = {"train.precision": "bf16", "train.epochs": 1, "train.gradient_checkpointing": checkpointing}
    train(**changes)
    one_by_one, set_batch, shared = weights(workdir), DropoutKeys.set_batch, []

    def set_batch_at_once(keys: DropoutKeys, *batch: Any) -> None:
        shared.append(len(keys.masks))  # of the previous batch
        set_batch(keys, *batch)
        keys.at_once = True

    monkeypatch.setattr(DropoutKeys, "set_batch", set_batch_at_once)
    train(**changes)
    assert weights(workdir) == one_by_one
    assert shared[-1] == DROPOUTS


def test_loss_falls_to_known_values(train: Train, workdir: Path) -> None:
    train()
    curve = losses(workdir)
    assert len(curve) == 18
    assert curve[[0, 1, -1]] == pytest.approx([0.69270, 0.69401, 0.57317], abs=2e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_give_the_same_bits(train: Train, workdir: Path, precision: str) -> None:
    results = []
    for _ in range(2):
        train(**{"train.precision": precision})
        files = [*Path("plots").iterdir(), Path("metrics/train.json"), *Path("models/final").iterdir()]
        results.append({str(file): file.read_bytes() for file in sorted(files)})
    assert results[0] == results[1]


def test_another_seed_gives_another_model(train: Train, workdir: Path) -> None:
    train()
    first = weights(workdir)
    train(seed=43)
    assert weights(workdir) != first


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_micro_batch_size_does_not_change_the_losses(train: Train, workdir: Path, micro_batch_size: int) -> None:
    train()
    expected = losses(workdir)
    train(**{"train.micro_batch_size": micro_batch_size})
    assert losses(workdir) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("micro_batch_size", [1, 3])
@pytest.mark.parametrize("loss", [{"class_weights": "balanced"}, {"class_weights": UNEVEN, "focal_gamma": 2.0}])
def test_weights_are_of_the_whole_step_whatever_its_micro_batches(
    train: Train, workdir: Path, loss: dict[str, Any], micro_batch_size: int
) -> None:
    train(**{"train.loss": loss})
    expected = losses(workdir)
    train(**{"train.loss": loss, "train.micro_batch_size": micro_batch_size})
    assert losses(workdir) == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def fixed_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pad batches to buckets as on XLA; everything else is as on the CPU."""
    monkeypatch.setattr("reprise.train.worker.on_xla", lambda _: True)


@pytest.mark.parametrize("micro_batch_size", [None, 5])
@pytest.mark.parametrize("buckets", ["auto", [16]], ids=str)
def test_padding_to_buckets_does_not_change_the_losses(
    train: Train, workdir: Path, buckets: str | list[int], micro_batch_size: int | None, request: pytest.FixtureRequest
) -> None:
    train()
    expected, padding = losses(workdir), json.loads(Path("metrics/speed.json").read_text())["padding_fraction"]
    scores = Path("plots/validation.csv").read_text()
    request.getfixturevalue("fixed_shapes")
    train(**{"train.bucket_lengths": buckets, "train.micro_batch_size": micro_batch_size})
    assert losses(workdir) == pytest.approx(expected, rel=1e-5)
    assert json.loads(Path("metrics/speed.json").read_text())["padding_fraction"] > padding
    assert pd.read_csv("plots/validation.csv").to_numpy() == pytest.approx(
        pd.read_csv(io.StringIO(scores)).to_numpy(), rel=1e-5
    )


def test_text_longer_than_all_buckets_is_an_error_and_keeps_the_earlier_model(
    train: Train, workdir: Path, fixed_shapes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    train()
    before = weights(workdir)
    capsys.readouterr()
    with pytest.raises(UserError, match=r"^params.yaml: train.bucket_lengths: the longest text has \d+ tokens"):
        train(**{"train.bucket_lengths": [4, 8], "train.max_length": 8})  # the prepared texts are longer
    assert "step" not in capsys.readouterr().out
    assert weights(workdir) == before
    assert not list(workdir.rglob("*.partial"))


def prepare_weighted(workdir: Path) -> dict[str, Any]:
    """Weigh the labels and train a part of the model; the data stays as it is."""
    partly = {"train.freeze": 1, "train.layer_decay": 0.8, "train.dropout": 0.2}
    return {"train.loss": {"class_weights": UNEVEN}, **partly}


@pytest.mark.parametrize(
    ("prepare_kind", "processes"),
    [
        pytest.param(prepare_weighted, 2, marks=pytest.mark.full),
        (prepare_weighted, 3),
        (prepare_words, 2),
        pytest.param(prepare_words, 3, marks=pytest.mark.full),
        pytest.param(prepare_topics, 2, marks=pytest.mark.full),
        pytest.param(prepare_windows, 2, marks=pytest.mark.full),
    ],
)
def test_several_ranks_have_the_losses_of_one(
    workdir: Path, run: Run, reprise: Run, prepare_kind: Callable[[Path], dict[str, Any]], processes: int
) -> None:
    # 16 rows in micro-batches of 4: with three ranks the second micro-step is filled with dummy rows.
    changes = {"train.micro_batch_size": 4, "train.epochs": 1, "train.calibration": "temperature"}
    write_params(workdir, **{**changes, **prepare_kind(workdir)})
    reprise(workdir, "train")
    single, validation, calibrated = losses(workdir), validation_metrics(workdir), temperatures(workdir)
    set_processes(workdir, processes)
    run(workdir, "reprise", "train", env={"OMP_NUM_THREADS": "1"})
    assert json.loads((workdir / "metrics/speed.json").read_text())["processes"] == processes
    assert losses(workdir) == pytest.approx(single, rel=1e-5)
    assert validation_metrics(workdir) == validation
    assert temperatures(workdir) == pytest.approx(calibrated, rel=1e-4)


@pytest.mark.full
def test_two_ranks_have_the_bits_of_one_for_a_sum_of_two_micro_batches(workdir: Path, run: Run) -> None:
    # Two micro-batches per step: a sum of two terms does not depend on their order.
    calibrated = {"train.learning_rate": 3e-3, "train.calibration": "temperature"}
    write_params(workdir, **{"train.micro_batch_size": 8, **calibrated})
    run(workdir, "reprise", "train", env={"OMP_NUM_THREADS": "1"})
    single = weights(workdir), losses(workdir).tolist()
    assert temperatures(workdir) != [1.0]  # which is in the weights
    set_processes(workdir, 2)
    run(workdir, "reprise", "train", env={"OMP_NUM_THREADS": "1"})
    assert json.loads((workdir / "metrics/speed.json").read_text())["processes"] == 2
    assert (weights(workdir), losses(workdir).tolist()) == single


def test_best_or_last_epoch_is_kept(train: Train, workdir: Path) -> None:
    # With this learning rate the best epoch is not the last one.
    changes = {"train.learning_rate": 0.02, "train.lr_scheduler": "constant", "train.epochs": 3, "seed": 1}
    train(**changes)
    scores = pd.read_csv(workdir / "plots/validation.csv")["accuracy"].tolist()
    assert json.loads((workdir / "metrics/train.json").read_text())["best_epoch"] == 1 + int(np.argmax(scores))
    best = weights(workdir)
    train(**changes, **{"train.keep_epoch": "last"})
    assert json.loads((workdir / "metrics/train.json").read_text())["best_epoch"] == 3
    assert (weights(workdir) == best) == (int(np.argmax(scores)) == 2)


def test_training_stops_after_max_steps(train: Train, workdir: Path) -> None:
    train(**{"train.max_steps": 11})
    curve = pd.read_csv(workdir / "plots/train.csv")
    assert curve["step"].tolist() == list(range(1, 12))
    assert curve["epoch"].tolist() == [1] * 9 + [2] * 2


def test_curve_has_the_learning_rate_of_each_step(train: Train, workdir: Path) -> None:
    train()
    rates = pd.read_csv(workdir / "plots/train.csv")["learning_rate"].to_numpy()
    # 18 steps, 2 of them of warm-up from 0 to 5e-3, then linearly towards 0.
    assert rates[[0, 1, 2, 3, 17]] == pytest.approx([0, 2.5e-3, 5e-3, 5e-3 * 15 / 16, 5e-3 / 16])


def test_diverging_loss_is_an_error_and_keeps_the_earlier_model(train: Train, workdir: Path) -> None:
    train()
    before = weights(workdir)
    with pytest.raises(UserError, match=r"makes the loss (nan|inf)") as refused:
        train(**{"train.learning_rate": 1e30, "train.warmup_ratio": 0.0})
    assert (refused.value.file, refused.value.key) == ("params.yaml", "train.learning_rate")
    assert weights(workdir) == before
    assert not list(workdir.rglob("*.partial"))


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("labels", [["rotten", "fresh"], []], ids=["labels", "regression"])
def test_padded_batch_has_the_loss_and_gradients_of_its_examples(
    tiny_model: Path, labels: list[str], rows: int
) -> None:
    random = np.random.default_rng(0)
    batch = [
        {"input_ids": random.integers(5, 40, length).tolist(), "label": number % 2 if labels else length / 3}
        for number, length in enumerate(random.permutation(np.arange(3, 3 + rows)).tolist())
    ]
    torch.manual_seed(0)
    model = load_classifier(tiny_model, task_kind(labels)).eval()  # without dropout
    found = []
    for collate in (
        Collator(load_tokenizer(tiny_model), task_kind(labels)),
        Collator(load_tokenizer(tiny_model), task_kind(labels), buckets=(16,)).with_batch_size("train", 8),
    ):
        inputs = collate(batch)
        targets = inputs.pop("labels")
        model.zero_grad()
        loss = task_kind(labels).summed_loss(model(**inputs).logits, targets)
        loss.backward()
        found.append((loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (single, gradients), (filled, filled_gradients) = found
    # Other shapes are summed in another order, so the last bits differ.
    torch.testing.assert_close(filled, single, rtol=1e-6, atol=0)
    torch.testing.assert_close(filled_gradients, gradients, rtol=1e-6, atol=1e-6)
    assert any(gradient.abs().max() > 0.1 for gradient in gradients.values())
