"""Where a training step would make the host wait for a GPU, found on the CPU by the operations that it runs."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from reprise.modeling import inference, xla
from reprise.train import checkpoint, outputs
from reprise.train.device_metrics import FLUSH_EVERY_STEPS
from reprise.train.engines import accelerate

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")
EPOCHS, STEPS = 2, 18  # of the tiny recipe
BETWEEN_STEPS = {inference.__file__, checkpoint.__file__, outputs.__file__}  # validation, checkpoints, the best model

# Functions that ask to move what is on the device already.
ALREADY_THERE = {
    "accelerator._clip_grad_norm_dtensor_aware", "masking_utils.and_mask", "masking_utils._preprocess_mask_arguments",
    "modeling_utils.to", "accelerate.train",  # the last two before the first step
}  # fmt: skip


class Waits:
    """Count, by the function that runs them, what would make the host wait for a GPU within a step."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()  # of values that are on the device
        self.copies: Counter[str] = Counter()  # to the device, for which the host waits

    def note(self, found: Counter[str]) -> None:
        """Count a call under the innermost function outside of torch, unless it runs between steps."""
        frame, calls = sys._getframe(2), []
        while frame is not None:
            calls.append((frame.f_code.co_filename, frame.f_code.co_name))
            frame = frame.f_back  # type: ignore[assignment]
        files = {file for file, _ in calls}
        if accelerate.__file__ in files and not BETWEEN_STEPS & files:
            file, name = next(call for call in calls if "/torch/" not in call[0] and call[0] != __file__)
            found[f"{Path(file).stem}.{name}"] += 1


@pytest.fixture
def waits(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Train with the tiny recipe, as if on a GPU, and return what was counted."""
    monkeypatch.setattr(xla, "ASYNCHRONOUS", {"cpu"})
    waits = Waits()

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket.__name__ in READS:
                waits.note(waits.reads)
            return func(*args, **(kwargs or {}))

    class Calls(TorchFunctionMode):  # on a CPU these are no operations
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(func, "__name__", "")
            if name in ("cpu", "numpy"):
                waits.note(waits.reads)
            target = [*args[1:], (kwargs or {}).get("device")]
            if (
                name == "to"
                and not (kwargs or {}).get("non_blocking")
                and any(getattr(value, "type", value) == "cpu" for value in target)
            ):
                waits.note(waits.copies)
            return func(*args, **(kwargs or {}))

    with Operations(), Calls():
        train(**{"train.epochs": EPOCHS})
    return waits


def test_a_step_reads_nothing_from_the_device_outside_of_a_flush(waits: Waits) -> None:
    assert waits.reads == {
        "device_metrics.flush": -(-STEPS // FLUSH_EVERY_STEPS),
        "data_loader.__iter__": EPOCHS,  # Accelerate's seed for the order of samples, which is on the CPU
    }


def test_a_step_waits_for_no_copy_to_the_device(waits: Waits) -> None:
    assert waits.copies.keys() <= ALREADY_THERE
