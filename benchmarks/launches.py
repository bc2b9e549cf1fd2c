"""What a training step launches on a GPU, counted without one, and a prediction of its time.

`make bench-launches` runs a step of BERT on tensors without data and records each operation that launches a kernel,
with the bytes that it moves and its FLOPs. The time of a step on a card is predicted from that; it was never measured.
On this machine's CPU the same model of the time is compared with measured steps.
"""

import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import Node
from torch.nn import functional
from torch.optim import AdamW
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import BertConfig, BertForSequenceClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import results
from flops import matrix_rate
from reprise.core.config import Recipe
from reprise.core.validation import read_recipe
from reprise.train import dropout
from reprise.train.dropout import Dropout, DropoutKeys, FusedAttention
from reprise.train.model import adapt_model
from reprise.train.optimizer import build_optimizer

MODELS = {
    "BERT-base": BertConfig(),
    "MiniLM": BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
}
ROWS, LENGTHS = 32, (53, 128)
WRITTEN_OUT = "reprise, attention written out"  # so it is in the variants after it, too
VARIANTS = ("trainer", "reprise", WRITTEN_OUT, "reprise, masks by operations", "reprise, mask by mask")
ATTENTION_BLOCK = 64  # tokens that a program of train/attention_kernel.py multiplies at once, in bf16
GAPS = (4e-6, 5e-6, 6e-6)  # seconds between two launches of a host that runs PyTorch operation by operation; assumed


@dataclass(frozen=True)
class Rates:
    """Rates of a device: bytes per second, FLOP/s of dense matrix products, and seconds per launch."""

    bandwidth: float
    bf16: float
    fp32: float
    gap: float

    def seconds(self, kernels: list["Kernel"]) -> float:
        """Predict the time of a step: of each kernel the longest of its launch, its memory traffic and its products."""
        return sum(
            max(
                kernel.launches * self.gap,
                kernel.bytes / self.bandwidth,
                kernel.flops / (self.fp32 if kernel.dtype == torch.float32 else self.bf16),
            )
            for kernel in kernels
        )


# Published peaks, which no kernel reaches: "NVIDIA H100 Tensor Core GPU Datasheet" (SXM; its bf16 rate of 1,979 TFLOPS
# counts zeros that are skipped), "NVIDIA A100 Tensor Core GPU Datasheet" (SXM, 80 GB), "NVIDIA L4 Tensor Core GPU
# Datasheet" (242 TFLOPS with skipped zeros). fp32 is without TF32, which PyTorch does not use by default.
CARDS = {
    "H100 SXM": Rates(bandwidth=3.35e12, bf16=989e12, fp32=67e12, gap=GAPS[1]),
    "A100 SXM": Rates(bandwidth=2.039e12, bf16=312e12, fp32=19.5e12, gap=GAPS[1]),
    "L4": Rates(bandwidth=0.3e12, bf16=121e12, fp32=30.3e12, gap=GAPS[1]),
}

# Operations that launch nothing although their schema names no alias: they allocate, or return their input in
# another shape.
NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh",
    "_local_scalar_dense",
}  # fmt: skip
# Tensors per launch of the operations on lists of tensors, by the number of lists, from PyTorch's MultiTensorApply.cuh.
MAX_TENSORS, MAX_BLOCKS, CHUNK = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}, 320, 65536


@dataclass(frozen=True)
class Kernel:
    """An operation that launches kernels.

    Attributes:
        name: of aten's operation.
        phase: forward, backward, clipping or optimizer.
        part: dropout, attention or other.
        launches: 1, except for operations on lists of tensors.
        bytes: read and written.
        flops: of matrix products; others have none here.
        dtype: of the result.
    """

    name: str
    phase: str
    part: str
    launches: int
    bytes: int
    flops: int
    dtype: torch.dtype


def launches_kernel(operation: torch._ops.OpOverload) -> bool:
    """Return whether an operation computes or moves values.

    A view returns an alias of an argument that it does not write, by its schema. Other namespaces than aten's ask for
    a tensor's properties or serve the profiler.
    """
    if operation.namespace != "aten" or operation.overloadpacket.__name__ in NO_KERNEL:
        return False
    aliases = [result.alias_info for result in operation._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in aliases)


