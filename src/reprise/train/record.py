"""What a run leaves behind: curves, metrics, speed, the chosen weights; and what it shows while it goes on."""

import functools
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import gather
from numpy.typing import NDArray
from safetensors import SafetensorError
from tqdm import tqdm

from reprise.errors import InputError
from reprise.modeling import Collator
from reprise.outputs import replacing_file, sha256, write_json
from reprise.places import FINAL
from reprise.recipe import Train
from reprise.shapes import padded_length
from reprise.train.divided import is_divided, whole_weights
from reprise.train.model import exported
from reprise.train.plan import Step, micro_batch_rows, order_digest, steps_in_all
from reprise.train.provenance import inputs
from reprise.train.trackers import Trackers
from reprise.xla import Compilations

# Figures stay on the device and are fetched together once in so many steps: a fetch waits for the device.
FETCH_EVERY = 10
LINE_SECONDS = 5.0
# What is told of a step, beside its number and its epoch.
CURVE = ("learning_rate", "loss", "grad_norm")
# The figures that an interrupted run takes up again, beside the curve and the clock.
KEPT = ("epochs", "chosen", "rows", "tokens", "padded_tokens", "step_seconds", "orders", "sessions")


class Record:
    """The figures of one run. Every process keeps one and takes part in fetching; the first one shows and writes."""

    def __init__(
        self, world: PartialState, train: Train, metric: str, lengths: NDArray[np.int64], folder: Path,
        session: dict[str, Any], collate: Collator, trackers: Trackers,
    ) -> None:  # fmt: skip
        """Keep the figures of a run over rows of these lengths; the chosen weights go to `folder`.

        `session` is what provenance.json says of this process's share; `collate` knows what batches are padded to;
        `trackers` are told the figures as they come.
        """
        self.buckets, self.compilations = collate.buckets, Compilations(world.device, collate.shapes)
        self.world, self.train, self.metric, self.folder = world, train, metric, folder
        self.trackers = trackers
        self.lengths = lengths
        self.steps_an_epoch = -(-len(lengths) // train.batch_size)
        self.steps_in_all = steps_in_all(
            len(lengths), batch_size=train.batch_size, epochs=train.epochs, max_steps=train.max_steps
        )
        self.micro_batch_rows = micro_batch_rows(train, world.num_processes)
        self.all_curve, self.taken = np.zeros((self.steps_in_all, len(CURVE))), 0  # of so many steps it is known
        self.steps: Sequence[Step] = ()  # of this epoch
        self.epochs: list[dict[str, float]] = []
        self.chosen = 0
        self.orders: list[str] = []
        self.sessions = [session | {"from_step": 0}]
        # Loss and gradient's norm of the last steps, the newest last; so many of them are not in the curve yet.
        self.figures = torch.zeros(FETCH_EVERY, 2).to(world.device)
        self.waiting = 0
        self.rows = self.tokens = self.padded_tokens = 0
        self.seconds = 0.0  # of whole epochs, validation left out
        self.step_seconds: list[float] = []  # between fetches, the mean of the steps there
        self.started = self.line_shown = self.fetched = time.perf_counter()
        self.left_of_epoch, self.whole = 0, False
        self.bar = tqdm(
            total=self.steps_in_all, desc="train", unit="step", dynamic_ncols=True,
            disable=not (world.is_main_process and sys.stderr.isatty()),
        )  # fmt: skip

    @property
    def curve(self) -> NDArray[np.float64]:
        """The figures of the steps so far: CURVE, shape [steps, 3]."""
        return self.all_curve[: self.taken]

    def start_epoch(self, epoch: int, steps: Sequence[Step]) -> int:
        """An epoch of these steps begins, or goes on; the clock of speed.json runs until the last.

        Returns:
            How many of them were taken before an interruption.
        """
        done = self.taken - epoch * self.steps_an_epoch
        self.steps = steps
        self.left_of_epoch, self.whole = len(steps) - done, done == 0
        self.trackers.start(self.sessions[0]["started"], from_step=self.sessions[-1]["from_step"])
        self.started = self.fetched = time.perf_counter()
        return done

    def note(self, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Keep, on the device, this process's share of a step's mean loss and the gradient's norm before clipping."""
        newest = torch.stack([loss, norm.float() / self.world.num_processes])
        self.figures = torch.cat([self.figures[1:], newest[None]])

    def step(self, epoch: int, step: Step, learning_rate: float) -> None:
        """Take up an optimizer step whose figures were noted."""
        self.all_curve[self.taken] = (learning_rate, np.nan, np.nan)  # `fetch` fills in the others
        self.taken += 1
        self.waiting += 1
        self.rows += step.rows
        for rows in step.micro_batches:
            self.tokens += int(self.lengths[rows].sum())
            length = padded_length(int(self.lengths[rows].max()), self.buckets)
            self.padded_tokens += length * (self.micro_batch_rows if self.buckets else len(rows))
        self.bar.update()
        self.left_of_epoch -= 1
        if self.waiting == FETCH_EVERY or self.left_of_epoch == 0:
            self.fetch()
        if self.left_of_epoch == 0:
            self.seconds = self._elapsed()
            self.orders[epoch:] = [order_digest(self.steps)]  # now: at the start, all of them would have to be planned
            self.started = time.perf_counter()

    def fetch(self) -> None:
        """Take the figures that are still on the device into the curve; every process takes part."""
        if not self.waiting:
            return
        shares = gather(self.figures[None]).cpu()
        figures = functools.reduce(torch.add, shares)[-self.waiting :].tolist()  # in this order, however many steps
        self.step_seconds.append((time.perf_counter() - self.fetched) / self.waiting)
        self.fetched, self.waiting = time.perf_counter(), 0
        newest = self.curve[-len(figures) :]
        newest[:, 1:] = figures
        for step, row in enumerate(newest.tolist(), start=self.taken - len(newest) + 1):
            told = {f"train/{name}": value for name, value in zip(CURVE, row, strict=True)}
            self.trackers.log(told, step=step)
        mean_loss = sum(loss for loss, _ in figures) / len(figures)
        largest_norm = max(norm for _, norm in figures)
        for name, value in (("loss", mean_loss), ("gradient's norm", largest_norm)):
            if not np.isfinite(value):
                raise InputError(
                    f"params.yaml: train.learning_rate: {self.train.learning_rate} makes the {name} {value} at step "
                    f"{len(self.curve)}; expected one that keeps it finite: try a tenth"
                )
        self._show(mean_loss)

    def _show(self, loss: float) -> None:
        now, elapsed = time.perf_counter(), self._elapsed()
        speed, done = self.rows / elapsed, len(self.curve)
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:.0f} examples/s")
        if self.bar.disable and self.world.is_main_process and now - self.line_shown > LINE_SECONDS:
            self.line_shown = now
            left = tqdm.format_interval(elapsed / done * (self.steps_in_all - done))
            epoch = (done - 1) // self.steps_an_epoch + 1
            print(
                f"train: epoch {epoch}/{self.train.epochs}, step {done}/{self.steps_in_all}, "
                f"loss {loss:.3f}, {speed:.0f} examples/s, {left} left",
                flush=True,
            )

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Take up an epoch's validation scores, which every process knows."""
        if self.whole:  # what is left of an epoch need not meet all shapes, nor even a step
            self.compilations.after_epoch()
        losses = self.curve[epoch * self.steps_an_epoch :, CURVE.index("loss")].tolist()
        self.epochs.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses), **scores})
        self.trackers.log({f"validation/{name}": value for name, value in scores.items()}, step=len(self.curve))
        best = max(range(len(self.epochs)), key=lambda number: self.epochs[number][self.metric])
        self.chosen = best if self.train.select == "best" else epoch
        if self.world.is_main_process:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self.bar.write(f"train: epoch {epoch + 1}/{self.train.epochs}: validation {shown}", file=sys.stdout)
            sys.stdout.flush()

    def is_chosen(self, epoch: int) -> bool:
        """Whether the weights of this epoch are the ones to keep, of those seen so far."""
        return self.chosen == epoch

    def save(self, model: torch.nn.Module) -> None:
        """Write the weights as safetensors, with the configuration, in the place of an earlier epoch's.

        Every process takes part; the first one writes.
        """
        gathered = whole_weights(model) if is_divided(model) else {}
        if self.world.is_main_process:
            final = exported(model)
            # XLA's cannot be written.
            weights = gathered or {name: tensor.cpu() for name, tensor in final.state_dict().items()}
            try:
                final.save_pretrained(self.folder, state_dict=weights)
            except (OSError, SafetensorError) as error:
                problem = getattr(error, "strerror", None) or error
                raise InputError(f"{FINAL}: {problem}; expected room for the model; `dvc repro` goes on then") from None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the figures: `curve`, and the rest as JSON can hold it; `fetch` comes first."""
        kept = {name: getattr(self, name) for name in ("curve", *KEPT)}
        return kept | {"seconds": self._elapsed() if self.left_of_epoch else self.seconds}

    def restore(self, state: dict[str, Any], chosen: Path | None = None) -> None:
        """Take up what `state` gave, and the chosen weights where there were any."""
        session = self.sessions[-1]
        for name in (*KEPT, "seconds"):
            setattr(self, name, state[name])
        self.taken = len(state["curve"])
        self.curve[:] = np.reshape(state["curve"], (-1, len(CURVE)))
        self.sessions.append(session | {"from_step": len(self.curve)})
        self.bar.update(len(self.curve))
        if chosen and self.world.is_main_process and chosen.is_dir():
            shutil.copytree(chosen, self.folder, dirs_exist_ok=True)

    def write(self, metrics: Path, plots: Path) -> None:
        """Write train.json, speed.json and provenance.json to `metrics`, train.csv and validation.csv to `plots`."""
        self.bar.close()
        chosen = self.epochs[self.chosen]
        scores = {name: value for name, value in chosen.items() if name not in ("epoch", "loss")}
        write_json(
            metrics / "train.json",
            {"epoch": chosen["epoch"], "steps": len(self.curve), "loss": chosen["loss"], "validation": scores},
        )
        write_json(metrics / "speed.json", self._speed())
        weights = {file.name: sha256(file) for file in sorted(FINAL.glob("*.safetensors"))}
        result = inputs() | {"sample_order": self.orders, "weights": weights}
        # In lists, since DVC shows a column for every value that stands in none.
        write_json(metrics / "provenance.json", {"sessions": self.sessions, "results": [result]})
        epochs = pd.DataFrame(self.epochs)
        epochs[self.metric] = epochs.pop(self.metric)  # the last column is what `dvc plots` draws
        number = np.arange(self.taken)
        curve = pd.DataFrame({"step": number + 1, "epoch": number // self.steps_an_epoch + 1})
        curve[list(CURVE)] = self.curve
        for name, table in (("train.csv", curve), ("validation.csv", epochs)):
            with replacing_file(plots / name) as partial:
                table.to_csv(partial, index=False)

    def _speed(self) -> dict[str, Any]:
        cuda = self.world.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() / 1024 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "train_seconds": round(self.seconds, 2),
            "median_step_seconds": round(statistics.median(self.step_seconds), 4),
            "examples_per_second": round(self.rows / self.seconds, 1),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "padding_share": round(1 - self.tokens / self.padded_tokens, 4),
            "peak_memory_mib": round(peak / 1024),
            "processes": self.world.num_processes,
            "threads": torch.get_num_threads(),
            **self.compilations.figures(),
        }
