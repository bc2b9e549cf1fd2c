"""Tests of the training benchmarks: FLOPs, baselines, summaries, results. `make test-full` runs them completely."""

import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

import accuracy
import data
import interleave
import results
import sharding
import training
import workspaces
from baselines import BASELINES, SliceTimer
from flops import training_flops
from packed import Packed, pack
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.train import worker as worker
from tiny import ROOT, Run, tiny_recipe

CPU = torch.device("cpu")
BATCH_SIZE = 16  # of the tiny recipe
# Two layers of width 32: four matrices of attention, two of the feed-forward part, which is twice as wide.
MATRICES = 2 * (4 * 32 * 32 + 2 * 32 * 64)


@pytest.fixture
def train_in_slices(
    prepared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Train as a baseline in this process: `train_in_slices("course", 2, 2)` returns its answers and results."""
    monkeypatch.chdir(ROOT)

    def train_in_slices(name: str, *steps: int, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        AcceleratorState._reset_state(reset_partial_state=True)  # one process trains once; here it trains often
        recipe = tiny_recipe(**{"train.precision": BASELINES[name].precision}, **changes)
        monkeypatch.chdir(workspaces.make_workspace(tmp_path / name, recipe, prepared_dir))
        monkeypatch.setattr(worker, "CheckpointManager", worker.CheckpointManager)  # which a baseline replaces
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"go {number}\n" for number in steps)))
        answers, reached = io.StringIO(), None
        with suppress(SystemExit):  # stdin has ended
            reached = BASELINES[name].train(check_recipe(recipe, "test"), SliceTimer(answers, CPU))
        return [json.loads(line) for line in answers.getvalue().splitlines()], reached

    yield train_in_slices
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results are written in this test."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.json")
    return tmp_path / "results.json"


def bert() -> BertForSequenceClassification:
    """A small BERT whose attention is written out, so that its products can be counted; without dropout."""
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def test_training_flops_match_a_count_by_hand() -> None:
    assert MATRICES == 16384
    # Texts of 3 and 5 tokens, in two layers of width 32.
    assert training_flops(bert(), 8, 9 + 25) == 3 * (2 * 16384 * 8 + 4 * 2 * 32 * 34) == 812544


def test_training_flops_match_the_counter_of_torch() -> None:
    model, rows, length = bert(), 4, 11
    with FlopCounterMode(display=False) as counter:
        model.bert.encoder(model.bert.embeddings(torch.ones(rows, length, dtype=torch.int64)))[0].sum().backward()
    assert training_flops(model, rows * length, rows * length**2) == counter.get_total_flops()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] * (name == "trainer-compiled")) for name in BASELINES]
)
def test_a_baseline_answers_each_slice_with_its_metrics(name: str, train_in_slices: Callable[..., Any]) -> None:
    (ready, *slices), reached = train_in_slices(name, 2, 3)
    assert reached is None
    assert ready == {"steps_per_epoch": 9}
    assert [each["steps"] for each in slices] == [2, 3]
    for each in slices:
        assert each["examples"] == each["steps"] * BATCH_SIZE
        assert 4 * each["examples"] <= each["tokens"] <= each["padded_tokens"] <= 16 * each["examples"]
        # Attention adds to the FLOPs of the encoder's matrices, at most as much as with 16 tokens in every text.
        per_token = each["flops"] / each["tokens"] / 3
        assert 2 * MATRICES < per_token < 2 * MATRICES + 4 * 2 * 32 * 16
        assert 0 < each["seconds"] < 60
        assert 100 < each["peak_memory_mib"] < 20_000
    executed = [each.get("executed_fraction") for each in slices]
    if name.startswith("reprise"):  # only the first token after the attention of the last layer
        assert 0.5 < executed[0] < 1
    assert executed[1] is None


def test_reprise_pads_less_than_the_course_and_packing_not_at_all(train_in_slices: Callable[..., Any]) -> None:
    padding = {}
    for name in ("course", "reprise", "packed"):
        (_, each), _ = train_in_slices(name, 8)
        padding[name] = 1 - each["tokens"] / each["padded_tokens"]
    assert padding["packed"] == 0 <= padding["reprise"] < padding["course"] / 2


def test_the_course_reduces_the_loss(train_in_slices: Callable[..., Any]) -> None:
    _, reached = train_in_slices("course", 1000, **{"train.epochs": 4})
    losses, accuracies = reached["losses"], reached["accuracies"]
    assert (len(losses), len(accuracies)) == (36, 4)
    assert sum(losses[-9:]) < 0.2 * sum(losses[:9])
    assert accuracies[-1] > 0.9


def test_packed_texts_do_not_see_each_other() -> None:
    model = bert().eval()
    texts = [torch.tensor([2, 7, 3]), torch.tensor([2, 9, 8, 11, 3]), torch.tensor([2, 3])]
    alone = [model(text[None]).logits for text in texts]
    together = pack(
        [
            {"input_ids": text, "token_type_ids": torch.zeros_like(text), "label": torch.tensor(number % 2)}
            for number, text in enumerate(texts)
        ]
    )
    packed = Packed(model, lambda *_: None, 5).eval()
    with torch.no_grad():
        torch.testing.assert_close(packed(**together).logits, torch.cat(alone))


def time_slice(tokens: int, seconds: float, **more: Any) -> dict[str, Any]:
    """Return a slice without padding and with one FLOP per token."""
    return {
        "seconds": seconds, "tokens": tokens, "padded_tokens": tokens, "flops": tokens, "padded_flops": tokens,
        "peak_memory_mib": 100, "steps": 1,
    } | more  # fmt: skip


def test_a_summary_is_the_median_over_rounds() -> None:
    warm_up = time_slice(1, 99.0, executed_fraction=0.8)
    slices = {
        "course": [warm_up, time_slice(100, 1.0), time_slice(100, 2.0), time_slice(100, 4.0)],
        "course-bf16": [warm_up, time_slice(100, 1.0), time_slice(100, 1.0), time_slice(100, 1.0)],
        "reprise": [
            warm_up,
            time_slice(300, 1.0),
            time_slice(400, 2.0),
            time_slice(900, 4.0, padded_tokens=1000, peak_memory_mib=120),
        ],
    }
    found = interleave.summarize(slices, {"fp32": 1000.0, "bf16": 1000.0}, mean_length=10.0)
    assert found["course"]["examples_per_second"] == 5.0  # 100, 50, 25 tokens a second
    assert found["reprise"] == {
        "examples_per_second": 22.5,
        "ratio_to_course": 4.0,  # 3, 4, 9
        "ratio_to_course_bf16": 2.25,  # 3, 2, 2.25
        "matrix_rate_fraction": 0.225,  # 0.3, 0.2, 0.225
        "padding_fraction": 0.059,
        "peak_memory_mib": 120,
        "steps": 3,
        "utilization": 0.18,
    }
    checked = training.check_goals(found | {"reprise-fp32": found["course"]})
    goals = {(goal["baseline"], goal["metric"]): goal["met"] for goal in checked}
    assert goals == {
        ("reprise", "ratio_to_course"): True,
        ("reprise", "ratio_to_course_bf16"): True,
        ("reprise", "matrix_rate_fraction"): False,
        ("reprise-fp32", "ratio_to_course"): False,
    }


def test_reviews_are_paired_in_order() -> None:
    reviews = [("a", "fresh"), ("b", "fresh"), ("c", "rotten"), ("d", "fresh"), ("e", "rotten")]
    assert list(workspaces.pair_reviews(reviews)) == [("a", "b", "alike"), ("c", "d", "differently")]
    check_recipe(tiny_recipe(task=workspaces.PAIRS), "test")


def test_writing_one_benchmark_keeps_the_results_of_the_others(written: Path) -> None:
    results.write("training", {"metric": 1})
    results.write("overhead", {"metric": 2})
    results.write("training", {"metric": 3})
    assert json.loads(written.read_text()) == {"training": {"metric": 3}, "overhead": {"metric": 2}} == results.read()
    assert {"processor", "cores", "memory_gib", "torch"} == results.machine().keys()


def test_a_seed_in_the_results_is_not_trained_again(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def train_course(recipe: dict[str, Any]) -> float:
        trained.append(recipe["seed"])
        return float(0.7 + recipe["seed"] / 1000)

    monkeypatch.setattr(accuracy, "default_recipe", tiny_recipe)
    monkeypatch.setattr(accuracy, "train_course", train_course)
    monkeypatch.setattr(
        accuracy, "reprise_accuracies", lambda _: {str(seed): 0.8 + seed / 1000 for seed in range(42, 47)}
    )
    monkeypatch.setattr(accuracy, "SEEDS", 1)
    accuracy.main()
    monkeypatch.setattr(accuracy, "SEEDS", 3)
    accuracy.main()
    assert trained == [42, 43, 44]
    content = results.read()["accuracy"]
    assert content["accuracy"]["course"] == pytest.approx({"42": 0.742, "43": 0.743, "44": 0.744})
    assert content["mean"] == pytest.approx({"course": 0.743, "reprise": 0.843})
    # Welch with equal spreads and counts: t of 4 degrees, 0.001 · √(2/3).
    half = stats.t.ppf(0.975, 4) * 0.001 * math.sqrt(2 / 3)
    assert content["reprise_minus_course"] == pytest.approx({"low": 0.1 - half, "high": 0.1 + half})
    assert "standard deviation" in capsys.readouterr().out


def test_the_accuracies_of_reprise_are_read_from_the_reference_of_this_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    shutil.copytree(ROOT / "docker/cpu", tmp_path / "docker/cpu")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPRISE_HARDWARE", raising=False)
    with pytest.raises(UserError, match="not found") as refused:
        accuracy.reprise_accuracies(recipe)
    assert refused.value.file == "reference/reviews-tiny-cpu.json"
    assert "`reprise seed-noise`" in refused.value.expected
    spread = {"mean": 0.75, "sd": 0.1}
    content = {
        "recipe": {"train.epochs": recipe["train"]["epochs"], "train.lora": None},
        "provenance": {},
        "metrics": {"train": {"accuracy": spread}},
        "seeds": {"1": {"train": {"accuracy": 0.7}}, "2": {"train": {"accuracy": 0.8}}},
    }
    file = Path("reference/reviews-tiny-cpu.json")
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    assert accuracy.reprise_accuracies(recipe) == {"1": 0.7, "2": 0.8}

    recipe["train"]["epochs"] += 1
    with pytest.raises(UserError) as refused:
        accuracy.reprise_accuracies(recipe)
    assert (refused.value.file, refused.value.key) == ("reference/reviews-tiny-cpu.json", "train.epochs")


def test_a_failed_baseline_is_reported_in_one_line_and_the_others_are_killed(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"^course ended: OSError: .*models/pretrained/tokenizer.*$"),
        interleave.running(["course", "trainer"], tmp_path / "c", tiny_recipe(), tmp_path, "cpu") as runners,
    ):
        runners[0].answer()
    assert None not in [runner.process.poll() for runner in runners]


def test_ctrl_c_kills_all_baselines(prepared_dir: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        interleave.running(["course", "reprise"], tmp_path / "c", tiny_recipe(), prepared_dir, "cpu") as runners,
    ):
        raise KeyboardInterrupt
    assert [runner.process.poll() for runner in runners] == [-9, -9]


def test_notes_are_split_over_files_with_ten_tokens_on_average(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(100)]
    data.write_notes(tmp_path / "one", words, 2000)
    data.write_notes(tmp_path / "other", words, 2000)
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == data.FILES
    notes = pq.read_table(tmp_path / "one")
    assert notes.equals(pq.read_table(tmp_path / "other"))
    assert notes["number"].to_pylist() == list(range(2000))
    assert 7.5 < np.mean([len(note.split()) for note in notes["note"].to_pylist()]) < 8.5  # the tokenizer adds two
    task = data.NOTES | {"split": {"validation": 0.1, "test": 0.1, "group_by": "author", "seed": 0}}
    check_recipe(tiny_recipe(task=task), "test")


@pytest.mark.full
def test_the_data_benchmark_is_interrupted_and_resumed_within_its_memory_limit(
    run: Run, written: Path, tmp_path: Path
) -> None:
    metrics = data.measure(tmp_path / "source", 40_000)
    assert metrics.keys() == {"prepare", "fresh", "resumed", "evaluate", "plan"}
    assert all(10 < metrics[name]["own_mb"] < data.LIMIT_MB for name in metrics)  # the plan imports no torch
    for name in ("fresh", "resumed"):
        assert 0 < metrics[name]["first_step_seconds"] < metrics[name]["seconds"]


@pytest.mark.full
def test_the_sharding_benchmark_trains_each_variant_to_the_same_loss(run: Run) -> None:
    printed = run(ROOT, sys.executable, "benchmarks/sharding.py", "--tiny").stdout
    rows = [
        line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith(("| replicated", "| sharded"))
    ]
    assert [tuple(row[:3]) for row in rows] == [
        (model, str(at_once), kept) for model, at_once, kept in sharding.VARIANTS
    ]
    losses = [float(row[-1]) for row in rows]
    assert losses == pytest.approx([losses[0]] * 2 + [losses[2]] * 3, rel=1e-3)
    assert all(float(row[3]) > 0 for row in rows)
