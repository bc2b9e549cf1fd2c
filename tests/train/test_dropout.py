"""Dropout by row: known bits, the right share, and no change however a batch is put together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, DebertaV2Config, PreTrainedModel

from reprise.modeling.classifier import load_classifier
from reprise.train.dropout import Dropout, DropoutKeys, attention, dropout_mask, replace_dropout, splitmix64

P = 0.1
PATTERN = [
    [1, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 1, 0],
    [0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0],
]  # of two rows, two tokens, eight values


@pytest.fixture
def keys() -> DropoutKeys:
    """Those of eight rows."""
    keys = DropoutKeys(42)
    keys.set_batch(0, list(range(8)), torch.zeros(8, 1))
    return keys


@pytest.fixture
def model(tiny_model: Path) -> tuple[PreTrainedModel, DropoutKeys]:
    torch.manual_seed(0)
    model = load_classifier(tiny_model, ["rotten", "fresh"])
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


def test_what_is_dropped_is_a_fixed_pattern() -> None:
    dropped = dropout_mask(of_rows(0, 7).values, 3, torch.Size([2, 2, 8]), 0.5, torch.float32).eq(0).int()
    assert dropped.flatten(1).tolist() == PATTERN


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1e-9])
def test_the_share_that_is_dropped_is_the_one_asked_for_and_the_mean_stays(keys: DropoutKeys, share: float) -> None:
    values = draw(keys, 64, 384, p=share)
    dropped = int(values.eq(0).sum())
    assert stats.binomtest(dropped, values.numel(), max(share, 2**-16)).pvalue > 1e-4
    assert len(values.unique()) <= 2
    assert values[values != 0].unique().item() == pytest.approx(1 / (1 - share), rel=1e-4)


def test_values_are_dropped_independently_of_their_neighbours_rows_tokens_and_places(keys: DropoutKeys) -> None:
    one = draw(keys, 64, 384).eq(0)
    others = {
        "neighbour": one.roll(1, 2),
        "beyond the neighbours that share a hash": one.roll(4, 2),
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


def test_a_row_drops_the_same_whatever_stands_beside_it_and_however_it_is_padded() -> None:
    together, alone = draw(of_rows(3, 5, 900), 12, 30), draw(of_rows(900), 12, 30)
    assert torch.equal(together[2:], alone)
    assert torch.equal(draw(of_rows(900), 12, 50)[..., :30], alone)
    assert torch.equal(draw(of_rows(900), 99, 30)[:, :12], alone)


def test_weights_of_attention_drop_the_same_however_they_are_padded() -> None:
    short = draw(of_rows(7), 12, 9, 9)
    assert torch.equal(draw(of_rows(7), 12, 16, 16)[:, :, :9, :9], short)


def test_rows_that_fill_a_batch_up_change_no_other_row() -> None:
    keys = DropoutKeys(42)
    keys.set_batch(0, [3, 5], torch.zeros(4, 7))
    assert keys.values.shape == (4,)
    assert torch.equal(keys.values[:2], of_rows(3, 5).values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_precision_drops_the_same(keys: DropoutKeys, dtype: torch.dtype) -> None:
    values = dropout_mask(keys.values, 0, torch.Size([8, 5, 32]), P, dtype)
    assert values.dtype == dtype
    assert torch.equal(values.eq(0), draw(keys, 5, 32).eq(0))


def test_gradients_are_dropped_where_values_are(keys: DropoutKeys) -> None:
    drop, values = Dropout(0.5, 0, keys), torch.ones(8, 3, 16, requires_grad=True)
    dropped = drop(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped)


def test_nothing_is_dropped_outside_of_training(model: tuple[PreTrainedModel, DropoutKeys]) -> None:
    values = torch.randn(2, 3, 4)
    assert all(torch.equal(part.eval()(values), values) for part in model[0].modules() if isinstance(part, Dropout))


def test_all_dropout_of_a_model_is_replaced_and_told_apart(model: tuple[PreTrainedModel, DropoutKeys]) -> None:
    parts = list(model[0].modules())
    places = [part.layer_id for part in parts if isinstance(part, Dropout)]
    assert len(places) == len(set(places)) == 1 + 3 * model[0].config.num_hidden_layers + 1
    assert not any(isinstance(part, nn.Dropout) for part in parts)


def test_a_batch_gives_the_gradients_of_its_rows_one_by_one(model: tuple[PreTrainedModel, DropoutKeys]) -> None:
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

    whole = gradients([[0, 1, 2, 3]])
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(gradients([[0], [2, 1], [3]]), whole, rtol=1e-4, atol=1e-7)


def test_attention_is_torchs_own_where_nothing_is_dropped_and_the_same_numbers_where_it_is_written_out() -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 8, 2, 6, 16).unbind()
    mask = (torch.arange(6) < torch.arange(1, 9)[:, None])[:, None, None].expand(8, 1, 6, 6)
    expected, _ = attention(nn.Module(), query, key, value, mask)
    asked = nn.Module()
    asked.drop = Dropout(0.0, 0, of_rows(*range(8)))  # the share that the attention is told of is another
    written_out, _ = attention(asked, query, key, value, mask, dropout=P)
    torch.testing.assert_close(written_out, expected)


def test_attention_that_looks_back_alone_stays_torchs_own() -> None:
    query, key, value = torch.randn(3, 8, 2, 6, 16).unbind()
    asked = nn.Module()
    asked.is_causal = True
    asked.drop = Dropout(P, 0, of_rows(*range(8)))
    first, _ = attention(asked, query, key, value, None)
    later, _ = attention(asked, query, key, torch.cat([value[:, :, :1], value[:, :, 1:] + 1], 2), None)
    assert torch.equal(first[:, 0], later[:, 0])


def test_dropout_of_what_all_rows_share_is_drawn_by_torch() -> None:
    config = DebertaV2Config(
        vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=37,
        relative_attention=True, pos_att_type=["p2c", "c2p"], pooler_hidden_size=32,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).train()
    keys = replace_dropout(model, 42)
    tokens = torch.randint(1, 99, (4, 12))
    keys.set_batch(0, [0, 1, 2, 3], tokens)
    said = []
    for seed in 1, 1, 2:
        torch.manual_seed(seed)
        said.append(model(tokens).logits)
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])


def test_the_configuration_that_is_saved_names_no_attention_of_ours(model: tuple[PreTrainedModel, DropoutKeys]) -> None:
    assert "reprise" not in model[0].config.to_json_string()
    assert isinstance(model[0].config, BertConfig)
