"""What `make prove-gpu` runs: each part returns its lines, of what was promised and what was found."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn
from transformers import BertConfig

import launches
import results
from interleave import interleave, mean_length, progress, ratio, running, speeds, summarize
from reprise.commands.backends import Backend
from reprise.commands.parity import TOLERANCE, run_each
from reprise.commands.predict_table import predict_file
from reprise.core.config import to_dict
from reprise.core.dvc_lock import output_md5
from reprise.core.errors import UserError
from reprise.core.files import sha256
from reprise.core.paths import FINAL_MODEL, METRICS, PREPARED, PRETRAINED
from reprise.core.validation import check_recipe, read_recipe
from reprise.data.format import stats_path
from reprise.data.tokenization import load_tokenizer
from reprise.hardware import locked_environment
from reprise.modeling.classifier import load_classifier
from reprise.modeling.inference import load_text_model
from reprise.modeling.recipe import model_recipe
from reprise.results.reference import Reference, find_reference
from reprise.results.run import (
    EVALUATION,
    LOSSES,
    RunResult,
    commit_reader,
    flatten,
    parse_evaluation_metrics,
    parse_losses,
    parse_train_metrics,
    read_result,
)
from reprise.results.vcs import resolve_commit
from reprise.results.verdict import first_divergence, is_equivalent, is_within_noise
from reprise.train import dropout
from reprise.train.dropout import Dropout, DropoutKeys
from reprise.train.provenance import first_line
from synthetic import BATCH_SIZE, TINY_BERT, random_pairs, synthetic_recipe, write_model
from training import ROUNDS, SLICE_SECONDS
from workspaces import Recipe, make_workspace, prepare_pairs, write_pairs

BERT, MINILM = "BERT-base", "MiniLM"
BASELINES = ("course-bf16", "trainer-bf16", "trainer-grouped", "trainer-compiled", "reprise")
# The goals of Reprise with BERT-base on a card of an H100's class.
RATIO_GOAL, RATE_GOAL = 1.5, 0.45
# The steps that launches.py predicts, by baseline.
PREDICTED = {"trainer-bf16": "trainer", "reprise": "reprise"}
# Shapes of values: states and weights of attention of both models, and small ones that no kernel's blocks divide.
MASK_SHAPES = ((32, 53, 768), (32, 12, 53, 53), (7, 128, 384), (5, 3, 17, 17), (4, 1, 5), (9, 33))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Rows, heads, length and size of attention: both models, a longer text, and a head that the kernel pads.
ATTENTION_SHAPES = ((32, 12, 53, 64), (32, 12, 128, 32), (2, 4, 512, 128), (3, 2, 70, 96))
# Largest difference of the two forms of attention, relative to the largest value: of one rounding each in bf16.
ATTENTION_BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2**-6}

# Runs `reprise train` and sends it SIGTERM after {steps} steps, as a pre-emption does.
STOPPING = """
import signal
from reprise.cli import app
from reprise.train.checkpoint import CheckpointManager

maybe_save = CheckpointManager.maybe_save

def stopped_after_step(self):
    if self.recorder.history.steps_done == {steps}:
        signal.raise_signal(signal.SIGTERM)
    maybe_save(self)

