"""What a training step launches: which operations count, what they move, to which part they belong."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig

import launches
import results
from launches import Kernel, Rates, Recorder, count_step, launches_kernel, launches_of_list
from synthetic import TINY_BERT
from tiny import ROOT

aten = torch.ops.aten
ROWS, LENGTH, LAYERS = 4, 8, 2
DROPOUTS = 3 * LAYERS + 2  # per layer one of attention's weights and two of hidden states; the embeddings, the head


@pytest.fixture(autouse=True)
def default_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the repository's params.yaml."""
    monkeypatch.chdir(ROOT)


def count(variant: str, part: str = "", phase: str = "") -> Counter[str]:
    kernels = count_step(variant, TINY_BERT, ROWS, LENGTH)
    return Counter(k.name for k in kernels if part in ("", k.part) and phase in ("", k.phase))


def test_views_and_allocations_launch_nothing() -> None:
    views = (aten.view, aten.transpose.int, aten.expand, aten.slice.Tensor, aten.detach, aten.t, aten._unsafe_view)
    others = (aten.empty_like, aten.new_empty, torch.ops.prim.device)
    for operation in (*views, *others):
        overload = operation if isinstance(operation, torch._ops.OpOverload) else operation.default
        assert not launches_kernel(overload), overload
    for overload in (aten.add.Tensor, aten.add_.Tensor, aten.mm.default, aten.zero_.default, aten.clone.default):
        assert launches_kernel(overload), overload


@pytest.mark.parametrize(
    ("sizes", "lists", "expected"),
    [
        ([10], 1, 1),
        ([10] * 110, 1, 1),
        ([10] * 111, 1, 2),
        ([10] * 72, 4, 2),
        ([320 * 65536], 1, 1),
        ([320 * 65536 + 1], 1, 2),
        ([300 * 65536, 40 * 65536, 5], 1, 2),
        ([], 1, 0),
    ],
)
def test_an_operation_on_a_list_launches_once_per_36_to_110_tensors_or_320_chunks(
    sizes: list[int], lists: int, expected: int
) -> None:
    assert launches_of_list(sizes, lists) == expected


def test_a_linear_layer_reads_and_writes_its_matrices_once() -> None:
    layer, values = nn.Linear(16, 8), torch.ones(4, 16)
    with Recorder() as recorder:
        layer(values)
    (kernel,) = recorder.kernels
    assert (kernel.name, kernel.launches, kernel.dtype) == ("addmm", 1, torch.float32)
    assert kernel.bytes == 4 * (16 * 8 + 8 + 4 * 16 + 4 * 8)
    assert kernel.flops == 2 * 4 * 16 * 8


def test_expanded_values_and_rows_that_are_not_looked_up_move_no_bytes() -> None:
    assert launches.memory(torch.ones(3, 1).expand(3, 1000)) == 12
    with Recorder() as recorder:
        nn.Embedding(1000, 16)(torch.zeros(5, dtype=torch.int64))
    assert [kernel.bytes for kernel in recorder.kernels if kernel.name == "embedding"] == [2 * 5 * 16 * 4 + 5 * 8]


def test_the_slowest_of_launch_memory_and_products_bounds_a_kernel() -> None:
    rates = Rates(bandwidth=1e9, bf16=1e12, fp32=1e11, gap=1e-3)
    launch = Kernel("add", "forward", "other", 2, 1000, 0, torch.float32)
    move = Kernel("add", "forward", "other", 1, 10**8, 0, torch.float32)
    multiply = Kernel("mm", "forward", "other", 1, 10**6, 10**12, torch.bfloat16)
    slow = Kernel("mm", "forward", "other", 1, 10**6, 10**12, torch.float32)
    assert [rates.seconds([kernel]) for kernel in (launch, move, multiply, slow)] == [2e-3, 0.1, 1, 10]
    assert rates.seconds([launch, move]) == pytest.approx(0.102)


def test_layer_norms_and_the_loss_are_in_fp32_as_on_a_gpu() -> None:
    values, labels = torch.ones(4, 8, dtype=torch.bfloat16), torch.zeros(4, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16), launches.OnGpu():
        assert nn.LayerNorm(8)(values).dtype == nn.CrossEntropyLoss()(values, labels).dtype == torch.float32
        assert nn.Linear(8, 8)(values).dtype == torch.bfloat16


def test_trainer_launches_one_kernel_per_dropout_and_one_per_attention() -> None:
    dropouts = DROPOUTS - LAYERS  # those of attention are in its kernel
    assert count("trainer", "dropout") == {"native_dropout": dropouts, "native_dropout_backward": dropouts}
    attention = "_scaled_dot_product_efficient_attention"
    assert count("trainer", "attention")[attention] == LAYERS
    assert count("trainer", "attention", "backward") == {f"{attention}_backward": LAYERS}


