"""The model, as train, evaluate and predict load it: from local folders, safetensors only, no remote code."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)
from transformers.utils import logging

from reprise.core.config import PARAMS
from reprise.core.errors import UserError
from reprise.modeling.layers import keep_layers
from reprise.tasks.kind import TaskKind

# Families whose head reads only the first token. After the attention of the last layer, only that token is computed:
# the logits are the same, and a six-layer model does an eighth less work.
CLS_HEAD_FAMILIES = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}

# BERT's hidden_dropout_prob, GPT-2's resid_pdrop, T5's dropout_rate; not BART's layerdrop.
DROPOUT_OPTION = re.compile(r"(dropout|dropout_prob|dropout_rate|_pdrop)$")

# What a configuration may ask the model to return; only the logits are used here, by their name.
OUTPUT_OPTIONS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}

# The warnings (a new classification head, a tokenizer used through `pad`) are checks of `load_pretrained`.
logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model with a head for a kind of task.

    Attributes:
        model: all in fp32.
        output: the name of the layer that computes the logits.
        new_parameters: the names of those that start from random numbers: the head's, and those of a pooler.
        notes: what was decided about the weights, a sentence each.
    """

    model: PreTrainedModel
    output: str
    new_parameters: list[str]
    notes: list[str]


def load_classifier(folder: Path, kind: TaskKind | None = None) -> PreTrainedModel:
    """Load a trained classifier, or a pretrained encoder with a head for `kind`: see `load_pretrained`."""
    if kind:
        return load_pretrained(folder, kind).model
    architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    per_token = any(name.endswith("ForTokenClassification") for name in architectures)
    model, loading = _load(folder, {}, per_token=per_token)
    if problem := _find_misfit(model, loading, trained=True):
        raise UserError(problem, file=folder, expected="the weights and the config.json of one training run")
    _read_first_token(model, per_token=per_token)
    return model


def load_pretrained(
    folder: Path,
    kind: TaskKind,
    pad_token_id: int | None = None,
    dropout: float | None = None,
    num_hidden_layers: int | None = None,
) -> Pretrained:
    """Load the encoder in `folder` with a head for `kind`; every weight of the encoder comes from the file.

    A head in the folder is kept if its labels are the same, whatever their order; its rows follow the recipe's order.
    Otherwise, the output layer is drawn from torch's generator. If all names in the file start with a prefix, as
    DistributedDataParallel and torch.compile save them, the prefix is removed.

    Args:
        folder: holds config.json and safetensors.
        kind: shapes the head.
        pad_token_id: the tokenizer's, where config.json has none.
        dropout: the probability that replaces those of config.json.
        num_hidden_layers: how many of the encoder's layers are kept; None for all.

    Raises:
        UserError: config.json and the weights do not fit together, there is no dropout to replace, or the encoder
            cannot have that many layers.
    """
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    options: dict[str, Any] = dict(kind.head_config())
    if stored.get("pad_token_id") is None and pad_token_id is not None:
        options["pad_token_id"] = pad_token_id
    notes: list[str] = []
    if dropout is not None:
        replaced = _dropout_options(folder)
        options |= dict.fromkeys(replaced, dropout)
        listed = ", ".join(f"{name} {value}" for name, value in replaced.items())
        notes.append(f"dropout {dropout} replaces {listed}")

    load = partial(_load, folder, per_token=kind.per_token)
    model, loading = load(options)
    if (prefix := _common_prefix(loading["unexpected_keys"])) and _find_misfit(model, loading):
        options["key_mapping"] = {f"^{re.escape(prefix)}": ""}
        notes.append(f"the names of all weights start with {prefix!r}, which is removed")
        model, loading = load(options)
    if problem := _find_misfit(model, loading):
        raise UserError(problem, file=folder, expected="weights and a config.json that belong together")
    if num_hidden_layers is not None:
        before = model.config.num_hidden_layers
        kept = keep_layers(model, num_hidden_layers)
        notes.append(f"{num_hidden_layers} of {before} layers are kept: {', '.join(map(str, kept))}, counted from 0")
    _read_first_token(model, per_token=kind.per_token)

    labels = list(kind.head_config()["id2label"].values())
    id2label = stored.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}  # transformers' default
    pretrained_labels = [str(id2label[number]) for number in sorted(id2label, key=int)]
    output = output_layer(model, len(labels))
    new = _new_parameters(loading)
    same_labels = len(labels) == 1 or set(pretrained_labels) == set(labels)
    if f"{output}.weight" not in new and not same_labels:
        new |= _draw_again(model, output)
    if f"{output}.weight" not in new:
        if len(labels) > 1:
            _reorder_outputs(model.get_submodule(output), [pretrained_labels.index(label) for label in labels])
        notes.append(f"the pretrained output layer is kept, which has the same outputs: {', '.join(labels)}")
    elif set(pretrained_labels) != {"LABEL_0", "LABEL_1"}:
        notes.append(f"the output layer is new: the pretrained one has the labels {', '.join(pretrained_labels)}")
    return Pretrained(model, output, sorted(new), notes)