CheckpointManager.maybe_save = stopped_after_step
app(["train"], prog_name="reprise")
"""


class Outcome(StrEnum):
    """What a line shows. Only a promise that does not hold makes the script fail."""

    HOLDS = "holds"
    FAILS = "**does not hold**"
    REACHED = "reached"
    SHORT = "not reached"
    MEASURED = "measured"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Line:
    """A line of the table: what was looked at, what was expected, what was found."""

    what: str
    expected: str
    found: str
    outcome: Outcome


def promise(what: str, expected: str, found: str, *, holds: bool) -> Line:
    """Return the line of a promise."""
    return Line(what, expected, found, Outcome.HOLDS if holds else Outcome.FAILS)


@dataclass(frozen=True)
class Size:
    """How much each part computes.

    Attributes:
        models: configuration of each model with random weights.
        pairs: synthetic pairs that are prepared; a tenth is for validation.
        rounds: of the interleaved baselines.
        seconds: per slice of a baseline.
        steps: of the runs whose bits are compared.
        loss_steps: of the runs whose losses are compared.
        matrix: rows of the matrices whose products give the device's rate.
        predicted: rows that are predicted.
    """

    models: dict[str, BertConfig]
    pairs: int
    rounds: int
    seconds: float
    steps: int
    loss_steps: int
    matrix: int
    predicted: int


# A product of 2048 rows, as on a CPU, does not occupy a large GPU.
FULL = Size(launches.MODELS, 30_000, ROUNDS, SLICE_SECONDS, steps=40, loss_steps=20, matrix=4096, predicted=20_000)
TINY = Size(dict.fromkeys(launches.MODELS, TINY_BERT), 600, 1, 0.1, steps=4, loss_steps=3, matrix=128, predicted=200)


@dataclass
class Bench:
    """The device, and what the parts share.

    Attributes:
        scratch: an empty folder.
        size: how much is computed.
        hardware: cuda, or cpu to test this script.
        gpus: GPUs as `CUDA_VISIBLE_DEVICES` names them; the first one is used, and two where processes are compared.
        speed: the results of the interleaved baselines by model.
    """

    scratch: Path
    size: Size
    hardware: str
    gpus: list[str]
    speed: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=lambda: synthetic_recipe(to_dict(read_recipe())))
    _losses: dict[str, list[float]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The device under test."""
        return torch.device("cuda" if self.hardware == "cuda" else "cpu")

    @property
    def name(self) -> str:
        """The name of the device."""
        return torch.cuda.get_device_name() if self.hardware == "cuda" else f"the CPU, {results.machine()['processor']}"

    def source(self, model: str) -> Path:
        """Return the workspace with a model of random weights and prepared synthetic pairs; create it if needed."""
        folder = self.scratch / "sources" / model
        if not folder.exists():
            make_workspace(folder, self.recipe, Path(), [])
            tokenizer = folder / PRETRAINED / "tokenizer"
            words = write_model(self.size.models[model], folder / PRETRAINED / "model", tokenizer)
            prepare_pairs(folder, random_pairs(words, self.size.pairs))
        return folder

    def losses(self, name: str) -> list[float]:
        """Train the first steps of the small model in fp32, once, on CPU or in some processes; return the losses."""
        two = {"REPRISE_PROCESSES": "2", "CUDA_VISIBLE_DEVICES": ",".join(self.gpus[:2])}
        backends = {
            "CPU": Backend(sys.executable, "cpu", {}),
            "device": Backend(sys.executable, self.hardware, {}),
            "2 processes": Backend(sys.executable, self.hardware, two),
        }
        if name not in self._losses:
            exact = self.recipe | {"train": self.recipe["train"] | {"precision": "fp32"}}
            with chdir(self.source(MINILM)):
                recipe = check_recipe(exact, "params.yaml")
                (run,) = run_each(recipe, self.size.loss_steps, {name: (backends[name], {})})
            self._losses[name] = run.losses
        return self._losses[name]


def prove_environment(bench: Bench) -> Iterator[Line]:
    """Check the installed software against its locks, and describe the device."""
    yield Line("device", "", bench.name, Outcome.MEASURED)
    if bench.hardware == "cuda":
        card = torch.cuda.get_device_properties(0)
        driver = re.search(r"\d+\.\d+[.\d]*", first_line(Path("/proc/driver/nvidia/version")) or "")
        found = f"{card.major}.{card.minor}, {card.total_memory / 2**30:.0f} GiB, {driver[0] if driver else 'unknown'}"
        yield Line("compute capability, memory, driver", "", found, Outcome.MEASURED)
    packages = locked_environment(bench.hardware)["packages"]
    yield promise("installed files", "as locked", f"{len(packages)} packages as locked", holds=True)


def prove_masks(bench: Bench) -> Iterator[Line]:
    """Compare dropout, forward and backward, with the CPU's."""
    cases = list(product(MASK_SHAPES, DTYPES, (0.1, 0.5)))
    ways: dict[str, list[str]] = {"layer by layer": [], "of all layers at once": []}
    for shape, dtype, p in cases:
        expected = dropped(torch.device("cpu"), shape, dtype, p, at_once=False)
        for way, different in ways.items():
            found = dropped(bench.device, shape, dtype, p, at_once=way == "of all layers at once")
            if not all(map(torch.equal, found, expected)):
                different.append(f"{list(shape)} {dtype} p={p}")
    for way, different in ways.items():
        shown = f"{len(different)} differ, the first: {different[0]}" if different else "every bit"
        what = f"masks {way}, {len(cases)} cases, forward and backward"
        yield promise(what, "the CPU's bits", shown, holds=not different)


