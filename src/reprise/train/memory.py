"""The memory that training needs on a GPU, predicted before the first step.

Weights, gradients and AdamW's moments are counted by their sizes. The activations that a forward pass keeps for the
backward pass are counted in a pass of the model itself, on tensors without data; attention on a GPU keeps what its
kernel needs. What kernels use for themselves is not counted. Gradients are, beside all activations, although these are
freed while the gradients are computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.modeling_layers import GradientCheckpointingLayer

from reprise.core.config import PARAMS
from reprise.core.errors import UserError
from reprise.modeling.inference import NOT_READ
from reprise.train.dropout import DropoutKeys

WARN_FROM = 0.9  # of the free memory

Batch = Mapping[str, torch.Tensor]
Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Placement:
    """On what a model is trained.

    Attributes:
        device: torch's type of the device.
        name: of the GPU.
        free: its free memory in bytes, the smallest of all that are used.
        processes: on all hosts together.
        sharded: whether each process holds a part of the model only.
    """

    device: str
    name: str
    free: int
    processes: int
    sharded: bool


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs on one GPU.

    Attributes:
        state: weights, gradients and AdamW's two moments, which do not depend on the batch.
        activations: of the largest micro-batch, [rows, length].
        rows: of the micro-batch.
        length: in tokens.
    """

    state: int
    activations: int
    rows: int
    length: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.state + self.activations


def predict_memory(
    model: nn.Module, keys: DropoutKeys, batch: Batch, rows: int, length: int, precision: str, placement: Placement
) -> Memory:
    """Predict the memory of training with micro-batches of at most rows × length tokens.

    Args:
        model: as it is trained, in training mode.
        keys: of its dropout.
        batch: some batch, for the names and types of the inputs.
        rows: of the largest micro-batch.
        length: of its longest text, in tokens.
        precision: the recipe's.
        placement: on what it is trained.
    """
    shapes = {
        name: ((rows, length) if tensor.dim() == 2 else (rows,), tensor.dtype)
        for name, tensor in batch.items()
        if name not in NOT_READ
    }
    activations = saved_bytes(model, keys, shapes, precision, placement.device)
    if layers := checkpointed_layers(model):
        # The backward pass computes one layer at a time again, and then has all that it would have saved.
        for layer in layers:
            layer.gradient_checkpointing = False
        inside = saved_bytes(model, keys, shapes, precision, placement.device) - activations
        for layer in layers:
            layer.gradient_checkpointing = True
        activations += inside // len(layers)
    return Memory(state_bytes(model, placement), activations, rows, length)


def checkpointed_layers(model: nn.Module) -> list[GradientCheckpointingLayer]:
    """Return the layers whose activations are computed again in the backward pass."""
    layers = (part for part in model.modules() if isinstance(part, GradientCheckpointingLayer))
    return [layer for layer in layers if layer.gradient_checkpointing]


def saved_bytes(model: nn.Module, keys: DropoutKeys, shapes: Shapes, precision: str, device: str) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, besides parameters and buffers.

    Tensors without data go through the model, so it takes neither memory nor the time of its products. A storage that
    several tensors share counts once.
    """
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage  # kept, so that no other storage gets its address
        return tensor

    def keep_inputs(_: nn.Module, inputs: tuple[object, ...], options: dict[str, object]) -> None:
        for value in (*inputs, *options.values()):
            if isinstance(value, torch.Tensor):
                keep(value)

    hooks = [layer.register_forward_pre_hook(keep_inputs, with_kwargs=True) for layer in checkpointed_layers(model)]
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {
            name: torch.empty_like(tensor, device=device).requires_grad_(tensor.requires_grad)
            for name, tensor in {**parameters, **buffers}.items()
        }
        inputs = {name: torch.zeros(shape, dtype=dtype, device=device) for name, (shape, dtype) in shapes.items()}
        rows = next(iter(inputs.values()))
        keys.set_batch(0, list(range(len(rows))), rows)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"),
        ):
            torch.func.functional_call(model, state, (), inputs)
    for hook in hooks:
        hook.remove()
    own = {tensor.untyped_storage()._cdata for tensor in state.values()}
    return sum(storage.nbytes() for address, storage in saved.items() if address not in own)


def state_bytes(model: nn.Module, placement: Placement) -> int:
    """Return the bytes of weights, gradients and moments on one GPU.

    DistributedDataParallel holds gradients a second time, in the buckets that it exchanges.
    """
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    gradients = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    if placement.sharded:
        return (weights + 3 * gradients) // placement.processes
    return weights + (3 if placement.processes == 1 else 4) * gradients


def check_memory(memory: Memory, placement: Placement) -> str | None:
    """Compare the prediction with the free memory.

    Returns:
        A warning if there is little left; None if there is enough.

    Raises:
        UserError: training does not fit, with what to set.
    """
    needed = f"training needs {memory.total / 1e9:.1f} GB, as predicted"
    if memory.total <= placement.free:
        if memory.total <= WARN_FROM * placement.free:
            return None
        free = f"{placement.name} has {placement.free / 1e9:.1f} GB free"
        return f"{needed}, and {free}: with what its kernels need, it may not fit"
    problem = (
        f"{needed}, and {placement.name} has {placement.free / 1e9:.1f} GB free: {memory.state / 1e9:.1f} GB for "
        f"weights, gradients and optimizer, {memory.activations / 1e9:.1f} GB for {memory.rows} texts of "
        f"{memory.length} tokens"
    )
    per_row = memory.activations / memory.rows
    fitting = int((WARN_FROM * placement.free - memory.state) / per_row)
    if fitting < 1:
        expected = "train=lora, gradient checkpointing, a smaller model, or REPRISE_PROFILE=fsdp on several GPUs"
        raise UserError(problem, file=PARAMS, key="train", expected=expected)
    expected = f"at most {fitting}, or train.gradient_checkpointing: true, train=lora, or a smaller train.max_length"
    raise UserError(problem, file=PARAMS, key="train.micro_batch_size", expected=expected)
