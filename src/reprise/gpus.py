"""NVIDIA's GPUs: what the driver reports of them, and whether a recipe can be trained there.

The driver is asked through its own libraries and torch is not imported, because the stage environment runs on every
`dvc repro`. The checks are functions of what it answered.
"""

import ctypes
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reprise.core.config import PARAMS
from reprise.core.errors import UserError

BF16_CAPABILITY = (8, 0)  # Ampere; before, PyTorch computes bf16 in fp32 and rounds
# Of CUdevice_attribute in cuda.h.
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of one that is partitioned (MIG).

    Attributes:
        name: with the profile of an instance, such as "NVIDIA A100-SXM4-40GB MIG 1g.5gb".
        capability: compute capability, such as (9, 0).
        memory: total, in bytes.
    """

    name: str
    capability: tuple[int, int]
    memory: int

    @property
    def is_instance(self) -> bool:
        """Whether it is an instance of a partitioned GPU."""
        return " MIG " in self.name

    def __str__(self) -> str:
        """Return name, compute capability and memory."""
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor}, {self.memory / 1e9:.0f} GB)"


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        version: such as "580.65.06"; "" if it does not answer.
        cuda: the newest CUDA version that it supports, such as (13, 0).
        installed: number of GPUs of the machine or container, whatever CUDA_VISIBLE_DEVICES selects.
        gpus: those that this process can use.
    """

    version: str
    cuda: tuple[int, int]
    installed: int
    gpus: tuple[Gpu, ...]


def read_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver | None:
    """Ask the driver for its versions and GPUs, without starting a context on any.

    Args:
        load: opens a shared library.

    Returns:
        What it reports; None without a driver.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    newest = divmod(number.value // 10, 100)  # 13020 is 13.2
    version, installed = read_management(load)
    count = ctypes.c_int()
    visible = 0 if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) else count.value
    return Driver(version, newest, installed, tuple(read_gpu(cuda, index) for index in range(visible)))


def read_management(load: Callable[[str], Any]) -> tuple[str, int]:
    """Return the driver's version and the number of GPUs, by NVML; "" and 0 if it is not there."""
    text, count = ctypes.create_string_buffer(96), ctypes.c_uint()
    try:
        nvml = load("libnvidia-ml.so.1")
    except OSError:
        return "", 0
    if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, ctypes.c_uint(len(text))):
        return "", 0
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    return text.value.decode(), count.value


def read_gpu(cuda: Any, index: int) -> Gpu:
    """Return what CUDA reports of a GPU that it offers."""
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(name.value.decode(), (capability[0], capability[1]), memory.value)


def check_driver(driver: Driver, cuda: str, needed: str, hardware: str) -> None:
    """Check that the driver supports the CUDA version that torch was built for.

    A driver supports every CUDA version of its newest major one (NVIDIA, "CUDA Compatibility").

    Args:
        driver: what it reports.
        cuda: torch's CUDA version, such as "13.0".
        needed: the oldest version of the driver that supports it, such as "580".
        hardware: the folder in docker/.

    Raises:
        UserError: it is too old.
    """
    if driver.cuda[0] < int(cuda.split(".")[0]):
        newest = ".".join(map(str, driver.cuda))
        name = f"the NVIDIA driver {driver.version}".rstrip()
        problem = f"{name} supports CUDA up to {newest}, and PyTorch here needs CUDA {cuda}"
        raise UserError(problem, key=hardware, expected=f"driver {needed} or newer")


def check_selection(selected: str | None, driver: Driver) -> None:
    """Check that each GPU that CUDA_VISIBLE_DEVICES names is there.

    CUDA ignores the first name that it does not know, and all after it; training would use fewer GPUs, or none.

    Args:
        selected: the variable's value; None if it is not set.
        driver: what it reports.

    Raises:
        UserError: a name is of no GPU, or none is given.
    """
    if selected is None:
        return
    named = selected.split(",") if selected.strip() else []
    named = named[: named.index("-1")] if "-1" in named else named  # what follows is hidden on purpose
    if named and len(named) == len(driver.gpus):
        return
    expected = "the variable unset" + (f", or numbers below {driver.installed}, each once" if driver.installed else "")
    if len(named) > 1 and named[0].startswith("MIG-"):
        expected = "one MIG instance: a process can use no more"
    problem = f"got {selected!r}, with which CUDA offers {len(driver.gpus)} GPUs"
    raise UserError(problem, key="CUDA_VISIBLE_DEVICES", expected=expected)


def check_gpus(gpus: Sequence[Gpu], processes: int, nodes: int, precision: str) -> None:
    """Check that the first GPUs, one per process, can train a recipe together.

    Args:
        gpus: those that this process can use.
        processes: on this host.
        nodes: number of hosts.
        precision: the recipe's.

    Raises:
        UserError: there are too few or of several kinds, they have no bf16, or several are instances.
    """
    instances = any(gpu.is_instance for gpu in gpus)
    if instances and processes * nodes > 1:
        problem = f"got {processes * nodes} processes, and {gpus[0].name} is an instance of a partitioned GPU (MIG)"
        expected = "one process: it can use one instance, and NCCL does not connect several"
        raise UserError(problem, key="--nodes" if nodes > 1 else "--processes", expected=expected)
    if processes > len(gpus):
        raise UserError(f"got {processes}", key="--processes", expected=f"at most one per GPU, here {len(gpus)}")
    used = gpus[:processes]
    if other := next((gpu for gpu in used if gpu != used[0]), None):
        problem = f"{used[0]} and {other} in one run: the bits would depend on which rank gets which"
        raise UserError(
            problem, key="--processes", expected="GPUs of one kind, selected by GPUS or CUDA_VISIBLE_DEVICES"
        )
    if precision == "bf16" and used[0].capability < BF16_CAPABILITY:
        problem = f"{used[0]} has no bf16 arithmetic, which PyTorch would emulate slowly"
        raise UserError(
            problem, file=PARAMS, key="train.precision", expected="fp32, or compute capability 8.0 or newer"
        )


def check_compiler(which: Callable[[str], str | None] = shutil.which) -> None:
    """Check that there is a C compiler, with which Triton builds what launches dropout's kernel.

    Args:
        which: finds a program on the PATH.

    Raises:
        UserError: there is none.
    """
    if not (os.environ.get("CC") or which("gcc") or which("clang")):
        problem = "no C compiler, with which Triton builds what launches dropout's kernel"
        raise UserError(problem, key="PATH", expected="gcc or clang, which the image has, or another in CC")


def check_architecture(name: str, capability: tuple[int, int], built_for: Sequence[str]) -> None:
    """Check that torch has code for a GPU.

    Machine code (sm_86) runs on the same major compute capability from its own minor one on; code that the driver
    compiles (compute_120) on every newer one.

    Args:
        name: of the GPU.
        capability: its compute capability.
        built_for: `torch.cuda.get_arch_list()`.

    Raises:
        UserError: it has none.
    """
    for architecture in built_for:
        kind, _, digits = architecture.rstrip("af").partition("_")
        built = divmod(int(digits), 10)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return
    problem = f"{name} has compute capability {capability[0]}.{capability[1]}, and PyTorch here has no code for it"
    raise UserError(problem, key="GPU", expected=f"one of those that it was built for: {', '.join(built_for)}")
