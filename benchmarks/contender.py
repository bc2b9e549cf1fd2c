"""One contender: a process that trains the recipe of the folder that it is started in, in turns.

It says in a line of JSON how many steps make an epoch. For each line `go N` on stdin it takes N optimizer steps and
answers with another, which says what they took. In between it sleeps; where stdin ends, it ends. One that comes to the
end of its training instead answers what it reached, one that fails with its error.
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
from datasets import Dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, get_scheduler

from flops import settle, training_flops
from reprise.core.config import Recipe, to_dict
from reprise.core.paths import PRETRAINED
from reprise.core.validation import check_recipe, read_recipe
from reprise.data.format import split_file
from reprise.hardware import current_hardware

TEXT = ("id", "text", "text_pair", "length")  # of the prepared columns, what no model reads


class Turns:
    """Counts what is computed in a turn, and waits between turns."""

    def __init__(self, answers: TextIO, device: torch.device) -> None:
        self.answers, self.device = answers, device
        self.model: Any = None
        self.counting, self.counter = ExitStack(), None  # of the products that the first turn really executes
        self.left = self.steps = 0
        self.seconds_a_step = 0.0  # of what is done once in many steps
        self._clear()

    def _clear(self) -> None:
        self.lengths: list[torch.Tensor] = []
        self.shapes: list[tuple[int, int]] = []
        self.paused = 0.0
        self.began = time.perf_counter()

    def begin(self, model: Any, steps: int, *, count: bool = False) -> None:
        """The model is ready, and so many steps make an epoch: wait for the first turn.

        With `count`, the first turn also counts the products that it executes, which takes time.
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
        """A batch of texts of these lengths, int64 [texts], is computed as so many rows of one width."""
        self.lengths.append(lengths)  # on the device: to read them would wait for it
        self.shapes.append((rows, width))

    def maybe_save(self) -> None:
        """Note that an optimizer step was taken; with the turn's last, answer, and wait for the next turn."""
        self.left -= 1
        if not self.left:
            self.answer(self._figures())
            self._wait()

    @contextmanager
    def spread(self, steps: int) -> Iterator[None]:
        """Have every step pay its share of what is done once in so many, instead of the turn that it falls into."""
        settle(self.device)
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.paused += took
        self.seconds_a_step = took / steps

    def answer(self, content: dict[str, Any]) -> None:
        """Write a line for the parent."""
        self.answers.write(json.dumps(content) + "\n")
        self.answers.flush()

    def _figures(self) -> dict[str, Any]:
        settle(self.device)
        seconds = time.perf_counter() - self.began - self.paused + self.steps * self.seconds_a_step
        lengths = torch.cat(self.lengths)
        tokens, squares = int(lengths.sum()), int((lengths**2).sum())
        padded = sum(rows * width for rows, width in self.shapes)
        padded_flops = training_flops(self.model, padded, sum(rows * width**2 for rows, width in self.shapes))
        figures = {
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
            figures["executed_share"] = self.counter.get_total_flops() / padded_flops
            self.counter = None
        return figures

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self.left = self.steps = int(line.split()[1])
        self._clear()


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has used, in MiB: of the GPU, where it computes there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not ru_maxrss, which begins with what the process that started this one had.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 2**10


def read(split: str) -> Dataset:
    """The prepared rows of a split."""
    return Dataset.from_file(str(split_file(split)))


def padding() -> Any:
    """Makes batches, each padded to its longest text."""
    return DataCollatorWithPadding(AutoTokenizer.from_pretrained(PRETRAINED / "tokenizer"))


def start(recipe: Recipe) -> Any:
    """The pretrained model with a new head, as most people load it."""
    torch.manual_seed(recipe.seed)
    return AutoModelForSequenceClassification.from_pretrained(PRETRAINED / "model", num_labels=len(recipe.task.labels))


def course(recipe: Recipe, turns: Turns, *, model: Any = None, collate: Any = None) -> dict[str, Any]:
    """The training loop of Hugging Face's course, in the recipe's hyperparameters; it neither clips nor groups.

    `model` and `collate` are plain ones by default.
    """
    settings, device = recipe.train, turns.device
    precision = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    collate = collate or padding()
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
        "linear", optimizer, num_warmup_steps=math.ceil(settings.warmup * steps), num_training_steps=steps
    )
    turns.begin(model, len(loader))
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
            turns.maybe_save()
        model.eval()
        right = 0
        for batch in validation_loader:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            with torch.no_grad(), precision:
                right += int((model(**batch).logits.argmax(-1) == batch["labels"]).sum())
        accuracies.append(right / len(validation))
    return {"losses": torch.stack(losses).tolist(), "accuracies": accuracies}


