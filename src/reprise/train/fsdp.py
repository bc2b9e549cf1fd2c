"""A model that is divided between the processes (FSDP2), so that it need not fit one: with the profile fsdp.

Each keeps a share of every weight, of its gradient and of its moments, as rows of the first dimension. A layer is put
together where it computes, and let go again. The numbers are those of a model that every process has whole.

Accelerate does it, but for two things: on CPUs it would quietly train as without, and it leaves out autocast, since it
means whole weights to be rounded to bf16. The recipe's bf16 is autocast's, which rounds for matrix products alone.

A checkpoint of it has a file for each process, safetensors with what of which tensor is in it, as torch's distributed
checkpoints write and read them. The names in it are those of the checkpoint of a whole model, which is one with a
single share: whoever reads takes what it needs from either.
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

# A process writes its share of so many bytes to a file, and so on: safetensors holds a file in memory, twice.
MAX_FILE_BYTES = 2**29


def fsdp_plugin() -> FullyShardedDataParallelPlugin | None:
    """How the model is divided, from what stage.py has put into the environment; None where it is not."""
    if os.environ.get("ACCELERATE_USE_FSDP") != "true":
        return None
    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())


def configure_fsdp(
    model: torch.nn.Module, accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin | None
) -> None:
    """Have `accelerator.prepare` divide this model, layer by layer; without a plugin it stays whole."""
    if plugin is None:
        return
    plugin.transformer_cls_names_to_wrap = wrap_classes(model)
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    model.forward = accelerator.autocast()(model.forward)


def wrap_classes(model: torch.nn.Module) -> list[str]:
    """The classes of a model's layers, each of which is put together by itself.

    Not those of its `_no_split_modules`: BERT's embeddings stand there, too, and would be divided twice.
    """
    return sorted({type(part).__name__ for part in model.modules() if isinstance(part, GradientCheckpointingLayer)})


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether this process has but a share of the model."""
    return isinstance(model, FSDPModule)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all its shares; every process takes part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(model: torch.nn.Module) -> Tensors:
    """All weights of a divided model, in the memory of the first process's host, {} on the others; all take part."""
    gathered = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: weight for name, weight in gathered.items() if isinstance(weight, torch.Tensor)}


def save_sharded(folder: Path, tensors: Tensors) -> None:
    """Write each process's share of these tensors to files of its own, onto the disk; all take part.

    Raises:
        OSError: one of them could not; all raise it.
    """
    files = assign_files(
        {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}, MAX_FILE_BYTES
    )
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    try:
        save(dict(tensors), storage_writer=writer)
    except CheckpointException as failed:
        raise OSError(*next(iter(failed.failures.values()))[0].args) from None


def assign_files(sizes: dict[str, int], piece: int) -> dict[str, int]:
    """Which file a tensor goes to, counted from 1, by the bytes of each tensor: one file after the other, of about a
    piece each.
    """
    ends = itertools.accumulate(sizes.values())
    return {name: 1 + (end - 1) // piece for name, end in zip(sizes, ends, strict=True)}


def load_model_state(folder: Path, model: torch.nn.Module) -> Tensors:
    """The weights in a checkpoint of either kind: a process's share of them, or of a whole model all, on the host.

    Args:
        folder: the checkpoint, whose digests were compared.
        model: says which weights there are and how they are divided; with a divided one all processes take part.
    """
    divided = is_sharded(model)
    return _read(folder, {name: _empty_like(weight, divided) for name, weight in model.state_dict().items()}, divided)


def load_optimizer_state(folder: Path, model: torch.nn.Module, optimizer: Optimizer) -> Tensors:
    """The same of what the model's optimizer keeps of parameters: `NUMBER.NAME`, each divided as its parameter is."""
    divided, weights = is_sharded(model), model.state_dict()
    parameters = [parameter.detach() for group in optimizer.param_groups for parameter in group["params"]]
    into: Tensors = {}
    for name, stored in HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata.items():
        if name not in weights and isinstance(stored, TensorStorageMetadata):
            parameter = parameters[int(name.split(".")[0])]
            like = parameter if stored.size == parameter.shape else torch.empty(stored.size)  # a count of steps
            into[name] = _empty_like(like, divided)
    return _read(folder, into, divided)


def _read(folder: Path, into: Tensors, divided: bool) -> Tensors:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process reads alone
        load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not divided)
    return into


def _empty_like(tensor: torch.Tensor, divided: bool) -> torch.Tensor:
    return torch.zeros_like(tensor) if divided else torch.zeros_like(tensor, device="cpu")
