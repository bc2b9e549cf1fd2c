"""The optimizer: weight decay, and the learning rate of each step."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from reprise.core.config import Lora, Train
from reprise.core.validation import check_recipe
from reprise.modeling.classifier import load_classifier
from reprise.tasks.registry import task_kind
from reprise.train.model import apply_lora
from reprise.train.optimizer import build_optimizer, build_schedule
from tiny import tiny_recipe


def settings(**changes: Any) -> Train:
    return check_recipe(tiny_recipe(**{f"train.{key}": value for key, value in changes.items()}), "recipe").train


def learning_rates(steps: int, **changes: Any) -> list[float]:
    """The learning rate of each step, and the one after the last."""
    optimizer = build_optimizer(torch.nn.Linear(2, 2), settings(**changes))
    schedule = build_schedule(optimizer, settings(**changes), steps)
    rates = []
    for _ in range(steps + 1):
        rates.append(schedule.get_last_lr()[0])
        assert {group["lr"] for group in optimizer.param_groups} == {rates[-1]}
        optimizer.step()
        schedule.step()
    return rates


@pytest.fixture
def model(tiny_model: Path) -> PreTrainedModel:
    torch.manual_seed(0)
    return load_classifier(tiny_model, task_kind(["rotten", "fresh"]))


def test_only_matrices_decay(model: torch.nn.Module) -> None:
    optimizer = build_optimizer(model, settings(weight_decay=0.01))
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    decays = {name: decay_of[id(parameter)] for name, parameter in model.named_parameters()}
    spared = {name for name in decays if name.endswith(".bias") or "LayerNorm" in name}
    assert {name: decay for name, decay in decays.items() if decay != (0 if name in spared else 0.01)} == {}
    assert decays["classifier.weight"] == 0.01
    assert decays["classifier.bias"] == 0
    assert decays["bert.embeddings.word_embeddings.weight"] == 0.01
    assert decays["bert.embeddings.LayerNorm.weight"] == 0


def test_every_trainable_parameter_is_optimized_once(model: torch.nn.Module) -> None:
    frozen = model.get_parameter("bert.embeddings.word_embeddings.weight").requires_grad_(False)
    optimizer = build_optimizer(model, settings())
    optimized = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trainable = [id(parameter) for parameter in model.parameters() if parameter is not frozen]
    assert sorted(optimized) == sorted(trainable)


def test_learning_rates_fall_from_the_head_to_the_embeddings(model: torch.nn.Module) -> None:
    train = settings(layer_decay=0.8, learning_rate=1.0, weight_decay=0.01)
    optimizer = build_optimizer(model, train)
    rates = {name: 0.8**2 for name, _ in model.named_parameters() if name.startswith("bert.encoder.layer.0.")}
    rates |= {name: 0.8 for name, _ in model.named_parameters() if name.startswith("bert.encoder.layer.1.")}
    rates |= {name: 0.8**3 for name, _ in model.named_parameters() if name.startswith("bert.embeddings.")}
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[p]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert found.keys() == set(names.values())
    for parameter, name in names.items():
        assert found[name] == pytest.approx((rates.get(name, 1.0), 0.01 if parameter.ndim > 1 else 0.0)), name
    schedule = build_schedule(optimizer, train, 10)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    recorded = schedule.get_last_lr()[0]  # the head's
    assert recorded == pytest.approx(2 / 3)  # one step of warm-up, and three of nine towards 0
    assert {round(group["lr"] / recorded, 9) for group in optimizer.param_groups} == {1.0, 0.8, 0.64, 0.512}


def test_without_layer_decay_there_are_two_groups_and_one_of_1_has_the_same_rates(model: torch.nn.Module) -> None:
    assert [len(group["params"]) for group in build_optimizer(model, settings()).param_groups] == [
        sum(p.ndim > 1 for p in model.parameters()), sum(p.ndim == 1 for p in model.parameters()),
    ]  # fmt: skip
    rates = [group["lr"] for group in build_optimizer(model, settings(layer_decay=1.0)).param_groups]
    assert set(rates) == {settings().learning_rate}


def test_frozen_embeddings_have_no_learning_rate(model: torch.nn.Module) -> None:
    for parameter in model.get_submodule("bert.embeddings").parameters():
        parameter.requires_grad_(False)
    rates = [group["lr"] for group in build_optimizer(model, settings(layer_decay=0.5, learning_rate=1.0)).param_groups]
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_adapters_have_the_learning_rate_of_their_layer(model: PreTrainedModel) -> None:
    adapted = apply_lora(model, Lora(rank=2, alpha=4.0, targets="all-linear"))
    optimizer = build_optimizer(adapted, settings(layer_decay=0.5, learning_rate=1.0))
    names = {parameter: name for name, parameter in adapted.named_parameters()}
    for group in optimizer.param_groups:
        for name in (names[parameter] for parameter in group["params"]):
            assert group["lr"] == (0.25 if ".layer.0." in name else 0.5 if ".layer.1." in name else 1.0), name


def test_decay_shrinks_a_matrix_by_learning_rate_times_decay() -> None:
    layer = torch.nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = build_optimizer(layer, settings(learning_rate=0.1, weight_decay=0.5))
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), weight * 0.95)
    torch.testing.assert_close(layer.bias.detach(), bias)


def test_first_step_has_the_size_of_the_learning_rate() -> None:
    layer = torch.nn.Linear(2, 1)
    bias = layer.bias.detach().clone()
    optimizer = build_optimizer(layer, settings(learning_rate=0.1, weight_decay=0.0))
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    optimizer.step()
    torch.testing.assert_close(layer.bias.detach(), bias - 0.1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]),
        ("cosine", [0, 0.5, *(0.5 + 0.5 * math.cos(math.pi * eighths / 8) for eighths in range(9))]),
        ("constant", [0, 0.5, *[1] * 9]),
    ],
)
def test_learning_rate_warms_up_and_then_follows_its_schedule(schedule: str, expected: list[float]) -> None:
    rates = learning_rates(10, lr_scheduler=schedule, warmup_ratio=0.2, learning_rate=2e-5)
    assert rates == pytest.approx([2e-5 * fraction for fraction in expected], abs=1e-12)


def test_cosine_schedule_has_known_values() -> None:
    rates = learning_rates(10, lr_scheduler="cosine", warmup_ratio=0.2, learning_rate=1.0)
    assert [rates[2], rates[4], rates[6], rates[8]] == pytest.approx([1, 0.8535534, 0.5, 0.1464466], abs=1e-7)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_without_warmup_the_first_step_has_the_full_rate(schedule: str) -> None:
    assert learning_rates(4, lr_scheduler=schedule, warmup_ratio=0.0, learning_rate=0.5)[0] == 0.5


@pytest.mark.parametrize(("steps", "peak"), [(10, 1), (11, 2), (20, 2), (21, 3)])
def test_warmup_steps_are_rounded_up(steps: int, peak: int) -> None:
    rates = learning_rates(steps, lr_scheduler="linear", warmup_ratio=0.1, learning_rate=1.0)
    assert rates.index(max(rates)) == peak
    assert rates[1] == pytest.approx(1 / peak)
