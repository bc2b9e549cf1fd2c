"""The layers of an encoder: which modules they are, and a smaller encoder with some of them.

Families give their layers other names. In all of them, the layers are the longest list of modules in the encoder.
"""

from torch import nn
from transformers import PreTrainedModel

from reprise.core.config import PARAMS
from reprise.core.errors import UserError

# Families whose layers do the same wherever they stand, but for what their config.json lists layer by layer. The model
# that is loaded from the smaller config.json is then the one that was trained.
FAMILIES = ("bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta")
KEY = "train.num_hidden_layers"


def encoder_layers(encoder: nn.Module) -> nn.ModuleList:
    """Return the longest ModuleList that is in no other one, such as a layer's list of experts."""
    lists: dict[str, nn.ModuleList] = {}
    for name, part in encoder.named_modules():
        if isinstance(part, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in lists):
            lists[name] = part
    return max(lists.values(), key=len, default=nn.ModuleList())


def spread_layers(count: int, layers: int) -> list[int]:
    """Return which layers a smaller encoder keeps: the first, the last and those between, evenly spread.

    DistilBERT's authors took layers 0, 2, 4, 7, 9 and 11 of 12 (scripts/extract.py in their repository), as this rule
    does. The last layer is among them, since head and pooler were trained on what it returns.

    Args:
        count: how many are kept, at least one; a single one is the first, which reads the embeddings.
        layers: how many there are.
    """
    gaps = max(count - 1, 1)
    return [(2 * place * (layers - 1) + gaps) // (2 * gaps) for place in range(count)]  # rounded half up


def keep_layers(model: PreTrainedModel, count: int) -> list[int]:
    """Remove layers of a pretrained encoder, so that `count` are left, and change its configuration accordingly.

    Returns:
        The indices of the layers that are kept.

    Raises:
        UserError: the encoder has fewer layers, or is of a family that is not known to work without some.
    """
    config = model.config
    if config.model_type not in FAMILIES:
        problem = f"{config.model_type} is not known to work without some of its layers"
        raise UserError(problem, file=PARAMS, key=KEY, expected=f"null, or a model of {', '.join(FAMILIES)}")
    layers = encoder_layers(model.base_model)
    if count > len(layers):
        expected = f"at most the {len(layers)} layers of the pretrained model"
        raise UserError(f"got {count}", file=PARAMS, key=KEY, expected=expected)
    kept = spread_layers(count, len(layers))
    chosen = [layers[index] for index in kept]
    del layers[:]
    layers.extend(chosen)
    if (kinds := getattr(config, "layer_types", None)) is not None:  # of ModernBERT: attention to all or to neighbours
        config.layer_types = [kinds[index] for index in kept]
    config.num_hidden_layers = count
    return kept
