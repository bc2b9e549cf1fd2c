"""How deep a parameter is in a model: what `train.freeze` and `train.layer_decay` depend on."""

from torch import nn
from transformers import PreTrainedModel

from reprise.core.config import PARAMS
from reprise.core.errors import UserError
from reprise.modeling.layers import encoder_layers


def parameter_depths(model: nn.Module, key: str) -> dict[nn.Parameter, int]:
    """Return the depth of each parameter of a classifier, in the order of its parameters.

    Args:
        model: the classifier, or a PeftModel around it.
        key: the key of the recipe that an error names.

    Returns:
        0 for embeddings; 1 to L for the encoder's layers; L + 1 for the head, and for what stands between it and the
        layers, such as a pooler.

    Raises:
        UserError: the model has no list of layers.
    """
    classifier: PreTrainedModel = model.get_base_model() if hasattr(model, "peft_config") else model  # type: ignore[operator]
    encoder = classifier.base_model
    layers = encoder_layers(encoder.encoder if classifier.config.is_encoder_decoder else encoder)
    if not layers:
        raise UserError(f"{classifier.config.model_type} has no list of layers", file=PARAMS, key=key, expected="null")
    depths = {parameter: depth for depth, layer in enumerate(layers, start=1) for parameter in layer.parameters()}
    before = True
    for name, parameter in encoder.named_parameters():
        before = before and parameter not in depths
        # BART defines the normalization of its embeddings after the layers, DeBERTa those of relative positions.
        if before or ("embed" in name and parameter not in depths):
            depths[parameter] = 0
    return {parameter: depths.get(parameter, len(layers) + 1) for parameter in model.parameters()}


def freeze(model: PreTrainedModel, until: str | int) -> None:
    """Exclude the embeddings, and the first `until` layers if it is a number, from training.

    Raises:
        UserError: the model has fewer layers.
    """
    depths = parameter_depths(model, "train.freeze")
    frozen, count = 0 if until == "embeddings" else int(until), max(depths.values()) - 1
    if frozen > count:
        expected = f"null, embeddings, or at most the {count} layers of {model.config.model_type}"
        raise UserError(f"got {until}", file=PARAMS, key="train.freeze", expected=expected)
    for parameter, depth in depths.items():
        parameter.requires_grad_(depth > frozen)