def compiled(recipe: Recipe, turns: Turns) -> dict[str, Any]:
    """The course's loop with the model compiled, for batches of any length."""
    # On a CPU it is there to be tried: tracing is enough.
    backend = "inductor" if turns.device.type == "cuda" else "eager"
    return course(recipe, turns, model=torch.compile(start(recipe), dynamic=True, backend=backend))


def packed(recipe: Recipe, turns: Turns) -> dict[str, Any]:
    """The course's loop with a step's texts one after the other in a single row, without padding; see packed.py."""
    from packed import Packed, pack

    return course(recipe, turns, model=Packed(start(recipe), turns.note, recipe.train.max_length), collate=pack)


def trainer(recipe: Recipe, turns: Turns, **choices: Any) -> dict[str, Any]:
    """transformers' Trainer with its defaults."""
    from transformers import Trainer, TrainerCallback, TrainingArguments  # takes seconds

    class HandOver(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.maybe_save()

    arguments = TrainingArguments(
        "trainer",
        per_device_train_batch_size=recipe.train.batch_size,
        bf16=recipe.train.precision == "bf16",
        use_cpu=turns.device.type == "cpu",
        disable_tqdm=True,
        **choices,
    )
    rows, model = read("train"), start(recipe)
    training = Trainer(model, arguments, data_collator=padding(), train_dataset=rows, callbacks=[HandOver()])
    turns.begin(model, math.ceil(len(rows) / recipe.train.batch_size))
    training.train()
    return {}


def trainer_grouped(recipe: Recipe, turns: Turns) -> dict[str, Any]:
    """transformers' Trainer with batches of texts of similar lengths."""
    return trainer(recipe, turns, train_sampling_strategy="group_by_length")


def reprise(recipe: Recipe, turns: Turns) -> dict[str, Any]:
    """What `reprise train` runs. Every step pays its share of a checkpoint."""
    from reprise.train import worker  # with what it imports, nothing for the others
    from reprise.train.checkpoint import CheckpointManager

    class InTurns(CheckpointManager):
        def restore(self, model: torch.nn.Module, *state: Any) -> None:
            super().restore(model, *state)
            turns.begin(model, self.recorder.history.steps_per_epoch, count=True)

        def maybe_save(self) -> None:
            super().maybe_save()
            if self.recorder.history.steps_done == 1:  # to know what one takes
                self.recorder.flush()
                self.save()
            turns.maybe_save()

        def save(self) -> None:
            with turns.spread(self.save_steps):
                super().save()

    worker.CheckpointManager = InTurns  # type: ignore[attr-defined]
    worker.train_worker(recipe, current_hardware())
    return {}


@dataclass(frozen=True)
class Contender:
    """How a contender trains, and in what precision."""

    train: Callable[[Recipe, Turns], dict[str, Any]]
    precision: str


CONTENDERS = {
    "course": Contender(course, "fp32"),
    "course-bf16": Contender(course, "bf16"),
    "trainer": Contender(trainer, "fp32"),
    "trainer-grouped": Contender(trainer_grouped, "bf16"),
    "reprise-fp32": Contender(reprise, "fp32"),
    "reprise": Contender(reprise, "bf16"),
    # On a GPU alone:
    "compiled": Contender(compiled, "bf16"),
    "packed": Contender(packed, "bf16"),
}


def main(name: str) -> None:
    """Train as the contender of this name until the parent has seen enough."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        contender, plain = CONTENDERS[name], to_dict(read_recipe())
        recipe = check_recipe(plain | {"train": plain["train"] | {"precision": contender.precision}}, "params.yaml")
        turns = Turns(answers, torch.device("cuda" if current_hardware() == "cuda" else "cpu"))
        try:
            turns.answer(contender.train(recipe, turns))
        except Exception as error:
            turns.answer({"error": " ".join(f"{type(error).__name__}: {error}".split())})
            raise


if __name__ == "__main__":
    main(sys.argv[1])
