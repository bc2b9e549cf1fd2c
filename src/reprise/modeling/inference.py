"""Forward passes over examples, for validation, evaluation and prediction."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm import tqdm

from reprise.core.config import Recipe
from reprise.core.dvc_lock import check_content
from reprise.core.errors import UserError
from reprise.core.files import scratch_dir
from reprise.core.paths import FINAL_MODEL
from reprise.data.teacher import TEACHER_COLUMN
from reprise.data.tokenization import load_tokenizer
from reprise.data.windows import join_windows
from reprise.modeling.bucketing import resolve_buckets
from reprise.modeling.classifier import load_classifier
from reprise.modeling.collator import Collator
from reprise.modeling.inputs import TextModel, Texts, model_inputs
from reprise.modeling.malloc import disable_malloc_trim
from reprise.modeling.portable import set_up_cpu
from reprise.modeling.recipe import ModelRecipe
from reprise.modeling.tf32 import disable_tf32
from reprise.modeling.xla import on_xla, use_fp32_matmul
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.token_classification import Words

NOT_READ = {"labels", "weight", TEACHER_COLUMN}  # what the loss needs of a batch, and the model does not

# Trainer prints nothing, and our collator selects the columns.
QUIET_TRAINER_ARGS: dict[str, Any] = {
    "disable_tqdm": True,
    "log_level": "error",
    "report_to": "none",
    "remove_unused_columns": False,
    "dataloader_pin_memory": False,
}


def predict(
    model: torch.nn.Module, rows: Dataset, collate: Collator, batch_size: int, accelerator: Accelerator | None = None
) -> Logits:
    """Compute the logits of all examples, in batches of similar length, on all ranks.

    Args:
        model: prepared by `accelerator`; without one, on any device.
        rows: prepared examples, with `length`.
        collate: makes the batches.
        batch_size: examples per forward pass.
        accelerator: None for a single process.

    Returns:
        The logits in the order of `rows`, the same on every rank: fp32, shape [rows, outputs]; of words an array of
        objects, [rows] of [words, outputs].
    """
    loader = DataLoader(
        sort_by_length(rows), batch_size=batch_size, collate_fn=collate.with_batch_size("predict", batch_size)
    )
    if accelerator:
        loader = accelerator.prepare_data_loader(loader)
    device = next(model.parameters()).device
    model.eval()

    @torch.no_grad()  # not inference_mode, which XLA cannot trace
    def parts() -> Iterator[Logits]:
        # disable=None: a bar in a terminal, nothing elsewhere
        disable = None if accelerator is None or accelerator.is_main_process else True
        for batch in tqdm(loader, desc="predict", leave=False, disable=disable):
            inputs = {name: tensor.to(device) for name, tensor in batch.items() if name not in NOT_READ}
            part = model(**inputs).logits.float()
            if accelerator:
                if part.ndim == 3:  # of words, as long as the rank's longest text
                    part = accelerator.pad_across_processes(part, dim=1)
                part = accelerator.gather_for_metrics(part)
            yield part.cpu().numpy()

    return restore_order(rows, parts())


def predict_with_trainer(
    model: torch.nn.Module, rows: Dataset, collate: Collator, batch_size: int, *, cpu: bool
) -> Logits:
    """Compute the same logits with `Trainer.predict`."""
    from transformers import Trainer, TrainingArguments  # slow to import, and only this engine needs it

    collate = collate.with_batch_size("predict", batch_size)

    def without_labels(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch. With labels, the model would compute a loss of its own, which fails for some."""
        return {name: tensor for name, tensor in collate(examples).items() if name not in NOT_READ}

    with scratch_dir("trainer") as folder:  # Trainer requires one and leaves it empty
        options = {"per_device_eval_batch_size": batch_size, "use_cpu": cpu, **QUIET_TRAINER_ARGS}
        arguments = TrainingArguments(str(folder), **options)
        trainer = Trainer(model, arguments, data_collator=without_labels)
        return restore_order(rows, [trainer.predict(sort_by_length(rows)).predictions])


def sort_by_length(rows: Dataset) -> Dataset:
    """Sort examples from the longest to the shortest, so that batches need little padding."""
    return rows.select(_length_order(rows))


def restore_order(rows: Dataset, parts: Iterable[Logits]) -> Logits:
    """Reorder the logits of `sort_by_length(rows)` like `rows`; padding rows of the last batch are dropped.

    Args:
        rows: prepared rows.
        parts: their logits, batch by batch, [batch, outputs] or [batch, length, outputs]; of these, the words' stay.
    """
    order = _length_order(rows)
    if "word_tokens" in rows.column_names:
        tokens = (logits for part in parts for logits in part)
        words: npt.NDArray[Any] = np.empty(len(rows), dtype=object)
        for row, logits, chosen in zip(order, tokens, rows.select(order)["word_tokens"], strict=False):
            words[row] = logits[np.asarray(chosen, np.int64)]
        return words
    logits = np.concatenate(list(parts))
    in_order = np.empty((len(rows), logits.shape[1]), dtype=np.float32)
    in_order[order] = logits[: len(rows)]
    return in_order


