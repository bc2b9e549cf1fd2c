"""One baseline: a process that trains the recipe in its working directory, in time slices.

It first writes one line of JSON with the steps per epoch. For each line `go N` on stdin it takes N optimizer steps and
answers with one line of metrics. Between slices it sleeps, and it exits when stdin closes. When training is complete it
answers with the results instead; when training fails, with the error.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from datasets import Dataset, List, Value
from torch.optim import AdamW
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    get_scheduler,
)

from flops import synchronize, training_flops
from reprise.core.config import Recipe, to_dict
from reprise.core.paths import PRETRAINED
from reprise.core.validation import check_recipe, read_recipe
from reprise.data.format import input_shards
from reprise.hardware import current_hardware, read_facts

# Prepared columns that are no model inputs.
TEXT = ("id", "text", "text_pair", "length", "example", "word_tokens", "weight")


class SliceTimer:
    """Measure what is computed in a time slice, and wait between slices."""

    def __init__(self, answers: TextIO, device: torch.device) -> None:
        """Write answers to this stream; measure memory on this device."""
        self.answers, self.device = answers, device
        self.model: Any = None
        self.counting, self.counter = ExitStack(), None  # counts the matrix products executed in the first slice
        self.left = self.steps = 0
        self.amortized_seconds = 0.0  # per step, of work that is done once in many steps
        self._clear()

    def _clear(self) -> None:
        self.lengths: list[torch.Tensor] = []
        self.shapes: list[tuple[int, int]] = []
        self.paused = 0.0
        self.began = time.perf_counter()

    def begin(self, model: Any, steps: int, *, count: bool = False) -> None:
        """Report that the model is ready, and wait for the first slice.

        Args:
            model: the model to train.
            steps: optimizer steps per epoch.
            count: count the FLOPs that the first slice executes, which slows that slice down.
        """
        self.model = model
        model.register_forward_pre_hook(self._note, with_kwargs=True)
        self.answer({"steps_per_epoch": steps})
        self._wait()
        if count:
            self.counter = self.counting.enter_context(FlopCounterMode(display=False))

    def _note(self, model: Any, _: Any, batch: dict[str, Any]) -> None:
        if model.training and batch.get("attention_mask") is not None:
            self.note(batch["attention_mask"].sum(1), *batch["attention_mask"].shape)

    def note(self, lengths: torch.Tensor, rows: int, width: int) -> None:
        """Record the shape of a batch.

        Args:
            lengths: tokens of each text, int64 [texts]; stays on the device.
            rows: rows of the batch.
            width: tokens per row, padding included.
        """
        self.lengths.append(lengths)  # reading the values here would synchronize the device
        self.shapes.append((rows, width))

    def after_step(self) -> None:
        """Count an optimizer step; after a slice's last one, answer and wait for the next slice."""
        self.left -= 1
        if not self.left:
            self.answer(self._metrics())
            self._wait()

    @contextmanager
    def spread(self, steps: int) -> Iterator[None]:
        """Spread the time of this block over `steps` steps, not only the current slice."""
        synchronize(self.device)
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.paused += took
        self.amortized_seconds = took / steps

    def answer(self, content: dict[str, Any]) -> None:
        """Write one line of JSON for the parent process."""
        self.answers.write(json.dumps(content) + "\n")
        self.answers.flush()

    def _metrics(self) -> dict[str, Any]:
        synchronize(self.device)
        seconds = time.perf_counter() - self.began - self.paused + self.steps * self.amortized_seconds
        lengths = torch.cat(self.lengths)
        tokens, squares = int(lengths.sum()), int((lengths**2).sum())
        padded = sum(rows * width for rows, width in self.shapes)
        padded_flops = training_flops(self.model, padded, sum(rows * width**2 for rows, width in self.shapes))
        metrics = {
            "seconds": seconds,
            "steps": self.steps,
            "examples": len(lengths),
            "tokens": tokens,
            "padded_tokens": padded,
            "flops": training_flops(self.model, tokens, squares),
            "padded_flops": padded_flops,
            "peak_memory_mib": round(peak_memory(self.device)),
        }
        if self.counter:
            self.counting.close()
            metrics["executed_fraction"] = self.counter.get_total_flops() / padded_flops
            self.counter = None
        return metrics

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self.left = self.steps = int(line.split()[1])
        self._clear()


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in MiB: of this process, or of PyTorch's allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not ru_maxrss, which starts with the value of the parent process.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 2**10