def dropped(
    device: torch.device, shape: tuple[int, ...], dtype: torch.dtype, p: float, *, at_once: bool, layers: int = 3
) -> list[torch.Tensor]:
    """Return what layers of dropout make of the same values, and the gradients, on the CPU.

    The masks of all layers are computed at once from the second batch on, whose shapes are then known. The last row of
    the batch is padding.
    """
    generator = torch.Generator().manual_seed(0)
    values, gradient = (torch.randn(shape, generator=generator).to(dtype).to(device) for _ in range(2))
    keys = DropoutKeys(seed=42)
    found: list[torch.Tensor] = []
    for epoch in range(2):
        keys.set_batch(epoch, list(range(shape[0] - 1)), values)
        keys.at_once = at_once
        found = []
        for layer in range(layers):
            states = values.clone().requires_grad_()
            output = Dropout(p, layer, keys)(states)
            output.backward(gradient)
            assert states.grad is not None
            found += [output.detach().cpu(), states.grad.cpu()]
    return found


def prove_attention(bench: Bench) -> Iterator[Line]:
    """Compare the kernel of attention, forward and backward, with the form written out; on a CPU both are that form."""
    for dtype, bound in ATTENTION_BOUNDS.items():
        largest = 0.0
        for shape in ATTENTION_SHAPES:
            found = attended(bench.device, shape, dtype)
            with patch.object(dropout, "is_fused", lambda *_: False):
                expected = attended(bench.device, shape, dtype)
            for one, two in zip(found, expected, strict=True):
                largest = max(largest, float((one - two).abs().max() / two.abs().max()))
        what = f"attention in {str(dtype).removeprefix('torch.')}, {len(ATTENTION_SHAPES)} cases, forward and backward"
        expected_line = f"within {bound:.1e} of the form written out"
        yield promise(what, expected_line, f"largest difference {largest:.1e}", holds=largest <= bound)


