"""Check before training that model, tokenizer and data fit together: a stage of its own, seconds on a CPU.

DVC removes a stage's outputs before it runs. What does not fit must therefore be found before `train` starts, which
would otherwise lose the results of the last run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reprise.core.config import PARAMS, Recipe
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.paths import PREPARED, PRETRAINED
from reprise.data.format import WINDOWS
from reprise.data.mmap import drop_mapped_pages
from reprise.data.teacher import read_teacher
from reprise.data.tokenization import load_tokenizer
from reprise.modeling.collator import Collator
from reprise.modeling.inference import NOT_READ
from reprise.modeling.portable import set_up_cpu
from reprise.modeling.splits import split_parts
from reprise.train.dataset import ShardedDataset
from reprise.train.dropout import DropoutKeys
from reprise.train.loss import summed_loss
from reprise.train.memory import Placement, check_memory, predict_memory
from reprise.train.model import adapt_model, fitted_kind, load_seeded
from reprise.train.optimizer import build_optimizer
from reprise.train.sampler import resolve_micro_batch_size

MODEL = PRETRAINED / "model"
TOKEN_COLUMNS = ("input_ids", "token_type_ids")
# Largest difference between the logits of an example alone and in a batch, relative to the largest logit. Sums in
# another order differ by some 1e-6; with other random numbers, the second digit differs.
SAME_LOGITS = 1e-4


@dataclass
class Preflight:
    """The content of metrics/preflight.json.

    Attributes:
        new_parameters: names of the parameters that start from random numbers.
        batch_invariant: whether an example's loss is the same in any batch, so that processes and micro-batches do not
            change what is trained.
        notes: what was decided where there was a choice.
        warnings: what can be trained, but is probably not meant.
    """

    new_parameters: list[str] = field(default_factory=list)
    batch_invariant: bool = True
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Inputs:
    """What the prepared examples of all splits hold.

    Attributes:
        max_token_id: the largest in `input_ids`.
        max_type_id: the largest in `token_type_ids`; -1 without that column.
        examples: their number.
        with_special_tokens: of these, how many have more special tokens than the tokenizer adds.
    """

    max_token_id: int
    max_type_id: int
    examples: int
    with_special_tokens: int


def preflight(recipe: Recipe, placement: Placement | None = None) -> Preflight:
    """Load the model as training does, compare it with the data, and run two rows forward and backward.

    Args:
        recipe: what is trained.
        placement: the GPUs that it is trained on, whose memory must suffice; None on other devices.

    Raises:
        UserError: what does not fit.
    """
    set_up_cpu(recipe.train)
    teacher = read_teacher(recipe)
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer")
    try:
        pretrained = load_seeded(recipe)
    except UserError:
        raise
    except Exception as error:  # whatever transformers raises for a folder that it cannot load
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the model cannot be loaded: {type(error).__name__}: {reason}", file=MODEL, expected="a text classifier"
        ) from None
    result = Preflight(pretrained.new_parameters, notes=pretrained.notes)
    if tokenizer.pad_token == tokenizer.eos_token:
        result.notes.append(f"the tokenizer has no token for padding, so {tokenizer.eos_token} pads")
    check_weights(pretrained.model)
    inputs = read_inputs(tokenizer, pairs=len(recipe.task.text_columns) == 2)
    check_inputs(inputs, pretrained.model, tokenizer, recipe.train.max_length)
    if inputs.with_special_tokens:
        result.warnings.append(
            f"{inputs.with_special_tokens} of {inputs.examples} texts contain special tokens of the tokenizer, such as "
            f"{tokenizer.all_special_tokens[0]}, which the model reads as such"
        )
    fold = recipe.train.fold or 0
    if teacher and (others := sorted({*teacher["folds"]} - {fold})):
        trained_on = ", ".join(map(str, others))
        result.warnings.append(
            f"the teacher was trained with fold {trained_on} as its validation split, so it has seen examples that "
            f"validate here, in fold {fold}"
        )
    model, keys = adapt_model(pretrained.model, recipe)
    build_optimizer(model, recipe.train)  # refuses what training would refuse
    batch = two_rows(recipe, tokenizer)
    check_gradients(model, keys, batch, recipe)
    result.batch_invariant = is_batch_invariant(model, keys, batch)
    if not result.batch_invariant:
        result.warnings.append(
            f"{pretrained.model.config.model_type} draws dropout per batch: with other processes or micro-batches, "
            "the recipe trains other weights"
        )
    if placement and (warning := memory_warning(model, keys, batch, recipe, placement)):
        echo(f"preflight: warning: {warning}")  # of this machine, so it is no result
    return result


def memory_warning(
    model: nn.Module, keys: DropoutKeys, batch: dict[str, torch.Tensor], recipe: Recipe, placement: Placement
) -> str | None:
    """Predict the memory of the largest micro-batch, and compare it with the GPU's.

    Returns:
        A warning if there is little left, or no prediction; None if there is enough.

    Raises:
        UserError: training does not fit.
    """
    rows = resolve_micro_batch_size(recipe.train, placement.processes)
    length = int(ShardedDataset(split_parts("train", recipe.train.fold, inputs=True)).lengths.max())
    try:
        memory = predict_memory(model, keys, batch, rows, length, recipe.train.precision, placement)
    except Exception as error:  # whatever a model of any family raises for tensors without data
        return f"the memory of training is not predicted for this model: {type(error).__name__}"
    return check_memory(memory, placement)


def check_weights(model: PreTrainedModel) -> None:
    """Check that all weights are finite.

    Raises:
        UserError: one is not.
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise UserError(f"{name} is not finite", file=MODEL, expected="weights without inf and nan")