def read(split: str) -> Dataset:
    """Open the rows that a model reads of a split of the prepared data."""
    (file,) = input_shards(split)
    return Dataset.from_file(str(file))


def padding(recipe: Recipe) -> Any:
    """Return a collator that pads each batch to its longest text."""
    tokenizer = AutoTokenizer.from_pretrained(PRETRAINED / "tokenizer")
    if recipe.task.token_classification:
        return DataCollatorForTokenClassification(tokenizer)
    return DataCollatorWithPadding(tokenizer)


def start(recipe: Recipe) -> Any:
    """Load the pretrained model with a new head, through transformers."""
    torch.manual_seed(recipe.seed)
    head = recipe.task.kind.head_config()
    options = {name: head[name] for name in ("num_labels", "problem_type") if name in head}
    if recipe.task.token_classification:
        return AutoModelForTokenClassification.from_pretrained(PRETRAINED / "model", **options)
    return AutoModelForSequenceClassification.from_pretrained(PRETRAINED / "model", **options)


def course(recipe: Recipe, timer: SliceTimer, *, model: Any = None, collate: Any = None) -> dict[str, Any]:
    """Train with the loop of Hugging Face's course and the recipe's hyperparameters.

    Args:
        recipe: the recipe.
        timer: measures the time slices.
        model: a replacement for the pretrained model.
        collate: a replacement for the padding collator.

    Returns:
        The loss of each step and the validation accuracy of each epoch.
    """
    settings, device = recipe.train, timer.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    collate = collate or padding(recipe)
    train, validation = (
        rows.remove_columns([name for name in TEXT if name in rows.column_names]).with_format("torch")
        for rows in (read("train"), read("validation"))
    )
    model = (start(recipe) if model is None else model).to(device)
    loader = DataLoader(train, shuffle=True, batch_size=settings.batch_size, collate_fn=collate)
    validation_loader = DataLoader(validation, batch_size=recipe.evaluate.batch_size, collate_fn=collate)
    optimizer = AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * len(loader)
    schedule = get_scheduler(
        "linear", optimizer, num_warmup_steps=math.ceil(settings.warmup_ratio * steps), num_training_steps=steps
    )
    timer.begin(model, len(loader))
    losses, accuracies = [], []
    for _ in range(settings.epochs):
        model.train()
        for batch in loader:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            with precision:
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            timer.after_step()
        model.eval()
        right = 0
        for batch in validation_loader:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            with torch.no_grad(), precision:
                right += int((model(**batch).logits.argmax(-1) == batch["labels"]).sum())
        accuracies.append(right / len(validation))
    return {"losses": torch.stack(losses).tolist(), "accuracies": accuracies}


def packed(recipe: Recipe, timer: SliceTimer) -> dict[str, Any]:
    """Run the course's loop with sequence packing, see packed.py."""
    from packed import Packed, pack

    return course(recipe, timer, model=Packed(start(recipe), timer.note, recipe.train.max_length), collate=pack)


