"""The memory of training is predicted, and compared with that of a GPU, before the first step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    GPT2Config,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.modeling.inference import NOT_READ
from reprise.train import dropout, stage
from reprise.train.distributed.launch_config import LaunchConfig
from reprise.train.dropout import DropoutKeys
from reprise.train.memory import Memory, Placement, check_memory, predict_memory, state_bytes
from reprise.train.model import adapt_model, build_model
from reprise.train.optimizer import build_optimizer
from reprise.train.preflight import preflight
from tiny import tiny_recipe

HERE = Placement("cpu", "GPU", 10**12, 1, sharded=False)
LORA = {"rank": 4, "alpha": 8.0, "targets": ["query", "value"]}
SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}


def recipe(**changes: Any) -> Recipe:
    return check_recipe(tiny_recipe(**changes), "test")


def batch(rows: int, length: int) -> dict[str, torch.Tensor]:
    inputs = {"input_ids": torch.ones(rows, length, dtype=torch.int64)}
    inputs["attention_mask"] = inputs["input_ids"].clone()
    inputs["attention_mask"][0, -1] = 0  # transformers drops a mask that masks nothing
    return inputs | {"labels": torch.zeros(rows, dtype=torch.int64)}


def measured_bytes(model: nn.Module, keys: DropoutKeys, rows: int, length: int, precision: str) -> int:
    """Run a real forward pass; return the bytes that it keeps, besides the model's own."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    inputs = {name: tensor for name, tensor in batch(rows, length).items() if name not in NOT_READ}
    keys.set_batch(0, list(range(rows)), inputs["input_ids"])
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        logits = model(**inputs).logits
    assert logits.grad_fn is not None
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", [{}, {"train.lora": LORA}, {"train.freeze": 1}, {"train.dropout": 0.0}], ids=str)
def test_activations_are_predicted_to_the_byte(workdir: Path, changes: dict[str, Any], precision: str) -> None:
    model, keys = build_model(recipe(**changes))
    model.train()
    predicted = predict_memory(model, keys, batch(2, 4), 5, 12, precision, HERE)
    assert predicted.activations == measured_bytes(model, keys, 5, 12, precision) > 0


def test_attention_of_a_gpu_keeps_no_weights(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, length, (model, keys) = 3, 32, build_model(recipe())
    model.train()
    written_out = predict_memory(model, keys, batch(2, 4), rows, length, "fp32", HERE).activations
    monkeypatch.setattr(dropout, "is_fused", lambda *_: True)
    fused = predict_memory(model, keys, batch(2, 4), rows, length, "fp32", HERE).activations
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    assert written_out - fused > layers * 3 * 4 * rows * heads * length**2 / 2  # of softmax, mask and weights, in fp32


@pytest.mark.parametrize(
    "config",
    [
        RobertaConfig(**SIZES, intermediate_size=32),
        DistilBertConfig(vocab_size=60, dim=16, hidden_dim=32, n_layers=2, n_heads=2),
        ModernBertConfig(**SIZES, intermediate_size=32, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2),
        GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1, pad_token_id=0),
    ],
    ids=lambda config: str(config.model_type),
)
def test_activations_of_other_families_are_predicted(config: PretrainedConfig) -> None:
    model, keys = adapt_model(AutoModelForSequenceClassification.from_config(config), recipe())
    model.train()
    predicted = predict_memory(model, keys, batch(2, 4), 3, 10, "bf16", HERE)
    # To the byte but for ModernBERT: without data, another of torch's attention kernels is taken.
    assert predicted.activations == pytest.approx(measured_bytes(model, keys, 3, 10, "bf16"), rel=1e-3)


def test_the_model_is_as_before(workdir: Path) -> None:
    model, keys = build_model(recipe(**{"train.gradient_checkpointing": True}))
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict_memory(model, keys, batch(2, 4), 2, 8, "fp32", HERE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())
    assert model.is_gradient_checkpointing
    assert not any(part._forward_pre_hooks for part in model.modules() if "Layer" in type(part).__name__)


def test_checkpointed_layers_keep_their_inputs_and_one_layer_is_computed_again(workdir: Path) -> None:
    def activations(layers: int, *, checkpointing: bool) -> int:
        config = RobertaConfig(**SIZES | {"num_hidden_layers": layers}, intermediate_size=32)
        adapted = recipe(**{"train.gradient_checkpointing": checkpointing})
        model, keys = adapt_model(AutoModelForSequenceClassification.from_config(config), adapted)
        model.train()
        return predict_memory(model, keys, batch(2, 4), 3, 10, "fp32", HERE).activations

    hidden = 3 * 10 * 16 * 4  # bytes of a layer's input
    assert activations(7, checkpointing=True) - activations(6, checkpointing=True) == pytest.approx(hidden, rel=0.2)
    assert activations(6, checkpointing=True) < activations(6, checkpointing=False) / 2


