"""What the engines report each step and epoch to."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray

from reprise.core.config import PARAMS, Recipe
from reprise.core.errors import UserError
from reprise.data.windows import join_windows
from reprise.modeling.collator import Collator
from reprise.modeling.inference import windows_of
from reprise.modeling.scoring import compute_metrics
from reprise.modeling.xla import CompilationMonitor
from reprise.tasks.kind import Logits
from reprise.train.device_metrics import FLUSH_EVERY_STEPS, DeviceMetrics
from reprise.train.history import HISTORY_COLUMNS, TrainingHistory
from reprise.train.outputs import save_model
from reprise.train.progress import Progress
from reprise.train.sampler import StepPlan, order_digest, resolve_micro_batch_size, total_steps
from reprise.train.throughput import Throughput, count_tokens
from reprise.train.trackers import Trackers


class Recorder:
    """Passes the steps and epochs of a run to history, throughput, progress and trackers."""

    def __init__(
        self, recipe: Recipe, world: PartialState, lengths: NDArray[np.int64], validation: Dataset,
        references: NDArray[Any], collate: Collator, trackers: Trackers, model_dir: Path, session: dict[str, Any],
    ) -> None:  # fmt: skip
        """Start recording.

        Args:
            recipe: what is trained.
            world: the ranks.
            lengths: tokens of each row that is trained, an example or a window, shape [rows].
            validation: the rows of the validation split that the model reads.
            references: the prepared labels of its examples.
            collate: makes the batches; `buckets` are the lengths they are padded to.
            trackers: receive the metrics.
            model_dir: where the best epoch's model is saved.
            session: where this process runs, for provenance.json.
        """
        train, num_examples = recipe.train, len(lengths)
        self.train, self.world, self.trackers, self.model_dir = train, world, trackers, model_dir
        self.kind, self.metrics, self.windows = recipe.task.kind, recipe.task.metrics, recipe.data.windows
        self.validation, self.references = validation, references
        self.temperatures: list[float] | None = None  # of the latest epoch
        self.steps: Sequence[StepPlan] = ()  # of the current epoch
        steps = total_steps(num_examples, batch_size=train.batch_size, epochs=train.epochs, max_steps=train.max_steps)
        self.history = TrainingHistory(
            steps, num_examples, train.batch_size, recipe.task.metrics[0], train.keep_epoch, session
        )
        self.device_metrics, self.throughput = DeviceMetrics(world), Throughput()
        self.progress = Progress(steps, self.history.steps_per_epoch, train.epochs, enabled=world.is_main_process)
        self.compilations = CompilationMonitor(world.device, collate.seen_shapes)
        micro_batch_size = resolve_micro_batch_size(train, world.num_processes)
        self.count_tokens = partial(
            count_tokens, lengths=lengths, buckets=collate.buckets, micro_batch_size=micro_batch_size
        )

    def start_epoch(self, epoch: int, steps: Sequence[StepPlan]) -> int:
        """Start or resume an epoch of these steps.

        Returns:
            How many of them are already done.
        """
        self.steps = steps
        self.trackers.start(self.history.sessions[0]["started"], from_step=self.history.from_step)
        if self.history.steps_left:
            self.throughput.start()
        return self.history.steps_done - epoch * self.history.steps_per_epoch

    def log_device(self, loss: torch.Tensor, grad_norm: torch.Tensor) -> None:
        """Keep a step's loss and gradient norm on the device; see DeviceMetrics.append."""
        self.device_metrics.append(loss, grad_norm)

    def log_step(self, step: StepPlan, learning_rate: float) -> None:
        """Record an optimizer step, after `log_device`."""
        self.history.log_step(learning_rate)
        self.throughput.count(step, *self.count_tokens(step))
        self.progress.advance()
        if self.device_metrics.pending == FLUSH_EVERY_STEPS or not self.history.steps_left:
            self.flush()
        if not self.history.steps_left:
            self.throughput.stop()

    def flush(self) -> None:
        """Move the pending device metrics into the history; every rank takes part.

        Raises:
            UserError: a value is not finite.
        """
        values = self.device_metrics.flush()
        if not values:
            return
        self.throughput.count_flush(len(values))
        self.history.log_metrics(values)
        steps_done = self.history.steps_done
        for step, row in enumerate(self.history.curve[-len(values) :].tolist(), start=steps_done - len(values) + 1):
            self.trackers.log(
                {f"train/{name}": value for name, value in zip(HISTORY_COLUMNS, row, strict=True)}, step=step
            )
        mean_loss = sum(loss for loss, _ in values) / len(values)
        for name, value in (("loss", mean_loss), ("gradient norm", max(norm for _, norm in values))):
            if not np.isfinite(value):
                raise UserError(
                    f"{self.train.learning_rate} makes the {name} {value} at step {steps_done}",
                    file=PARAMS,
                    key="train.learning_rate",
                    expected="one that keeps it finite: try a tenth",
                )
        elapsed = self.throughput.elapsed
        self.progress.show(steps_done, mean_loss, self.throughput.examples / elapsed, elapsed)

    def score(self, logits: Logits) -> dict[str, float]:
        """Compute the validation metrics of an epoch, with the temperatures and thresholds that fit it best.

        Args:
            logits: of the validation split, [rows, outputs].
        """
        of_examples = join_windows(windows_of(self.validation), logits, self.windows.pooling if self.windows else None)
        if self.train.calibration and (temperatures := self.kind.temperatures(of_examples, self.references)):
            self.temperatures = temperatures
            of_examples = of_examples / np.array(temperatures, np.float32)  # as the saved model does
        self.kind = self.kind.tune(of_examples, self.references)
        return compute_metrics(self.metrics, self.kind, of_examples, self.references)

    def log_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Record the end of an epoch and its validation metrics, which are the same on every rank.

        Raises:
            UserError: XLA compiled more programs than it met new shapes.
        """
        # A resumed epoch need not meet all shapes.
        if self.history.from_step <= epoch * self.history.steps_per_epoch:
            self.compilations.after_epoch()
        # Not at the start of the epoch: all of its steps would have to be planned at once.
        self.history.log_epoch(epoch, scores, order_digest(self.steps), self.kind.thresholds, self.temperatures)
        self.trackers.log({f"validation/{name}": value for name, value in scores.items()}, step=self.history.steps_done)
        self.progress.show_validation(epoch, scores)
        if self.stopped_early and self.history.steps_done < self.history.total_steps:
            self.progress.show_early_stop(epoch, self.history.metric)

    def is_best(self, epoch: int) -> bool:
        """Return whether this epoch is the best so far, whose model is kept."""
        return self.history.best_epoch == epoch

    @property
    def stopped_early(self) -> bool:
        """Whether `train.early_stopping` ends the run here: a function of its epochs, so also after it is resumed."""
        stopping, history = self.train.early_stopping, self.history
        return stopping is not None and history.epochs_without_gain(stopping.min_delta) >= stopping.patience

    def save_model(self, model: torch.nn.Module) -> None:
        """Save a model in place of the best one so far; every rank takes part."""
        save_model(model, self.model_dir, self.history.temperatures, is_main_process=self.world.is_main_process)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, after `flush`: the array `history` and fields for JSON."""
        return self.history.state() | self.throughput.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self.history.restore(state)
        self.throughput.restore(state)
        self.progress.advance(self.history.steps_done)

    def speed(self) -> dict[str, Any]:
        """Return the content of metrics/speed.json."""
        return self.throughput.metrics(self.world) | self.compilations.metrics()
