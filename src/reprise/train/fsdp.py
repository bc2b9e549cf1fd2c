"""A model that is sharded between the ranks (FSDP2), with the launch profile `fsdp`.

One device need not hold the full model.
Each rank keeps a shard of every weight, of its gradient and of its optimizer state: rows of the first dimension. Layers
are all-gathered for compute and freed afterwards. The results equal those of a model that every rank holds in full.

Accelerate does this, with two exceptions: on CPUs it would train without FSDP and not report it, and it turns autocast
off, because it expects weights in bf16. The recipe's bf16 is autocast, which rounds for matrix products only.

A sharded checkpoint has files per rank: safetensors with the positions of their shards, in the format of torch's
distributed checkpoints. Its tensors have the same names as those of an unsharded checkpoint, which is read as one with
a single shard. So a run can resume from either with any number of ranks.
"""

import itertools
import os
import warnings
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from transformers.modeling_layers import GradientCheckpointingLayer

Tensors = dict[str, torch.Tensor]

# A rank splits its shards into files of about this size, because safetensors holds a file in memory twice.
MAX_FILE_BYTES = 2**29


def fsdp_plugin() -> FullyShardedDataParallelPlugin | None:
    """Return how Accelerate shards the model, as stage.py's variables ask; None if it does not."""
    if os.environ.get("ACCELERATE_USE_FSDP") != "true":
        return None
    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())


def configure_fsdp(
    model: torch.nn.Module, accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin | None
) -> None:
    """Have `accelerator.prepare` shard this model by layers; without a plugin, do nothing."""
    if plugin is None:
        return
    plugin.transformer_cls_names_to_wrap = wrap_classes(model)
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    model.forward = accelerator.autocast()(model.forward)


def wrap_classes(model: torch.nn.Module) -> list[str]:
    """List the classes of a model's layers, which are gathered one at a time.

    Not `_no_split_modules`: BERT's also contain its embeddings, which would be sharded twice.
    """
    return sorted({type(part).__name__ for part in model.modules() if isinstance(part, GradientCheckpointingLayer)})


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether this rank holds only a shard of the model."""
    return isinstance(model, FSDPModule)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gather all shards of a tensor; every rank takes part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(model: torch.nn.Module) -> Tensors:
    """Gather all weights of a sharded model; every rank takes part.

    Returns:
        The weights in host memory of the main process; {} on other ranks.
    """
    gathered = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: weight for name, weight in gathered.items() if isinstance(weight, torch.Tensor)}


def save_sharded(folder: Path, tensors: Tensors) -> None:
    """Write each rank's shards to its own files; every rank takes part.

    Raises:
        OSError: a rank could not write; all ranks raise it.
    """
    files = assign_files(
        {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}, MAX_FILE_BYTES
    )
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    try:
        save(dict(tensors), storage_writer=writer)
    except CheckpointException as failed:
        raise OSError(*next(iter(failed.failures.values()))[0].args) from None


def assign_files(sizes: dict[str, int], max_bytes: int) -> dict[str, int]:
    """Assign tensors to files of about `max_bytes` in order, counted from 1; `sizes` in bytes."""
    ends = itertools.accumulate(sizes.values())
    return {name: 1 + (end - 1) // max_bytes for name, end in zip(sizes, ends, strict=True)}


def load_model_state(folder: Path, model: torch.nn.Module) -> Tensors:
    """Read the weights of a sharded or unsharded checkpoint.

    Args:
        folder: the checkpoint, already verified.
        model: its state dict gives the names and shards; every rank of a sharded model takes part.

    Returns:
        This rank's shards, or the full weights in host memory if the model is not sharded.
    """
    sharded = is_sharded(model)
    return _read(folder, {name: _empty_like(weight, sharded) for name, weight in model.state_dict().items()}, sharded)


def load_optimizer_state(folder: Path, model: torch.nn.Module, optimizer: Optimizer) -> Tensors:
    """Read the optimizer state like `load_model_state`, as INDEX.KEY of each parameter."""
    sharded, weights = is_sharded(model), model.state_dict()
    parameters = [parameter.detach() for group in optimizer.param_groups for parameter in group["params"]]
    into: Tensors = {}
    for name, stored in HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata.items():
        if name not in weights and isinstance(stored, TensorStorageMetadata):
            parameter = parameters[int(name.split(".")[0])]
            like = parameter if stored.size == parameter.shape else torch.empty(stored.size)  # the step count
            into[name] = _empty_like(like, sharded)
    return _read(folder, into, sharded)


def _read(folder: Path, into: Tensors, sharded: bool) -> Tensors:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # each rank reads the full tensors
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not sharded)
    return into


def _empty_like(tensor: torch.Tensor, sharded: bool) -> torch.Tensor:
    return torch.zeros_like(tensor) if sharded else torch.zeros_like(tensor, device="cpu")