def test_dropout_and_attention_of_reprise_are_found_in_the_forward_and_the_backward_pass() -> None:
    forward, backward = (count("reprise, mask by mask", "dropout", phase) for phase in ("forward", "backward"))
    assert forward["clamp"] == backward["mul"] == sum(backward.values()) == DROPOUTS
    assert count(launches.WRITTEN_OUT, "attention", "forward")["bmm"] == 2 * LAYERS
    assert count(launches.WRITTEN_OUT, "attention", "backward")["bmm"] == 4 * LAYERS
    assert count(launches.WRITTEN_OUT, "attention", "backward")["_softmax_backward_data"] == LAYERS


def test_attention_of_reprise_is_a_kernel_per_pass_with_its_traffic_and_products() -> None:
    kernels = count_step("reprise", TINY_BERT, ROWS, LENGTH)
    fused = [kernel for kernel in kernels if kernel.name.startswith("fused_attention")]
    assert [kernel.phase for kernel in fused] == ["forward"] * LAYERS + ["backward"] * LAYERS
    assert {kernel.launches for kernel in fused} == {1}
    assert {kernel.part for kernel in fused} == {"attention"}
    assert count("reprise", "attention", "backward") == {"fused_attention_backward": LAYERS}
    heads = TINY_BERT.num_attention_heads
    size = TINY_BERT.hidden_size // heads
    states, product = 2 * ROWS * LENGTH * heads * size, 2 * ROWS * heads * LENGTH**2 * size
    others = 2 * 4 * ROWS * heads * LENGTH + 8 * ROWS + ROWS * LENGTH**2  # statistics, keys, mask
    assert [fused[0].bytes, fused[-1].bytes] == [4 * states + others, 8 * states + others]
    assert [fused[0].flops, fused[-1].flops] == [2 * product, 5 * product]
    (forward, *_, backward) = (
        kernel for kernel in count_step("reprise", TINY_BERT, 1, 65) if kernel.name.startswith("fused_attention")
    )
    assert 2 * backward.flops == 7 * forward.flops  # of several blocks


def test_the_rest_of_the_step_is_as_with_trainer() -> None:
    for phase in ("clipping", "optimizer"):
        assert count("reprise", phase=phase) == count("trainer", phase=phase)
        assert count("reprise", phase=phase)


def test_a_count_without_data_is_that_of_a_step_with_data() -> None:
    setup = launches.set_up(
        "reprise, mask by mask", TINY_BERT, ROWS, LENGTH
    )  # the attention kernel of trainer needs a GPU
    for _ in range(2):
        with Recorder() as recorder, launches.OnGpu():
            launches.train_step(setup, recorder, foreach=True)
    with_data = Counter(kernel.name for kernel in recorder.kernels)
    with_data.subtract(count("reprise, mask by mask"))
    # With data, transformers asks whether the mask masks anything.
    assert {name: number for name, number in with_data.items() if number} == {"all": 1}


def test_masks_at_once_save_most_of_the_launches_of_dropout() -> None:
    variants = ("reprise, masks by operations", "reprise, mask by mask")
    at_once, one_by_one = (sum(count(v, "dropout").values()) for v in variants)
    assert at_once < 0.75 * one_by_one  # with two layers only


def test_the_kernel_of_the_masks_launches_once_per_shape_and_each_dropout_multiplies_once_per_pass() -> None:
    shapes = 4  # of the embeddings in fp32; of hidden states, those of the first token and the head in bf16
    for variant, more, dropouts in [("reprise", 0, DROPOUTS - LAYERS), (launches.WRITTEN_OUT, 1, DROPOUTS)]:
        found = count(variant, "dropout")
        assert found.pop("ones") == found.pop("add") == shapes + more  # the kernel and its keys
        assert found == {"mul": 2 * dropouts}


def test_counts_predictions_and_the_check_on_the_cpu_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = BertConfig(vocab_size=99, hidden_size=24, num_hidden_layers=1, intermediate_size=48)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(launches, "MODELS", {"MiniLM": small})
    monkeypatch.setattr(launches, "matrix_rate", lambda *_: 1e10)
    monkeypatch.setattr(launches, "copy_rate", lambda: 1e10)
    launches.main()
    content = results.read()["launches"]
    assert content["steps"].keys() == {"MiniLM, 32 x 53 tokens", "MiniLM, 32 x 128 tokens"}
    for variants in content["steps"].values():
        assert variants.keys() == set(launches.VARIANTS)
        for step in variants.values():
            assert step["launches"] == sum(step["launches_by_part"].values()) == sum(step["launches_by_phase"].values())
            for card in step["cards"].values():
                assert card["milliseconds"] == sorted(card["milliseconds"])
                assert card["milliseconds_without_gaps"] <= card["milliseconds"][0]
    assert all(step["measured_to_predicted"] > 0 for step in content["cpu"]["steps"].values())
    assert "never measured" in capsys.readouterr().out