def _load(folder: Path, options: dict[str, Any], *, per_token: bool) -> tuple[PreTrainedModel, dict[str, Any]]:
    model: PreTrainedModel
    auto = AutoModelForTokenClassification if per_token else AutoModelForSequenceClassification
    model, loading = auto.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported in the loading information, and checked
        **OUTPUT_OPTIONS,
        **options,
    )
    return model, loading


def _read_first_token(model: PreTrainedModel, *, per_token: bool) -> None:
    """Let the last layer compute only the first token if the head reads no other."""
    if model.config.model_type in CLS_HEAD_FAMILIES and not per_token:
        last = model.base_model.encoder.layer[-1].attention.output
        last.register_forward_pre_hook(lambda _, states: tuple(state[:, :1] for state in states))


def _dropout_options(folder: Path) -> dict[str, float]:
    """Return the probabilities of dropout in a model's configuration; one that is null takes the value of another.

    Raises:
        UserError: the family has none.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    found = {name: value for name, value in config.to_dict().items() if DROPOUT_OPTION.search(name)}
    found = {name: value for name, value in found.items() if type(value) in (int, float)}
    if not found:
        problem = f"the config.json of {config.model_type} has no option for it"
        raise UserError(problem, file=PARAMS, key="train.dropout", expected="null")
    return found


def _find_misfit(model: PreTrainedModel, loading: dict[str, Any], *, trained: bool = False) -> str:
    """Describe parameters that a file of weights lacks, has in another size, or has in excess; "" if there are none.

    Head and pooler of a pretrained model may be new, and the heads of other tasks are left out.
    """
    buffers = {name for name, _ in model.named_buffers()}
    prefix, parts = f"{model.base_model_prefix}.", {name for name, _ in model.base_model.named_children()} - {"pooler"}

    def matters(name: str) -> bool:
        return trained or name.removeprefix(prefix).split(".")[0] in parts

    missing = sorted(name for name in loading["missing_keys"] if matters(name))
    unexpected = sorted(
        name
        for name in loading["unexpected_keys"]
        if matters(name) and not {name, prefix + name} & buffers  # files of earlier versions hold constant buffers
    )
    resized = sorted(entry for entry in loading["mismatched_keys"] if matters(entry[0]))
    if resized:
        name, stored, expected = resized[0]
        return f"{_count(resized)}: {name} is {list(stored)} in the file and {list(expected)} by config.json"
    if missing:
        others = sorted(loading["unexpected_keys"])
        return f"{_count(missing)}: the file has no {missing[0]}" + (f", but {others[0]}" if others else "")
    if unexpected:
        return f"{_count(unexpected)}: the model of config.json has no {unexpected[0]}, which is in the file"
    return ""


def _count(names: Sequence[Any]) -> str:
    return f"{len(names)} weight{'s' if len(names) > 1 else ''} without a match"


def _new_parameters(loading: dict[str, Any]) -> set[str]:
    return {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}


def _common_prefix(names: Collection[str]) -> str:
    """Return the first part of the names, with its dot, if all names have the same."""
    first = {name.partition(".")[0] for name in names}
    return f"{first.pop()}." if len(first) == 1 else ""


def output_layer(model: PreTrainedModel, outputs: int) -> str:
    """Return the name of the layer that computes the logits: the last linear one of the head with as many outputs."""
    layers: list[str] = [
        name
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear)
        and part.out_features == outputs
        and not name.startswith(f"{model.base_model_prefix}.")
    ]
    return layers[-1]


def _draw_again(model: PreTrainedModel, output: str) -> set[str]:
    """Draw a linear layer as transformers draws new ones; return the names of its parameters."""
    layer = model.get_submodule(output)
    torch.nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", 0.02))
    if layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)
    return {f"{output}.{name}" for name, _ in layer.named_parameters()}


def _reorder_outputs(layer: torch.nn.Module, order: Sequence[int]) -> None:
    """Move output number `order[i]` of a linear layer to place i."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter[list(order)])
