"""The same training through transformers' Trainer: the engine `trainer`.

Its arguments are filled from the recipe; its loop, its checkpoints and the choice of the best epoch are its own. Three
things are the recipe's: which rows make a micro-batch, the seed before each, and what its loss counts in its step.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.files import read_json, write_json
from reprise.modeling.collator import Collator
from reprise.modeling.inference import QUIET_TRAINER_ARGS, restore_order, sort_by_length
from reprise.modeling.scoring import compute_metrics
from reprise.train.checkpoint import KEEP_LAST, CheckpointManager
from reprise.train.dataset import ShardedDataset
from reprise.train.dropout import DropoutKeys
from reprise.train.engines.accelerate import summed_loss
from reprise.train.history import TrainingHistory
from reprise.train.model import build_model
from reprise.train.optimizer import build_optimizer, build_schedule
from reprise.train.sampler import (
    StepPlan,
    gradient_accumulation_steps,
    iter_micro_batches,
    loss_scale,
    micro_batch_seed,
    plan_recipe_epoch,
    resolve_micro_batch_size,
)

STATE_FILE = (
    "record.json"  # beside Trainer's files in a checkpoint; written last, so that with it a checkpoint is whole
)


def train(
    recipe: Recipe,
    rows: ShardedDataset,
    validation: Dataset,
    collate: Collator,
    record: TrainingHistory,
    checkpoints: CheckpointManager,
) -> None:
    """Fine-tune the pretrained model on `rows`; see accelerate.py, which takes the same."""
    settings, processes = recipe.train, record.world.num_processes
    model, keys = build_model(recipe)
    model.to(record.world.device)
    optimizer = build_optimizer(model, settings)
    arguments = TrainingArguments(
        str(checkpoints.folder),
        max_steps=record.total_steps,
        per_device_train_batch_size=resolve_micro_batch_size(settings, processes),
        gradient_accumulation_steps=gradient_accumulation_steps(settings, processes),
        per_device_eval_batch_size=recipe.evaluate.batch_size,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.precision == "bf16",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=KEEP_LAST,
        load_best_model_at_end=settings.keep_epoch == "best",
        metric_for_best_model=recipe.task.metrics[0],
        greater_is_better=True,
        logging_steps=1,
        logging_nan_inf_filter=False,  # history.py says what to do about a loss that is not a number
        ddp_find_unused_parameters=True,  # see accelerate.py
        seed=recipe.seed % 2**32,
        use_cache=getattr(model.config, "use_cache", False),  # goes into config.json
        use_cpu=record.world.device.type == "cpu",
        **QUIET_TRAINER_ARGS,
    )
    figures = HistoryCallback(recipe, record, checkpoints)
    trainer = PlannedTrainer(
        figures,
        keys,
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=rows,
        eval_dataset=sort_by_length(validation),
        processing_class=collate.tokenizer,
        compute_metrics=lambda said: compute_metrics(
            recipe.task, restore_order(validation, said.predictions), validation["label"]
        ),
        optimizers=(optimizer, build_schedule(optimizer, settings, record.total_steps)),
        callbacks=[figures],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=figures.restore())
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = getattr(error, "strerror", None) or error
        if isinstance(error, RuntimeError):
            if "inline_container" not in str(error):  # which torch.save writes through
                raise
            problem = "a file could not be written whole"
        raise UserError(
            f"{checkpoints.folder}: {problem}; expected room for a checkpoint; those before are kept, and "
            "`dvc repro` goes on from there"
        ) from None
    checkpoints.raise_if_stopped()
    record.save(trainer.model)


class HistoryCallback(TrainerCallback):
    """Takes Trainer's figures into the record, keeps them in its checkpoints, and stops it when the run is to stop."""

    def __init__(self, recipe: Recipe, record: TrainingHistory, checkpoints: CheckpointManager) -> None:
        self.recipe, self.record, self.checkpoints = recipe, record, checkpoints
        self.epoch = 0
        self.steps: Sequence[StepPlan] = ()  # of this epoch

    @property
    def done(self) -> int:
        """How many of the epoch's steps were taken."""
        return len(self.steps) - self.record.steps_left

    def restore(self) -> str | None:
        """Take up the newest checkpoint that is whole; return its folder, None where there is none."""
        found = {int(folder.name.split("-")[1]): folder for folder in self.checkpoints.folder.glob("checkpoint-*")}
        whole = [steps for steps, folder in found.items() if (folder / STATE_FILE).is_file()]
        if not whole:
            return None
        newest = found[max(whole)]
        self.record.restore(read_json(newest / STATE_FILE))
        self.checkpoints.log_resume(newest)
        return str(newest)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.epoch = len(self.record.epochs)
        self.steps = plan_recipe_epoch(self.recipe, self.record.lengths, self.epoch, args.world_size)
        self.record.start_epoch(self.epoch, self.steps)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save in the middle of an epoch; at its end Trainer does, after it has evaluated."""
        middle = self.record.steps_left > 1
        stop = self.checkpoints.should_stop(state.global_step)
        control.should_training_stop |= stop
        control.should_save |= middle and (stop or state.global_step % self.recipe.run.save_steps == 0)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any) -> None:
        if "learning_rate" in logs:  # of a step
            share, norm = torch.tensor([logs["loss"] / args.world_size, logs["grad_norm"]], device=args.device)
            self.record.log_device(share, norm)
            self.record.log_step(self.epoch, self.steps[self.done], logs["learning_rate"])

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.record.steps_left:  # it was stopped
            control.should_evaluate = control.should_save = False

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        self.record.log_epoch(self.epoch, {name: metrics[f"eval_{name}"] for name in self.recipe.task.metrics})

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.record.flush()
        if state.is_world_process_zero:
            figures = self.record.state()
            figures["history"] = figures["history"].tolist()
            write_json(Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE, figures)


class PlannedBatchSampler(Sampler[list[int]]):
    """The micro-batches of an epoch's steps, each step filled up to as many as Trainer accumulates."""

    def __init__(self, figures: HistoryCallback, processes: int, turns: int) -> None:
        self.figures, self.processes, self.turns = figures, processes, turns

    def __iter__(self) -> Iterator[list[int]]:
        return iter_micro_batches(self.figures.steps, self.processes, self.turns)

    def __len__(self) -> int:
        return self.figures.record.steps_per_epoch * self.turns * self.processes