def windows_of(rows: Dataset) -> Sequence[int] | None:
    """Return the index of each row's example if the rows are windows of texts."""
    return list(rows["example"]) if "example" in rows.column_names else None


def _length_order(rows: Dataset) -> npt.NDArray[np.int64]:
    return np.argsort(-np.asarray(rows["length"]), kind="stable")


def load_text_model(recipe: ModelRecipe, *, cpu: bool, folder: Path = FINAL_MODEL) -> TextModel:
    """Load a model as `load_predictor` does, to be asked with texts."""
    forward, tokenizer = load_predictor(recipe, cpu=cpu, folder=folder), load_tokenizer(folder)

    def text_model(texts: Sequence[Texts]) -> tuple[Logits, list[Words]]:
        rows, words = model_inputs(recipe, tokenizer, texts)
        return forward(Dataset.from_dict(rows)), words

    return text_model


def load_predictor(
    recipe: Recipe | ModelRecipe, *, cpu: bool, folder: Path = FINAL_MODEL
) -> Callable[[Dataset], Logits]:
    """Load a trained model in fp32, to run with the recipe's engine.

    Args:
        recipe: of the model.
        cpu: use the CPU even if there is a GPU.
        folder: of the model; models/final/ is compared with dvc.lock.

    Returns:
        A function from prepared rows to the logits of their examples: fp32, shape [examples, outputs]; of words
        objects, [examples] of [words, outputs].

    Raises:
        UserError: there is no model, it is not the one in dvc.lock, it has other labels than the recipe, or weights
            that are not finite.
    """
    if not (folder / "config.json").is_file():
        raise UserError("not found", file=folder, expected="the model that `dvc repro` makes")
    if folder == FINAL_MODEL:
        check_content(FINAL_MODEL)
    set_up_cpu(recipe.train)
    disable_malloc_trim()
    model, tokenizer, batch_size = load_classifier(folder), load_tokenizer(folder), recipe.evaluate.batch_size
    check_labels(model.config.id2label, recipe.task.kind, folder)
    check_finite(model, folder)
    collate, windows = Collator(tokenizer, recipe.task.kind), recipe.data.windows

    def joined(forward: Callable[[Dataset], Logits]) -> Callable[[Dataset], Logits]:
        return lambda rows: join_windows(windows_of(rows), forward(rows), windows.pooling if windows else None)

    disable_tf32()
    if recipe.train.engine == "trainer":
        return joined(lambda rows: predict_with_trainer(model, rows, collate, batch_size, cpu=cpu))
    if recipe.train.engine == "pytorch":
        model.to("cuda" if torch.cuda.is_available() and not cpu else "cpu")
        return joined(lambda rows: predict(model, rows, collate, batch_size))
    accelerator = Accelerator(cpu=cpu)
    use_fp32_matmul(accelerator.device)
    prepared = accelerator.prepare_model(model, evaluation_mode=True)

    def forward(rows: Dataset) -> Logits:
        lengths = np.asarray(rows["length"])
        buckets = resolve_buckets(recipe.train.bucket_lengths, lengths) if on_xla(accelerator.device) else None
        return predict(prepared, rows, Collator(tokenizer, recipe.task.kind, buckets), batch_size, accelerator)

    return joined(forward)


def check_finite(model: torch.nn.Module, folder: Path = FINAL_MODEL) -> None:
    """Check that no weight is NaN or infinite: such a model answers, and every answer is the same.

    Raises:
        UserError: one is.
    """
    for name, tensor in model.state_dict().items():
        # A sum is finite only if every number is, and takes 30 times less time; one of large numbers may overflow.
        if not bool(torch.isfinite(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
            raise UserError("NaN or infinite weights", file=folder, key=name, expected="finite ones: train it again")


def check_labels(id2label: Mapping[int, str], kind: TaskKind, folder: Path = FINAL_MODEL) -> None:
    """Check that the outputs of a model mean what the recipe says.

    Args:
        id2label: the name of each output, in the model's config.json.
        kind: of the recipe's task.
        folder: of the model, for the error.

    Raises:
        UserError: they are other labels, or in another order.
    """
    expected = kind.head_config()["id2label"]
    if dict(id2label) != expected:
        names, right = (", ".join(names[number] for number in sorted(names)) for names in (id2label, expected))
        raise UserError(
            f"the outputs of the model are {names}",
            file=folder / "config.json",
            key="id2label",
            expected=f"{right}, in the order of the recipe's task.labels; `dvc repro` trains that model",
        )
