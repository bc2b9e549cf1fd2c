"""The model at the start of training, and for export."""

import copy
import warnings
from typing import Any

import torch
from transformers import PreTrainedModel

from reprise.core.config import Lora, Recipe
from reprise.core.errors import UserError
from reprise.core.paths import PRETRAINED
from reprise.modeling.classifier import load_classifier
from reprise.train.dropout import DropoutKeys, replace_dropout


def build_model(recipe: Recipe) -> tuple[torch.nn.Module, DropoutKeys]:
    """Load the pretrained model with a new head; `train.lora` wraps it in a PeftModel.

    Returns:
        The model, and the keys of its dropout.
    """
    torch.manual_seed(recipe.seed)
    model = load_classifier(PRETRAINED / "model", recipe.task.kind)
    if recipe.train.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    keys = replace_dropout(model, recipe.seed)
    return apply_lora(model, recipe.train.lora) if recipe.train.lora else model, keys


def apply_lora(model: PreTrainedModel, lora: Lora) -> torch.nn.Module:
    """Freeze the encoder and add low-rank adapters to its layers; the head is trained in full.

    Raises:
        UserError: the model has no layers with the names in `lora.targets`.
    """
    from peft import LoraConfig, get_peft_model

    parts = {name for name, _ in model.named_children()} - {model.base_model_prefix}
    head = sorted({name.split(".")[0] for name, _ in model.named_parameters()} & parts)
    config = LoraConfig(
        task_type="SEQ_CLS", r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, modules_to_save=head
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # peft uses its old name
            adapted: torch.nn.Module = get_peft_model(model, config)
    except ValueError:
        names = {name.split(".")[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
        raise UserError(
            f"params.yaml: train.lora.targets: the model has no layers {lora.targets}; "
            f"expected all-linear or some of {', '.join(sorted(names - set(head)))}"
        ) from None
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
