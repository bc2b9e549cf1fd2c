"""Prove on a GPU what Reprise promises, and measure it against alternatives, in at most eight minutes.

`make prove-gpu` runs it in the image for GPUs, prints a table in Markdown and writes it to benchmarks/gpu.md.
`python benchmarks/prove_gpu.py --tiny` runs all of it on the CPU with a tiny model, to test the script.
"""

import argparse
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

import proofs
import results
from proofs import FULL, TINY, Bench, Line, Outcome
from reprise.core.errors import UserError
from reprise.train.stage import count_gpus
from synthetic import BATCH_SIZE

TABLE = Path(__file__).with_name("gpu.md")


@dataclass(frozen=True)
class Part:
    """A part of the script.

    Attributes:
        name: in the table.
        seconds: expected on a card of an H100's class beside 16 cores; an estimate, no measurement.
        run: yields its lines.
    """

    name: str
    seconds: int
    run: Callable[[Bench], Iterable[Line]]


@dataclass(frozen=True)
class Done:
    """The lines of a part, and the seconds that it took; none if it was left out."""

    part: Part
    seconds: float | None
    lines: list[Line]


PARTS = (
    Part("environment", 20, proofs.prove_environment),
    Part("dropout", 10, proofs.prove_masks),
    Part("attention", 5, proofs.prove_attention),
    Part("CPU's losses", 55, proofs.prove_losses),
    Part("equal bits", 95, proofs.prove_bits),
    Part("two GPUs", 25, proofs.prove_processes),
    Part("speed, BERT-base", 135, proofs.measure_bert),
    Part("speed, MiniLM", 70, proofs.measure_minilm),
    Part("complete recipe", 50, proofs.prove_recipe),
    Part("prediction", 15, proofs.measure_prediction),
)


def main() -> int:
    """Run the parts, print and write the table, and write the results; return the exit code."""
    parser = argparse.ArgumentParser(description="Prove on a GPU what Reprise promises.")
    parser.add_argument("--tiny", action="store_true", help="test this script on the CPU; its numbers are meaningless")
    parser.add_argument("--minutes", type=float, default=8, help="leave out parts that do not fit (default 8)")
    default = f"benchmarks/{TABLE.name}; with --tiny: none"
    parser.add_argument("--output", type=Path, help=f"file of the table (default {default})")
    options = parser.parse_args()
    gpus = visible_gpus(tiny=options.tiny)
    hardware = "cuda" if gpus else "cpu"
    device = {"REPRISE_HARDWARE": hardware, "CUDA_VISIBLE_DEVICES": gpus[0] if gpus else ""}
    os.environ |= device | {"REPRISE_PROCESSES": "1"}  # of the runs that follow, unless they compare processes
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="reprise-prove-") as scratch:
        bench = Bench(Path(scratch), TINY if options.tiny else FULL, hardware, gpus)
        # The estimates are of a GPU, so that they plan nothing on a CPU.
        done = run_parts(PARTS, bench, math.inf if options.tiny else 60 * options.minutes)
        table = markdown(bench, done)
    print(table, end="")
    if file := options.output or (None if options.tiny else TABLE):
        file.write_text(table, encoding="utf-8")
    if not options.tiny:
        results.write("gpu", content(bench, done))
    return int(any(line.outcome is Outcome.FAILS for each in done for line in each.lines))


def visible_gpus(*, tiny: bool) -> list[str]:
    """Return the GPUs of this process as `CUDA_VISIBLE_DEVICES` names them; [] for a test on the CPU.

    Raises:
        UserError: there is none, and it is no test.
    """
    if tiny:
        return []
    if not torch.cuda.is_available():
        expected = "one, as in `make prove-gpu`, or --tiny to test on the CPU"
        raise UserError("PyTorch sees no GPU", expected=expected)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(count_gpus())]


def plan(parts: Sequence[Part], seconds: float) -> list[Part]:
    """Return the parts that fit into this time, by their estimates, in their order."""
    fitting: list[Part] = []
    for part in parts:
        if part.seconds + sum(each.seconds for each in fitting) <= seconds:
            fitting.append(part)
    return fitting


