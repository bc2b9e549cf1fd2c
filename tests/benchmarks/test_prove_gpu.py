"""Tests of `make prove-gpu` on the CPU: the plan, the table, and each part. `make test-full` runs it completely."""

import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

import interleave
import proofs
import prove_gpu
import results
from launches import CARDS
from proofs import BERT, MINILM, TINY, Bench, Line, Outcome
from prove_gpu import PARTS, Done, Part
from reprise.core.errors import UserError
from reprise.train.dropout import Dropout
from synthetic import synthetic_recipe
from tiny import ROOT, tiny_recipe


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The CPU in place of a GPU."""
    monkeypatch.chdir(ROOT)
    return Bench(tmp_path, TINY, "cpu", [], recipe=synthetic_recipe(tiny_recipe()))


def part(name: str, seconds: int, *lines: Line, error: Exception | None = None) -> Part:
    """Return a part with these lines, which then fails if there is an error."""

    def run(_: Bench) -> Iterable[Line]:
        yield from lines
        if error:
            raise error

    return Part(name, seconds, run)


HELD = Line("a | b", "equal", "equal", Outcome.HOLDS)


def test_the_default_plan_leaves_nothing_out() -> None:
    assert prove_gpu.plan(PARTS, 60 * 8) == list(PARTS)


def test_the_plan_takes_the_parts_that_fit_in_their_order() -> None:
    parts = [part("a", 30), part("b", 60), part("c", 20), part("d", 10)]
    assert [each.name for each in prove_gpu.plan(parts, 60)] == ["a", "c", "d"]


def test_a_part_without_time_is_left_out_and_named(bench: Bench) -> None:
    first, second = prove_gpu.run_parts([part("a", 10, HELD), part("b", 10**6, HELD)], bench, 60)
    assert first.lines == [HELD]
    assert second.seconds is None
    assert [(line.what, line.outcome) for line in second.lines] == [("b", Outcome.NOT_RUN)]


def test_an_error_fails_its_part_and_no_other(bench: Bench) -> None:
    failing, following = prove_gpu.run_parts(
        [part("a", 1, HELD, error=UserError("no lock", file="docker/cuda")), part("b", 1, HELD)], bench, math.inf
    )
    assert failing.lines == [HELD, Line("a", "no error", "UserError: docker/cuda: no lock", Outcome.FAILS)]
    assert following.lines == [HELD]


@pytest.mark.parametrize(("outcome", "code"), [(Outcome.HOLDS, 0), (Outcome.SHORT, 0), (Outcome.FAILS, 1)])
def test_only_a_promise_that_does_not_hold_is_an_exit_code_of_1(
    outcome: Outcome, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("REPRISE_HARDWARE", "CUDA_VISIBLE_DEVICES", "REPRISE_PROCESSES"):
        monkeypatch.setenv(name, "")  # which main sets
    monkeypatch.setattr(prove_gpu, "PARTS", (part("a", 10**6, Line("x", "y", "z", outcome)),))
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(sys, "argv", ["prove_gpu.py", "--tiny", "--output", str(tmp_path / "gpu.md")])
    assert prove_gpu.main() == code
    assert (tmp_path / "gpu.md").read_text() == capsys.readouterr().out
    assert not results.RESULTS.exists()


def test_the_table_has_a_row_for_each_line_and_the_time_of_each_part(bench: Bench) -> None:
    table = prove_gpu.markdown(bench, [Done(part("a", 5), 3.4, [HELD, HELD]), Done(part("b", 7), None, [HELD])])
    assert table.splitlines()[-3:] == [
        "| a | a \\| b | equal | equal | holds | 3 s (5 s) |",
        "|  | a \\| b | equal | equal | holds |  |",
        "| b | a \\| b | equal | equal | holds | – (7 s) |",
    ]
    assert "3 promises hold, 0 do not" in table


def test_the_guide_names_each_part_with_its_estimate() -> None:
    guide = (ROOT / "docs/guides/gpus.md").read_text(encoding="utf-8").splitlines()
    for each in PARTS:
        assert [line for line in guide if line.startswith(f"| {each.name} |") and line.endswith(f"| {each.seconds} |")]


def test_without_a_gpu_it_fails_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^PyTorch sees no GPU; expected one, as in `make prove-gpu`.*$"):
        prove_gpu.visible_gpus(tiny=False)
    assert prove_gpu.visible_gpus(tiny=True) == []


def test_masks_hold_on_the_cpu(bench: Bench) -> None:
    with patch.object(proofs, "MASK_SHAPES", ((5, 3, 17, 17), (9, 33))):
        assert [line.outcome for line in proofs.prove_masks(bench)] == [Outcome.HOLDS] * 2


def test_a_mask_of_another_layer_is_found(bench: Bench) -> None:
    forward = Dropout.forward

    def wrong_at_once(layer: Dropout, values: torch.Tensor) -> torch.Tensor:
        layer.layer_id += int(layer.keys.at_once)
        return forward(layer, values)

    with patch.object(proofs, "MASK_SHAPES", ((9, 33),)), patch.object(Dropout, "forward", wrong_at_once):
        one_by_one, at_once = proofs.prove_masks(bench)
    assert one_by_one.outcome is Outcome.HOLDS
    assert at_once.outcome is Outcome.FAILS
    assert at_once.found == "6 differ, the first: [9, 33] torch.float32 p=0.1"


def test_losses_beyond_the_tolerance_do_not_hold(bench: Bench) -> None:
    bench._losses = {"CPU": [0.5, 0.25], "device": [0.5, 0.25 + 1e-6], "2 processes": [0.5, 0.26]}
    assert [line.outcome for line in proofs.prove_losses(bench)] == [Outcome.HOLDS]
    assert [line.outcome for line in proofs.prove_processes(bench)] == [Outcome.FAILS]
    bench.hardware, bench.gpus = "cuda", ["0"]
    assert [line.outcome for line in proofs.prove_processes(bench)] == [Outcome.NOT_RUN]


def test_a_goal_is_reached_or_says_what_is_missing() -> None:
    assert proofs.goal("x", 1.5, 1.5, "{:.2f} ×") == Line("x", "at least 1.50 ×", "1.50 ×", Outcome.REACHED)
    short = proofs.goal("x", 0.4, 0.45, "{:.1%}")
    assert (short.found, short.outcome) == ("40.0%, short by 5.0%", Outcome.SHORT)


@pytest.mark.parametrize(
    ("device", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
    ],
)
def test_the_time_of_a_step_is_predicted_for_cards_of_that_number(device: str, card: str | None) -> None:
    assert proofs.card_of(device) == card
    assert card is None or proofs.predicted_ms(card, "reprise", TINY.models[BERT]) > 1000 * CARDS[card].gap


def test_a_run_whose_data_is_missing_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert proofs.committed_run() == "data/prepared/stats.json is missing; `dvc repro prepare` makes it"


def test_predictions_are_timed_and_the_workspace_is_left(bench: Bench) -> None:
    (line,) = proofs.measure_prediction(bench)
    assert line.outcome is Outcome.MEASURED
    assert float(line.found.removesuffix(" rows/s")) > 0
    assert Path.cwd() == ROOT


@pytest.mark.full
def test_baselines_in_their_own_processes_run_interleaved_on_synthetic_texts(bench: Bench) -> None:
    source = bench.source(MINILM)
    assert 51 < interleave.mean_length(source) < 55
    (line,) = proofs.measure_speed(MINILM, bench)
    assert line.outcome is Outcome.MEASURED
    speed = bench.speed[MINILM]
    found = speed["baselines"]
    assert found.keys() == set(proofs.BASELINES)
    assert found["reprise"]["padding_fraction"] < found["course-bf16"]["padding_fraction"]
    assert all(metrics["examples_per_second"] > 0 for metrics in found.values())
    assert speed["best"] in set(proofs.BASELINES) - {"reprise"}
    assert prove_gpu.speed_table(bench, MINILM).count("| – | ") == len(found)  # no memory of a GPU


@pytest.mark.full
@pytest.mark.timeout(900)
def test_it_runs_completely_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/prove_gpu.py", "--tiny", "--output", str(tmp_path / "gpu.md")]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850, check=True).stdout
    assert (tmp_path / "gpu.md").read_text() in printed
    for each in PARTS:
        assert f"\n| {each.name} | " in printed
    for name in (*proofs.BASELINES[:-1], "**reprise**", "packed"):
        assert f"\n| {name} | " in printed
    assert ": 11 promises hold, 0 do not." in printed
