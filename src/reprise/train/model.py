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
from reprise.modeling.classifier import Pretrained, load_pretrained, output_layer
from reprise.modeling.splits import train_stats
from reprise.tasks.kind import TaskKind
from reprise.train.depth import freeze
from reprise.train.dropout import DropoutKeys, replace_dropout


def build_model(recipe: Recipe) -> tuple[torch.nn.Module, DropoutKeys]:
    """Load the pretrained model with a new head, ready to be trained.

    Returns:
        The model, and the keys of its dropout.
    """
    pretrained, kind = load_seeded(recipe), fitted_kind(recipe)
    if kind.label_scale:
        scale_output(pretrained, *kind.label_scale)
    return adapt_model(pretrained.model, recipe)


def fitted_kind(recipe: Recipe) -> TaskKind:
    """Return the kind of task as training uses it, with what it takes from the training labels and `train.loss`."""
    return recipe.task.kind.fit(train_stats(recipe.task.kind, recipe.train.fold), recipe.train.loss)


class ScaledOutput(torch.nn.Linear):
    """An output layer that learns numbers of mean 0 and variance 1, and returns them in the unit of the labels.

    Weights of the usual size then fit labels of any unit. `fold_label_scale` turns it into a plain layer.
    """

    def __init__(self, layer: torch.nn.Linear, mean: float, deviation: float) -> None:
        """Take over the parameters of a layer; one without a bias cannot learn a mean, and gets none."""
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.mean, self.deviation = mean if layer.bias is not None else 0.0, deviation

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  torch's name
        """Return fp32, since bf16 would round a large mean."""
        return super().forward(input).float() * self.deviation + self.mean


def scale_output(pretrained: Pretrained, mean: float, deviation: float) -> None:
    """Replace the output layer of a regression by a `ScaledOutput`.

    Args:
        pretrained: has an output layer that is new, or one that was kept, which already returns the labels' unit.
        mean: of the training labels.
        deviation: their standard deviation.
    """
    layer = pretrained.model.get_submodule(pretrained.output)
    assert isinstance(layer, torch.nn.Linear)
    scaled = ScaledOutput(layer, mean, deviation)
    if f"{pretrained.output}.weight" not in pretrained.new_parameters:
        with torch.no_grad():
            layer.weight /= deviation
            if layer.bias is not None:
                layer.bias.sub_(mean).div_(deviation)
    pretrained.model.set_submodule(pretrained.output, scaled)


def fold_label_scale(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights with which a plain output layer computes what the model's `ScaledOutput` does.

    Args:
        model: the trained model; without a `ScaledOutput`, its weights are returned unchanged.
        weights: all weights of the model, by name.
    """
    folded = dict(weights)
    for name, layer in model.named_modules():
        if isinstance(layer, ScaledOutput):
            folded[f"{name}.weight"] = weights[f"{name}.weight"] * layer.deviation
            if layer.bias is not None:
                folded[f"{name}.bias"] = weights[f"{name}.bias"] * layer.deviation + layer.mean
    return folded


def fold_temperatures(
    model: PreTrainedModel, weights: dict[str, torch.Tensor], temperatures: list[float] | None
) -> dict[str, torch.Tensor]:
    """Return the weights with which the model computes its logits divided by temperatures.

    So whatever loads the model gets calibrated probabilities, and nothing else has to know the temperatures.

    Args:
        model: the trained model.
        weights: all weights of the model, by name.
        temperatures: one for all outputs, or one for each; None returns the weights unchanged.
    """
    if temperatures is None:
        return weights
    output, divisor = output_layer(model, model.config.num_labels), torch.tensor(temperatures)
    folded = weights | {f"{output}.weight": weights[f"{output}.weight"] / divisor.unsqueeze(1)}
    if (bias := weights.get(f"{output}.bias")) is not None:
        folded[f"{output}.bias"] = bias / divisor
    return folded


def load_seeded(recipe: Recipe) -> Pretrained:
    """Load the pretrained model with the recipe's dropout and layers; what is new is drawn from the recipe's seed.

    Raises:
        UserError: config.json and the weights do not fit together, `train.dropout` has nothing to set, or
            `train.num_hidden_layers` does not fit the encoder.
    """
    torch.manual_seed(recipe.seed)
    pad_token_id = load_tokenizer(PRETRAINED / "tokenizer").pad_token_id
    train = recipe.train
    return load_pretrained(PRETRAINED / "model", recipe.task.kind, pad_token_id, train.dropout, train.num_hidden_layers)


def adapt_model(model: PreTrainedModel, recipe: Recipe) -> tuple[torch.nn.Module, DropoutKeys]:
    """Set a pretrained model up as the recipe trains it: frozen in part, or in a PeftModel with `train.lora`.

    Returns:
        The model, and the keys of its dropout.

    Raises:
        UserError: the model has no gradient checkpointing, fewer layers than `train.freeze`, or none with the names in
            `train.lora.targets`.
    """
    if recipe.train.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise UserError(
                f"{model.config.model_type} has none in transformers",
                file=PARAMS, key="train.gradient_checkpointing", expected="false",
            )  # fmt: skip
        model.activation_checkpointing_enable({"use_reentrant": False})
    keys = replace_dropout(model, recipe.seed)
    if recipe.train.freeze is not None:
        freeze(model, recipe.train.freeze)
    if recipe.train.lora:
        return apply_lora(model, recipe.train.lora, per_token=recipe.task.kind.per_token), keys
    return model, keys


def apply_lora(model: PreTrainedModel, lora: Lora, *, per_token: bool = False) -> torch.nn.Module:
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
        task_type="TOKEN_CLS" if per_token else "SEQ_CLS",
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets,
        modules_to_save=head,
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
