"""The same training with transformers' Trainer: the engine `trainer`.

Its arguments come from the recipe; its loop, its checkpoints and the choice of the best epoch are Trainer's own. Three
things are ours: the examples of each micro-batch, the seed before it, and the scale of its loss.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Sampler
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.files import read_json, write_json
from reprise.modeling.collator import Collator
from reprise.modeling.inference import QUIET_TRAINER_ARGS, restore_order, sort_by_length
from reprise.tasks.metrics.registry import METRICS
from reprise.train.checkpoint import KEEP_LAST, SPACE_EXPECTED, CheckpointManager
from reprise.train.dataset import ShardedDataset
from reprise.train.dropout import DropoutKeys
from reprise.train.loss import summed_loss
from reprise.train.model import build_model, fitted_kind
from reprise.train.optimizer import build_optimizer, build_schedule
from reprise.train.recorder import Recorder
from reprise.train.sampler import (
    StepPlan,
    gradient_accumulation_steps,
    iter_micro_batches,
    loss_scale,
    micro_batch_seed,
    plan_recipe_epoch,
    resolve_micro_batch_size,
)

# Our file in Trainer's checkpoint. It is written last, so a checkpoint with it is complete.
STATE_FILE = "history.json"


def train(
    recipe: Recipe,
    rows: ShardedDataset,
    validation: Dataset,
    collate: Collator,
    recorder: Recorder,
    checkpoints: CheckpointManager,
) -> None:
    """Fine-tune the pretrained model; the arguments are those of accelerate.py.

    Raises:
        UserError: a checkpoint cannot be written; earlier ones are kept.
        TrainingInterrupted: the run was stopped.
    """
    config, world_size = recipe.train, recorder.world.num_processes
    model, dropout_keys = build_model(recipe)
    model.to(recorder.world.device)
    optimizer = build_optimizer(model, config)
    arguments = TrainingArguments(
        str(checkpoints.folder),
        max_steps=recorder.history.total_steps,
        per_device_train_batch_size=resolve_micro_batch_size(config, world_size),
        gradient_accumulation_steps=gradient_accumulation_steps(config, world_size),
        per_device_eval_batch_size=recipe.evaluate.batch_size,
        max_grad_norm=config.max_grad_norm,
        accelerator_config={"non_blocking": True},
        bf16=config.precision == "bf16",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=KEEP_LAST,
        load_best_model_at_end=config.keep_epoch == "best",
        metric_for_best_model=recipe.task.metrics[0],
        greater_is_better=METRICS[recipe.task.metrics[0]].greater_is_better,
        logging_steps=1,
        logging_nan_inf_filter=False,  # the recorder reports a loss that is not finite
        ddp_find_unused_parameters=True,  # see accelerate.py
        seed=recipe.seed % 2**32,
        use_cache=getattr(model.config, "use_cache", False),  # saved in config.json
        use_cpu=recorder.world.device.type == "cpu",
        **QUIET_TRAINER_ARGS,
    )

    def validate(prediction: EvalPrediction) -> dict[str, float]:
        return recorder.score(restore_order(validation, [prediction.predictions]))

    callback = HistoryCallback(recipe, rows, recorder, checkpoints)
    trainer = PlannedTrainer(
        callback,
        dropout_keys,
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=sort_by_length(validation),
        processing_class=collate.tokenizer,
        compute_metrics=validate,
        optimizers=(optimizer, build_schedule(optimizer, config, recorder.history.total_steps)),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=callback.restore())
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = getattr(error, "strerror", None) or error
        if isinstance(error, RuntimeError):
            if "inline_container" not in str(error):  # torch.save's writer
                raise
            problem = "a file could not be written"
        raise UserError(str(problem), file=checkpoints.folder, expected=SPACE_EXPECTED) from None
    checkpoints.raise_if_stopped()
    recorder.save_model(trainer.model)


class HistoryCallback(TrainerCallback):
    """Passes metrics to the recorder, adds our state to checkpoints, and stops on request."""

    def __init__(
        self, recipe: Recipe, rows: ShardedDataset, recorder: Recorder, checkpoints: CheckpointManager
    ) -> None:
        """Start before the first epoch."""
        self.recipe, self.rows, self.recorder, self.checkpoints = recipe, rows, recorder, checkpoints
        self.epoch = 0
        self.steps: Sequence[StepPlan] = ()  # of the current epoch

    @property
    def steps_done(self) -> int:
        """Steps of the current epoch that are done."""
        return len(self.steps) - self.recorder.history.steps_left

    def restore(self) -> str | None:
        """Restore our state from the latest complete checkpoint.

        Returns:
            The checkpoint's folder; None if there is none.
        """
        found = {int(folder.name.split("-")[1]): folder for folder in self.checkpoints.folder.glob("checkpoint-*")}
        complete = [steps for steps, folder in found.items() if (folder / STATE_FILE).is_file()]
        if not complete:
            return None
        latest = found[max(complete)]
        self.recorder.restore(read_json(latest / STATE_FILE))
        self.checkpoints.log_resume(latest)
        return str(latest)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Plan the epoch."""
        self.epoch = len(self.recorder.history.epochs)
        if self.recorder.stopped_early:  # also right after a run was resumed; Trainer ends at an epoch without examples
            self.steps = ()
            return
        self.steps = plan_recipe_epoch(self.recipe, self.rows.lengths, self.epoch, args.world_size)
        self.recorder.start_epoch(self.epoch, self.steps)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save within an epoch; at its end Trainer saves after the evaluation."""
        within_epoch = self.recorder.history.steps_left > 1  # on_log comes later
        stop = self.checkpoints.should_stop(state.global_step)
        control.should_training_stop |= stop
        control.should_save |= within_epoch and (stop or state.global_step % self.checkpoints.save_steps == 0)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any) -> None:
        """Record a step."""
        if "learning_rate" in logs:  # not an evaluation
            loss, grad_norm = torch.tensor([logs["loss"] / args.world_size, logs["grad_norm"]], device=args.device)
            self.recorder.log_device(loss, grad_norm)
            self.recorder.log_step(self.steps[self.steps_done], logs["learning_rate"])

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Skip the evaluation of an incomplete epoch."""
        if self.recorder.history.steps_left:
            control.should_evaluate = control.should_save = False

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        """Record an epoch."""
        self.recorder.log_epoch(self.epoch, {name: metrics[f"eval_{name}"] for name in self.recipe.task.metrics})

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Add our state to Trainer's checkpoint."""
        self.recorder.flush()
        if state.is_world_process_zero:
            content = self.recorder.state()
            content["history"] = content["history"].tolist()
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE, content)


