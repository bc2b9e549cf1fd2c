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

from reprise.core.config import Train
from reprise.core.errors import UserError
from reprise.core.files import atomic_file, sha256, write_json
from reprise.core.paths import FINAL_MODEL
from reprise.modeling.bucketing import padded_length
from reprise.modeling.collator import Collator
from reprise.modeling.xla import CompilationMonitor
from reprise.train.fsdp import full_state_dict, is_sharded
from reprise.train.model import merge_adapters
from reprise.train.provenance import input_digests
from reprise.train.sampler import StepPlan, order_digest, resolve_micro_batch_size, total_steps
from reprise.train.trackers import Trackers

# Figures stay on the device and are fetched together once in so many steps: a fetch waits for the device.
FLUSH_EVERY_STEPS = 10
LOG_EVERY_S = 5.0
# What is told of a step, beside its number and its epoch.
HISTORY_COLUMNS = ("learning_rate", "loss", "grad_norm")
# The figures that an interrupted run takes up again, beside the curve and the clock.
STATE_FIELDS = ("epochs", "best_epoch", "rows", "tokens", "padded_tokens", "step_seconds", "order_digests", "sessions")


class TrainingHistory:
    """The figures of one run. Every process keeps one and takes part in fetching; the first one shows and writes."""

    def __init__(
        self, world: PartialState, train: Train, metric: str, lengths: NDArray[np.int64], folder: Path,
        session: dict[str, Any], collate: Collator, trackers: Trackers,
    ) -> None:  # fmt: skip
        """Keep the figures of a run over rows of these lengths; the chosen weights go to `folder`.

        `session` is what provenance.json says of this process's share; `collate` knows what batches are padded to;
        `trackers` are told the figures as they come.
        """
        self.buckets, self.compilations = collate.buckets, CompilationMonitor(world.device, collate.seen_shapes)
        self.world, self.train, self.metric, self.folder = world, train, metric, folder
        self.trackers = trackers
        self.lengths = lengths
        self.steps_per_epoch = -(-len(lengths) // train.batch_size)
        self.total_steps = total_steps(
            len(lengths), batch_size=train.batch_size, epochs=train.epochs, max_steps=train.max_steps
        )
        self.micro_batch_rows = resolve_micro_batch_size(train, world.num_processes)
        self.all_curve, self.steps_done = (
            np.zeros((self.total_steps, len(HISTORY_COLUMNS))),
            0,
        )  # of so many steps it is known
        self.steps: Sequence[StepPlan] = ()  # of this epoch
        self.epochs: list[dict[str, float]] = []
        self.best_epoch = 0
        self.order_digests: list[str] = []
        self.sessions = [session | {"from_step": 0}]
        # Loss and gradient's norm of the last steps, the newest last; so many of them are not in the curve yet.
        self.figures = torch.zeros(FLUSH_EVERY_STEPS, 2).to(world.device)
        self.pending = 0
        self.rows = self.tokens = self.padded_tokens = 0
        self.seconds = 0.0  # of whole epochs, validation left out
        self.step_seconds: list[float] = []  # between fetches, the mean of the steps there
        self.started = self.line_shown = self.fetched = time.perf_counter()
        self.steps_left, self.whole = 0, False
        self.bar = tqdm(
            total=self.total_steps, desc="train", unit="step", dynamic_ncols=True,
            disable=not (world.is_main_process and sys.stderr.isatty()),
        )  # fmt: skip

    @property
    def history(self) -> NDArray[np.float64]:
        """The figures of the steps so far: CURVE, shape [steps, 3]."""
        return self.all_curve[: self.steps_done]

    def start_epoch(self, epoch: int, steps: Sequence[StepPlan]) -> int:
        """An epoch of these steps begins, or goes on; the clock of speed.json runs until the last.

        Returns:
            How many of them were taken before an interruption.
        """
        done = self.steps_done - epoch * self.steps_per_epoch
        self.steps = steps
        self.steps_left, self.whole = len(steps) - done, done == 0
        self.trackers.start(self.sessions[0]["started"], from_step=self.sessions[-1]["from_step"])
        self.started = self.fetched = time.perf_counter()
        return done

    def log_device(self, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Keep, on the device, this process's share of a step's mean loss and the gradient's norm before clipping."""
        newest = torch.stack([loss, norm.float() / self.world.num_processes])
        self.figures = torch.cat([self.figures[1:], newest[None]])

    def log_step(self, epoch: int, step: StepPlan, learning_rate: float) -> None:
        """Take up an optimizer step whose figures were noted."""
        self.all_curve[self.steps_done] = (learning_rate, np.nan, np.nan)  # `fetch` fills in the others
        self.steps_done += 1
        self.pending += 1
        self.rows += step.num_examples
        for rows in step.micro_batches:
            self.tokens += int(self.lengths[rows].sum())
            length = padded_length(int(self.lengths[rows].max()), self.buckets)
            self.padded_tokens += length * (self.micro_batch_rows if self.buckets else len(rows))
        self.bar.update()
        self.steps_left -= 1
        if self.pending == FLUSH_EVERY_STEPS or self.steps_left == 0:
            self.flush()
        if self.steps_left == 0:
            self.seconds = self._elapsed()
            self.order_digests[epoch:] = [
                order_digest(self.steps)
            ]  # now: at the start, all of them would have to be planned
            self.started = time.perf_counter()

    def flush(self) -> None:
        """Take the figures that are still on the device into the curve; every process takes part."""
        if not self.pending:
            return
        shares = gather(self.figures[None]).cpu()
        figures = functools.reduce(torch.add, shares)[-self.pending :].tolist()  # in this order, however many steps
        self.step_seconds.append((time.perf_counter() - self.fetched) / self.pending)
        self.fetched, self.pending = time.perf_counter(), 0
        newest = self.history[-len(figures) :]
        newest[:, 1:] = figures
        for step, row in enumerate(newest.tolist(), start=self.steps_done - len(newest) + 1):
            told = {f"train/{name}": value for name, value in zip(HISTORY_COLUMNS, row, strict=True)}
            self.trackers.log(told, step=step)
        mean_loss = sum(loss for loss, _ in figures) / len(figures)
        largest_norm = max(norm for _, norm in figures)
        for name, value in (("loss", mean_loss), ("gradient's norm", largest_norm)):
            if not np.isfinite(value):
                raise UserError(
                    f"params.yaml: train.learning_rate: {self.train.learning_rate} makes the {name} {value} at step "
                    f"{len(self.history)}; expected one that keeps it finite: try a tenth"
                )
        self._show(mean_loss)

    def _show(self, loss: float) -> None:
        now, elapsed = time.perf_counter(), self._elapsed()
        speed, done = self.rows / elapsed, len(self.history)
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:.0f} examples/s")
        if self.bar.disable and self.world.is_main_process and now - self.line_shown > LOG_EVERY_S:
            self.line_shown = now
            left = tqdm.format_interval(elapsed / done * (self.total_steps - done))
            epoch = (done - 1) // self.steps_per_epoch + 1
            print(
                f"train: epoch {epoch}/{self.train.epochs}, step {done}/{self.total_steps}, "
                f"loss {loss:.3f}, {speed:.0f} examples/s, {left} left",
                flush=True,
            )

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def log_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Take up an epoch's validation scores, which every process knows."""
        if self.whole:  # what is left of an epoch need not meet all shapes, nor even a step
            self.compilations.after_epoch()
        losses = self.history[epoch * self.steps_per_epoch :, HISTORY_COLUMNS.index("loss")].tolist()
        self.epochs.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses), **scores})
        self.trackers.log({f"validation/{name}": value for name, value in scores.items()}, step=len(self.history))
        best = max(range(len(self.epochs)), key=lambda number: self.epochs[number][self.metric])
        self.best_epoch = best if self.train.keep_epoch == "best" else epoch
        if self.world.is_main_process:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self.bar.write(f"train: epoch {epoch + 1}/{self.train.epochs}: validation {shown}", file=sys.stdout)
            sys.stdout.flush()

    def is_best(self, epoch: int) -> bool:
        """Whether the weights of this epoch are the ones to keep, of those seen so far."""
        return self.best_epoch == epoch

    def save(self, model: torch.nn.Module) -> None:
        """Write the weights as safetensors, with the configuration, in the place of an earlier epoch's.

        Every process takes part; the first one writes.
        """
        gathered = full_state_dict(model) if is_sharded(model) else {}
        if self.world.is_main_process:
            final = merge_adapters(model)
            # XLA's cannot be written.
            weights = gathered or {name: tensor.cpu() for name, tensor in final.state_dict().items()}
            try:
                final.save_pretrained(self.folder, state_dict=weights)
            except (OSError, SafetensorError) as error:
                problem = getattr(error, "strerror", None) or error
                raise UserError(
                    f"{FINAL_MODEL}: {problem}; expected room for the model; `dvc repro` goes on then"
                ) from None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the figures: `curve`, and the rest as JSON can hold it; `fetch` comes first."""
        kept = {name: getattr(self, name) for name in ("history", *STATE_FIELDS)}
        return kept | {"seconds": self._elapsed() if self.steps_left else self.seconds}

    def restore(self, state: dict[str, Any], chosen: Path | None = None) -> None:
        """Take up what `state` gave, and the chosen weights where there were any."""
        session = self.sessions[-1]
        for name in (*STATE_FIELDS, "seconds"):
            setattr(self, name, state[name])
        self.steps_done = len(state["history"])
        self.history[:] = np.reshape(state["history"], (-1, len(HISTORY_COLUMNS)))
        self.sessions.append(session | {"from_step": len(self.history)})
        self.bar.update(len(self.history))
        if chosen and self.world.is_main_process and chosen.is_dir():
            shutil.copytree(chosen, self.folder, dirs_exist_ok=True)

    def write_outputs(self, metrics: Path, plots: Path) -> None:
        """Write train.json, speed.json and provenance.json to `metrics`, train.csv and validation.csv to `plots`."""
        self.bar.close()
        chosen = self.epochs[self.best_epoch]
        scores = {name: value for name, value in chosen.items() if name not in ("epoch", "loss")}
        write_json(
            metrics / "train.json",
            {
                "best_epoch": chosen["epoch"],
                "steps": len(self.history),
                "train_loss": chosen["loss"],
                "validation": scores,
            },
        )
        write_json(metrics / "speed.json", self._speed())
        weights = {file.name: sha256(file) for file in sorted(FINAL_MODEL.glob("*.safetensors"))}
        result = input_digests() | {"data_order_sha256": self.order_digests, "weights": weights}
        # In lists, since DVC shows a column for every value that stands in none.
        write_json(metrics / "provenance.json", {"sessions": self.sessions, "results": [result]})
        epochs = pd.DataFrame(self.epochs)
        epochs[self.metric] = epochs.pop(self.metric)  # the last column is what `dvc plots` draws
        number = np.arange(self.steps_done)
        curve = pd.DataFrame({"step": number + 1, "epoch": number // self.steps_per_epoch + 1})
        curve[list(HISTORY_COLUMNS)] = self.history
        for name, table in (("train.csv", curve), ("validation.csv", epochs)):
            with atomic_file(plots / name) as partial:
                table.to_csv(partial, index=False)

    def _speed(self) -> dict[str, Any]:
        cuda = self.world.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() / 1024 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "train_seconds": round(self.seconds, 2),
            "median_step_seconds": round(statistics.median(self.step_seconds), 4),
            "examples_per_second": round(self.rows / self.seconds, 1),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "padding_fraction": round(1 - self.tokens / self.padded_tokens, 4),
            "peak_memory_mib": round(peak / 1024),
            "processes": self.world.num_processes,
            "threads": torch.get_num_threads(),
            **self.compilations.metrics(),
        }