def test_weights_gradients_and_moments_are_counted_to_the_byte(workdir: Path) -> None:
    for changes in ({}, {"train.lora": LORA}, {"train.freeze": 1}):
        model, keys = build_model(recipe(**changes))
        model.train()
        optimizer = build_optimizer(model, recipe().train)
        keys.set_batch(0, [0, 1], torch.zeros(2))
        inputs = {name: tensor for name, tensor in batch(2, 8).items() if name not in NOT_READ}
        model(**inputs).logits.sum().backward()
        optimizer.step()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
        state = [*model.parameters(), *model.buffers(), *gradients, *moments]
        assert state_bytes(model, HERE) == sum(tensor.nbytes for tensor in state)


def test_several_processes_hold_gradients_twice_or_a_shard_of_everything() -> None:
    model = nn.Linear(100, 10, bias=False)
    assert state_bytes(model, HERE) == 4 * 4000
    assert state_bytes(model, Placement("cpu", "GPU", 0, 2, sharded=False)) == 5 * 4000
    assert state_bytes(model, Placement("cpu", "GPU", 0, 2, sharded=True)) == 2 * 4000


def gpu(free: int) -> Placement:
    return Placement("cuda", "NVIDIA L4", free, 1, sharded=False)


def test_enough_memory_passes_and_little_left_is_a_warning() -> None:
    memory = Memory(state=2 * 10**9, activations=8 * 10**9, rows=32, length=512)
    assert check_memory(memory, gpu(12 * 10**9)) is None
    assert check_memory(memory, gpu(105 * 10**8)) == (
        "training needs 10.0 GB, as predicted, and NVIDIA L4 has 10.5 GB free: with what its kernels need, it may not "
        "fit"
    )


def test_too_little_memory_is_one_line_with_what_fits() -> None:
    memory = Memory(state=2 * 10**9, activations=32 * 10**9, rows=32, length=512)
    with pytest.raises(UserError) as refused:
        check_memory(memory, gpu(20 * 10**9))
    assert str(refused.value) == (
        "params.yaml: train.micro_batch_size: training needs 34.0 GB, as predicted, and NVIDIA L4 has 20.0 GB free: "
        "2.0 GB for weights, gradients and optimizer, 32.0 GB for 32 texts of 512 tokens; expected at most 16, or "
        "train.gradient_checkpointing: true, train=lora, or a smaller train.max_length"
    )


def test_a_model_that_does_not_fit_with_any_batch_is_one_line() -> None:
    memory = Memory(state=30 * 10**9, activations=32 * 10**9, rows=32, length=512)
    with pytest.raises(UserError) as refused:
        check_memory(memory, gpu(20 * 10**9))
    assert refused.value.key == "train"
    assert refused.value.expected == (
        "train=lora, gradient checkpointing, a smaller model, or REPRISE_PROFILE=fsdp on several GPUs"
    )


def test_preflight_refuses_what_does_not_fit_and_passes_what_fits(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preflight(recipe(), HERE) == preflight(recipe())
    with pytest.raises(UserError) as refused:
        preflight(recipe(), Placement("cpu", "NVIDIA L4", 800_000, 1, sharded=False))
    assert refused.value.key == "train.micro_batch_size"
    assert "for 16 texts of " in refused.value.problem
    assert "warning" not in capsys.readouterr().out


def test_a_model_that_reads_its_values_is_not_predicted(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_a_value(*_: object) -> None:
        raise torch._subclasses.fake_tensor.DataDependentOutputException(None)

    monkeypatch.setattr("reprise.train.preflight.predict_memory", read_a_value)
    preflight(recipe(), HERE)
    assert capsys.readouterr().out == (
        "preflight: warning: the memory of training is not predicted for this model: DataDependentOutputException\n"
    )


def test_the_gpu_with_the_least_free_memory_counts(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {0: (9, 20), 1: (7, 20), 2: (1, 20)}
    monkeypatch.setattr(stage, "check_launch", lambda *_: 2)
    monkeypatch.setattr(stage, "require_device", lambda _: "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", free.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    found = stage.find_placement(recipe(), "cuda", LaunchConfig(nodes=2))
    assert found == Placement("cuda", "GPU 1", 7, 4, sharded=False)
    sharded = stage.find_placement(recipe(), "cuda", LaunchConfig(profile="fsdp"))
    assert sharded == Placement("cuda", "GPU 1", 7, 2, sharded=True)
    assert stage.find_placement(recipe(), "cpu", LaunchConfig()) is None


def test_memory_that_runs_out_during_training_is_one_line(
    train: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 14.56 GiB."
        )

    monkeypatch.setattr("reprise.train.worker.load_engine", lambda _: run_out)
    with pytest.raises(UserError) as refused:
        train()
    assert str(refused.value) == (
        "params.yaml: train.micro_batch_size: CUDA out of memory. Tried to allocate 2.25 GiB; expected fewer texts, "
        "train.gradient_checkpointing: true, train=lora, or a smaller train.max_length"
    )