def run_parts(parts: Sequence[Part], bench: Bench, seconds: float) -> list[Done]:
    """Run the parts that fit into this time; an error fails its part only.

    What fits is planned again before each part, with the time that is left then.
    """
    began, done = time.monotonic(), []
    for number, part in enumerate(parts):
        left = seconds - (time.monotonic() - began)
        if part not in plan(parts[number:], left):
            reason = f"expected {part.seconds} s, {max(left, 0):.0f} s are left of {seconds:.0f}: --minutes"
            done.append(Done(part, None, [Line(part.name, "", reason, Outcome.NOT_RUN)]))
            continue
        print(f"prove-gpu: {number + 1}/{len(parts)} {part.name}", file=sys.stderr, flush=True)
        part_began, lines = time.monotonic(), []
        try:
            for line in part.run(bench):
                lines.append(line)  # noqa: PERF402  those before an error stay
        except Exception as error:
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            lines.append(Line(part.name, "no error", reason, Outcome.FAILS))
        done.append(Done(part, round(time.monotonic() - part_began, 1), lines))
    return done


def content(bench: Bench, done: Sequence[Done]) -> dict[str, Any]:
    """Return what is written to results.json."""
    return {
        "machine": results.machine() | {"gpu": bench.name},
        "parts": {
            each.part.name: {"seconds": each.seconds, "lines": [asdict(line) for line in each.lines]} for each in done
        },
        "speed": bench.speed,
    }


def markdown(bench: Bench, done: Sequence[Done]) -> str:
    """Return the tables of all parts and of the speed."""
    failed = sum(line.outcome is Outcome.FAILS for each in done for line in each.lines)
    held = sum(line.outcome is Outcome.HOLDS for each in done for line in each.lines)
    seconds = sum(each.seconds or 0 for each in done)
    lines = [
        f"Proved on {bench.name} with PyTorch {torch.__version__}, in {seconds:.0f} s: {held} promises hold, "
        f"{failed} do not.",
        "",
        "| part | | expected | found | | time (estimate for a GPU) |",
        "|---|---|---|---|---|---:|",
    ]
    for each in done:
        took = f"{'–' if each.seconds is None else f'{each.seconds:.0f} s'} ({each.part.seconds} s)"
        for number, line in enumerate(each.lines):
            cells = (each.part.name if not number else "", line.what, line.expected, line.found, line.outcome)
            lines.append(f"| {' | '.join(map(escape, cells))} | {'' if number else took} |")
    return "\n".join(lines) + "\n" + "".join(speed_table(bench, model) for model in bench.speed)


def speed_table(bench: Bench, model: str) -> str:
    """Return the table of the interleaved baselines of a model."""
    speed = bench.speed[model]
    card, predicted = speed["card"], speed["predicted_ms"]
    heading = f"predicted for {card}" if card else "predicted: no rates of this card"
    rate = speed["matrix_rate"]["bf16"] / 1e12
    lines = [
        "",
        f"{model} in bf16, {BATCH_SIZE} pairs of 53 tokens per step, random weights; a matrix product reaches "
        f"{rate:.3g} TFLOP/s:",
        "",
        f"| | rows/s | of that rate | padding | peak memory | ms per step | {heading} |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, metrics in speed["baselines"].items():
        rows = metrics["examples_per_second"]
        # On a CPU the memory is the process's, not the allocator's.
        memory = f"{metrics['peak_memory_mib'] / 1024:.1f} GiB" if bench.hardware == "cuda" else "–"
        cells = (
            f"**{name}**" if name == "reprise" else name, f"{rows:.0f}", f"{metrics['matrix_rate_fraction']:.0%}",
            f"{metrics['padding_fraction']:.1%}", memory, f"{1000 * BATCH_SIZE / rows:.1f}",
            f"{predicted[name]:.1f} ms" if name in predicted else "–",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Reprise to {speed['best']}, the best of the others: {speed['ratio_to_best']:.2f} ×."]
    return "\n".join(lines) + "\n"


def escape(cell: str) -> str:
    """Return a text that stays within a cell of a table in Markdown."""
    return " ".join(cell.replace("|", "\\|").split())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"prove-gpu: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