def launches_of_list(sizes: list[int], lists: int) -> int:
    """Return the launches of an operation on lists of tensors, which takes as many tensors at once as fit.

    Args:
        sizes: elements of each tensor of a list.
        lists: how many lists of these sizes the operation reads and writes.
    """
    launches = tensors = blocks = 0
    for size in sizes:
        tensors += 1
        chunks = math.ceil(size / CHUNK)
        for chunk in range(1, chunks + 1):
            blocks += 1
            if blocks == MAX_BLOCKS or (tensors == MAX_TENSORS[lists] and chunk == chunks):
                launches += 1
                blocks, tensors = 0, int(chunk < chunks)  # the rest of a tensor goes into the next launch
    return launches + bool(blocks)


def memory(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's values; dimensions that are expanded count once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(sizes) * tensor.element_size() if tensor.numel() else 0


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record the operations that launch kernels."""

    def __init__(self) -> None:
        """Start without kernels."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Kernel] = []
        self.phase, self.part = "forward", "other"
        self.claimed: set[Node] = set()  # nodes of the backward pass that belong to a part

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record it."""
        result = func(*args, **(kwargs or {}))
        if launches_kernel(func):
            self.kernels.append(self._measure(func, args, kwargs or {}, result))
        return result

    def _measure(self, func: Any, args: Any, kwargs: Any, result: Any) -> Kernel:
        name = func.overloadpacket.__name__
        read, written = (
            [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)] for tree in ((args, kwargs), result)
        )
        if name in ("embedding", "index_select"):  # reads the rows that it returns
            read = [*written, *read[1:]]
        elif name in ("zero_", "fill_", "copy_"):  # only writes its first argument
            read = read[1:]
        formula = flop_registry.get(func.overloadpacket)
        launches = 1
        lists = [arg for arg in args if isinstance(arg, (list, tuple)) and arg and isinstance(arg[0], torch.Tensor)]
        if name.startswith(("_foreach", "_fused")):
            # AdamW passes a list of step counts in addition, which are no part of the kernel's chunks.
            sizes = [tensor.numel() for tensor in lists[0]]
            launches = launches_of_list(sizes, min(len(lists), 4)) + (name == "_foreach_norm")  # a second one sums up
            if name.startswith("_fused"):
                written = [tensor for tensors in (lists[0], *lists[2:4]) for tensor in tensors]
            elif name.endswith("_"):
                written = list(lists[0])
        return Kernel(
            name,
            self.phase,
            self.part,
            launches,
            sum(map(memory, read)) + sum(map(memory, written)),
            int(formula(*args, **kwargs, out_val=result)) if formula else 0,
            written[0].dtype if written else torch.float32,
        )

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Attribute operations to a part of the model; the innermost one counts."""
        outer, self.part = self.part, part
        yield
        self.part = outer

    def claim(self, part: str, result: torch.Tensor, *inputs: torch.Tensor) -> None:
        """Attribute the backward pass between a part's result and its inputs to it too."""
        seen, waiting = {tensor.grad_fn for tensor in inputs}, [result.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            if node not in self.claimed:  # else it belongs to a part within this one
                self.claimed.add(node)
                node.register_prehook(lambda _: setattr(self, "part", part))
                node.register_hook(lambda *_: setattr(self, "part", "other"))


class OnGpu(TorchFunctionMode):
    """Let tensors of the CPU take the operations that PyTorch takes on a GPU under autocast.

    There layer norms and the loss are computed in fp32, dropout is one kernel, and attention with dropout and a mask is
    another, the memory-efficient one.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace an operation."""
        kwargs = kwargs or {}
        if func in (functional.layer_norm, functional.cross_entropy) and torch.is_autocast_enabled("cpu"):
            return func(args[0].float(), *args[1:], **kwargs)
        if func is functional.dropout:
            p, training = [*args[1:], kwargs.get("p", 0.5)][0], [*args[2:], kwargs.get("training", True)][0]
            return torch.native_dropout(args[0], p, True)[0] if training and p else args[0]
        if func is functional.scaled_dot_product_attention:
            return efficient_attention(*args, **kwargs)
        return func(*args, **kwargs)


def efficient_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    **options: Any,
) -> torch.Tensor:
    """Call the memory-efficient kernel as torch does, with a bool mask as numbers, padded to a multiple of 8 tokens."""
    if attn_mask is not None:
        attn_mask = torch.where(attn_mask, 0.0, torch.full((), -math.inf, dtype=query.dtype))
        length = attn_mask.shape[-1]
        if length % 8:
            attn_mask = functional.pad(attn_mask, (0, -length % 8))[..., :length]
        attn_mask = attn_mask.expand(*query.shape[:3], length)
    attend = torch.ops.aten._scaled_dot_product_efficient_attention.default
    output: torch.Tensor = attend(query, key, value, attn_mask, True, dropout_p, scale=options.get("scale"))[0]
    return output


def masks_by_kernel(
    _keys: torch.Tensor, _layer_id: int, shape: torch.Size, _p: float, dtype: torch.dtype
) -> torch.Tensor:
    """Stand for train/dropout_kernel.py, which needs a GPU: one launch that writes the masks."""
    return torch.ones(shape, dtype=dtype)


def counted_attention(recorder: Recorder) -> type[FusedAttention]:
    """Stand for train/attention_kernel.py, which needs a GPU: one launch per pass, recorded with its traffic.

    The forward pass has two products. The backward pass computes the scores again and has five; where the tokens need
    several blocks, the scores and their gradient are computed for the keys and for the queries, so it has seven. The
    hashes of dropout's mask are not counted.
    """

    def record(name: str, tensors: Sequence[torch.Tensor | None], products: int) -> None:
        moved = sum(memory(tensor) for tensor in tensors if tensor is not None)
        rows, heads, length, size = tensors[0].shape  # type: ignore[union-attr]
        flops = products * 2 * rows * heads * length**2 * size
        kernel = Kernel(name, recorder.phase, "attention", 1, moved, flops, tensors[0].dtype)  # type: ignore[union-attr]
        recorder.kernels.append(kernel)

    class CountedAttention(FusedAttention):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
            output = FusedAttention.forward(ctx, *inputs)
            record("fused_attention", ctx.to_save, 2)  # inputs, output and statistics
            return output

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            gradients = FusedAttention.backward(ctx, gradient)
            single = gradient.shape[2] <= ATTENTION_BLOCK
            record("fused_attention_backward", [*gradients, gradient, *ctx.saved_tensors], 5 if single else 7)
            return gradients

    return CountedAttention


@dataclass
class Setup:
    """A model in training, and what its step needs."""

    model: nn.Module
    optimizer: AdamW
    batch: dict[str, torch.Tensor]
    labels: torch.Tensor
    keys: DropoutKeys | None
    recipe: Recipe


def set_up(variant: str, config: BertConfig, rows: int, length: int) -> Setup:
    """Build a model and a batch, in a FakeTensorMode without data."""
    recipe = read_recipe()
    model = BertForSequenceClassification._from_config(config, attn_implementation="sdpa").train()
    keys, adapted = None, model
    if variant.startswith("reprise"):
        last = model.bert.encoder.layer[-1].attention.output  # as in modeling/classifier.py
        last.register_forward_pre_hook(lambda _, states: tuple(state[:, :1] for state in states))
        adapted, keys = adapt_model(model, recipe)
        keys.set_batch(0, list(range(rows)), torch.zeros(rows))
    tokens = torch.ones(rows, length, dtype=torch.int64)
    batch = {"input_ids": tokens, "attention_mask": tokens.clone(), "token_type_ids": torch.zeros_like(tokens)}
    batch["attention_mask"][0, -1] = 0  # transformers drops a mask that masks nothing
    optimizer = build_optimizer(adapted, recipe.train)  # Trainer's default is also the fused AdamW
    return Setup(adapted, optimizer, batch, torch.zeros(rows, dtype=torch.int64), keys, recipe)


def train_step(setup: Setup, recorder: Recorder, *, foreach: bool | None) -> None:
    """Take a step as the engine `accelerate` and Trainer do, on one process with one micro-batch."""
    recorder.phase = "forward"
    with torch.autocast("cpu", torch.bfloat16):
        if setup.keys is None:
            output = setup.model(**setup.batch, labels=setup.labels)
            output.logits.float()  # Accelerate returns all outputs in fp32
            loss = output.loss
        else:
            logits = setup.model(**setup.batch).logits.float()
    if setup.keys is not None:
        loss = functional.cross_entropy(logits, setup.labels, reduction="sum") * (1 / len(setup.labels))
    recorder.phase = "backward"
    loss.backward()
    recorder.phase = "clipping"
    nn.utils.clip_grad_norm_(setup.model.parameters(), setup.recipe.train.max_grad_norm, foreach=foreach)
    recorder.phase = "optimizer"
    setup.optimizer.step()
    setup.optimizer.zero_grad()


@contextmanager
def attributed(setup: Setup, recorder: Recorder) -> Iterator[None]:
    """Attribute the operations of dropout and attention, forward and backward, while a step runs."""
    name = "reprise" if setup.keys else "sdpa"
    original: Any = ALL_ATTENTION_FUNCTIONS[name]

    def attend(module: nn.Module, *inputs: Any, **options: Any) -> Any:
        with recorder.within("attention"):
            result = original(module, *inputs, **options)
        recorder.claim("attention", result[0], *inputs[:3])  # query, key and value
        return result

    def wrap(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
        def dropped(values: torch.Tensor) -> torch.Tensor:
            with recorder.within("dropout"):
                result = forward(values)
            if result is not values:
                recorder.claim("dropout", result, values)
            return result

        return dropped

    layers = [part for part in setup.model.modules() if isinstance(part, (Dropout, nn.Dropout))]
    for layer in layers:
        layer.forward = wrap(layer.forward)  # type: ignore[method-assign]
    ALL_ATTENTION_FUNCTIONS[name] = attend
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[name] = original
        for layer in layers:
            del layer.forward


def count_step(variant: str, config: BertConfig, rows: int, length: int) -> list[Kernel]:
    """Return the kernels of a training step on a GPU, the second one: the first creates the optimizer's state."""
    mask = masks_by_kernel if variant in ("reprise", WRITTEN_OUT) else dropout.dropout_mask
    with FakeTensorMode(), patch.object(dropout, "dropout_mask", mask):
        setup = set_up(variant, config, rows, length)
        for _ in range(2):
            recorder = Recorder()
            if setup.keys is not None:
                setup.keys.set_batch(0, list(range(rows)), setup.labels)  # computes on the host
                setup.keys.at_once = variant != "reprise, mask by mask"  # as on a GPU
            fused = patch.multiple(
                dropout, FusedAttention=counted_attention(recorder), is_fused=lambda *_: variant == "reprise"
            )
            with fused, attributed(setup, recorder), recorder, OnGpu():
                train_step(setup, recorder, foreach=True)
    return recorder.kernels


def on_cpu(config: BertConfig, rows: int, length: int, steps: int) -> tuple[list[Kernel], float]:
    """Take steps of Reprise on this CPU; return the operations of one, and the seconds of the fastest one."""
    setup, recorder, seconds = set_up("reprise, mask by mask", config, rows, length), Recorder(), []
    train_step(setup, recorder, foreach=None)
    with recorder:
        train_step(setup, recorder, foreach=None)
    for _ in range(steps):
        began = time.perf_counter()
        train_step(setup, recorder, foreach=None)
        seconds.append(time.perf_counter() - began)
    return recorder.kernels, min(seconds)


def copy_rate(elements: int = 2**25) -> float:
    """Return the bytes per second, read and written, of copying fp32 values."""
    source, target, seconds = torch.ones(elements), torch.ones(elements), []
    for _ in range(5):
        began = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - began)
    return 8 * elements / statistics.median(seconds)


def check_on_cpu(steps: int = 10) -> dict[str, Any]:
    """Compare the prediction with measured steps, with this CPU's rates in place of a card's.

    The time of an operation with next to no work is that of a step of a model of the same depth whose matrices are
    tiny, divided by its operations. One thread computes, because an operation then depends least on what else runs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = MODELS["MiniLM"]
    tiny = BertConfig(vocab_size=100, hidden_size=12, num_hidden_layers=config.num_hidden_layers, intermediate_size=12)
    kernels, seconds = on_cpu(tiny, 1, 4, 3 * steps)
    cpu = torch.device("cpu")
    rates = Rates(
        copy_rate(), matrix_rate(torch.bfloat16, cpu), matrix_rate(torch.float32, cpu), gap=seconds / len(kernels)
    )
    checked = {}
    for rows, length in ((2, 16), (8, 53), (ROWS, 53)):
        kernels, seconds = on_cpu(config, rows, length, steps)
        predicted = rates.seconds(kernels)
        checked[f"{rows} x {length}"] = {
            "operations": len(kernels),
            "predicted_seconds": predicted,
            "measured_seconds": seconds,
            "measured_to_predicted": seconds / predicted,
        }
    torch.set_num_threads(threads)
    return {"rates": asdict(rates), "steps": checked}


def summarize(kernels: list[Kernel], rows: int) -> dict[str, Any]:
    """Return the counts of a step, and the predicted milliseconds and examples per second on each card."""
    launches = {part: sum(k.launches for k in kernels if k.part == part) for part in ("dropout", "attention", "other")}
    cards = {}
    for name, rates in CARDS.items():
        seconds = [replace(rates, gap=gap).seconds(kernels) for gap in GAPS]
        cards[name] = {
            "milliseconds": [round(1000 * each, 2) for each in seconds],
            "milliseconds_without_gaps": round(1000 * replace(rates, gap=0).seconds(kernels), 2),
            "examples_per_second": [round(rows / each) for each in seconds],
        }
    return {
        "launches": sum(launches.values()),
        "launches_by_part": launches,
        "launches_by_phase": dict(sum((Counter({k.phase: k.launches}) for k in kernels), Counter())),
        "gigabytes": round(sum(kernel.bytes for kernel in kernels) / 1e9, 2),
        "teraflop": round(sum(kernel.flops for kernel in kernels) / 1e12, 4),
        "cards": cards,
    }


def show(console: Console, title: str, steps: dict[str, dict[str, Any]]) -> None:
    """Print the variants of a step as a table."""
    table = Table("step", title=title, title_justify="left")
    for heading in ("launches", "dropout", "attention", "GB", "TFLOP", *CARDS):
        table.add_column(heading, justify="right")
    for name, step in steps.items():
        parts = step["launches_by_part"]
        table.add_row(
            name, str(step["launches"]), str(parts["dropout"]), str(parts["attention"]),
            f"{step['gigabytes']:.1f}", f"{step['teraflop']:.3f}",
            *(f"{card['milliseconds'][1]:.1f} ms\n{card['examples_per_second'][1]}/s"
              for card in step["cards"].values()),
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Count the steps, predict their time, check the model on this CPU, print tables and write the results."""
    console, steps = Console(highlight=False, width=112), {}
    for model, length in itertools.product(MODELS, LENGTHS):
        title = f"{model}, {ROWS} x {length} tokens"
        steps[title] = {v: summarize(count_step(v, MODELS[model], ROWS, length), ROWS) for v in VARIANTS}
        show(console, f"{title}: predicted with a launch every {1e6 * GAPS[1]:.0f} us, never measured", steps[title])
    check = check_on_cpu()
    results.write("launches", {
        "machine": results.machine(), "gaps": GAPS, "cards": {name: asdict(rates) for name, rates in CARDS.items()},
        "steps": steps, "cpu": check,
    })  # fmt: skip
    gap = 1e6 * check["rates"]["gap"]
    console.print(f"The same sum for one thread of this CPU, {gap:.0f} us per operation without work:")
    for shape, step in check["steps"].items():
        predicted, measured = (1000 * step[f"{name}_seconds"] for name in ("predicted", "measured"))
        console.print(f"MiniLM, {shape} tokens: predicted {predicted:.0f} ms, measured {measured:.0f} ms")


if __name__ == "__main__":
    main()
