"""The training benchmark: its formula, its contenders' turns, what it writes. Whole, it is typed in `test-full`."""

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

import data
import folders
import gpu
import quality
import race
import results
import sharding
import training
from contender import CONTENDERS, Turns
from flops import training_flops
from made_up import made_up
from packed import Packed, pack
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.train import worker as stage
from tiny import ROOT, Run, tiny_recipe

CPU = torch.device("cpu")
BATCH_SIZE = 16  # of the tiny recipe
# Two layers of width 32: four matrices of attention, two of the feed-forward part, which is twice as wide.
MATRICES = 2 * (4 * 32 * 32 + 2 * 32 * 64)


@pytest.fixture
def take_turns(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Train as a contender in this process: `take_turns("course", 2, 2)` returns its answers, and what it reached."""
    monkeypatch.chdir(ROOT)

    def take_turns(name: str, *steps: int, **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        AcceleratorState._reset_state(reset_partial_state=True)  # one process trains once; here it trains often
        recipe = tiny_recipe(**{"train.precision": CONTENDERS[name].precision}, **changes)
        monkeypatch.chdir(folders.lay_out(tmp_path / name, recipe, bench))
        monkeypatch.setattr(stage, "CheckpointManager", stage.CheckpointManager)  # which a contender replaces
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"go {number}\n" for number in steps)))
        answers, reached = io.StringIO(), None
        with suppress(SystemExit):  # there are no more turns
            reached = CONTENDERS[name].train(check_recipe(recipe, "test"), Turns(answers, CPU))
        return [json.loads(line) for line in answers.getvalue().splitlines()], reached

    yield take_turns
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


def test_the_products_of_a_training_are_those_counted_by_hand() -> None:
    assert MATRICES == 16384
    # Texts of 3 and 5 tokens, in two layers of width 32.
    assert training_flops(bert(), 8, 9 + 25) == 3 * (2 * 16384 * 8 + 4 * 2 * 32 * 34) == 812544


def test_the_products_of_a_training_are_those_that_torch_counts() -> None:
    model, rows, length = bert(), 4, 11
    with FlopCounterMode(display=False) as counter:
        model.bert.encoder(model.bert.embeddings(torch.ones(rows, length, dtype=torch.int64)))[0].sum().backward()
    assert training_flops(model, rows * length, rows * length**2) == counter.get_total_flops()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] * (name == "compiled")) for name in CONTENDERS]
)
def test_a_contender_answers_each_turn_with_what_it_took(name: str, take_turns: Callable[..., Any]) -> None:
    (ready, *turns), reached = take_turns(name, 2, 3)
    assert reached is None
    assert ready == {"steps_per_epoch": 9}
    assert [turn["steps"] for turn in turns] == [2, 3]
    for turn in turns:
        assert turn["examples"] == turn["steps"] * BATCH_SIZE
        assert 4 * turn["examples"] <= turn["tokens"] <= turn["padded_tokens"] <= 16 * turn["examples"]
        # Attention makes it more than the tokens alone, but no more than if each text had 16.
        per_token = turn["flops"] / turn["tokens"] / 3
        assert 2 * MATRICES < per_token < 2 * MATRICES + 4 * 2 * 32 * 16
        assert 0 < turn["seconds"] < 60
        assert 100 < turn["peak_memory_mib"] < 20_000
    executed = [turn.get("executed_share") for turn in turns]
    if name.startswith("reprise"):  # less than all: nothing but the first token after the last layer's attention
        assert 0.5 < executed[0] < 1
    assert executed[1] is None


def test_reprise_pads_less_than_the_course_and_packed_nothing(take_turns: Callable[..., Any]) -> None:
    padding = {}
    for name in ("course", "reprise", "packed"):
        (_, turn), _ = take_turns(name, 8)
        padding[name] = 1 - turn["tokens"] / turn["padded_tokens"]
    assert padding["packed"] == 0 <= padding["reprise"] < padding["course"] / 2


def test_the_course_really_trains(take_turns: Callable[..., Any]) -> None:
    _, reached = take_turns("course", 1000, **{"train.epochs": 4})
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


def turn(tokens: int, seconds: float, **more: Any) -> dict[str, Any]:
    """A turn of a contender that pads nothing and does an operation a token."""
    return {
        "seconds": seconds, "tokens": tokens, "padded_tokens": tokens, "flops": tokens, "padded_flops": tokens,
        "peak_memory_mib": 100, "steps": 1,
    } | more  # fmt: skip


def test_what_is_told_of_a_contender_is_the_median_over_rounds() -> None:
    warm_up = turn(1, 99.0, executed_share=0.8)
    turns = {
        "course": [warm_up, turn(100, 1.0), turn(100, 2.0), turn(100, 4.0)],
        "course-bf16": [warm_up, turn(100, 1.0), turn(100, 1.0), turn(100, 1.0)],
        "reprise": [warm_up, turn(300, 1.0), turn(400, 2.0), turn(900, 4.0, padded_tokens=1000, peak_memory_mib=120)],
    }
    found = race.summarize(turns, {"fp32": 1000.0, "bf16": 1000.0}, mean_length=10.0)
    assert found["course"]["examples_per_second"] == 5.0  # 100, 50, 25 tokens a second
    assert found["reprise"] == {
        "examples_per_second": 22.5,
        "ratio_to_course": 4.0,  # 3, 4, 9
        "ratio_to_course_bf16": 2.25,  # 3, 2, 2.25
        "share_of_matrix_rate": 0.225,  # 0.3, 0.2, 0.225
        "padding_share": 0.059,
        "peak_memory_mib": 120,
        "steps": 3,
        "busy": 0.18,
    }
    judged = training.judge(found | {"reprise-fp32": found["course"]})
    goals = {(goal["contender"], goal["figure"]): goal["met"] for goal in judged}
    assert goals == {
        ("reprise", "ratio_to_course"): True,
        ("reprise", "ratio_to_course_bf16"): True,
        ("reprise", "share_of_matrix_rate"): False,
        ("reprise-fp32", "ratio_to_course"): False,
    }


def test_pairs_are_made_of_reviews_two_by_two() -> None:
    reviews = [("a", "fresh"), ("b", "fresh"), ("c", "rotten"), ("d", "fresh"), ("e", "rotten")]
    assert list(folders.pairs_of(reviews)) == [("a", "b", "alike"), ("c", "d", "differently")]
    check_recipe(tiny_recipe(task=folders.PAIRS), "test")


def test_a_part_of_the_results_keeps_the_others(written: Path) -> None:
    results.write("training", {"figure": 1})
    results.write("around", {"figure": 2})
    results.write("training", {"figure": 3})
    assert json.loads(written.read_text()) == {"training": {"figure": 3}, "around": {"figure": 2}} == results.read()
    assert {"processor", "cores", "memory_gib", "torch"} == results.machine().keys()


def test_a_seed_that_stands_in_the_results_is_not_trained_again(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def by_course(recipe: dict[str, Any]) -> float:
        trained.append(recipe["seed"])
        return float(0.7 + recipe["seed"] / 1000)

    monkeypatch.setattr(quality, "default_recipe", tiny_recipe)
    monkeypatch.setattr(quality, "by_course", by_course)
    monkeypatch.setattr(quality, "by_reprise", lambda _: {str(seed): 0.8 + seed / 1000 for seed in range(42, 47)})
    monkeypatch.setattr(quality, "SEEDS", 1)
    quality.main()
    monkeypatch.setattr(quality, "SEEDS", 3)
    quality.main()
    assert trained == [42, 43, 44]
    told = results.read()["quality"]
    assert told["accuracy"]["course"] == pytest.approx({"42": 0.742, "43": 0.743, "44": 0.744})
    assert told["mean"] == pytest.approx({"course": 0.743, "reprise": 0.843})
    # Welch with equal spreads and counts: t of 4 degrees, 0.001 · √(2/3).
    half = stats.t.ppf(0.975, 4) * 0.001 * math.sqrt(2 / 3)
    assert told["reprise_minus_course"] == pytest.approx({"low": 0.1 - half, "high": 0.1 + half})
    assert "standard deviation" in capsys.readouterr().out


def test_the_accuracies_of_reprise_are_those_of_the_reference_of_this_recipe_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    shutil.copytree(ROOT / "docker/cpu", tmp_path / "docker/cpu")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPRISE_HARDWARE", raising=False)
    with pytest.raises(UserError, match=r"^reference/reviews-tiny-cpu\.json: not found; expected what `reprise ref"):
        quality.by_reprise(recipe)
    spread = {"mean": 0.75, "sd": 0.1}
    content = {
        "recipe": {"train.epochs": recipe["train"]["epochs"], "train.lora": None},
        "made": {},
        "figures": {"train": {"accuracy": spread}},
        "seeds": {"1": {"train": {"accuracy": 0.7}}, "2": {"train": {"accuracy": 0.8}}},
    }
    file = Path("reference/reviews-tiny-cpu.json")
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    assert quality.by_reprise(recipe) == {"1": 0.7, "2": 0.8}

    recipe["train"]["epochs"] += 1
    with pytest.raises(UserError, match=r"^reference/reviews-tiny-cpu\.json: train\.epochs: expected "):
        quality.by_reprise(recipe)


def test_a_contender_that_fails_is_told_in_a_line_and_the_others_end(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"^course ended: OSError: .*models/pretrained/tokenizer.*$"),
        race.running(["course", "trainer"], tmp_path / "c", tiny_recipe(), tmp_path, "cpu") as runners,
    ):
        runners[0].answer()
    assert None not in [runner.process.poll() for runner in runners]


def test_ctrl_c_ends_all_contenders(bench: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        race.running(["course", "reprise"], tmp_path / "c", tiny_recipe(), bench, "cpu") as runners,
    ):
        raise KeyboardInterrupt
    assert [runner.process.poll() for runner in runners] == [-9, -9]


def test_without_a_gpu_its_benchmark_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=r"^PyTorch sees no GPU; expected one, as `make bench-gpu` hands it on.*$"):
        gpu.main(tiny=False)


def test_contenders_in_processes_of_their_own_take_turns_on_made_up_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe = made_up(tiny_recipe())
    place = gpu.make_up(tmp_path / "place", recipe, gpu.TINY)
    assert 51 < race.mean_length(place) < 55
    names = ("course", "course-bf16", "reprise")
    content = gpu.measure(names, tmp_path, recipe, place, gpu.TINY, "cpu")
    found = content["contenders"]
    assert found.keys() == set(names)
    assert found["course"]["ratio_to_course"] == 1
    assert found["reprise"]["padding_share"] < found["course"]["padding_share"]
    assert all(figures["examples_per_second"] > 0 for figures in found.values())
    assert content["matrix_rate"]["fp32"] > 1e9


def test_notes_lie_in_several_files_with_ten_tokens_on_average(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(100)]
    data.write_notes(tmp_path / "one", words, 2000)
    data.write_notes(tmp_path / "other", words, 2000)
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == data.FILES
    notes = pq.read_table(tmp_path / "one")
    assert notes.equals(pq.read_table(tmp_path / "other"))
    assert notes["number"].to_pylist() == list(range(2000))
    assert 7.5 < np.mean([len(note.split()) for note in notes["note"].to_pylist()]) < 8.5  # and two that are added
    task = data.NOTES | {"split": {"validation": 0.1, "test": 0.1, "group_by": "author", "seed": 0}}
    check_recipe(tiny_recipe(task=task), "test")


@pytest.mark.full
def test_the_benchmark_of_data_stops_and_goes_on_within_its_limit(run: Run, written: Path, tmp_path: Path) -> None:
    figures = data.measure(tmp_path / "place", 40_000)
    assert figures.keys() == {"prepare", "fresh", "resumed", "evaluate", "plan"}
    assert all(100 < figures[name]["own_mb"] < data.LIMIT_MB for name in figures)
    for name in ("fresh", "resumed"):
        assert 0 < figures[name]["first_step_seconds"] < figures[name]["seconds"]


@pytest.mark.full
def test_the_gpu_benchmark_runs_whole_on_the_processor(run: Run) -> None:
    said = run(ROOT, sys.executable, "benchmarks/gpu.py", "--tiny").stdout
    for name in gpu.ALL_NAMES:
        assert f"│ {name} " in said
    assert "Trained again: the same bits\nStopped and gone on: the same bits\n" in said


@pytest.mark.full
def test_the_benchmark_of_divided_models_trains_each_way_to_the_same_loss(run: Run) -> None:
    said = run(ROOT, sys.executable, "benchmarks/sharding.py", "--tiny").stdout
    rows = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith(("| whole", "| divided"))]
    assert [tuple(row[:3]) for row in rows] == [(model, str(at_once), kept) for model, at_once, kept in sharding.WAYS]
    losses = [float(row[-1]) for row in rows]
    assert losses == pytest.approx([losses[0]] * 2 + [losses[2]] * 3, rel=1e-3)
    assert all(float(row[3]) > 0 for row in rows)