class PlannedBatchSampler(Sampler[list[int]]):
    """The micro-batches of the current epoch; each step has as many as Trainer accumulates."""

    def __init__(self, callback: HistoryCallback, world_size: int, micro_steps: int) -> None:
        """Take an epoch's steps from the callback; each has `micro_steps` micro-batches per rank."""
        self.callback, self.world_size, self.micro_steps = callback, world_size, micro_steps

    def __iter__(self) -> Iterator[list[int]]:
        """Iterate over the example indices of each micro-batch."""
        return iter_micro_batches(self.callback.steps, self.world_size, self.micro_steps)

    def __len__(self) -> int:
        """Return the micro-batches of a complete epoch, over all ranks."""
        return self.callback.recorder.history.steps_per_epoch * self.micro_steps * self.world_size


class PlannedTrainer(Trainer):
    """Trainer with the recipe's sample order."""

    loss_is_scaled_for_ga = True  # by loss_scale

    def __init__(self, callback: HistoryCallback, dropout_keys: DropoutKeys, **arguments: Any) -> None:
        """Create a Trainer that takes the current epoch and step from the callback."""
        super().__init__(**arguments)
        self.callback, self.dropout_keys, self.micro_step, self.loss_scale = callback, dropout_keys, 0, 0.0
        self.kind = fitted_kind(callback.recipe)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Load the planned micro-batches."""
        batches = PlannedBatchSampler(self.callback, self.args.world_size, self.args.gradient_accumulation_steps)
        pinned = self.args.device.type == "cuda"
        loader = DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator, pin_memory=pinned)
        prepared: DataLoader[Any] = self.accelerator.prepare_data_loader(loader)
        return prepared

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        """Set the dropout keys, the seed and the loss scale of a micro-batch, then run it."""
        callback, world_size = self.callback, self.args.world_size
        micro_batch, step = self.micro_step * world_size + self.args.process_index, callback.steps[callback.steps_done]
        self.micro_step = (self.micro_step + 1) % self.args.gradient_accumulation_steps
        self.dropout_keys.set_batch(callback.epoch, step.rows_of_micro_batch(micro_batch), inputs["labels"])
        torch.manual_seed(micro_batch_seed(callback.recipe.seed, callback.epoch, callback.steps_done, micro_batch))
        # Gradients are averaged over ranks; we need the sum.
        self.loss_scale = loss_scale(step, micro_batch, callback.rows.loss_weights) * world_size
        loss: torch.Tensor = super().training_step(model, inputs, *rest)
        return loss

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Compute the scaled loss of a micro-batch."""
        targets = [inputs.pop(name, None) for name in ("labels", "weight", "teacher")]
        outputs = model(**inputs)
        distill = self.callback.recipe.train.distill
        loss = summed_loss(self.kind, distill, outputs.logits, *targets) * self.loss_scale
        return (loss, outputs) if return_outputs else loss