def read_inputs(tokenizer: PreTrainedTokenizerBase, *, pairs: bool) -> Inputs:
    """Scan the prepared examples of all splits.

    Args:
        tokenizer: names the special tokens.
        pairs: whether an example has two texts.
    """
    special = np.array(sorted({*tokenizer.all_special_ids} - {tokenizer.unk_token_id}), np.int32)
    usual = tokenizer.num_special_tokens_to_add(pair=pairs)
    max_token_id, max_type_id, examples, with_special_tokens = -1, -1, 0, 0
    for batch in _record_batches():
        ids, starts = _flatten(batch.column("input_ids"))
        max_token_id = max(max_token_id, int(ids.max(initial=-1)))
        before = np.append(0, np.cumsum(np.isin(ids, special)))  # how many special tokens precede each token
        counts = before[starts[1:]] - before[starts[:-1]]
        with_special_tokens += int((counts > usual).sum())
        examples += len(batch)
        if "token_type_ids" in batch.schema.names:
            max_type_id = max(max_type_id, int(_flatten(batch.column("token_type_ids"))[0].max(initial=-1)))
    return Inputs(max_token_id, max_type_id, examples, with_special_tokens)


def _record_batches() -> Iterator[pa.RecordBatch]:
    for file in sorted((PREPARED / WINDOWS).glob("*.arrow")) or sorted(PREPARED.glob("*.arrow")):
        with pa.memory_map(str(file)) as source:
            yield from pa.ipc.open_stream(source)
            drop_mapped_pages()


def _flatten(column: pa.ListArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return the values of a column of lists one after the other, and where each list starts, with the end."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    return column.flatten().to_numpy(), offsets - offsets[0]


def check_inputs(inputs: Inputs, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Check that the model has an embedding for every token, type and position.

    Raises:
        UserError: it has not.
    """
    config = model.config
    embeddings = model.get_input_embeddings().num_embeddings
    if inputs.max_token_id >= embeddings:
        raise UserError(
            f"the tokenizer's largest token id is {inputs.max_token_id}, and the model has {embeddings} embeddings",
            file=PRETRAINED, expected="a model and its own tokenizer",
        )  # fmt: skip
    if config.pad_token_id is not None and config.pad_token_id != tokenizer.pad_token_id:
        raise UserError(
            f"got {config.pad_token_id}", file=MODEL / "config.json", key="pad_token_id",
            expected=f"the tokenizer's {tokenizer.pad_token_id}",
        )  # fmt: skip
    if inputs.max_type_id >= (types := getattr(config, "type_vocab_size", None) or inputs.max_type_id + 1):
        raise UserError(
            f"got {types}, and the tokenizer returns types up to {inputs.max_type_id}",
            file=MODEL / "config.json", key="type_vocab_size", expected="a model and its own tokenizer",
        )  # fmt: skip
    if (positions := count_positions(model)) is not None and max_length > positions:
        raise UserError(
            f"got {max_length}", file=PARAMS, key="train.max_length",
            expected=f"at most the model's {positions} positions",
        )  # fmt: skip


def count_positions(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model has positions for; None if it has no table of them."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Embedding) and name.split(".")[-1] in ("position_embeddings", "wpe", "embed_positions"):
            # RoBERTa counts positions from the one after the padding token's.
            return part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1)
    return None


def two_rows(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Make a batch of the first training example, repeated up to `max_length`, and of the example as it is."""
    parts = split_parts("train", recipe.train.fold, inputs=True)
    (row,) = ShardedDataset(parts, teacher=recipe.train.distill is not None).__getitems__([0])
    repeated = (*TOKEN_COLUMNS, "label") if recipe.task.kind.per_token else TOKEN_COLUMNS
    full = {
        name: np.resize(value, recipe.train.max_length).tolist() if name in repeated else value
        for name, value in row.items()
    }
    return Collator(tokenizer, recipe.task.kind)([full, row])


def check_gradients(model: nn.Module, keys: DropoutKeys, batch: dict[str, torch.Tensor], recipe: Recipe) -> None:
    """Run a batch forward and backward as training does.

    Raises:
        UserError: the model fails, or loss or gradients are not finite.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name not in NOT_READ}
    model.train()
    keys.set_batch(0, [0, 1], batch["labels"])
    try:
        targets = batch["labels"], batch.get("weight"), batch.get("teacher")
        loss = summed_loss(fitted_kind(recipe), recipe.train.distill, model(**inputs).logits, *targets)
        loss.backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a model of any family raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the model fails on a batch of two rows: {type(error).__name__}: {reason}",
            file=MODEL, expected="a model that trains at train.max_length",
        ) from None  # fmt: skip
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    wrong = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    if wrong or not loss.isfinite():
        raise UserError(
            f"the {f'gradient of {wrong[0]}' if wrong else 'loss'} of two rows is not finite",
            file=MODEL, expected="finite losses and gradients",
        )  # fmt: skip
    model.zero_grad()


def is_batch_invariant(model: nn.Module, keys: DropoutKeys, batch: dict[str, torch.Tensor]) -> bool:
    """Compare the logits of two rows, with dropout, between a batch of both and a batch of each."""
    inputs = {name: tensor for name, tensor in batch.items() if name not in NOT_READ}
    model.train()
    with torch.no_grad():
        keys.set_batch(0, [0, 1], batch["labels"])
        together = model(**inputs).logits
        alone = []
        for number in range(2):
            keys.set_batch(0, [number], batch["labels"][:1])
            alone.append(model(**{name: tensor[number : number + 1] for name, tensor in inputs.items()}).logits)
    difference = (together - torch.cat(alone)).abs().max()
    return bool(difference <= SAME_LOGITS * together.abs().max())