def attended(device: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    """Return attention with dropout and padding, and the gradients of query, key and value, in fp32."""
    rows, heads, length, size = shape
    generator = torch.Generator().manual_seed(0)
    *inputs, gradient = (
        torch.randn(rows, length, heads, size, generator=generator).to(device, dtype) for _ in range(4)
    )
    lengths = torch.arange(length, 0, -1)[:rows, None, None, None]
    mask = (torch.arange(length) < lengths).expand(rows, 1, length, length).to(device)
    keys, module = DropoutKeys(seed=42), nn.Module()
    keys.set_batch(0, list(range(rows)), gradient)
    module.drop = Dropout(0.1, 0, keys)
    states = [each.transpose(1, 2).requires_grad_() for each in inputs]
    output, _ = dropout.attention(module, states[0], states[1], states[2], mask, dropout=0.1)
    return [each.detach().float() for each in (output, *torch.autograd.grad(output, states, gradient))]


def prove_losses(bench: Bench) -> Iterator[Line]:
    """Compare the losses of the first steps with the CPU's."""
    yield compare_losses(f"losses of {bench.size.loss_steps} steps in fp32", "CPU", bench)


def prove_processes(bench: Bench) -> Iterator[Line]:
    """Compare the losses of one process with those of two."""
    what = f"losses of {bench.size.loss_steps} steps in fp32, 2 processes"
    if bench.hardware == "cuda" and len(bench.gpus) < 2:
        yield Line(what, "those of one process", "one GPU is visible, and two are needed", Outcome.NOT_RUN)
    else:
        yield compare_losses(what, "2 processes", bench)


def compare_losses(what: str, other: str, bench: Bench) -> Line:
    """Return the line of the largest difference between the losses of the device and others."""
    largest = max(abs(one - two) for one, two in zip(bench.losses("device"), bench.losses(other), strict=True))
    expected = f"within {TOLERANCE:g} of {'the CPU' if other == 'CPU' else 'one process'}'s"
    return promise(what, expected, f"largest difference {largest:.1e}", holds=largest <= TOLERANCE)


def prove_bits(bench: Bench) -> Iterator[Line]:
    """Train, repeat, and interrupt and resume; compare the weights."""
    steps = bench.size.steps
    recipe = bench.recipe | {"train": bench.recipe["train"] | {"max_steps": steps}}
    train, stopped = ("-m", "reprise", "train"), ("-c", STOPPING.format(steps=steps // 2))

    def weights(name: str, *programs: tuple[tuple[str, ...], int]) -> str:
        folder = make_workspace(bench.scratch / "bits" / name, recipe, bench.source(BERT))
        for program, code in programs:
            run_python(bench, folder, *program, code=code)
        return sha256(folder / FINAL_MODEL / "model.safetensors")

    once = weights("once", (train, 0))
    for name, before in {"repeated": [], "interrupted and resumed": [(stopped, 143)]}.items():
        same = weights(name, *before, (train, 0)) == once
        what = f"{BERT}, {steps} steps, {name}"
        yield promise(what, "the same weights to the bit", once[:12] if same else "other weights", holds=same)


def run_python(bench: Bench, folder: Path, *arguments: str, code: int = 0) -> None:
    """Run Python in a workspace, on the device.

    Raises:
        UserError: it ended with another exit code; its own message is on stderr.
    """
    environment = os.environ | {"REPRISE_HARDWARE": bench.hardware}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, stdout=sys.stderr)
    if done.returncode != code:
        name = " ".join(arguments).split("\n")[0]
        raise UserError(f"ended with code {done.returncode}, see above", key=name, expected=str(code))


def measure_speed(model: str, bench: Bench) -> Iterator[Line]:
    """Time the baselines interleaved, and compare Reprise with the best of the others."""
    names = [*BASELINES, *(["packed"] if model == BERT else [])]
    source, size = bench.source(model), bench.size
    with running(names, bench.scratch / "speed" / model, bench.recipe, source, bench.hardware) as runners:
        report = progress(model, size.rounds)
        slices, rates = interleave(runners, size.rounds, size.seconds, bench.device, report, matrix=size.matrix)
    baselines = summarize(slices, rates, mean_length(source))
    best = max(set(baselines) - {"reprise"}, key=lambda name: float(baselines[name]["examples_per_second"]))
    faster = ratio(speeds(slices["reprise"]), speeds(slices[best]))
    card = card_of(bench.name)
    predicted = {name: predicted_ms(card, step, size.models[model]) for name, step in PREDICTED.items()} if card else {}
    bench.speed[model] = {
        "matrix_rate": rates, "baselines": baselines, "best": best, "ratio_to_best": faster, "card": card,
        "predicted_ms": predicted,
    }  # fmt: skip
    rows = f"{baselines['reprise']['examples_per_second']:.0f} rows/s"
    yield Line(f"Reprise at {model}, bf16, {BATCH_SIZE} rows per step", "", rows, Outcome.MEASURED)
    if model == BERT:
        yield goal(f"the same to {best}, the best of the others", faster, RATIO_GOAL, "{:.2f} ×")
        fraction = baselines["reprise"]["matrix_rate_fraction"]
        yield goal("the same, of the rate of a matrix product", fraction, RATE_GOAL, "{:.1%}")


def goal(what: str, reached: float, minimum: float, form: str) -> Line:
    """Return the line of a goal, with what is missing to it."""
    short = "" if reached >= minimum else f", short by {form.format(minimum - reached)}"
    outcome = Outcome.SHORT if short else Outcome.REACHED
    return Line(what, f"at least {form.format(minimum)}", form.format(reached) + short, outcome)


def card_of(device: str) -> str | None:
    """Return the card of launches.py with this model number, such as "H100 SXM" for any H100; None if none has it."""
    words = re.split(r"[\s-]+", device)
    return next((card for card in launches.CARDS if card.split()[0] in words), None)


def predicted_ms(card: str, variant: str, config: BertConfig) -> float:
    """Return the predicted milliseconds of a training step on a card."""
    kernels = launches.count_step(variant, config, launches.ROWS, launches.LENGTHS[0])
    return round(1000 * launches.CARDS[card].seconds(kernels), 2)


@dataclass(frozen=True)
class KnownRun:
    """A result that is reproduced: what it is trained on, the result itself, and the spread over seeds, if measured."""

    source: Path
    recipe: Recipe
    result: RunResult
    reference: Reference | None


def prove_recipe(bench: Bench) -> Iterator[Line]:
    """Train and evaluate the recipe of this checkout, and grade losses and metrics against the committed ones."""
    known = committed_run() if bench.hardware == "cuda" else tiny_run(bench)
    if isinstance(known, str):
        yield Line("recipe of params.yaml, complete", "within seed noise of the committed run", known, Outcome.NOT_RUN)
        return
    losses, metrics = train_and_evaluate(bench, "recipe", known.recipe, known.source)
    found = replace(known.result, losses=losses, metrics=metrics)
    divergence = first_divergence(known.result, found)
    differ = f"differ from step {divergence.step}, by at most {divergence.largest:.2%}" if divergence else "equal"
    yield Line(f"losses of all {len(losses)} steps", "", differ, Outcome.MEASURED)
    for stage, names in metrics.items():
        equivalent = is_equivalent(stage, known.result, found)
        within = equivalent or bool(known.reference and is_within_noise(stage, found, known.reference))
        before = known.result.metrics[stage]
        values = (f"{name} {value:.4f} (committed {before[name]:.4f})" for name, value in names.items())
        grade = "equivalent" if equivalent else "within seed noise" if within else "beyond seed noise"
        yield promise(f"{stage}: metrics", "within seed noise", f"{grade}: {', '.join(values)}", holds=within)


def committed_run() -> KnownRun | str:
    """Return the run that HEAD holds, or why it cannot be compared."""
    missing = [path for path in (stats_path(), PRETRAINED / "model") if not path.exists()]
    if missing:
        return f"{missing[0]} is missing; `dvc repro prepare` makes it"
    head = resolve_commit("HEAD")
    result, recipe = read_result(commit_reader(head), head[:7]), to_dict(read_recipe())
    current = flatten(recipe)
    if changed := [key for key, value in result.recipe.items() if current.get(key) != value]:
        return f"params.yaml is not the committed one: {', '.join(changed)}"
    for path in (PREPARED, PRETRAINED):
        if (output := result.outputs.get(str(path))) and output_md5(path) != output.md5:
            return f"{path} is not the committed one"
    return KnownRun(Path(), recipe, result, find_reference(result, "cpu"))


def tiny_run(bench: Bench) -> KnownRun:
    """Return a run on this CPU, to test the comparison."""
    recipe, source = bench.recipe | {"train": bench.recipe["train"] | {"max_steps": 4}}, bench.source(MINILM)
    losses, metrics = train_and_evaluate(bench, "known", recipe, source)
    return KnownRun(source, recipe, RunResult({}, flatten(recipe), {}, losses, metrics, {}), None)


def train_and_evaluate(bench: Bench, name: str, recipe: Recipe, source: Path) -> tuple[Any, dict[str, Any]]:
    """Run both stages in a workspace; return the loss of each step, and the metrics by stage."""
    folder = make_workspace(bench.scratch / name, recipe, source)
    for stage in ("train", "evaluate"):
        run_python(bench, folder, "-m", "reprise", stage)
    losses = parse_losses((folder / LOSSES).read_bytes())
    validation = parse_train_metrics((folder / METRICS / "train.json").read_bytes())
    return losses, {
        "train": {"loss": float(losses.mean()), **validation},
        "evaluate": parse_evaluation_metrics((folder / EVALUATION).read_bytes()),
    }


def measure_prediction(bench: Bench) -> Iterator[Line]:
    """Time `reprise predict --file` on synthetic pairs without loading the model: reading, tokenizing, writing."""
    folder = make_workspace(bench.scratch / "predict", bench.recipe, bench.source(MINILM))
    words, rows = [f"w{number}" for number in range(90)], bench.size.predicted
    with chdir(folder):
        recipe, on_cpu = model_recipe(check_recipe(bench.recipe, "params.yaml")), bench.hardware == "cpu"
        load_classifier(PRETRAINED / "model", recipe.kind).save_pretrained(FINAL_MODEL)
        load_tokenizer(PRETRAINED / "tokenizer").save_pretrained(FINAL_MODEL)
        model, seconds = load_text_model(recipe, cpu=on_cpu), 0.0
        for count in (64, rows):  # the first ones warm up
            file = Path(f"{count}.csv")
            write_pairs(file, random_pairs(words, count))
            began = time.perf_counter()
            predict_file(recipe, model, file, Path("predictions.jsonl"))
            seconds = time.perf_counter() - began
        written = len(pd.read_json("predictions.jsonl", lines=True))
    what = f"predictions of {rows} pairs at {MINILM}, fp32, from file to file"
    yield Line(what, "", f"{written / seconds:.0f} rows/s", Outcome.MEASURED)


measure_bert, measure_minilm = partial(measure_speed, BERT), partial(measure_speed, MINILM)