class PlannedTrainer(Trainer):
    """Trainer with the recipe's plan."""

    loss_is_scaled_for_ga = True  # by the rows of its step

    def __init__(self, figures: HistoryCallback, keys: DropoutKeys, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.figures, self.keys, self.turn, self.share = figures, keys, 0, 0.0

    def get_train_dataloader(self) -> DataLoader[Any]:
        batches = PlannedBatchSampler(self.figures, self.args.world_size, self.args.gradient_accumulation_steps)
        loader = DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)
        prepared: DataLoader[Any] = self.accelerator.prepare_data_loader(loader)
        return prepared

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        """A micro-batch: say what it drops, seed what it draws, and say what its loss counts."""
        figures, processes = self.figures, self.args.world_size
        micro_batch, step = self.turn * processes + self.args.process_index, figures.steps[figures.done]
        self.turn = (self.turn + 1) % self.args.gradient_accumulation_steps
        self.keys.set_batch(figures.epoch, step.rows_of_micro_batch(micro_batch), inputs["labels"])
        torch.manual_seed(micro_batch_seed(figures.recipe.seed, figures.epoch, figures.done, micro_batch))
        # The mean over processes is taken; the sum is meant.
        self.share = loss_scale(step, micro_batch) * processes
        loss: torch.Tensor = super().training_step(model, inputs, *rest)
        return loss

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        targets = inputs.pop("labels")
        outputs = model(**inputs)
        loss = summed_loss(outputs.logits, targets) * self.share
        return (loss, outputs) if return_outputs else loss
