"""Dropout by example: known bits, the right fraction, and independence of the batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForSequenceClassification, BertConfig, DebertaV2Config, PreTrainedModel

from reprise.modeling.classifier import load_classifier
from reprise.tasks.registry import task_kind
from reprise.train import dropout
from reprise.train.dropout import (
    Dropout,
    DropoutKeys,
    attention,
    dropout_mask,
    on_gpu,
    replace_dropout,
    splitmix64,
)

P = 0.1
PATTERN = [
    [1, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 1, 0],
    [0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0],
]  # of two rows, two tokens, eight values


@pytest.fixture
def keys() -> DropoutKeys:
    """The keys of eight rows."""
    keys = DropoutKeys(42)
    keys.set_batch(0, list(range(8)), torch.zeros(8, 1))
    return keys


@pytest.fixture
def model(tiny_model: Path) -> tuple[PreTrainedModel, DropoutKeys]:
    torch.manual_seed(0)
    model = load_classifier(tiny_model, task_kind(["rotten", "fresh"]))
    return model.train(), replace_dropout(model, 42)


def draw(keys: DropoutKeys, *shape: int, layer_id: int = 0, p: float = P) -> torch.Tensor:
    return dropout_mask(keys.values, layer_id, torch.Size([len(keys.values), *shape]), p, torch.float32)


def of_rows(*rows: int, epoch: int = 0, seed: int = 42) -> DropoutKeys:
    keys = DropoutKeys(seed)
    keys.set_batch(epoch, list(rows), torch.zeros(len(rows)))
    return keys


def test_the_hash_is_splitmix64() -> None:
    # The first outputs for the seed 1234567, as they are published with many implementations.
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    bits = splitmix64(torch.tensor(1234567), torch.arange(5)).numpy().view(np.uint64)
    assert bits.tolist() == expected


def test_mask_is_a_fixed_pattern() -> None:
    dropped = dropout_mask(of_rows(0, 7).values, 3, torch.Size([2, 2, 8]), 0.5, torch.float32).eq(0).int()
    assert dropped.flatten(1).tolist() == PATTERN


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1e-9])
def test_fraction_of_dropped_values_is_p_and_the_mean_stays(keys: DropoutKeys, p: float) -> None:
    values = draw(keys, 64, 384, p=p)
    dropped = int(values.eq(0).sum())
    assert stats.binomtest(dropped, values.numel(), max(p, 2**-16)).pvalue > 1e-4
    assert len(values.unique()) <= 2
    assert values[values != 0].unique().item() == pytest.approx(1 / (1 - p), rel=1e-4)


def test_mask_is_independent_across_values_rows_tokens_and_layers(keys: DropoutKeys) -> None:
    one = draw(keys, 64, 384).eq(0)
    others = {
        "neighbour": one.roll(1, 2),
        "neighbour of another hash": one.roll(4, 2),
        "token": one.roll(1, 1),
        "row": one.roll(1, 0),
        "place": draw(keys, 64, 384, layer_id=1).eq(0),
        "epoch": draw(of_rows(*range(8), epoch=1), 64, 384).eq(0),
        "seed": draw(of_rows(*range(8), seed=43), 64, 384).eq(0),
        "attention": draw(keys, 64, 4, 96).eq(0).reshape(one.shape),
    }
    for what, other in others.items():
        table = [
            [int((one & other).sum()), int((one & ~other).sum())],
            [int((~one & other).sum()), int((~one & ~other).sum())],
        ]
        assert stats.chi2_contingency(table).pvalue > 1e-4, what


def test_mask_of_an_example_depends_on_neither_batch_nor_padding() -> None:
    together, alone = draw(of_rows(3, 5, 900), 12, 30), draw(of_rows(900), 12, 30)
    assert torch.equal(together[2:], alone)
    assert torch.equal(draw(of_rows(900), 12, 50)[..., :30], alone)
    assert torch.equal(draw(of_rows(900), 99, 30)[:, :12], alone)


def test_mask_of_attention_weights_does_not_depend_on_padding() -> None:
    short = draw(of_rows(7), 12, 9, 9)
    assert torch.equal(draw(of_rows(7), 12, 16, 16)[:, :, :9, :9], short)


def test_padding_rows_change_no_other_row() -> None:
    keys = DropoutKeys(42)
    keys.set_batch(0, [3, 5], torch.zeros(4, 7))
    assert keys.values.shape == (4,)
    assert torch.equal(keys.values[:2], of_rows(3, 5).values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mask_is_the_same_in_every_precision(keys: DropoutKeys, dtype: torch.dtype) -> None:
    values = dropout_mask(keys.values, 0, torch.Size([8, 5, 32]), P, dtype)
    assert values.dtype == dtype
    assert torch.equal(values.eq(0), draw(keys, 5, 32).eq(0))


def test_gradients_have_the_mask_of_the_values(keys: DropoutKeys) -> None:
    drop, values = Dropout(0.5, 0, keys), torch.ones(8, 3, 16, requires_grad=True)
    dropped = drop(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped)


def test_nothing_is_dropped_outside_of_training(model: tuple[PreTrainedModel, DropoutKeys]) -> None:
    values = torch.randn(2, 3, 4)
    assert all(torch.equal(part.eval()(values), values) for part in model[0].modules() if isinstance(part, Dropout))


def test_all_dropout_modules_are_replaced_with_unique_layer_ids(model: tuple[PreTrainedModel, DropoutKeys]) -> None:
    parts = list(model[0].modules())
    layer_ids = [part.layer_id for part in parts if isinstance(part, Dropout)]
    assert len(layer_ids) == len(set(layer_ids)) == 1 + 3 * model[0].config.num_hidden_layers + 1
    assert not any(isinstance(part, nn.Dropout) for part in parts)


def test_gradients_of_a_batch_equal_those_of_its_examples_one_by_one(
    model: tuple[PreTrainedModel, DropoutKeys],
) -> None:
    network, keys = model
    tokens, lengths = torch.arange(1, 41).view(4, 10), [10, 7, 5, 3]
    mask = torch.tensor([[int(place < length) for place in range(10)] for length in lengths])

    def gradients(batches: list[list[int]]) -> torch.Tensor:
        network.zero_grad()
        for rows in batches:
            keys.set_batch(2, rows, torch.zeros(len(rows)))
            width = max(lengths[row] for row in rows)
            network(tokens[rows, :width], mask[rows, :width]).logits[:, 0].sum().backward()
        return torch.cat([part.grad.flatten() for part in network.parameters() if part.grad is not None])

    together = gradients([[0, 1, 2, 3]])
    assert together.abs().max() > 0.01
    torch.testing.assert_close(gradients([[0], [2, 1], [3]]), together, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("shape", [(7,), (1, 32), (9, 32), (2, 9, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_of_several_layers_at_once_are_those_of_each(
    keys: DropoutKeys, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    layers, values = [0, 3, 2**15 - 1], torch.zeros(8, *shape, dtype=dtype)
    for layer_id, mask in zip(layers, keys.masks_of_layers(layers, values, P), strict=True):
        assert torch.equal(mask, dropout_mask(keys.values, layer_id, values.shape, P, dtype))


@pytest.mark.parametrize(
    ("limit", "shared_in_second"),
    [(2**27, [0, 1, 2, 3, 4]), (3 * 2 * 6 * 16, [3, 4])],  # too few for three layers of the second batch's length
)
def test_layers_with_masks_at_once_drop_the_same_values_in_each_batch(
    monkeypatch: pytest.MonkeyPatch, limit: int, shared_in_second: list[int]
) -> None:
    monkeypatch.setattr(dropout, "MAX_SHARED_VALUES", limit)
    keys, expected = DropoutKeys(42), DropoutKeys(42)
    shared = []
    for step, (length, other_length) in enumerate([(6, 6), (9, 9), (4, 1), (5, 1), (5, 5)]):
        for each in keys, expected:
            each.set_batch(step, [3, 4], torch.zeros(2))
        keys.at_once = True  # as on a GPU
        for layer_id, p in [*enumerate((0.1, 0.1, 0.1, 0.2, 0.2)), (0, 0.1)]:  # the first one is used twice
            dtype = torch.bfloat16 if layer_id == 4 else torch.float32
            values = torch.ones(2, other_length if layer_id == 2 else length, 16, dtype=dtype)
            first, second = (Dropout(p, layer_id, each).train()(values) for each in (keys, expected))
            assert torch.equal(first, second)
            assert first.dtype == second.dtype
        shared.append(sorted(keys.masks))
    assert shared == [[], shared_in_second, *[[0, 1, 2, 3, 4]] * 3]  # groups are those of the batch before


def test_on_a_cpu_each_layer_computes_its_own_mask(keys: DropoutKeys) -> None:
    for _ in range(2):
        keys.set_batch(0, list(range(8)), torch.zeros(8, 1))
        for layer_id in range(2):
            Dropout(P, layer_id, keys).train()(torch.ones(8, 4))
        assert not keys.masks


def test_attention_without_dropout_equals_torchs() -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 8, 2, 6, 16).unbind()
    mask = (torch.arange(6) < torch.arange(1, 9)[:, None])[:, None, None].expand(8, 1, 6, 6)
    expected, _ = attention(nn.Module(), query, key, value, mask)
    module = nn.Module()
    module.drop = Dropout(0.0, 0, of_rows(*range(8)))  # p differs from the argument of the attention
    written_out, _ = attention(module, query, key, value, mask, dropout=P)
    torch.testing.assert_close(written_out, expected)


def test_causal_attention_stays_torchs() -> None:
    query, key, value = torch.randn(3, 8, 2, 6, 16).unbind()
    module = nn.Module()
    module.is_causal = True
    module.drop = Dropout(P, 0, of_rows(*range(8)))
    first, _ = attention(module, query, key, value, None)
    later, _ = attention(module, query, key, torch.cat([value[:, :, :1], value[:, :, 1:] + 1], 2), None)
    assert torch.equal(first[:, 0], later[:, 0])


def test_dropout_of_values_common_to_all_rows_is_torchs() -> None:
    config = DebertaV2Config(
        vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=37,
        relative_attention=True, pos_att_type=["p2c", "c2p"], pooler_hidden_size=32,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).train()
    keys = replace_dropout(model, 42)
    tokens = torch.randint(1, 99, (4, 12))
    keys.set_batch(0, [0, 1, 2, 3], tokens)
    output = []
    for seed in 1, 1, 2:
        torch.manual_seed(seed)
        output.append(model(tokens).logits)
    assert torch.equal(output[0], output[1])
    assert not torch.equal(output[0], output[2])


def test_saved_configuration_does_not_name_our_attention(model: tuple[PreTrainedModel, DropoutKeys]) -> None:
    assert "reprise" not in model[0].config.to_json_string()
    assert isinstance(model[0].config, BertConfig)


def test_tensors_without_data_of_a_gpu_take_no_kernel_and_no_pinned_memory(keys: DropoutKeys) -> None:
    with FakeTensorMode():  # as memory.py predicts; a kernel or a pinned copy of them is an error
        keys.set_batch(0, [0, 1], torch.zeros(2, device="cuda"))
        assert keys.values.is_cuda
        assert not on_gpu(keys.values)
        assert not keys.at_once
