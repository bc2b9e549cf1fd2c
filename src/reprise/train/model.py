"""The model at the start of training, and for export."""

import copy
import warnings
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from reprise.core.config import PARAMS, Lora, Recipe
from reprise.core.errors import UserError
from reprise.core.paths import PRETRAINED
from reprise.data.tokenization import load_tokenizer
from reprise.modeling.classifier import Pretrained, load_pretrained
from reprise.train.dropout import DropoutKeys, replace_dropout


def build_model(recipe: Recipe) -> tuple[torch.nn.Module, DropoutKeys]:
    """Load the pretrained model with a new head, ready to be trained.

    Returns:
        The model, and the keys of its dropout.
    """
    return adapt_model(load_seeded(recipe).model, recipe)


def load_seeded(recipe: Recipe) -> Pretrained:
    """Load the pretrained model; what is new in it is drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return load_pretrained(
        PRETRAINED / "model", recipe.task.kind, load_tokenizer(PRETRAINED / "tokenizer").pad_token_id
    )


def adapt_model(model: PreTrainedModel, recipe: Recipe) -> tuple[torch.nn.Module, DropoutKeys]:
    """Set a pretrained model up as the recipe trains it; `train.lora` wraps it in a PeftModel.

    Returns:
        The model, and the keys of its dropout.

    Raises:
        UserError: the model has no gradient checkpointing, or no layers with the names in `train.lora.targets`.
    """
    if recipe.train.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise UserError(
                f"{model.config.model_type} has none in transformers",
                file=PARAMS, key="train.gradient_checkpointing", expected="false",
            )  # fmt: skip
        model.activation_checkpointing_enable({"use_reentrant": False})
    keys = replace_dropout(model, recipe.seed)
    return apply_lora(model, recipe.train.lora) if recipe.train.lora else model, keys


def apply_lora(model: PreTrainedModel, lora: Lora) -> torch.nn.Module:
    """Freeze the encoder and add low-rank adapters to its layers; the head is trained in full.

    Raises:
        UserError: a name in `lora.targets` is of no layer that can have an adapter.
    """
    from peft import LoraConfig, get_peft_model

    layers = {name for name, part in model.base_model.named_modules() if isinstance(part, (torch.nn.Linear, Conv1D))}
    targets = [] if lora.targets == "all-linear" else lora.targets
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({name.split(".")[-1] for name in layers})
            raise UserError(
                f"the model has no layer {target!r} that can have an adapter",
                file=PARAMS, key="train.lora.targets", expected=f"all-linear, or some of {', '.join(known)}",
            )  # fmt: skip
    parts = {name for name, _ in model.named_children()} - {model.base_model_prefix}
    head = sorted({name.split(".")[0] for name, _ in model.named_parameters()} & parts)
    config = LoraConfig(
        task_type="SEQ_CLS", r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, modules_to_save=head
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # peft uses its old name
        adapted: torch.nn.Module = get_peft_model(model, config)
    return adapted


def merge_adapters(model: torch.nn.Module) -> PreTrainedModel:
    """Merge LoRA adapters into a copy of the weights; a model without any is returned unchanged.

    The copy is in host memory: the device may not have space for a second model, and XLA would compile more programs.
    """
    if not hasattr(model, "peft_config"):
        return model
    on_host: dict[int, Any] = {
        id(parameter): torch.nn.Parameter(parameter.detach().to("cpu", copy=True), parameter.requires_grad)
        for parameter in model.parameters()
    }
    on_host |= {id(buffer): buffer.to("cpu", copy=True) for buffer in model.buffers()}
    merged: PreTrainedModel = copy.deepcopy(model, on_host).merge_and_unload()  # type: ignore[operator]
    return merged