def trainer(recipe: Recipe, timer: SliceTimer, **options: Any) -> dict[str, Any]:
    """Run transformers' Trainer with its default arguments and `options`."""
    from transformers import Trainer, TrainerCallback, TrainingArguments  # importing takes seconds

    class SliceEnd(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            # The outermost model, so that the timer's hook is not compiled.
            timer.begin(training.model_wrapped, math.ceil(len(rows) / recipe.train.batch_size))

        def on_step_end(self, *_: Any, **__: Any) -> None:
            timer.after_step()

    arguments = TrainingArguments(
        "trainer",
        per_device_train_batch_size=recipe.train.batch_size,
        bf16=recipe.train.precision == "bf16",
        use_cpu=timer.device.type == "cpu",
        disable_tqdm=True,
        **options,
    )
    rows, model = read("train"), start(recipe)
    if recipe.task.multi_label:  # whose loss takes numbers
        rows = rows.cast_column("label", List(Value("float32")))
    if recipe.task.token_classification:  # whose collator pads this column
        rows = rows.rename_column("label", "labels")
    training = Trainer(model, arguments, data_collator=padding(recipe), train_dataset=rows, callbacks=[SliceEnd()])
    training.train()
    return {}


def trainer_grouped(recipe: Recipe, timer: SliceTimer) -> dict[str, Any]:
    """Run transformers' Trainer with batches grouped by length."""
    return trainer(recipe, timer, train_sampling_strategy="group_by_length")


def trainer_compiled(recipe: Recipe, timer: SliceTimer) -> dict[str, Any]:
    """Run transformers' Trainer with torch.compile."""
    # On a CPU this only tests the code path, so tracing is enough.
    backend = "inductor" if timer.device.type == "cuda" else "eager"
    return trainer(recipe, timer, torch_compile=True, torch_compile_backend=backend)


def reprise(recipe: Recipe, timer: SliceTimer) -> dict[str, Any]:
    """Run the training of `reprise train`, with the checkpoint time spread over the steps."""
    from reprise.train import worker  # here, so that the other baselines do not import it
    from reprise.train.checkpoint import CheckpointManager

    class InterleavedCheckpointManager(CheckpointManager):
        def restore(self, model: torch.nn.Module, *state: Any) -> None:
            super().restore(model, *state)
            timer.begin(model, self.recorder.history.steps_per_epoch, count=True)

        def maybe_save(self) -> None:
            super().maybe_save()
            if self.recorder.history.steps_done == 1:  # to know what one takes
                self.recorder.flush()
                self.save()
            timer.after_step()

        def save(self) -> None:
            with timer.spread(self.save_steps):
                super().save()

    worker.CheckpointManager = InterleavedCheckpointManager  # type: ignore[attr-defined]
    worker.train_worker(recipe, read_facts(current_hardware())["device"])
    return {}


@dataclass(frozen=True)
class Baseline:
    """The training function of a baseline and its precision."""

    train: Callable[[Recipe, SliceTimer], dict[str, Any]]
    precision: str


BASELINES = {
    "course": Baseline(course, "fp32"),
    "course-bf16": Baseline(course, "bf16"),
    "trainer": Baseline(trainer, "fp32"),
    "trainer-bf16": Baseline(trainer, "bf16"),
    "trainer-grouped": Baseline(trainer_grouped, "bf16"),
    "reprise-fp32": Baseline(reprise, "fp32"),
    "reprise": Baseline(reprise, "bf16"),
    # Measured on a GPU only:
    "trainer-compiled": Baseline(trainer_compiled, "bf16"),
    "packed": Baseline(packed, "bf16"),
}


def main(name: str) -> None:
    """Train a baseline until the parent process closes stdin."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # libraries print to stderr, so that stdout holds answers only
        baseline, plain = BASELINES[name], to_dict(read_recipe())
        recipe = check_recipe(plain | {"train": plain["train"] | {"precision": baseline.precision}}, "params.yaml")
        timer = SliceTimer(answers, torch.device("cuda" if current_hardware() == "cuda" else "cpu"))
        try:
            timer.answer(baseline.train(recipe, timer))
        except Exception as error:
            timer.answer({"error": " ".join(f"{type(error).__name__}: {error}".split())})
            raise


if __name__ == "__main__":
    main(sys.argv[1])
